"""The sender killed at random moments: every object arrives, and what was acknowledged comes once."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest
from harness import synthetic

from negatoscope.servers.dicom_client import Proposal, associate
from sending_bench import Shelf, free_port
from system import system

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
OBJECTS, KILLS = 150, 6
pytestmark = pytest.mark.slow


def test_a_sender_killed_again_and_again_sends_every_object() -> None:
    chance = random.Random(5)
    port = free_port()
    shelf = Shelf(port=port, delay_s=0.02).start()
    with system(NEGATOSCOPE_QUIET_S="86400", NEGATOSCOPE_SEND_LEASE_S="1", NEGATOSCOPE_SEND_RETRY_S="0.2") as built:
        built.start()
        uids = [f"2.25.700.1.{number}" for number in range(OBJECTS)]
        with associate(built.dicom, Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT,)),))) as sender:
            for number, uid in enumerate(uids):
                data = synthetic(sop=uid, study="2.25.700", series="2.25.700.1", number=number)
                assert sender.store(CT, uid, EXPLICIT, data).status == 0
        built.run("node", "add", "SHELF", "--establishment", "HX", "--title", "SHELF", "--host", "127.0.0.1",
                  "--port", str(port))  # fmt: skip
        built.run("node", "echo", "SHELF", "--establishment", "HX")
        built.run("send", "2.25.700", "--to", "SHELF", "--establishment", "HX")
        killed = 0
        until = time.monotonic() + 120
        while len(set(shelf.arrived)) < OBJECTS and time.monotonic() < until:
            if killed < KILLS and len(set(shelf.arrived)) > killed * OBJECTS // (KILLS + 1):
                time.sleep(chance.random() * 0.2)
                built.child("sender").kill()
                killed += 1
            if killed == KILLS // 2 and shelf.server is not None:
                shelf.stop()  # the destination dies in the middle too
                time.sleep(0.5)
                shelf.start()
                killed += 1
            time.sleep(0.02)
        listed = built.run("node", "list").stdout
    shelf.stop()
    counts = Counter(shelf.arrived)
    assert set(counts) == set(uids), "every object arrived"
    assert '"dead": 0' in listed
    assert killed == KILLS
    # Only the object under way when somebody died, and those of the last commit, may come twice.
    twice = sum(count - 1 for count in counts.values())
    assert twice <= 3 * KILLS, counts.most_common(5)

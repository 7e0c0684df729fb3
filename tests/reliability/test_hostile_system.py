"""Hostile and hasty peers against the whole server: policy, audit, database and disk behind the door."""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest
from harness import synthetic

from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from negatoscope.servers.dicom_client import Proposal, associate
from reliability.traffic import CT, Acknowledged, Sent, verify
from system import System, system

pytestmark = pytest.mark.slow
VERIFICATION = "1.2.840.10008.1.1"
MIB = 1 << 20


def memory(built: System) -> int:
    """Bytes of all processes of the server but PostgreSQL; shared pages counted once."""
    assert built.process is not None
    parent = psutil.Process(built.process.pid)
    total = 0
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "postgres" not in process.name():
                total += process.memory_full_info().pss
    return total


def echo_seconds(built: System) -> float:
    began = time.monotonic()
    echo = Proposal("NEGATOSCOPE", "MODALITY", ((VERIFICATION, (IMPLICIT_LITTLE_ENDIAN,)),))
    with associate(built.dicom, echo) as sender:
        assert sender.echo() == 0
    return time.monotonic() - began


def test_five_hundred_slow_sockets_leave_a_good_peer_its_speed() -> None:
    """H1, policy and audit on: echo p95 at most 50 ms, 50 MB at most."""
    with system(NEGATOSCOPE_LIMIT_ARTIM_S="8") as built, contextlib.ExitStack() as stack:
        built.start()
        echo_seconds(built)
        before = memory(built)
        for number in range(500):
            one = stack.enter_context(socket.create_connection(built.dicom))
            with contextlib.suppress(OSError):
                one.sendall(b"\x01" * (number % 3))
        times = [echo_seconds(built) for _ in range(60)]
        assert statistics.quantiles(times, n=20)[-1] <= 0.050
        assert memory(built) - before <= 50 * MIB


SENDER = """
import sys, time
sys.path.insert(0, {tests!r})
from harness import synthetic
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.servers.dicom_client import Proposal, associate
import threading
CT = {ct!r}
def send(n, out):
    objects = [(f"2.25.9{{n:03d}}{{i:03d}}", i) for i in range({count})]
    data = [(uid, synthetic(sop=uid, study=f"2.25.8{{n:03d}}", series=f"2.25.7{{n:03d}}", patient=f"P{{n}}",
                            number=i, pixels=bytes([n % 251]) * {size})) for uid, i in objects]
    barrier.wait()
    began = time.monotonic()
    failures = 0
    with associate(("127.0.0.1", {port}), Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT_LITTLE_ENDIAN,)),))) as s:
        for uid, one in data:
            failures += s.store(CT, uid, EXPLICIT_LITTLE_ENDIAN, one).status != 0
    out[n] = (failures, time.monotonic() - began)
barrier = threading.Barrier({each})
results = {{}}
threads = [threading.Thread(target=send, args=({first} + n, results)) for n in range({each})]
for t in threads: t.start()
for t in threads: t.join()
for n in range({each}): print(*results.get({first} + n, (-1, -1)))
"""


def test_a_hundred_associations_at_once_store_everything() -> None:
    """H3 in short form: 100 associations of 5 objects of 0.5 MB each, from four processes."""
    limits = {"NEGATOSCOPE_LIMIT_ASSOCIATIONS_PER_ADDRESS": "120", "NEGATOSCOPE_LIMIT_ASSOCIATIONS_PER_TITLE": "120"}
    with system(**limits) as built:
        built.start()
        tests = str(Path(__file__).resolve().parent.parent)
        peers = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    SENDER.format(tests=tests, ct=CT, count=5, size=1 << 19, port=built.dicom_port, each=25, first=f),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            for f in (0, 25, 50, 75)
        ]
        peak = 0
        while any(peer.poll() is None for peer in peers):
            peak = max(peak, memory(built))
            time.sleep(0.3)
        lines = [line.split() for peer in peers for line in (peer.stdout.read() if peer.stdout else "").splitlines()]
        assert len(lines) == 100
        assert [line for line in lines if line[0] != "0"] == []
        assert peak <= 1 << 30
        with httpx.Client(headers={"Authorization": f"Bearer {built.token('reader')}"}) as client:
            found = client.get(f"{built.url}/dicom-web/studies", params={"limit": 500}).json()
        assert Counter(int(study["00201208"]["Value"][0]) for study in found) == {5: 100}


def test_eight_senders_of_one_uid_leave_one_object_and_keep_the_others_bytes(tmp_path: Path) -> None:
    """I5 through the doors: nothing acknowledged is absent from both the archive and the quarantine."""
    with system() as built:
        built.start()
        variants = [synthetic(sop="2.25.1", pixels=bytes([n]) * 128) for n in range(4)]
        proposal = Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT_LITTLE_ENDIAN,)),))
        statuses: list[int] = []

        def send(number: int) -> None:
            with associate(built.dicom, proposal) as sender:
                statuses.append(sender.store(CT, "2.25.1", EXPLICIT_LITTLE_ENDIAN, variants[number // 2]).status)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [0] * 8
        aside = built.run("quarantine", "list").stdout.splitlines()
        assert len(aside) == 3
        token, kept = built.token("reader"), []
        for n, data in enumerate(variants):
            one = Acknowledged(tmp_path / f"{n}.txt")
            one.add(Sent("2.25.100", "2.25.200", "2.25.1", data))
            if verify(built, token, one).corrupt == []:
                kept.append(n)
        assert len(kept) == 1

"""Files that the index does not know are swept only when their objects are held elsewhere.

An index can be younger than its store: lost, or restored from a backup. Then what looks like rubbish is the archive.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from harness import ArchiveBench, new_archive, synthetic

from negatoscope.archive.upkeep import reclaim_segments
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from negatoscope.model.stored import Outcome
from reliability.doors import DicomDoor, Reader, new_object
from reliability.traffic import Sent
from system import System, prepare, system

pytestmark = pytest.mark.slow
DAY_S = 86_400


def age(files: list[Path]) -> None:
    """As if they had been written two days ago."""
    for file in files:
        os.utime(file, (time.time() - 2 * DAY_S,) * 2)


def test_a_server_with_a_new_index_keeps_its_old_store_until_it_is_rebuilt() -> None:
    with system(NEGATOSCOPE_QUIET_S="0.3", NEGATOSCOPE_RETIRED_GRACE_S="0") as built:
        built.start()
        door = DicomDoor(built)
        door.open()
        packed, fresh = new_object(1, 0), new_object(2, 0)
        assert door.send(packed)
        until = time.monotonic() + 20
        while not (packs := list((built.data / "packs").glob("*/*.pack"))):
            assert time.monotonic() < until, built.tail()
            time.sleep(0.05)
        built.stop()
        built.environment["NEGATOSCOPE_QUIET_S"] = "3600"
        built.start()
        door.open()
        assert door.send(fresh)
        door.close()
        built.stop()
        segments = list((built.data / "segments").glob("*.seg"))
        age([*packs, *segments])
        shutil.rmtree(built.data / "postgres")  # the index is lost; somebody starts the server before anything else
        prepare(built)
        built.start()
        door.open()
        assert door.send(new_object(3, 0)), "a segment with a number that its file has had already"
        door.close()
        time.sleep(2.0)  # every duty of the worker has had its first turn
        built.stop()
        assert [file.name for file in (*packs, *segments) if not file.exists()] == []
        shutil.rmtree(built.data / "postgres")
        built.run("rebuild-index")
        built.run("user", "add", "reader", "--role", "radiologist", "--establishment", "HX")
        built.start()
        reader = Reader(built, built.token("reader"))
        assert [reader.state(sent) for sent in (packed, fresh, new_object(3, 0))] == ["whole"] * 3


def test_a_record_damaged_before_a_crash_does_not_take_those_after_it_along() -> None:
    """What follows a torn record was never acknowledged; what follows a damaged one was."""
    with system(NEGATOSCOPE_QUIET_S="3600") as built:
        built.start()
        token = built.token("reader")
        door = DicomDoor(built)
        door.open()
        objects = [new_object(1, which) for which in range(3)]
        for sent in objects:
            assert door.send(sent)
        door.close()
        built.kill_all()
        damage(built, objects[1])
        built.start()
        reader = Reader(built, token)
        assert [reader.state(objects[0]), reader.state(objects[2])] == ["whole", "whole"]
        assert reader.state(objects[1]) == "refused"


def test_what_cannot_be_indexed_yet_stays_until_it_can(archive: ArchiveBench, tmp_path: Path) -> None:
    """A new index, and the server started before its establishments were entered again."""
    archive.keep(synthetic(), EXPLICIT)
    for writer in archive.segments._idle:
        writer.close()  # the process dies
    archive.segments._idle.clear()
    database = archive.world.database
    with database.unit(None) as unit:
        unit.execute("DELETE FROM instance")
        unit.execute("UPDATE establishment SET code = 'NOT-YET' WHERE code = 'A'")
    again = new_archive(archive.world, tmp_path, archive.trail)
    assert again.recover().indexed == 0
    assert reclaim_segments(database, again.containers.delete_segment, 0.0) == 0
    with database.unit(None) as unit:
        unit.execute("UPDATE establishment SET code = 'A' WHERE code = 'NOT-YET'")
    assert again.recover().indexed == 1
    assert again.keep(synthetic(), EXPLICIT).outcome is Outcome.ALREADY_STORED
    again.segments.close()


def test_an_index_made_anew_knows_what_lies_behind_a_damaged_record() -> None:
    with system(NEGATOSCOPE_QUIET_S="3600") as built:
        built.start()
        door = DicomDoor(built)
        door.open()
        objects = [new_object(1, which) for which in range(3)]
        for sent in objects:
            assert door.send(sent)
        door.close()
        built.stop()
        damage(built, objects[1])
        shutil.rmtree(built.data / "postgres")
        built.run("rebuild-index", check=False)
        built.run("user", "add", "reader", "--role", "radiologist", "--establishment", "HX")
        built.start()
        reader = Reader(built, built.token("reader"))
        assert [reader.state(objects[0]), reader.state(objects[2])] == ["whole", "whole"]


def damage(built: System, sent: Sent) -> None:
    """Flip one bit of an object in the only segment."""
    [segment] = (built.data / "segments").glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[content.index(sent.data) + 10_000] ^= 1
    segment.write_bytes(content)

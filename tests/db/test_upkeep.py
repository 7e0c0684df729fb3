"""Scrub finds every damage, upkeep deletes only what nobody needs, and the index comes back from the store."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import ArchiveBench, World, new_archive, synthetic

from negatoscope.archive.packing import Packer
from negatoscope.archive.rebuild import rebuild
from negatoscope.archive.scrub import Scrubber
from negatoscope.archive.upkeep import fold_lookups, reclaim_packs, reclaim_segments, sweep_packs
from negatoscope.audit.trail import Trail
from negatoscope.db import Database
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from negatoscope.errors import PreconditionFailed
from negatoscope.model.stored import Container, Outcome
from negatoscope.storage.packs import Packs
from negatoscope.storage.segments import claim, segment_ids


@pytest.fixture
def packs(archive: ArchiveBench) -> Packs:
    return Packs(archive.folder / "packs")


@pytest.fixture
def packer(archive: ArchiveBench, packs: Packs) -> Packer:
    return Packer(archive.world.database, archive.containers, packs)


def scrubber(archive: ArchiveBench, packs: Packs) -> Scrubber:
    return Scrubber(archive.world.database, archive.containers, packs, archive.containers, archive.trail)


def store_series(archive: ArchiveBench, count: int, code: str = "A") -> list[str]:
    """``count`` series of one object each."""
    uids = [f"2.25.{n}" for n in range(1, count + 1)]
    for n, uid in enumerate(uids):
        data = synthetic(
            sop=uid, study=f"2.25.10{n}", series=f"2.25.20{n}", patient=f"P{n}", pixels=n.to_bytes(2, "big") * 64
        )
        assert archive.keep(data, EXPLICIT, code).outcome is Outcome.CREATED
    return uids


def pack_all(packer: Packer) -> None:
    while found := packer.quiet_series(0.0):
        for series_id in found:
            assert packer.pack(series_id)


def files(packs: Packs) -> list[Path]:
    return sorted(packs.folder.glob("*/*.pack"))


def flip(path: Path, at: int) -> None:
    path.chmod(0o640)
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_scrub_of_a_sound_store_finds_nothing(archive: ArchiveBench, packer: Packer, packs: Packs) -> None:
    store_series(archive, 5)
    report = scrubber(archive, packs).everything()
    assert (report.objects, report.found) == (5, [])
    pack_all(packer)
    report = scrubber(archive, packs).everything()
    assert (report.packs, report.objects, report.found) == (5, 5, [])


def test_scrub_names_every_flipped_truncated_missing_and_swapped_pack(
    archive: ArchiveBench, packer: Packer, packs: Packs
) -> None:
    store_series(archive, 40)
    pack_all(packer)
    paths = files(packs)
    size = min(path.stat().st_size for path in paths)
    for n, path in enumerate(paths[:20]):
        flip(path, n * (size - 1) // 19)  # header, pixels, metadata, footer, tail: all along the file
    for path in paths[20:25]:
        os.truncate(path, path.stat().st_size - 7)
    for path in paths[25:30]:
        path.unlink()
    for one, other in zip(paths[30:34], paths[34:38], strict=True):
        spare = one.with_suffix(".spare")
        one.rename(spare)
        other.rename(one)
        spare.rename(other)
    scrub = scrubber(archive, packs)
    report = scrub.everything()
    assert len({damage.container_id for damage in report.found}) == 38
    kinds = [damage.kind for damage in report.found]
    assert (kinds.count("missing"), kinds.count("swapped")) == (5, 8)
    with archive.world.database.unit(None) as unit:
        assert unit.execute("SELECT count(DISTINCT container_id) AS n FROM damage").fetchone() == {"n": 38}
        before = unit.execute("SELECT count(*) AS n FROM audit_event").fetchone()
    scrub.everything()
    with archive.world.database.unit(None) as unit:
        assert unit.execute("SELECT count(*) AS n FROM audit_event").fetchone() == before, "alerted once"


def test_scrub_finds_damage_in_segments_and_sees_it_repaired(archive: ArchiveBench, packs: Packs) -> None:
    uids = store_series(archive, 3)
    [segment] = (archive.folder / "segments").glob("*.seg")
    whole = segment.read_bytes()
    flip(segment, 1024 + 40)
    report = scrubber(archive, packs).everything()
    assert [(damage.kind, damage.sop_instance_uid) for damage in report.found] == [("altered", uids[0])]
    segment.write_bytes(whole)
    assert scrubber(archive, packs).everything().found == []
    with archive.world.database.unit(None) as unit:
        [row] = unit.execute("SELECT repaired_at FROM damage").fetchall()
    assert row["repaired_at"] is not None


@pytest.fixture
def aside(archive: ArchiveBench) -> list[Path]:
    """An open instance and two objects in quarantine; their segments."""
    archive.keep(synthetic(), EXPLICIT)
    for n in (1, 2):
        assert archive.keep(synthetic(pixels=bytes([n]) * 128), EXPLICIT).outcome is Outcome.QUARANTINED
    return list((archive.folder / "segments").glob("*.seg"))


def test_the_scrub_of_the_worker_looks_into_quarantine_as_the_command_does(
    archive: ArchiveBench, packs: Packs, aside: list[Path]
) -> None:
    [segment] = aside
    with archive.world.database.unit(None) as unit:
        rows = unit.execute("SELECT segment_offset FROM quarantine ORDER BY 1").fetchall()
    flip(segment, rows[-1]["segment_offset"] + 40)
    [found] = scrubber(archive, packs).oldest(0.0, 1 << 30).found
    assert (found.kind, found.offset) == ("altered", rows[-1]["segment_offset"])
    with archive.world.database.unit(None) as unit:
        alerts = unit.execute("SELECT event FROM audit_event WHERE event LIKE '%integrity%'").fetchall()
        assert unit.execute("SELECT count(*) AS n FROM damage").fetchone() == {"n": 1}
    assert len(alerts) == 1
    [again] = scrubber(archive, packs).everything().found
    assert again == found


def test_a_walk_over_segments_goes_on_where_another_process_left_it(
    archive: ArchiveBench, packs: Packs, aside: list[Path]
) -> None:
    assert aside
    reports = [scrubber(archive, packs).oldest(0.0, 1) for _ in range(3)]
    assert [report.objects for report in reports] == [1, 1, 1], "a little at a time, none twice"
    assert scrubber(archive, packs).oldest(3600.0, 1 << 30).objects == 0, "the walk ended: the next is not due"
    assert scrubber(archive, packs).oldest(0.0, 1 << 30).objects == 3


def test_the_first_walk_waits_for_its_interval(archive: ArchiveBench, packs: Packs, aside: list[Path]) -> None:
    assert aside
    assert scrubber(archive, packs).oldest(3600.0, 1 << 30).objects == 0
    assert scrubber(archive, packs).oldest(0.0, 1 << 30).objects == 3


def test_what_was_packed_while_it_was_read_is_not_called_damaged(
    archive: ArchiveBench, packer: Packer, packs: Packs, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_series(archive, 2)
    archive.segments.close()
    scrub = scrubber(archive, packs)
    read = archive.containers.read

    def overtaken(*place: Any) -> bytes:
        pack_all(packer)
        reclaim_segments(archive.world.database, archive.containers.delete_segment, 0.0)
        monkeypatch.undo()
        return read(*place)

    monkeypatch.setattr(archive.containers, "read", overtaken)
    assert scrub.everything().found == []


def test_a_segment_goes_when_all_of_it_is_packed_and_not_before(
    archive: ArchiveBench, packer: Packer, packs: Packs
) -> None:
    database = archive.world.database
    store_series(archive, 3)
    archive.segments.close()
    assert reclaim_segments(database, archive.containers.delete_segment, 0.0) == 0
    pack_all(packer)
    assert reclaim_segments(database, archive.containers.delete_segment, 3600.0) == 0, "somebody may still read it"
    assert reclaim_segments(database, archive.containers.delete_segment, 0.0) == 1
    assert segment_ids(archive.folder / "segments") == []
    assert scrubber(archive, packs).everything().found == []


def test_what_is_in_quarantine_keeps_its_segment(archive: ArchiveBench, packer: Packer) -> None:
    archive.keep(synthetic(), EXPLICIT)
    archive.keep(synthetic(pixels=b"\1" * 128), EXPLICIT)
    archive.segments.close()
    pack_all(packer)
    assert reclaim_segments(archive.world.database, archive.containers.delete_segment, 0.0) == 0


def test_replaced_and_orphan_packs_go(archive: ArchiveBench, packer: Packer, packs: Packs) -> None:
    database = archive.world.database
    archive.keep(synthetic(sop="2.25.1"), EXPLICIT)
    pack_all(packer)
    archive.keep(synthetic(sop="2.25.2"), EXPLICIT)
    pack_all(packer)
    assert reclaim_packs(database, packs, 0.0) == 1
    [current] = files(packs)
    footer = json.loads(gzip.decompress(packs.footer(current.stem)))
    orphan = unknown_pack(packs, footer | {"nonce": "of a writer that died before its commit"})
    strangers = [
        unknown_pack(packs, footer | {"establishment": "of another index"}),
        *(
            unknown_pack(packs, footer | {"instances": [footer["instances"][0] | altered]})
            for altered in ({"sop_instance_uid": "2.25.3"}, {"received_sha256": "00" * 32})
        ),
        unknown_pack(packs, None),
    ]
    assert sweep_packs(database, packs, lambda name: False) == 0
    assert sweep_packs(database, packs, lambda name: True) == 1
    assert orphan not in list(packs.names())
    assert sorted(packs.names()) == sorted([current.stem, *strangers]), "they may be the only copies"
    assert scrubber(archive, packs).everything().found == []


def test_an_orphan_pack_goes_while_its_objects_are_still_in_a_segment(
    archive: ArchiveBench, packer: Packer, packs: Packs
) -> None:
    archive.keep(synthetic(), EXPLICIT)
    pack_all(packer)
    [current] = files(packs)
    with archive.world.database.unit(None) as unit:  # as if the packing had died before its commit
        unit.execute("UPDATE series SET open = true, pack_id = NULL, manifest = NULL")
        unit.execute("DELETE FROM closed_instance")
        unit.execute("DELETE FROM pack")
    assert sweep_packs(archive.world.database, packs, lambda name: True) == 0, "not in the index at all"
    archive.keep(synthetic(), EXPLICIT)
    assert sweep_packs(archive.world.database, packs, lambda name: True) == 1
    assert not current.exists()


def unknown_pack(packs: Packs, footer: dict[str, Any] | None) -> str:
    """A pack that the index does not know; None: with a footer that nobody understands."""
    writer = packs.create()
    writer.add([b"x"])
    return writer.finish(b"?" if footer is None else gzip.compress(json.dumps(footer).encode()))


def test_folded_lookups_still_know_every_instance(archive: ArchiveBench, packer: Packer) -> None:
    database = archive.world.database
    for generation in range(5):
        for n in range(30):
            uid = f"2.25.{generation}{n:03d}".replace("2.25.0", "2.25.9")
            archive.keep(synthetic(sop=uid, series=f"2.25.20{generation}", number=n), EXPLICIT)
        pack_all(packer)
        assert fold_lookups(database, fold_from=1) == 30
    with database.unit(None) as unit:
        runs = unit.execute("SELECT count(*) AS n FROM closed_instance_run").fetchone()
        assert unit.execute("SELECT count(*) AS n FROM closed_instance").fetchone() == {"n": 0}
    assert runs is not None
    assert runs["n"] <= 3
    for generation in range(5):
        uid = f"2.25.{generation}007".replace("2.25.0", "2.25.9")
        series = f"2.25.20{generation}"
        assert archive.keep(synthetic(sop=uid, series=series, number=7), EXPLICIT).outcome is Outcome.ALREADY_STORED
        moved = archive.keep(synthetic(sop=uid, series="2.25.299", number=7), EXPLICIT)
        assert moved.outcome is Outcome.QUARANTINED
    assert archive.keep(synthetic(sop="2.25.77777"), EXPLICIT).outcome is Outcome.CREATED


def snapshot(database: Database) -> dict[str, list[dict[str, object]]]:
    """What QIDO answers are made from."""
    studies = (
        "SELECT code, study_uid, study_date, accession_number, modalities, number_of_series, number_of_instances,"
        " study.attributes, identifier, patient.name FROM study JOIN establishment USING (establishment_id)"
        " JOIN patient USING (patient_id) ORDER BY code, study_uid"
    )
    series = (
        "SELECT series_uid, modality, series_number, number_of_instances, attributes FROM series ORDER BY series_uid"
    )
    with database.unit(None) as unit:
        return {"studies": unit.execute(studies).fetchall(), "series": unit.execute(series).fetchall()}


@pytest.fixture
def empty_index(another_database_url: str) -> Iterator[Database]:
    database = Database(another_database_url)
    yield database
    database.close()


def test_the_index_comes_back_from_the_store_alone(
    archive: ArchiveBench, packer: Packer, packs: Packs, empty_index: Database
) -> None:
    store_series(archive, 6)
    archive.keep(synthetic(sop="2.25.501", study="2.25.150", series="2.25.250"), EXPLICIT, "B")
    pack_all(packer)
    archive.keep(synthetic(sop="2.25.601", study="2.25.100", series="2.25.200", patient="P0", number=2), EXPLICIT)
    pack_all(packer)
    archive.keep(synthetic(sop="2.25.701", study="2.25.160", series="2.25.260"), EXPLICIT, "B")
    archive.keep(synthetic(sop="2.25.701", pixels=b"\3" * 128, study="2.25.160", series="2.25.260"), EXPLICIT, "B")
    archive.segments.close()
    wanted = snapshot(archive.world.database)

    again = World(empty_index, {}, {})
    with Trail(empty_index, window_s=1.0, monotonic=lambda: 0.0, on_death=print) as trail:
        fresh = new_archive(again, archive.folder, trail)
        folder = archive.folder / "segments"
        rebuilt = rebuild(
            empty_index, fresh.committer, fresh.containers, packs, segment_ids(folder), lambda n: claim(folder, n)
        )
        assert (rebuilt.packs, rebuilt.series, rebuilt.unreadable) == (8, 7, 0)
        assert snapshot(empty_index) == wanted
        with empty_index.unit(None) as unit:
            assert unit.execute("SELECT count(*) AS n FROM quarantine").fetchone() == {"n": 1}
        assert scrubber(fresh, packs).everything().found == []
        with pytest.raises(PreconditionFailed):
            rebuild(empty_index, fresh.committer, fresh.containers, packs, [], lambda n: claim(folder, n))


def test_an_object_sent_again_is_never_cut_off_while_its_first_copy_is_damaged(
    archive: ArchiveBench, packs: Packs
) -> None:
    data = synthetic()
    archive.keep(data, EXPLICIT)
    [segment] = (archive.folder / "segments").glob("*.seg")
    flip(segment, 1024 + 40)
    assert scrubber(archive, packs).everything().found
    result = archive.keep(data, EXPLICIT)
    assert (result.outcome, result.reason) == (Outcome.QUARANTINED, "first-copy-damaged")
    with archive.world.database.unit(None) as unit:
        [row] = unit.execute("SELECT * FROM quarantine").fetchall()
    place = (row["segment_id"], row["segment_offset"], row["length"])
    assert archive.containers.read(Container.SEGMENT, *place) == data

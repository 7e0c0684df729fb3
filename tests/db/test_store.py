"""What happens to an object between its first byte and its acknowledgement."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from harness import ArchiveBench, new_archive, synthetic

from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.errors import MismatchedObject, NegatoscopeError, OutOfResources, TruncatedObject, Unavailable
from negatoscope.model.checksum import blocks_match
from negatoscope.model.source import Announced
from negatoscope.model.stored import Container, Outcome, StoreResult
from negatoscope.storage.segments import SegmentRecord

EXPLICIT = EXPLICIT_LITTLE_ENDIAN


def rows(archive: ArchiveBench, table: str) -> list[dict[str, object]]:
    with archive.world.database.unit(None) as unit:
        return unit.execute(f"SELECT * FROM {table}".encode()).fetchall()


def stored_bytes(archive: ArchiveBench, row: dict[str, object]) -> bytes:
    segment_id, offset, length = row["segment_id"], row["segment_offset"], row["length"]
    assert isinstance(segment_id, int)
    assert isinstance(offset, int)
    assert isinstance(length, int)
    data = archive.containers.read(Container.SEGMENT, segment_id, offset, length)
    assert isinstance(row["crcs"], bytes)
    assert blocks_match(data, row["crcs"])
    return data


def test_an_acknowledged_object_is_indexed_and_its_bytes_are_those_received(archive: ArchiveBench) -> None:
    data = synthetic()
    result = archive.keep(data, EXPLICIT)
    assert result.outcome is Outcome.CREATED
    [instance] = rows(archive, "instance")
    assert stored_bytes(archive, instance) == data
    [study] = rows(archive, "study")
    assert (study["number_of_series"], study["number_of_instances"], study["modalities"]) == (1, 1, ["CT"])
    assert study["bytes"] == len(data)


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 2048, 5 << 20])
def test_objects_larger_than_a_block_are_kept_whole(archive: ArchiveBench, size: int) -> None:
    data = synthetic(pixels=bytes(range(256)) * (size // 256))
    reception = archive.store.begin(archive.world.source("A"), Announced(EXPLICIT))
    for at in range(0, len(data), 70_001):
        reception.write([data[at : at + 30_000], data[at + 30_000 : at + 70_001]])
    assert reception.commit().outcome is Outcome.CREATED
    assert stored_bytes(archive, rows(archive, "instance")[0]) == data


def test_the_same_object_again_is_success_and_one_copy(archive: ArchiveBench) -> None:
    data = synthetic()
    archive.keep(data, EXPLICIT)
    end = archive.segments.begin(1)
    before = end.offset
    end.abort()
    end.release()
    assert archive.keep(data, EXPLICIT).outcome is Outcome.ALREADY_STORED
    after = archive.segments.begin(1)
    assert after.offset == before, "the second copy is cut off"
    after.abort()
    after.release()
    assert len(rows(archive, "instance")) == 1
    assert rows(archive, "study")[0]["number_of_instances"] == 1


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"pixels": b"\1" * 128}, "same-uid-other-bytes"),
        ({"series": "2.25.201"}, "same-uid-other-bytes"),
        ({"patient": "P2", "sop": "2.25.2"}, "study-of-another-patient"),
        ({"patient": "", "sop": "2.25.2"}, "study-of-another-patient"),
        ({"study": "2.25.101", "sop": "2.25.2"}, "series-of-another-study"),
    ],
)
def test_what_conflicts_is_kept_aside_whole_and_the_first_is_served(
    archive: ArchiveBench, other: dict[str, str], reason: str
) -> None:
    first, second = synthetic(), synthetic(**other)  # type: ignore[arg-type]  # the table mixes str and bytes
    archive.keep(first, EXPLICIT)
    result = archive.keep(second, EXPLICIT)
    assert (result.outcome, result.reason) == (Outcome.QUARANTINED, reason)
    [instance] = rows(archive, "instance")
    [aside] = rows(archive, "quarantine")
    assert stored_bytes(archive, instance) == first
    assert stored_bytes(archive, aside) == second
    events = [row["event"] for row in rows(archive, "audit_event")]
    assert any(reason in str(event) for event in events)
    assert rows(archive, "study")[0]["number_of_instances"] == 1


def test_people_without_identifier_are_never_merged(archive: ArchiveBench) -> None:
    archive.keep(synthetic(patient="", sop="2.25.1", study="2.25.10", series="2.25.20"), EXPLICIT)
    archive.keep(synthetic(patient="", sop="2.25.2", study="2.25.11", series="2.25.21"), EXPLICIT)
    assert len(rows(archive, "patient")) == 2


def test_the_same_study_in_two_establishments_is_two_studies(archive: ArchiveBench) -> None:
    archive.keep(synthetic(), EXPLICIT, "A")
    assert archive.keep(synthetic(patient="OTHER"), EXPLICIT, "B").outcome is Outcome.CREATED
    assert len(rows(archive, "study")) == 2


@pytest.mark.parametrize(
    ("announced", "data", "error"),
    [
        (Announced(EXPLICIT, sop_instance_uid="2.25.9"), synthetic(), MismatchedObject),
        (Announced(EXPLICIT, sop_class_uid="1.2.840.10008.5.1.4.1.1.4"), synthetic(), MismatchedObject),
        (Announced(EXPLICIT, study_uid="2.25.9"), synthetic(), MismatchedObject),
        (Announced(EXPLICIT), synthetic()[:-1], TruncatedObject),
        (Announced(EXPLICIT), synthetic(sop=""), MismatchedObject),
        (Announced(EXPLICIT), b"", NegatoscopeError),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    archive: ArchiveBench, announced: Announced, data: bytes, error: type[Exception]
) -> None:
    reception = archive.store.begin(archive.world.source("A"), announced)
    reception.write([data])
    with pytest.raises(error):
        reception.commit()
    assert rows(archive, "instance") == []
    [segment] = (archive.folder / "segments").glob("*.seg")
    assert segment.stat().st_size == 0


def test_many_senders_of_one_study_lose_nothing_and_count_right(archive: ArchiveBench) -> None:
    outcomes: list[Outcome] = []

    def send(sender: int) -> None:
        for i in range(25):
            n = sender * 25 + i
            data = synthetic(sop=f"2.25.{n + 1}", series=f"2.25.20{n % 3}", number=n)
            outcomes.append(archive.keep(data, EXPLICIT).outcome)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Outcome.CREATED] * 100
    [study] = rows(archive, "study")
    assert (study["number_of_series"], study["number_of_instances"]) == (3, 100)
    assert sorted(int(str(s["number_of_instances"])) for s in rows(archive, "series")) == [33, 33, 34]


def test_eight_senders_of_one_uid_leave_one_instance_and_keep_every_other_bytes(archive: ArchiveBench) -> None:
    outcomes: list[Outcome] = []

    def send(sender: int) -> None:
        outcomes.append(archive.keep(synthetic(pixels=bytes([sender // 2]) * 128), EXPLICIT).outcome)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(Outcome.CREATED) == 1
    assert len(rows(archive, "instance")) == 1
    assert len(rows(archive, "quarantine")) == 3, "four different bytes: one served, three aside, each once"


def test_a_crash_after_the_sync_and_before_the_index_loses_nothing(archive: ArchiveBench, tmp_path: Path) -> None:
    data = synthetic()
    reception = archive.store.begin(archive.world.source("A"), Announced(EXPLICIT))
    reception.write([data])
    reception.judge()
    reception.record.sync()  # then the process dies: no row, no seal
    torn = reception.record
    assert isinstance(torn, SegmentRecord)
    os.pwrite(torn._writer.fd, b"torn", torn._writer.end)
    torn._writer.close()
    again = new_archive(archive.world, tmp_path, archive.trail)
    recovered = again.recover()
    assert (recovered.segments, recovered.indexed) == (1, 1)
    [instance] = rows(again, "instance")
    assert stored_bytes(again, instance) == data
    assert again.recover().segments == 0, "it is sealed now"
    assert again.keep(data, EXPLICIT).outcome is Outcome.ALREADY_STORED
    again.segments.close()


def test_an_index_refers_to_bytes_only_once_they_are_synced(
    archive: ArchiveBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third object of a series: its statement runs while its bytes are being synced."""
    for number in (1, 2):
        archive.keep(synthetic(sop=f"2.25.{number}"), EXPLICIT)
    seen: list[int] = []
    real_sync = SegmentRecord.sync

    def sync(record: SegmentRecord) -> None:
        real_sync(record)
        time.sleep(0.05)  # the statement has long been run, were it only sent
        seen.append(len(rows(archive, "instance")))

    monkeypatch.setattr(SegmentRecord, "sync", sync)
    assert archive.keep(synthetic(sop="2.25.3"), EXPLICIT).outcome is Outcome.CREATED
    assert seen == [2]
    assert len(rows(archive, "instance")) == 3


def test_bytes_that_could_not_be_synced_are_never_indexed(
    archive: ArchiveBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        archive.keep(synthetic(sop=f"2.25.{number}"), EXPLICIT)

    tried: list[int] = []

    def sync(record: SegmentRecord) -> None:
        tried.append(record.offset)
        time.sleep(0.05)
        raise Unavailable("storage failed")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentRecord, "sync", sync)
        with pytest.raises(Unavailable):
            archive.keep(synthetic(sop="2.25.3"), EXPLICIT)
    assert len(tried) == 1, "what a failed sync lost, a second one would call safe"
    time.sleep(0.1)
    assert len(rows(archive, "instance")) == 2
    assert archive.keep(synthetic(sop="2.25.3"), EXPLICIT).outcome is Outcome.CREATED
    [study] = rows(archive, "study")
    assert study["number_of_instances"] == 3


def test_recovery_of_what_is_indexed_changes_nothing(archive: ArchiveBench, tmp_path: Path) -> None:
    for n in range(3):
        archive.keep(synthetic(sop=f"2.25.{n + 1}"), EXPLICIT)
    for writer in archive.segments._idle:
        writer.close()
    archive.segments._idle.clear()
    recovered = new_archive(archive.world, tmp_path, archive.trail).recover()
    assert (recovered.indexed, recovered.known) == (0, 3)
    assert len(rows(archive, "instance")) == 3


def test_a_living_writer_is_left_alone_by_recovery(archive: ArchiveBench, tmp_path: Path) -> None:
    archive.keep(synthetic(), EXPLICIT)
    assert new_archive(archive.world, tmp_path, archive.trail).recover().segments == 0


def test_below_the_reserve_objects_are_refused_before_a_byte_is_taken(archive: ArchiveBench, tmp_path: Path) -> None:
    full = new_archive(archive.world, tmp_path, archive.trail, reserve=1 << 60)
    with pytest.raises(OutOfResources):
        full.store.begin(archive.world.source("A"), Announced(EXPLICIT))


# Batches ------------------------------------------------------------------------------------------


def batch_of(archive: ArchiveBench, objects: list[bytes]) -> list[object]:
    """What became of objects that were received in one batch."""
    batch = archive.store.batch()
    for data in objects:
        reception = batch.begin(archive.world.source("A"), Announced(EXPLICIT))
        reception.write([data])
        reception.finish()
    return [one.outcome if isinstance(one, StoreResult) else type(one) for one in batch.commit()]


def test_a_batch_is_synced_once_and_its_objects_are_those_received(
    archive: ArchiveBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    real_sync = SegmentRecord.sync

    def sync(record: SegmentRecord) -> None:
        syncs.append(len(rows(archive, "instance")))
        real_sync(record)

    monkeypatch.setattr(SegmentRecord, "sync", sync)
    objects = [synthetic(sop=f"2.25.{n}", pixels=bytes([n]) * (n * 400_000)) for n in range(1, 6)]
    assert batch_of(archive, objects) == [Outcome.CREATED] * 5
    assert syncs == [0]
    assert [stored_bytes(archive, row) for row in rows(archive, "instance")] == objects


def test_objects_of_a_batch_are_judged_each_for_itself(archive: ArchiveBench) -> None:
    batch = archive.store.batch()
    for number, part in ((1, None), (2, 400), (3, None), (1, None)):
        reception = batch.begin(archive.world.source("A"), Announced(EXPLICIT))
        reception.write([synthetic(sop=f"2.25.{number}")[:part]])
        if part is None:
            reception.finish()
        else:
            with pytest.raises(TruncatedObject):
                reception.finish()
    assert [one.outcome for one in batch.commit() if isinstance(one, StoreResult)] == [
        Outcome.CREATED,
        Outcome.CREATED,
        Outcome.ALREADY_STORED,
    ]
    assert batch_of(archive, [synthetic(sop="2.25.1", number=9), synthetic(sop="2.25.4")]) == [
        Outcome.QUARANTINED,
        Outcome.CREATED,
    ]
    instances = rows(archive, "instance")
    assert {row["sop_instance_uid"]: stored_bytes(archive, row) for row in instances} == {
        f"2.25.{number}": synthetic(sop=f"2.25.{number}") for number in (1, 3, 4)
    }


def test_what_is_finished_in_a_batch_cannot_be_aborted(archive: ArchiveBench) -> None:
    batch = archive.store.batch()
    reception = batch.begin(archive.world.source("A"), Announced(EXPLICIT))
    reception.write([synthetic()])
    reception.finish()
    reception.abort()
    batch.commit()
    assert [stored_bytes(archive, row) for row in rows(archive, "instance")] == [synthetic()]


def test_a_batch_sent_again_leaves_no_byte(archive: ArchiveBench) -> None:
    objects = [synthetic(sop=f"2.25.{n}") for n in range(1, 4)]
    batch_of(archive, objects)
    [segment] = (archive.folder / "segments").glob("*.seg")
    size = segment.stat().st_size
    assert batch_of(archive, objects) == [Outcome.ALREADY_STORED] * 3
    assert segment.stat().st_size == size


def test_a_batch_that_could_not_be_synced_is_not_indexed(
    archive: ArchiveBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(record: SegmentRecord) -> None:
        raise Unavailable("storage failed")

    with monkeypatch.context() as patch:
        patch.setattr(SegmentRecord, "sync", sync)
        assert batch_of(archive, [synthetic(sop="2.25.1"), synthetic(sop="2.25.2")]) == [Unavailable, Unavailable]
    assert rows(archive, "instance") == []
    assert batch_of(archive, [synthetic(sop="2.25.1")]) == [Outcome.CREATED]


def test_a_crash_within_a_batch_loses_nothing_that_follows_a_torn_record(archive: ArchiveBench, tmp_path: Path) -> None:
    batch = archive.store.batch()
    receptions = []
    for number in (1, 2, 3):
        reception = batch.begin(archive.world.source("A"), Announced(EXPLICIT))
        reception.write([synthetic(sop=f"2.25.{number}")])
        reception.finish()
        receptions.append(reception)
    torn = batch.finished[1][1]
    assert isinstance(torn, SegmentRecord)
    os.pwrite(torn._writer.fd, b"????", torn.offset + 200)
    torn._writer.close()
    again = new_archive(archive.world, tmp_path, archive.trail)
    assert again.recover().indexed == 2
    assert {row["sop_instance_uid"] for row in rows(archive, "instance")} == {"2.25.1", "2.25.3"}

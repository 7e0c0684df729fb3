"""A quiet series becomes one immutable pack; nothing of it is lost, changed or found twice."""

from __future__ import annotations

import gzip
from pathlib import Path

import orjson
import pytest
from harness import ArchiveBench, synthetic
from pydicom import dcmread
from pydicom.data import get_testdata_file

from negatoscope.archive import manifest
from negatoscope.archive.packing import Packer
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.part10 import read_file_meta
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from negatoscope.model.checksum import blocks_match
from negatoscope.model.stored import Container, InstanceRecord, Outcome
from negatoscope.storage.packs import Packs


@pytest.fixture
def packs(archive: ArchiveBench) -> Packs:
    return Packs(archive.folder / "packs")


@pytest.fixture
def packer(archive: ArchiveBench, packs: Packs) -> Packer:
    return Packer(archive.world.database, archive.containers, packs)


def closed(archive: ArchiveBench) -> list[InstanceRecord]:
    with archive.world.database.unit(None) as unit:
        row = unit.execute("SELECT * FROM series").fetchone()
        assert row is not None
        assert not row["open"]
        assert unit.execute("SELECT count(*) AS n FROM instance").fetchone() == {"n": 0}
    return manifest.decode(row["manifest"], row["pack_id"])


def test_a_pack_replaces_rows_and_has_every_byte(archive: ArchiveBench, packer: Packer, packs: Packs) -> None:
    sent = {f"2.25.{n}": synthetic(sop=f"2.25.{n}", number=n, pixels=bytes([n]) * 128) for n in (3, 1, 2)}
    for data in sent.values():
        archive.keep(data, EXPLICIT)
    assert packer.quiet_series(3600.0) == [], "not quiet yet"
    [series_id] = packer.quiet_series(0.0)
    assert packer.pack(series_id)
    records = closed(archive)
    assert [record.sop_instance_uid for record in records] == ["2.25.1", "2.25.2", "2.25.3"]
    for record in records:
        place = record.location
        data = archive.containers.read(Container.PACK, place.container_id, place.offset, place.length)
        assert data == sent[record.sop_instance_uid]
        assert blocks_match(data, place.crcs)
    assert packer.quiet_series(0.0) == []
    with archive.world.database.unit(None) as unit:
        pack = unit.execute("SELECT * FROM pack").fetchone()
    assert pack is not None
    block = archive.containers.read(Container.PACK, pack["pack_id"], pack["metadata_offset"], pack["metadata_length"])
    documents = orjson.loads(gzip.decompress(block))
    assert [document["00080018"]["Value"][0] for document in documents] == ["2.25.1", "2.25.2", "2.25.3"]
    assert "BulkDataURI" in documents[0]["7FE00010"]
    assert list(packs.names()) == [pack["name"]]


def test_the_same_object_after_closing_is_known_and_other_bytes_are_kept_aside(
    archive: ArchiveBench, packer: Packer
) -> None:
    data = synthetic()
    archive.keep(data, EXPLICIT)
    packer.pack(packer.quiet_series(0.0)[0])
    assert archive.keep(data, EXPLICIT).outcome is Outcome.ALREADY_STORED
    assert archive.keep(synthetic(pixels=b"\7" * 128), EXPLICIT).outcome is Outcome.QUARANTINED
    moved = archive.keep(synthetic(study="2.25.101", series="2.25.201"), EXPLICIT)
    assert moved.outcome is Outcome.QUARANTINED


def test_a_late_object_reopens_its_series_and_the_next_pack_holds_both(archive: ArchiveBench, packer: Packer) -> None:
    archive.keep(synthetic(sop="2.25.1", number=1), EXPLICIT)
    [series_id] = packer.quiet_series(0.0)
    assert packer.pack(series_id)
    assert archive.keep(synthetic(sop="2.25.2", number=0), EXPLICIT).outcome is Outcome.CREATED
    assert packer.pack(series_id)
    assert [record.sop_instance_uid for record in closed(archive)] == ["2.25.2", "2.25.1"]
    with archive.world.database.unit(None) as unit:
        row = unit.execute("SELECT count(*) AS packs, count(retired_at) AS retired FROM pack").fetchone()
        study = unit.execute("SELECT number_of_instances FROM study").fetchone()
    assert row == {"packs": 2, "retired": 1}
    assert study == {"number_of_instances": 2}


def test_an_object_that_comes_while_packing_is_not_lost(archive: ArchiveBench, packs: Packs) -> None:
    archive.keep(synthetic(sop="2.25.1"), EXPLICIT)

    class Interrupted(Packer):
        def _close(self, *arguments: object) -> bool:
            archive.keep(synthetic(sop="2.25.2"), EXPLICIT)
            return super()._close(*arguments)  # type: ignore[arg-type]  # passed through as they came

    packer = Interrupted(archive.world.database, archive.containers, packs)
    [series_id] = packer.quiet_series(0.0)
    assert not packer.pack(series_id)
    assert list(packs.names()) == [], "the pack that came too late is gone"
    assert Packer(archive.world.database, archive.containers, packs).pack(series_id)
    assert {record.sop_instance_uid for record in closed(archive)} == {"2.25.1", "2.25.2"}


def test_a_damaged_source_is_never_packed(archive: ArchiveBench, packer: Packer) -> None:
    archive.keep(synthetic(), EXPLICIT)
    [segment] = (archive.folder / "segments").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[1500] ^= 1
    segment.write_bytes(data)
    [series_id] = packer.quiet_series(0.0)
    assert not packer.pack(series_id)
    with archive.world.database.unit(None) as unit:
        assert unit.execute("SELECT open FROM series").fetchone() == {"open": True}


@pytest.mark.parametrize("name", ["examples_rgb_color.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_real_objects_come_back_byte_for_byte(archive: ArchiveBench, packer: Packer, name: str) -> None:
    file = get_testdata_file(name)
    assert isinstance(file, str)
    raw = Path(file).read_bytes()
    _meta, start = read_file_meta(raw, DEFAULT_LIMITS)
    archive.keep(raw[start:], str(dcmread(file).file_meta.TransferSyntaxUID))
    assert packer.pack(packer.quiet_series(0.0)[0])
    [record] = closed(archive)
    place = record.location
    assert archive.containers.read(Container.PACK, place.container_id, place.offset, place.length) == raw[start:]

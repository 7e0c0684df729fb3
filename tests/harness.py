"""What tests share besides fixtures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from negatoscope.archive.commit import Committer
from negatoscope.archive.recovery import Recovered, recover
from negatoscope.archive.segments import advance_segment, create_segment, pack_name, seal_segment
from negatoscope.archive.store import Store
from negatoscope.audit.trail import Trail
from negatoscope.db import Database
from negatoscope.model.actor import Actor, Scope
from negatoscope.model.source import Announced, Door, Source
from negatoscope.model.stored import StoreResult
from negatoscope.storage.filesystem import Containers
from negatoscope.storage.segments import Segments, claim


@dataclass(frozen=True)
class World:
    """Two establishments that share nothing, each with one radiologist and one application entity."""

    database: Database
    radiologist: dict[str, Actor]  # by establishment code, "A" and "B"
    modality: dict[str, Actor]

    def scope(self, code: str) -> Scope:
        return Scope(self.radiologist[code])

    def source(self, code: str, door: Door = Door.DIMSE) -> Source:
        actor = self.modality[code]
        return Source(actor.actor_id, actor.establishment_id, code, actor.authority_oid, actor.name, "127.0.0.1", door)


@dataclass(frozen=True)
class ArchiveBench:
    """A real archive on a temporary folder and a real database, without any server."""

    world: World
    folder: Path
    store: Store
    segments: Segments
    committer: Committer
    trail: Trail
    containers: Containers

    def keep(self, data_set: bytes, syntax: str, code: str = "A") -> StoreResult:
        """Store one data set as the modality of establishment ``code`` would."""
        reception = self.store.begin(self.world.source(code), Announced(syntax))
        reception.write([data_set])
        return reception.commit()

    def recover(self) -> Recovered:
        return recover(
            self.world.database, self.committer, lambda segment_id: claim(self.folder / "segments", segment_id)
        )


def new_archive(world: World, folder: Path, trail: Trail, **segments: Any) -> ArchiveBench:
    """A second one on the same folder and database stands for a process started again."""
    committer = Committer(world.database, trail)
    ends = Segments(
        folder / "segments",
        create=lambda: create_segment(world.database),
        advance=lambda segment_id, end: advance_segment(world.database, segment_id, end),
        seal=lambda segment_id, end: seal_segment(world.database, segment_id, end),
        **{"longest": 1 << 30, "reserve": 0} | segments,
    )
    containers = Containers(folder / "segments", folder / "packs", lambda pack_id: pack_name(world.database, pack_id))
    return ArchiveBench(world, folder, Store(ends, committer, time.time), ends, committer, trail, containers)


def synthetic(
    *,
    sop: str = "2.25.1",
    study: str = "2.25.100",
    series: str = "2.25.200",
    patient: str = "P1",
    name: str = "SYNTHETIQUE^Élodie",
    number: int = 1,
    pixels: bytes = bytes(128),
    modality: str = "CT",
    date: str = "20260102",
) -> bytes:
    """An explicit little endian CT-like data set of an invented person (8 x 8 pixels unless given)."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = sop
    dataset.StudyDate, dataset.StudyTime = date, "101112"
    dataset.AccessionNumber = "ACC1"
    dataset.Modality = modality
    dataset.StudyDescription, dataset.SeriesDescription = "Thorax", "Synthetic"
    dataset.PatientName, dataset.PatientID = name, patient
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, number
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = (8, len(pixels) // 16) if len(pixels) < 1 << 16 else (1024, len(pixels) // 2048)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels
    out = BytesIO()
    write_dataset(out, dataset)
    return out.getvalue()


def write_dataset(out: BytesIO, dataset: Dataset) -> None:
    from pydicom.filebase import DicomIO
    from pydicom.filewriter import write_dataset as write

    buffer = DicomIO(out)
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    dataset["PixelData"].VR = "OW"
    write(buffer, dataset)

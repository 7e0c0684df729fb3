"""Where bytes lie and what came of an attempt to store."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of a complete, durable object. All three are acknowledged with success."""

    CREATED = "created"
    ALREADY_STORED = "already-stored"  # same SOP Instance UID, same bytes: C-STORE is idempotent
    QUARANTINED = "quarantined"  # kept whole, aside: conflicting UID, parents or patient


@dataclass(frozen=True, slots=True)
class StoreResult:
    """The answer of ``archive.store``, after its commit."""

    outcome: Outcome
    establishment_id: int
    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    reason: str = ""  # why it is in quarantine: a slug of archive.store.REASONS


class Container(StrEnum):
    """The kind of file an object lies in."""

    SEGMENT = "segment"
    PACK = "pack"


@dataclass(frozen=True, slots=True)
class Location:
    """A run of bytes in a container: one data set as received (no preamble, no file meta).

    ``crcs`` are CRC-32C, four bytes big endian each, one a MiB of the run (the last may be
    shorter): whoever reads any part of the run checks the MiB blocks it lies in.
    """

    container: Container
    container_id: int  # segment.segment_id or pack.pack_id
    offset: int
    length: int
    crcs: bytes


@dataclass(frozen=True, slots=True)
class InstanceRecord:
    """One instance as the index knows it, whether its series is open (row) or closed (manifest)."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: int | None
    rows: int | None
    columns: int | None
    number_of_frames: int | None
    sha256: bytes  # of the data set as received; whole while the series is open, its first 8 bytes once closed
    location: Location


@dataclass(frozen=True, slots=True)
class SeriesHolding:
    """A series that a scope may read, with its instances in the order they are served.

    Order: instance number (missing last), then SOP Instance UID.
    """

    establishment_id: int
    study_id: int
    series_id: int
    study_uid: str
    series_uid: str
    modality: str
    version: int  # grows with every change of the series: the base of ETag
    pack_id: int | None
    instances: list[InstanceRecord]

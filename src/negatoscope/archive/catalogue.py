"""The instances of series, whether they are rows (open), a manifest (closed) or both (reopened)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from negatoscope.archive import manifest
from negatoscope.archive.ports import Unit
from negatoscope.model.stored import Container, InstanceRecord, Location
from negatoscope.queries import load_queries

QUERIES = load_queries("negatoscope.archive", "catalogue.sql")


def instances_of(unit: Unit, series_ids: Sequence[int]) -> dict[int, list[InstanceRecord]]:
    """The instances of each series, in the order of :func:`in_order`; every id asked for is a key.

    The caller has found ``series_ids`` through ``readable_study``: nothing is decided here. Of an instance
    that stands in the manifest, ``sha256`` is its first eight bytes.
    """
    found: dict[int, dict[str, InstanceRecord]] = {series_id: {} for series_id in series_ids}
    if not found:
        return {}
    for row in unit.execute(QUERIES["instances_of"], {"series_ids": list(found)}).fetchall():
        series = found[row["series_id"]]
        if row["manifest"] is None:
            series.setdefault(row["sop_instance_uid"], record_of(row))
        else:
            for record in manifest.decode(row["manifest"], row["pack_id"]):
                series[record.sop_instance_uid] = record
    return {series_id: in_order(records.values()) for series_id, records in found.items()}


def in_order(records: Iterable[InstanceRecord]) -> list[InstanceRecord]:
    """By Instance Number (0020,0013), those without one last, then by SOP Instance UID."""
    return sorted(
        records, key=lambda record: (record.instance_number is None, record.instance_number, record.sop_instance_uid)
    )


def record_of(row: dict[str, Any]) -> InstanceRecord:
    """A row of ``instance``."""
    return InstanceRecord(
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        transfer_syntax_uid=row["transfer_syntax_uid"],
        instance_number=row["instance_number"],
        rows=row["rows"],
        columns=row["columns"],
        number_of_frames=row["number_of_frames"],
        sha256=bytes(row["sha256"]),
        location=Location(
            Container.SEGMENT, row["segment_id"], row["segment_offset"], row["length"], bytes(row["crcs"])
        ),
    )

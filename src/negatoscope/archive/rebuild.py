"""The index again, from the store alone: packs first, then what is only in segments.

Accounts, grants and the audit trail are not in the store: they come from the backup. Establishments are
(code and assigning authority stand beside every object), so the studies are found again without it.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import orjson
from psycopg.types.json import Jsonb

from negatoscope.archive import manifest
from negatoscope.archive.commit import SQL as STORE_SQL
from negatoscope.archive.commit import Committer
from negatoscope.archive.lookup import uid_hash
from negatoscope.archive.ports import ContainerReader, PackStore, Transactions, Unit
from negatoscope.archive.recovery import ClaimedSegment, put_back
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.scan import Scanned, scan
from negatoscope.errors import CorruptObject, PreconditionFailed
from negatoscope.model.stored import Container, InstanceRecord, Location
from negatoscope.queries import load_queries

log = logging.getLogger(__name__)
SQL = load_queries("negatoscope.archive", "rebuild.sql")


@dataclass(slots=True)
class Rebuilt:
    packs: int = 0
    series: int = 0
    instances: int = 0  # in packs
    records: int = 0  # put back from segments
    unreadable: int = 0  # packs or segments that could not be read: scrub and the backup are next


def rebuild(
    transactions: Transactions,
    committer: Committer,
    containers: ContainerReader,
    packs: PackStore,
    segment_ids: Iterable[int],
    claim: Callable[[int], AbstractContextManager[ClaimedSegment | None]],
    progress: Callable[[Rebuilt], None] = lambda rebuilt: None,
    limits: Limits = DEFAULT_LIMITS,
) -> Rebuilt:
    """Fill an empty index from the store.

    Raises:
        PreconditionFailed: the index holds studies already.
        Unavailable: the database is gone; start again with an empty one.
    """
    rebuilt = Rebuilt()
    with transactions.unit(None) as unit:
        if unit.execute(SQL["any_study"]).fetchone():
            raise PreconditionFailed("the index is not empty: rebuild into a new database")
    footers = list(_footers(packs, rebuilt))
    newest = {(footer["establishment"], footer["series_uid"]): name for name, footer in sorted(footers, key=_version)}
    for name, footer in sorted(footers, key=_received):
        current = newest[footer["establishment"], footer["series_uid"]] == name
        with transactions.unit(None) as unit:
            pack_id = _insert_pack(unit, name, footer, retired=not current)
        if current:
            with transactions.unit(None) as unit:
                _insert_series(unit, containers, pack_id, footer, limits)
            rebuilt.series += 1
            rebuilt.instances += len(footer["instances"])
        rebuilt.packs += 1
        progress(rebuilt)
    for segment_id in segment_ids:
        with transactions.unit(None) as unit:
            unit.execute(SQL["insert_segment"], {"segment_id": segment_id})
        with claim(segment_id) as segment:
            if segment is None:
                rebuilt.unreadable += 1
                continue
            end = left = 0
            for record in segment.records(0):
                with transactions.unit(None) as unit:
                    _establishment(unit, record.header.establishment_code, record.header.authority_oid)
                was_new = put_back(transactions, committer, segment_id, record, limits)
                rebuilt.records += was_new is True
                left += was_new is None
                end = record.offset + record.length + len(record.crcs)
                progress(rebuilt)
            left += sum(offset < end for offset in segment.passed_over)
            if left:  # sealed, it would be reclaimed: these bytes may be the only ones
                rebuilt.unreadable += left
                continue
            with transactions.unit(None) as unit:
                unit.execute(STORE_SQL["seal_segment"], {"segment_id": segment_id, "end": end})
    with transactions.unit(None) as unit:
        unit.execute(SQL["advance_segment_numbers"])
    return rebuilt


def _footers(packs: PackStore, rebuilt: Rebuilt) -> Iterable[tuple[str, dict[str, Any]]]:
    for name in packs.names():
        try:
            yield name, orjson.loads(gzip.decompress(packs.footer(name)))
        except CorruptObject as error:
            rebuilt.unreadable += 1
            log.error("pack_unreadable name=%s reason=%s", name, error)


def _version(named: tuple[str, dict[str, Any]]) -> int:
    return int(named[1]["version"])


def _received(named: tuple[str, dict[str, Any]]) -> str:
    """Earliest first: the study row takes its attributes from what came first."""
    return min((entry["received_at"] for entry in named[1]["instances"]), default="")


def _establishment(unit: Unit, code: str, authority_oid: str) -> int:
    values = {"code": code, "authority_oid": authority_oid}
    unit.execute(SQL["insert_establishment"], values)
    row = unit.execute(STORE_SQL["establishment"], values).fetchone()
    assert row is not None
    return int(row["establishment_id"])


def _insert_pack(unit: Unit, name: str, footer: dict[str, Any], *, retired: bool) -> int:
    values = {"name": name, "retired": retired, "bytes": footer["frames_offset"] + footer["frames_length"]}
    values |= {key: footer[key] for key in ("metadata_offset", "metadata_length", "frames_offset", "frames_length")}
    row = unit.execute(SQL["insert_pack"], values).fetchone()
    assert row is not None
    return int(row["pack_id"])


def _records(footer: dict[str, Any], pack_id: int) -> list[InstanceRecord]:
    return [
        InstanceRecord(
            entry["sop_instance_uid"],
            entry["sop_class_uid"],
            entry["transfer_syntax_uid"],
            entry["instance_number"],
            entry["rows"],
            entry["columns"],
            entry["number_of_frames"],
            bytes.fromhex(entry["received_sha256"]),
            Location(Container.PACK, pack_id, entry["offset"], entry["length"], bytes.fromhex(entry["crcs"])),
        )
        for entry in footer["instances"]
    ]


def _insert_series(
    unit: Unit, containers: ContainerReader, pack_id: int, footer: dict[str, Any], limits: Limits
) -> None:
    records = _records(footer, pack_id)
    first = min(footer["instances"], key=lambda entry: entry["received_at"])
    scanned = _scan(containers, next(r for r in records if r.sop_instance_uid == first["sop_instance_uid"]), limits)
    parents = scanned.parents()
    establishment_id = _establishment(unit, footer["establishment"], footer["authority_oid"])
    study = {
        "establishment_id": establishment_id,
        "study_uid": footer["study_uid"],
        "study_date": parents.study_date,
        "study_time": parents.study_time,
        "accession_number": parents.accession_number,
        "attributes": Jsonb(parents.study_attributes),
        "authority_oid": footer["authority_oid"],
        "identifier": scanned.patient_identifier,
        "nameless_study_uid": "" if scanned.patient_identifier else footer["study_uid"],
        "name": parents.patient_name,
        "birth_date": parents.birth_date,
        "sex": parents.sex,
    }
    unit.execute(STORE_SQL["insert_patient"], study)
    unit.execute(STORE_SQL["insert_study"], study)
    held = unit.execute(STORE_SQL["study"], study).fetchone()
    assert held is not None
    series = {
        "study_id": held["study_id"],
        "establishment_id": establishment_id,
        "series_uid": footer["series_uid"],
        "modality": parents.modality,
        "series_number": parents.series_number,
        "attributes": Jsonb(parents.series_attributes),
        "pack_id": pack_id,
        "manifest": manifest.encode(records),
        "instances": len(records),
        "bytes": sum(record.location.length for record in records),
        "version": footer["version"] + 1,
        "received_at": max(entry["received_at"] for entry in footer["instances"]),
    }
    row = unit.execute(SQL["insert_series"], series).fetchone()
    assert row is not None
    unit.execute(STORE_SQL["count_series"], series)
    unit.execute(SQL["count_instances"], series)
    unit.execute(
        SQL["insert_closed"],
        {
            "establishment_id": establishment_id,
            "series_id": row["series_id"],
            "uid_hashes": [uid_hash(record.sop_instance_uid) for record in records],
        },
    )


def _scan(containers: ContainerReader, record: InstanceRecord, limits: Limits) -> Scanned:
    place = record.location
    with containers.view(place.container, place.container_id, place.offset, place.length) as view:
        return scan(view, record.transfer_syntax_uid, limits)

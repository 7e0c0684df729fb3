"""Read everything again and compare it with what was promised: checksums, digests, names, places.

What does not match is recorded in ``damage`` and alerted; what matches again (restored from a copy) is
marked repaired. Nothing is deleted here.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from negatoscope.archive import manifest
from negatoscope.archive.catalogue import record_of
from negatoscope.archive.ports import AuditTrail, ContainerReader, PackStore, RecordHeader, Transactions
from negatoscope.audit.events import integrity_alert
from negatoscope.errors import CorruptObject
from negatoscope.model.checksum import BLOCK, blocks_match, crc32c
from negatoscope.model.stored import Container, InstanceRecord
from negatoscope.queries import load_queries

log = logging.getLogger(__name__)
SQL = load_queries("negatoscope.archive", "scrub.sql")

_NO_IMAGE = {"instance_number": None, "rows": None, "columns": None, "number_of_frames": None}
WHOLE = -1  # byte offset of damage to a container as such
PAGE = 200  # rows read at once
OPEN, ASIDE = "open", "aside"  # stages of a walk over segments: instances not packed yet, objects in quarantine


class HeaderReader(Protocol):
    def header(self, segment_id: int, offset: int) -> RecordHeader | None:
        """The header of the record whose data set is at ``offset``; None when it is not whole."""
        ...


@dataclass(frozen=True, slots=True)
class Damage:
    container: Container
    container_id: int
    offset: int  # of the object, or WHOLE
    kind: str  # missing, truncated, altered, swapped
    sop_instance_uid: str = ""
    study_uid: str = ""


@dataclass(frozen=True, slots=True)
class Walk:
    """How far a walk over what is in segments has come: ``after`` is the last key seen; no stage, it has ended."""

    stage: str = OPEN
    after: str = ""


@dataclass(slots=True)
class ScrubReport:
    packs: int = 0
    objects: int = 0
    bytes: int = 0
    found: list[Damage] = field(default_factory=list)


class Scrubber:
    """Thread-safe; one pass at a time makes sense."""

    def __init__(
        self,
        transactions: Transactions,
        containers: ContainerReader,
        packs: PackStore,
        headers: HeaderReader,
        trail: AuditTrail,
    ) -> None:
        self._transactions, self._containers, self._packs = transactions, containers, packs
        self._headers, self._trail = headers, trail

    def everything(self, progress: Callable[[ScrubReport], None] = lambda report: None) -> ScrubReport:
        """All packs, then all objects in segments, those in quarantine too. Raises Unavailable."""
        report, after = ScrubReport(), 0
        while rows := self._rows("packs", {"after": after, "most": PAGE}):
            for row in rows:
                self._pack(row, report)
                progress(report)
            after = rows[-1]["pack_id"]
        place = Walk()
        while place.stage:
            place = self._step(place, report, None)
            progress(report)
        return report

    def oldest(self, interval_s: float, most_bytes: int) -> ScrubReport:
        """What was verified longest ago, longer than ``interval_s``, up to about ``most_bytes``.

        First packs; then what is in segments, objects in quarantine too, in walks that begin ``interval_s`` after
        the end of the last. How far a walk is stays in the index: whoever comes next goes on from there.
        """
        report = ScrubReport()
        for row in self._rows("oldest_packs", {"interval_s": interval_s, "most": PAGE}):
            if report.bytes >= most_bytes:
                return report
            self._pack(row, report)
        place = self._walk_due(interval_s)
        while place.stage and report.bytes < most_bytes:
            place = self._step(place, report, most_bytes)
            self._rows("keep_walk", {"stage": place.stage, "after": place.after})
        return report

    def _walk_due(self, interval_s: float) -> Walk:
        """Where the walk is; a new one when it is time; the end otherwise. The interval runs from the first look."""
        rows = self._rows("walk", {"interval_s": interval_s})
        if not rows:
            self._rows("keep_walk", {"stage": "", "after": ""})
            rows = self._rows("walk", {"interval_s": interval_s})
        if rows[0]["stage"]:
            return Walk(rows[0]["stage"], rows[0]["after"])
        return Walk() if rows[0]["due"] else Walk("")

    def _rows(self, query: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        with self._transactions.unit(None) as unit:
            cursor = unit.execute(SQL[query], parameters)
            return cursor.fetchall() if cursor.description else []

    def _pack(self, row: dict[str, Any], report: ScrubReport) -> None:
        pack_id = row["pack_id"]
        found = list(self._flaws_of_pack(row, report))
        self._settle(Container.PACK, pack_id, found)
        with self._transactions.unit(None) as unit:
            unit.execute(SQL["scrubbed"], {"pack_id": pack_id})
        report.packs += 1
        report.found += found

    def _flaws_of_pack(self, row: dict[str, Any], report: ScrubReport) -> Iterator[Damage]:
        pack_id, study_uid = row["pack_id"], row["study_uid"] or ""
        try:
            footer = orjson.loads(gzip.decompress(self._packs.footer(row["name"])))
        except CorruptObject as error:
            yield Damage(Container.PACK, pack_id, WHOLE, str(error).split(":")[0], study_uid=study_uid)
            return
        for name in ("metadata", "frames"):
            offset, length = footer[f"{name}_offset"], footer[f"{name}_length"]
            if crc32c(self._containers.read(Container.PACK, pack_id, offset, length)) != footer[f"{name}_crc"]:
                yield Damage(Container.PACK, pack_id, offset, "altered", study_uid=study_uid)
        digests = {
            entry["sop_instance_uid"]: entry["received_sha256"]
            for entry in footer["instances"]
            if entry["received_syntax"] == entry["transfer_syntax_uid"]
        }
        for record in manifest.decode(row["manifest"], pack_id) if row["manifest"] else ():
            kind = self._object(record, digests.get(record.sop_instance_uid), report)
            if kind:
                offset = record.location.offset
                yield Damage(Container.PACK, pack_id, offset, kind, record.sop_instance_uid, study_uid)

    def _step(self, place: Walk, report: ScrubReport, most_bytes: int | None) -> Walk:
        """A page of objects in segments, or as many as make ``most_bytes``.

        What was set aside stays in its segment: whoever resolves it must find it whole.
        """
        if place.stage == OPEN:
            rows = self._rows("open_instances", {"after": place.after, "most": PAGE})
        else:
            rows = self._rows("quarantined", {"after": int(place.after or 0), "most": PAGE})
        sound, seen = [], Walk(ASIDE if place.stage == OPEN else "")
        for row in rows:
            if most_bytes is not None and report.bytes >= most_bytes:
                break
            seen = Walk(place.stage, str(row["key"]))
            record = record_of(row | (_NO_IMAGE if place.stage == ASIDE else {}))
            if self._is_sound(record, row["study_uid"], report):
                sound.append(record.location)
        if sound:
            self._rows(
                "repaired_in_segments",
                {"segments": [one.container_id for one in sound], "offsets": [one.offset for one in sound]},
            )
        return seen

    def _is_sound(self, record: InstanceRecord, study_uid: str, report: ScrubReport) -> bool:
        place = record.location
        kind = self._object(record, record.sha256.hex(), report)
        header = None if kind == "missing" else self._headers.header(place.container_id, place.offset)
        if header is not None and header.sop_instance_uid != record.sop_instance_uid:
            kind = "swapped"
        elif header is None and not kind:
            kind = "altered"
        where = {"segment_id": place.container_id, "segment_offset": place.offset}
        if kind and self._rows("still_there", where):  # else it was packed meanwhile, and its segment is gone
            damage = Damage(place.container, place.container_id, place.offset, kind, record.sop_instance_uid, study_uid)
            self._settle(place.container, place.container_id, [damage], only=place.offset)
            report.found.append(damage)
        return not kind

    def _object(self, record: InstanceRecord, sha256: str | None, report: ScrubReport) -> str:
        """The kind of damage, or ""."""
        place, digest = record.location, hashlib.sha256()
        report.objects += 1
        for at in range(0, place.length, BLOCK):
            length = min(BLOCK, place.length - at)
            try:
                block = self._containers.read(place.container, place.container_id, place.offset + at, length)
            except CorruptObject as error:
                return "missing" if "missing" in str(error) else "truncated"
            if not blocks_match(block, place.crcs, at):
                return "altered"
            digest.update(block)
            report.bytes += length
        return "altered" if sha256 is not None and digest.hexdigest() != sha256 else ""

    def _settle(
        self, container: Container, container_id: int, found: Sequence[Damage], only: int | None = None
    ) -> None:
        """Record what is damaged, and that what was and is not any more has been repaired."""
        with self._transactions.unit(None) as unit:
            if only is None:
                unit.execute(
                    SQL["repaired"],
                    {
                        "container": container.value,
                        "container_id": container_id,
                        "offsets": [damage.offset for damage in found],
                    },
                )
            fresh = []
            for damage in found:
                values = {
                    "container": container.value,
                    "container_id": container_id,
                    "byte_offset": damage.offset,
                    "sop_instance_uid": damage.sop_instance_uid,
                    "study_uid": damage.study_uid,
                    "kind": damage.kind,
                }
                if unit.execute(SQL["damaged"], values).fetchone():
                    fresh.append(
                        integrity_alert(
                            damage.kind,
                            container.value,
                            container_id,
                            damage.offset,
                            damage.study_uid,
                            damage.sop_instance_uid,
                        )
                    )
                    log.error("damage_found kind=%s container=%s id=%d", damage.kind, container, container_id)
            if fresh:
                self._trail.append(unit, fresh)

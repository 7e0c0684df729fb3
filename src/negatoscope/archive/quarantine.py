"""Objects that were kept aside: listed, taken out, resolved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from negatoscope.archive.ports import AuditTrail, ContainerReader, Transactions
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.errors import CorruptObject, NotFound
from negatoscope.model.actor import Actor
from negatoscope.model.checksum import BLOCK, blocks_match
from negatoscope.model.event import AuditEvent, EventAction, EventKind, EventOutcome
from negatoscope.model.stored import Container, Location
from negatoscope.queries import load_queries

SQL = load_queries("negatoscope.archive", "quarantine.sql")


@dataclass(frozen=True, slots=True)
class QuarantinedObject:
    """One row; ``patient_identifier`` is shown to those who resolve, never logged."""

    quarantine_id: int
    establishment_code: str
    reason: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    patient_identifier: str
    transfer_syntax_uid: str
    sha256: str
    received_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    location: Location


class Quarantine:
    """Callers pass the establishment that ``sharing.quarantine_bounds`` allows; ``None``: all."""

    def __init__(self, transactions: Transactions, containers: ContainerReader, trail: AuditTrail) -> None:
        self._transactions, self._containers, self._trail = transactions, containers, trail

    def listed(
        self, establishment_id: int | None, *, resolved: bool = False, after: int = 0, most: int = 1000
    ) -> list[QuarantinedObject]:
        """In order of arrival, those after ``after``; without ``resolved`` only what still waits."""
        bounds = None if establishment_id is None else [establishment_id]
        with self._transactions.unit(bounds) as unit:
            rows = unit.execute(SQL["list"], {"resolved": resolved, "after": after, "most": most}).fetchall()
        found = []
        for row in rows:
            place = Location(
                Container.SEGMENT,
                row.pop("segment_id"),
                row.pop("segment_offset"),
                row.pop("length"),
                bytes(row.pop("crcs")),
            )
            found.append(QuarantinedObject(**row | {"sha256": row["sha256"].hex(), "location": place}))
        return found

    def get(self, establishment_id: int | None, quarantine_id: int) -> QuarantinedObject:
        """Raises NotFound."""
        for row in self.listed(establishment_id, resolved=True, after=quarantine_id - 1, most=1):
            if row.quarantine_id == quarantine_id:
                return row
        raise NotFound("no such object in quarantine")

    def part10(self, quarantined: QuarantinedObject, by: Actor, door: str, address: str = "") -> Iterator[bytes]:
        """The object as a file: meta of ours, data set as received. Audited before the first byte.

        Raises:
            CorruptObject: stored bytes do not match their checksum.
        """
        self._trail.record([self._event(quarantined, by, door, address, EventAction.READ, "exported")])
        place = quarantined.location
        yield write_file_meta(quarantined.sop_class_uid, quarantined.sop_instance_uid, quarantined.transfer_syntax_uid)
        for at in range(0, place.length, BLOCK):
            block = self._containers.read(
                place.container, place.container_id, place.offset + at, min(BLOCK, place.length - at)
            )
            if not blocks_match(block, place.crcs, at):
                raise CorruptObject("stored bytes do not match their checksum")
            yield block

    def resolve(
        self, establishment_id: int | None, quarantine_id: int, resolution: str, by: Actor, door: str, address: str = ""
    ) -> None:
        """Mark as dealt with; the bytes stay. Raises NotFound."""
        quarantined = self.get(establishment_id, quarantine_id)
        with self._transactions.unit(None) as unit:
            unit.execute(SQL["resolve"], {"quarantine_id": quarantine_id, "resolution": resolution})
            self._trail.append(unit, [self._event(quarantined, by, door, address, EventAction.UPDATE, "resolved")])

    def _event(
        self, quarantined: QuarantinedObject, by: Actor, door: str, address: str, action: EventAction, what: str
    ) -> AuditEvent:
        return AuditEvent(
            EventKind.DATA_EXPORT if action is EventAction.READ else EventKind.APPLICATION_ACTIVITY,
            action,
            EventOutcome.SUCCESS,
            by.actor_id or None,
            by.name,
            quarantined.establishment_code,
            address,
            door,
            study_uid=quarantined.study_uid,
            detail={"quarantine": what, "sop_instance_uid": quarantined.sop_instance_uid},
        )

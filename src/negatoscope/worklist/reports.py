"""Performed procedure steps: created and set by modalities, tied to what was scheduled, listed with or without order.

Several performed steps may belong to one scheduled step and one to several; one that names no step of this
establishment is kept all the same. The state of each scheduled step follows in the same commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from psycopg.types.json import Jsonb

from negatoscope.audit.events import procedure_recorded, queried
from negatoscope.errors import BadRequest, Conflict, NotFound
from negatoscope.model.event import EventAction
from negatoscope.queries import load_queries
from negatoscope.worklist import fields
from negatoscope.worklist.orders import Dataset
from negatoscope.worklist.performed import (
    Changed,
    NewPerformed,
    PerformedRow,
    performed_row,
    read_create,
    read_set,
    value,
)
from negatoscope.worklist.ports import Asking, Journal, Transactions, Unit
from negatoscope.worklist.states import Performed, PerformedStatus, StepStatus, moved_by_performance

QUERIES = load_queries("negatoscope.worklist")
MOST_LISTED = 200
_PAGE = re.compile(r"([0-9]{0,8})-([0-9.]{0,13})-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PerformedPage:
    steps: list[PerformedRow]
    next: str  # "": this was the last page


class PerformedSteps:
    """Thread-safe: it holds nothing."""

    def __init__(self, transactions: Transactions, journal: Journal) -> None:
        self._transactions, self._journal = transactions, journal

    def create(self, sop_instance_uid: str, data: Dataset, by: Asking) -> None:
        """N-CREATE: a modality has begun.

        Raises:
            AttributeFault and its kinds: see ``performed.read_create``.
            Conflict: there is a step of this UID (DIMSE 0x0111).
            Unavailable: nothing was kept.
        """
        new = read_create(data)
        actor = by.scope.actor
        with self._transactions.unit([actor.establishment_id]) as unit:
            row = unit.execute(
                QUERIES["add_performed"],
                {
                    "establishment_id": actor.establishment_id,
                    "sop_instance_uid": sop_instance_uid,
                    "status": PerformedStatus.IN_PROGRESS.value,
                    "station_title": new.station_title,
                    "modality": new.modality,
                    "study_uids": sorted({one.study_uid for one in new.scheduled}),
                    "start_date": new.start_date,
                    "start_time": new.start_time,
                    "attributes": Jsonb(data, orjson.dumps),
                    "actor_id": actor.actor_id,
                },
            ).fetchone()
            if row is None:
                raise Conflict("this performed procedure step exists")
            performed_id = int(row["performed_id"])
            self._link(unit, performed_id, new, by)
            orders = self._follow(unit, performed_id, by)
            self._recorded(unit, EventAction.CREATE, sop_instance_uid, PerformedStatus.IN_PROGRESS, data, orders, by)

    def set(self, sop_instance_uid: str, changes: Dataset, by: Asking) -> Changed:
        """N-SET: the step goes on, or ends.

        Raises:
            NotFound: no such step, or not of this establishment (DIMSE 0x0112).
            StepEnded: it has ended (0x0110 with Error ID 0xA710).
            InvalidAttributeValue: see ``performed.read_set``.
        """
        asked = by.scope.parameters() | {"sop_instance_uid": sop_instance_uid}
        with self._transactions.unit([by.scope.actor.establishment_id]) as unit:
            row = unit.execute(QUERIES["performed_to_set"], asked).fetchone()
            if row is None:
                raise NotFound("no such performed procedure step")
            changed = read_set(PerformedStatus(row["status"]), row["attributes"], changes)
            unit.execute(
                QUERIES["set_performed"],
                {
                    "performed_id": row["performed_id"],
                    "status": changed.status.value,
                    "wrong_entry": changed.wrong_entry,
                    "attributes": Jsonb(changed.attributes, orjson.dumps),
                },
            )
            orders = self._follow(unit, row["performed_id"], by)
            self._recorded(unit, EventAction.UPDATE, sop_instance_uid, changed.status, changed.attributes, orders, by)
        return changed

    def get(self, sop_instance_uid: str, by: Asking) -> Dataset:
        """N-GET: all attributes of a step. Raises NotFound."""
        asked = by.scope.parameters() | {"sop_instance_uid": sop_instance_uid}
        with self._transactions.reading(by.scope) as unit:
            row = unit.execute(QUERIES["performed_by_uid"], asked).fetchone()
        if row is None:
            raise NotFound("no such performed procedure step")
        attributes: Dataset = row["attributes"]
        study_uid = row["study_uids"][0] if row["study_uids"] else ""
        self._journal.record(
            [
                procedure_recorded(
                    by.scope.actor, EventAction.READ, sop_instance_uid, value(attributes, "00400252"), by.door,
                    by.address, study_uid=study_uid, patient=_patient(by, attributes),
                )
            ]
        )  # fmt: skip
        return attributes

    def listed(
        self,
        by: Asking,
        *,
        first: str = "",
        last: str = "",
        unscheduled: bool = False,
        after: str = "",
        limit: int = 50,
    ) -> PerformedPage:
        """Performed steps by their start.

        Args:
            first: start date from, "" for all.
            unscheduled: those without an order alone.
            after: ``next`` of the page before.

        Raises:
            BadRequest: a bound is no date, or the page not one of this list.
        """
        found = _PAGE.fullmatch(after) if after else None
        if after and not found:
            raise BadRequest("the page is not one of this list")
        limit = max(1, min(limit, MOST_LISTED))
        parameters = by.scope.parameters() | {
            "first": fields.day(first, "from"),
            "last": fields.day(last, "to") or "99991231",
            "unscheduled": unscheduled,
            "after_date": found[1] if found else "",
            "after_time": found[2] if found else "",
            "after_id": int(found[3]) if found else 0,
            "limit": limit + 1,
        }
        with self._transactions.reading(by.scope) as unit:
            rows = unit.execute(QUERIES["performed"], parameters).fetchall()
        page = [performed_row(row) for row in rows[:limit]]
        self._journal.record([queried(by.scope, "PERFORMED", ["from", "to"], len(page), by.door, by.address)])
        last_row = page[-1] if len(rows) > limit else None
        return PerformedPage(
            page, f"{last_row.start_date}-{last_row.start_time}-{last_row.performed_id}" if last_row else ""
        )

    # Inside --------------------------------------------------------------------------------------

    def _link(self, unit: Unit, performed_id: int, new: NewPerformed, by: Asking) -> None:
        for one in new.scheduled:
            named = {
                "scheduled_step_id": one.scheduled_step_id,
                "study_uid": one.study_uid,
                "accession_number": one.accession_number,
            }
            for row in unit.execute(QUERIES["steps_named"], by.scope.parameters() | named).fetchall():
                unit.execute(
                    QUERIES["link_performed"],
                    {
                        "performed_id": performed_id,
                        "step_id": row["step_id"],
                        "establishment_id": by.scope.actor.establishment_id,
                    },
                )

    def _follow(self, unit: Unit, performed_id: int, by: Asking) -> list[int]:
        """Move what was scheduled to where it is now; the orders that it belongs to."""
        steps = unit.execute(QUERIES["steps_of_performed"], {"performed_id": performed_id}).fetchall()
        for step in steps:
            parts = unit.execute(QUERIES["performed_of_step"], {"step_id": step["step_id"]}).fetchall()
            current = StepStatus(step["status"])
            moved = moved_by_performance(current, [_part(part) for part in parts])
            if moved is not current:
                unit.execute(
                    QUERIES["set_step_status"], {"step_id": step["step_id"], "status": moved.value, "reason": ""}
                )
                unit.execute(QUERIES["touch_request"], {"request_id": step["request_id"]})
        return sorted({step["request_id"] for step in steps})

    def _recorded(
        self, unit: Unit, action: EventAction, sop_instance_uid: str, status: PerformedStatus, data: Dataset,
        orders: Iterable[int], by: Asking,
    ) -> None:  # fmt: skip
        studies = [value(item or {}, "0020000D") for item in data["00400270"]["Value"]]
        event = procedure_recorded(
            by.scope.actor, action, sop_instance_uid, status.value, by.door, by.address,
            study_uid=studies[0], patient=_patient(by, data), orders=orders,
        )  # fmt: skip
        self._journal.append(unit, [event])


def _part(row: Mapping[str, Any]) -> Performed:
    return Performed(PerformedStatus(row["status"]), row["wrong_entry"])


def _patient(by: Asking, data: Dataset) -> str:
    identifier = value(data, "00100020")
    return f"{by.scope.actor.authority_oid}|{identifier}" if identifier else ""

"""Orders: entered, listed, moved from state to state, cancelled. Each change and its audit event are one commit."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import psycopg
from psycopg.types.json import Jsonb

from negatoscope.audit.events import order_recorded, queried
from negatoscope.errors import BadRequest, Conflict, NotFound, PreconditionFailed
from negatoscope.model.event import EventAction
from negatoscope.queries import load_queries
from negatoscope.worklist import fields
from negatoscope.worklist.orders import Dataset, NewOrder, NewProcedure, NewStep, OrderedPatient
from negatoscope.worklist.performed import PerformedRow, performed_row
from negatoscope.worklist.ports import Asking, Journal, Transactions, Unit
from negatoscope.worklist.states import BY_HAND, OPEN, StepStatus, order_status

QUERIES = load_queries("negatoscope.worklist")
MOST_ORDERS = 200  # of one page
MOST_REASON = 200  # characters
_PAGE = re.compile(r"([0-9]{14})-([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class StepRow:
    step_id: int
    scheduled_step_id: str
    modality: str
    station_title: str  # "": any
    start_date: str  # YYYYMMDD
    start_time: str  # HHMMSS
    performing_physician: str
    description: str
    status: StepStatus
    status_reason: str
    status_at: datetime
    attributes: Dataset


@dataclass(frozen=True, slots=True)
class ProcedureRow:
    procedure_id: int
    requested_procedure_id: str
    study_uid: str
    description: str
    priority: str
    attributes: Dataset
    steps: tuple[StepRow, ...]


@dataclass(frozen=True, slots=True)
class ImagesRow:
    """A study that has come for an order."""

    study_uid: str
    modalities: tuple[str, ...]
    number_of_series: int
    number_of_instances: int


@dataclass(frozen=True, slots=True)
class OrderRow:
    request_id: int
    accession_number: str
    patient: OrderedPatient
    attributes: Dataset  # of the request, the visit and the patient
    created_at: datetime
    changed_at: datetime
    procedures: tuple[ProcedureRow, ...]
    images: tuple[ImagesRow, ...]  # those the asker may see
    performed: tuple[PerformedRow, ...]

    @property
    def steps(self) -> list[StepRow]:
        return [step for procedure in self.procedures for step in procedure.steps]

    @property
    def status(self) -> StepStatus:
        return order_status([step.status for step in self.steps])


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which orders are listed: those with a step that fits all of it."""

    first: str = ""  # start date from, YYYYMMDD
    last: str = ""
    modality: str = ""
    station: str = ""
    status: StepStatus | None = None
    only_open: bool = False
    accession_number: str = ""
    after: str = ""  # ``next`` of the page before
    limit: int = 50


@dataclass(frozen=True, slots=True)
class OrderPage:
    orders: list[OrderRow]
    next: str  # "": this was the last page


class Orders:
    """The order book of every establishment. Thread-safe: it holds nothing."""

    def __init__(self, transactions: Transactions, journal: Journal) -> None:
        self._transactions, self._journal = transactions, journal

    def add(self, order: NewOrder, by: Asking) -> int:
        """Enter an order in the asker's establishment; its id.

        Raises:
            Conflict: its accession number, study or one of its ids is taken.
            Unavailable: nothing was entered.
        """
        actor = by.scope.actor
        place = {"establishment_id": actor.establishment_id}
        try:
            with self._transactions.unit([actor.establishment_id]) as unit:
                accession = order.accession_number or _made(unit, "NG")
                patient = order.patient
                row = unit.execute(
                    QUERIES["add_request"],
                    place
                    | {
                        "accession_number": accession,
                        "authority_oid": actor.authority_oid,
                        "patient_identifier": patient.identifier,
                        "patient_name": patient.name,
                        "birth_date": patient.birth_date,
                        "sex": patient.sex,
                        "attributes": _json(order.more | patient.more),
                        "created_by": actor.actor_id,
                    },
                ).fetchone()
                assert row is not None
                request_id = int(row["request_id"])
                uids = [_add_procedure(unit, place, request_id, procedure) for procedure in order.procedures]
                subject = f"{actor.authority_oid}|{patient.identifier}"
                self._journal.append(
                    unit,
                    [
                        order_recorded(
                            actor, EventAction.CREATE, request_id, by.door, by.address, study_uid=uid, patient=subject
                        )
                        for uid in uids
                    ],
                )
        except psycopg.errors.UniqueViolation:
            raise Conflict("the accession number, the study or an id of this order is taken") from None
        return request_id

    def get(self, request_id: int, by: Asking) -> OrderRow:
        """One order. Raises NotFound: none, or not yours."""
        found = self._rows([request_id], by)
        if not found:
            raise NotFound("no such order")
        self._read(by, ["request_id"], 1)
        return found[0]

    def listed(self, wanted: Wanted, by: Asking) -> OrderPage:
        """Orders by their first step that fits.

        Raises:
            BadRequest: a bound is no date, or the page not one of this list.
        """
        limit = max(1, min(wanted.limit, MOST_ORDERS))
        conditions, parameters, keys = _conditions(wanted)
        statement = QUERIES["orders_of_day"].replace("/*:conditions*/", "\n".join(conditions))
        if wanted.after:
            found = _PAGE.fullmatch(wanted.after)
            if not found:
                raise BadRequest("the page is not one of this list")
            statement = statement.replace(
                "/*:having*/",
                "HAVING (min(s.start_date || s.start_time), r.request_id) > (%(after_moment)s, %(after_id)s)",
            )
            parameters |= {"after_moment": found[1], "after_id": int(found[2])}
        with self._transactions.reading(by.scope) as unit:
            rows = unit.execute(
                statement.encode(), by.scope.parameters() | parameters | {"limit": limit + 1}
            ).fetchall()
        page = rows[:limit]
        orders = self._rows([row["request_id"] for row in page], by)
        self._read(by, keys, len(orders))
        last = f"{page[-1]['first_moment']}-{page[-1]['request_id']}" if len(rows) > limit else ""
        return OrderPage(orders, last)

    def move(
        self, request_id: int, wanted: StepStatus, by: Asking, *, step_id: int | None = None, reason: str = ""
    ) -> None:
        """Move one step, or all that can go there, to another state by hand.

        Raises:
            NotFound: no such order or step, or not yours.
            PreconditionFailed: that step, or every step, is in a state from which one does not go there.
            BadRequest: the reason is too long.
        """
        actor = by.scope.actor
        reason = fields.text(reason, "ST", "reason")
        if len(reason) > MOST_REASON:
            raise BadRequest(f"reason has at most {MOST_REASON} characters")
        with self._transactions.unit([actor.establishment_id]) as unit:
            asked = by.scope.parameters() | {"request_id": request_id}
            rows = unit.execute(QUERIES["steps_to_change"], asked).fetchall()
            if step_id is not None:
                rows = [row for row in rows if row["step_id"] == step_id]
            if not rows:
                raise NotFound("no such order")
            movable = [row for row in rows if _goes(row["status"], wanted)]
            if not movable:
                raise PreconditionFailed(f"a step that is {rows[0]['status']} does not become {wanted.value}")
            for row in movable:
                unit.execute(
                    QUERIES["set_step_status"], {"step_id": row["step_id"], "status": wanted.value, "reason": reason}
                )
            unit.execute(QUERIES["touch_request"], {"request_id": request_id})
            self._journal.append(
                unit,
                [
                    order_recorded(
                        actor, EventAction.UPDATE, request_id, by.door, by.address, study_uid=row["study_uid"],
                        patient=f"{row['authority_oid']}|{row['patient_identifier']}",
                        detail={"step": row["step_id"], "was": row["status"], "is": wanted.value},
                    )
                    for row in movable
                ],
            )  # fmt: skip

    def cancel(self, request_id: int, by: Asking, reason: str = "") -> None:
        """Cancel every step that has not been started. Raises as :meth:`move`."""
        self.move(request_id, StepStatus.CANCELLED, by, reason=reason)

    def _read(self, by: Asking, keys: Sequence[str], answers: int) -> None:
        self._journal.record([queried(by.scope, "ORDER", keys, answers, by.door, by.address)])

    def _rows(self, request_ids: Sequence[int], by: Asking) -> list[OrderRow]:
        """Those of ``request_ids`` that are there, in that order."""
        asked = by.scope.parameters() | {"request_ids": list(request_ids)}
        if not request_ids:
            return []
        with self._transactions.reading(by.scope) as unit:
            rows = unit.execute(QUERIES["orders"], asked).fetchall()
            images = unit.execute(QUERIES["images"], asked).fetchall()
            performed = unit.execute(QUERIES["performed_of_orders"], asked).fetchall()
        found = []
        for request_id in request_ids:
            own = [row for row in rows if row["request_id"] == request_id]
            if own:
                found.append(
                    _order(
                        own,
                        [_images(row) for row in images if row["request_id"] == request_id],
                        [performed_row(row | {"request_ids": [request_id]}) for row in performed
                         if row["request_id"] == request_id],
                    )
                )  # fmt: skip
        return found


def new_study_uid() -> str:
    """A UID of ours, PS3.5 B.2."""
    return f"2.25.{uuid.uuid4().int}"


def _made(unit: Unit, prefix: str) -> str:
    row = unit.execute(QUERIES["make_number"]).fetchone()
    assert row is not None
    return f"{prefix}{row['number']}"


def _json(dataset: Dataset) -> Jsonb:
    return Jsonb(dataset, orjson.dumps)


def _add_procedure(unit: Unit, place: Mapping[str, int], request_id: int, procedure: NewProcedure) -> str:
    """Its Study Instance UID."""
    study_uid = procedure.study_uid or new_study_uid()
    row = unit.execute(
        QUERIES["add_procedure"],
        {
            **place,
            "request_id": request_id,
            "requested_procedure_id": procedure.requested_procedure_id or _made(unit, "RP"),
            "study_uid": study_uid,
            "description": procedure.description,
            "priority": procedure.priority,
            "attributes": _json(procedure.more),
        },
    ).fetchone()
    assert row is not None
    for step in procedure.steps:
        _add_step(unit, place, int(row["procedure_id"]), step)
    return study_uid


def _add_step(unit: Unit, place: Mapping[str, int], procedure_id: int, step: NewStep) -> None:
    unit.execute(
        QUERIES["add_step"],
        {
            **place,
            "procedure_id": procedure_id,
            "scheduled_step_id": step.scheduled_step_id or _made(unit, "SPS"),
            "modality": step.modality,
            "station_title": step.station_title,
            "start_date": step.start_date,
            "start_time": step.start_time,
            "performing_physician": step.performing_physician,
            "description": step.description,
            "attributes": _json(step.more),
        },
    )


def _goes(current: str, wanted: StepStatus) -> bool:
    return wanted in BY_HAND[StepStatus(current)]


def _conditions(wanted: Wanted) -> tuple[list[str], dict[str, Any], list[str]]:
    """SQL of ours, its parameters, and the names of what was asked for."""
    conditions: list[str] = []
    parameters: dict[str, Any] = {}
    given: dict[str, tuple[str, Any]] = {
        "first": ("AND s.start_date >= %(first)s", fields.day(wanted.first, "from")),
        "last": ("AND s.start_date <= %(last)s", fields.day(wanted.last, "to")),
        "modality": ("AND s.modality = %(modality)s", wanted.modality),
        "station": ("AND s.station_title IN ('', %(station)s)", wanted.station),
        "status": ("AND s.status = %(status)s", wanted.status.value if wanted.status else ""),
        "open": ("AND s.status = ANY(%(open)s)", [status.value for status in OPEN] if wanted.only_open else ""),
        "accession_number": ("AND r.accession_number = %(accession_number)s", wanted.accession_number),
    }
    for name, (condition, value) in given.items():
        if value:
            conditions.append(condition)
            parameters[name] = value
    return conditions, parameters, list(parameters)


def _images(row: Mapping[str, Any]) -> ImagesRow:
    return ImagesRow(row["study_uid"], tuple(row["modalities"]), row["number_of_series"], row["number_of_instances"])


def _order(
    rows: Sequence[Mapping[str, Any]], images: Sequence[ImagesRow], performed: Sequence[PerformedRow]
) -> OrderRow:
    """An order of its steps' rows."""
    first = rows[0]
    procedures = []
    for procedure_id in dict.fromkeys(row["procedure_id"] for row in rows):
        own = [row for row in rows if row["procedure_id"] == procedure_id]
        procedures.append(
            ProcedureRow(
                procedure_id,
                own[0]["requested_procedure_id"],
                own[0]["study_uid"],
                own[0]["description"],
                own[0]["priority"],
                own[0]["procedure_attributes"],
                tuple(map(_step, own)),
            )
        )
    attributes: Dataset = first["request_attributes"]
    patient = OrderedPatient(first["patient_identifier"], first["patient_name"], first["birth_date"], first["sex"])
    return OrderRow(
        first["request_id"], first["accession_number"], patient, attributes, first["created_at"], first["changed_at"],
        tuple(procedures), tuple(images), tuple(performed),
    )  # fmt: skip


def _step(row: Mapping[str, Any]) -> StepRow:
    return StepRow(
        row["step_id"], row["scheduled_step_id"], row["modality"], row["station_title"], row["start_date"],
        row["start_time"], row["performing_physician"], row["step_description"], StepStatus(row["status"]),
        row["status_reason"], row["status_at"], row["step_attributes"],
    )  # fmt: skip

"""Orders for programs: ``/api/orders`` and ``/api/performed-steps``, JSON in and out.

An order is answered in the form that it is entered in, with ids, states, images and performed steps added. No
patient stands in an address: lists are narrowed by day, modality, station, state and accession number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from negatoscope.errors import BadRequest
from negatoscope.model.actor import Right
from negatoscope.web.services import Services
from negatoscope.worklist import (
    Asking,
    OrderRow,
    Orders,
    PerformedRow,
    PerformedSteps,
    ProcedureRow,
    StepRow,
    StepStatus,
    Wanted,
    read_order,
)
from negatoscope.worklist.orders import (
    PATIENT_MORE,
    PREGNANCIES,
    PROCEDURE_MORE,
    REQUEST_MORE,
    STEP_MORE,
    Dataset,
)
from negatoscope.worklist.performed import value

DOOR = "api"
_FILTERS = ("from", "to", "modality", "station", "status", "open", "accession_number", "after", "limit")
_PERFORMED_FILTERS = ("from", "to", "unscheduled", "after", "limit")


def order_routes(services: Services) -> list[BaseRoute]:
    api = _Api(services)
    return [
        Route("/api/orders", api.create, methods=["POST"], name="create-order"),
        Route("/api/orders", api.list, methods=["GET"], name="list-orders"),
        Route("/api/orders/{request_id:int}", api.read, methods=["GET"], name="read-order"),
        Route("/api/orders/{request_id:int}/status", api.move, methods=["POST"], name="move-order"),
        Route("/api/orders/{request_id:int}/cancel", api.cancel, methods=["POST"], name="cancel-order"),
        Route("/api/performed-steps", api.performed, methods=["GET"], name="list-performed-steps"),
    ]


class _Api:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def create(self, request: Request) -> Response:
        """201 with the order and its address."""
        asking = await self._services.run(self._asking, request)
        order = read_order(await _body(request))

        def work() -> OrderRow:
            orders = self._orders()
            return orders.get(orders.add(order, asking), asking)

        made = await self._services.run(work)
        return _json(order_json(made), 201, {"Location": f"/api/orders/{made.request_id}"})

    async def list(self, request: Request) -> Response:
        asking = await self._services.run(self._asking, request)
        wanted = wanted_of(_query(request, _FILTERS))
        page = await self._services.run(lambda: self._orders().listed(wanted, asking))
        return _json({"orders": [order_json(order) for order in page.orders], "next": page.next or None})

    async def read(self, request: Request) -> Response:
        asking = await self._services.run(self._asking, request)
        order = await self._services.run(lambda: self._orders().get(request.path_params["request_id"], asking))
        return _json(order_json(order))

    async def move(self, request: Request) -> Response:
        """``{"status": "ARRIVED", "step": 12, "reason": "..."}``; without a step all that can go there."""
        asking = await self._services.run(self._asking, request)
        try:
            given = _fields(await _body(request), {"status", "step", "reason"})
            wanted, step = status_of(given.get("status")), _step_of(given)
        except BadRequest:  # not yours comes first: a wrong body tells nothing of what is there
            await self._services.run(lambda: self._orders().get(request.path_params["request_id"], asking))
            raise
        return await self._moved(request, asking, wanted, step, given.get("reason"))

    async def cancel(self, request: Request) -> Response:
        asking = await self._services.run(self._asking, request)
        given = _fields(await _body(request, empty={}), {"reason"})
        return await self._moved(request, asking, StepStatus.CANCELLED, None, given.get("reason"))

    async def performed(self, request: Request) -> Response:
        """What modalities reported; ``unscheduled=true`` for what no order was there for."""
        asking = await self._services.run(self._asking, request)
        query = _query(request, _PERFORMED_FILTERS)
        steps = PerformedSteps(self._services.database, self._services.trail)
        page = await self._services.run(
            lambda: steps.listed(
                asking, first=query["from"], last=query["to"], unscheduled=query["unscheduled"] == "true",
                after=query["after"], limit=_number(query["limit"]),
            )
        )  # fmt: skip
        return _json({"performed_steps": [performed_json(step) for step in page.steps], "next": page.next or None})

    async def _moved(
        self, request: Request, asking: Asking, wanted: StepStatus, step: int | None, reason: Any
    ) -> Response:
        request_id = request.path_params["request_id"]

        def work() -> OrderRow:
            orders = self._orders()
            orders.move(request_id, wanted, asking, step_id=step, reason=reason or "")
            return orders.get(request_id, asking)

        return _json(order_json(await self._services.run(work)))

    def _orders(self) -> Orders:
        return Orders(self._services.database, self._services.trail)

    def _asking(self, request: Request) -> Asking:
        """Raises Unauthenticated, Forbidden."""
        address = self._services.authentication.address_of(request)
        return Asking(self._services.scope(request, Right.WORKLIST), DOOR, address)


# Reading -----------------------------------------------------------------------------------------


async def _body(request: Request, empty: Any = None) -> Any:
    body = await request.body()
    if not body and empty is not None:
        return empty
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("the body is no JSON") from None


def _fields(given: Any, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(given, dict) or set(given) - known:
        raise BadRequest(f"the body is an object of {', '.join(sorted(known))}")
    return given


def _query(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    if unknown := set(request.query_params) - set(known):
        raise BadRequest(f"no such parameter: {sorted(unknown)[0][:32]!r}; there are {', '.join(known)}")
    return {name: request.query_params.get(name, "").strip() for name in known}


def _step_of(given: Mapping[str, Any]) -> int | None:
    step = given.get("step")
    if step is None:
        return None
    if isinstance(step, bool) or not isinstance(step, int) or not 0 < step < 1 << 63:
        raise BadRequest("step is the number of one")
    return step


def status_of(given: Any) -> StepStatus:
    """Raises BadRequest."""
    try:
        return StepStatus(given)
    except ValueError:
        raise BadRequest(f"status is one of {', '.join(StepStatus)}") from None


def wanted_of(query: Mapping[str, str]) -> Wanted:
    """Raises BadRequest."""
    return Wanted(
        first=query["from"],
        last=query["to"],
        modality=query["modality"],
        station=query["station"],
        status=status_of(query["status"]) if query["status"] else None,
        only_open=query["open"] == "true",
        accession_number=query["accession_number"],
        after=query["after"],
        limit=_number(query["limit"]),
    )


def _number(text: str, default: int = 50) -> int:
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 4:
        raise BadRequest("limit is a number")
    return int(text)


# Writing -----------------------------------------------------------------------------------------


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def order_json(order: OrderRow) -> dict[str, Any]:
    patient = order.patient
    known = order.attributes
    pregnancy = {str(code): name for name, code in PREGNANCIES.items()}.get(value(known, "001021C0"), "")
    return {
        "id": order.request_id,
        "status": order.status.value,
        "accession_number": order.accession_number,
        "created_at": order.created_at.isoformat(),
        "changed_at": order.changed_at.isoformat(),
        **_more(known, REQUEST_MORE),
        "patient": {
            "identifier": patient.identifier,
            "name": patient.name,
            "birth_date": _day(patient.birth_date),
            "sex": patient.sex,
            **_more(known, PATIENT_MORE),
            **({"pregnancy": pregnancy} if pregnancy else {}),
        },
        "procedures": [_procedure_json(procedure) for procedure in order.procedures],
        "images": [
            {
                "study_uid": study.study_uid,
                "modalities": list(study.modalities),
                "series": study.number_of_series,
                "instances": study.number_of_instances,
            }
            for study in order.images
        ],
        "performed_steps": [performed_json(step) for step in order.performed],
    }


def _procedure_json(procedure: ProcedureRow) -> dict[str, Any]:
    return {
        "id": procedure.requested_procedure_id,
        "study_uid": procedure.study_uid,
        "description": procedure.description,
        "priority": procedure.priority,
        **_more(procedure.attributes, PROCEDURE_MORE),
        **_code(procedure.attributes, "00321064"),
        "steps": [_step_json(step) for step in procedure.steps],
    }


def _step_json(step: StepRow) -> dict[str, Any]:
    return {
        "step": step.step_id,
        "id": step.scheduled_step_id,
        "status": step.status.value,
        "status_reason": step.status_reason,
        "status_at": step.status_at.isoformat(),
        "modality": step.modality,
        "station_ae": step.station_title,
        "scheduled": f"{_day(step.start_date)}T{_time(step.start_time)}",
        "performing_physician": step.performing_physician,
        "description": step.description,
        **_more(step.attributes, STEP_MORE),
        **_code(step.attributes, "00400008"),
    }


def performed_json(step: PerformedRow) -> dict[str, Any]:
    return {
        "sop_instance_uid": step.sop_instance_uid,
        "status": step.status.value,
        "wrong_entry": step.wrong_entry,
        "station_ae": step.station_title,
        "modality": step.modality,
        "description": step.description,
        "study_uids": list(step.study_uids),
        "orders": list(step.request_ids),
        "patient_identifier": step.patient_identifier,
        "started": f"{_day(step.start_date)}T{_time(step.start_time)}",
        "ended": f"{_day(step.end_date)}T{_time(step.end_time)}" if step.end_date else None,
        "series": [
            {
                "series_uid": series.series_uid,
                "description": series.description,
                "protocol": series.protocol,
                "retrieve_ae": series.retrieve_title,
                "instances": series.instances,
            }
            for series in step.series
        ],
        "dose": dict(step.dose),
    }


def _more(held: Dataset, table: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """The further fields that have a value, by our names."""
    found: dict[str, Any] = {}
    for name, (key, vr) in table.items():
        values = held.get(key, {}).get("Value")
        if values:
            found[name] = values[0] if vr == "DS" else value(held, key)
            if vr == "PN":
                groups = values[0]
                parts = [groups.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
                found[name] = "=".join(parts).rstrip("=")
    return found


def _code(held: Dataset, key: str) -> dict[str, Any]:
    items = held.get(key, {}).get("Value")
    if not items:
        return {}
    names = {"value": "00080100", "scheme": "00080102", "meaning": "00080104"}
    return {"code": {name: value(items[0], tag) for name, tag in names.items()}}


def _day(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if text else ""


def _time(text: str) -> str:
    digits = text.split(".")[0].ljust(6, "0")
    return f"{digits[:2]}:{digits[2:4]}:{digits[4:6]}"

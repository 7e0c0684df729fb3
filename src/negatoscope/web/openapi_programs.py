"""The description of ``/api``: orders, performed steps, remote nodes, the queue. Rows of ``openapi_table``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from negatoscope.routing import NodeKind, Priority, State
from negatoscope.routing.nodes import LARGEST_CONCURRENCY
from negatoscope.web.media_types import JSON
from negatoscope.web.openapi_table import Operation, Parameter
from negatoscope.worklist import PerformedStatus, StepStatus
from negatoscope.worklist.orders import (
    MOST_PROCEDURES,
    MOST_STEPS,
    PATIENT_MORE,
    PREGNANCIES,
    PRIORITIES,
    PROCEDURE_MORE,
    REQUEST_MORE,
    SEXES,
    STEP_MORE,
)

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
DAY: Schema = {"type": "string", "format": "date"}
UID: Schema = {"type": "string", "pattern": "^[0-9.]{1,64}$"}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _maybe(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


def _object(properties: Mapping[str, Schema], needed: tuple[str, ...] = ()) -> Schema:
    return {"type": "object", "properties": dict(properties)} | ({"required": list(needed)} if needed else {})


def _several(item: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": item} | ({"minItems": 1, "maxItems": most} if most else {})


def _named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _more(table: Mapping[str, tuple[str, str]]) -> dict[str, Schema]:
    """Further fields of an order, by the table that they are read with."""
    return {name: {"type": "number"} if vr == "DS" else TEXT for name, (_, vr) in table.items()}


_CODE = _object({"value": TEXT, "scheme": TEXT, "meaning": TEXT}, ("value", "scheme", "meaning"))
_STATUS = _one_of(*StepStatus)
_NEW_PATIENT = {
    "identifier": TEXT,
    "name": TEXT | {"description": "PN: components parted by ^, groups by ="},
    "birth_date": DAY,
    "sex": _one_of(*SEXES),
    "pregnancy": _one_of(*PREGNANCIES),
    **_more(PATIENT_MORE),
}
_NEW_STEP = {
    "id": TEXT | {"description": "Made when absent"},
    "modality": TEXT,
    "station_ae": TEXT | {"description": "Absent: any station of the establishment"},
    "scheduled": TEXT | {"description": "YYYY-MM-DDTHH:MM[:SS], the establishment's clock"},
    "performing_physician": TEXT,
    "description": TEXT,
    "code": _CODE,
    **_more(STEP_MORE),
}
_NEW_PROCEDURE = {
    "id": TEXT | {"description": "Made when absent"},
    "study_uid": UID | {"description": "Made when absent"},
    "description": TEXT,
    "priority": _one_of(*PRIORITIES),
    "code": _CODE,
    **_more(PROCEDURE_MORE),
}
_STEP_STATE = {"step": NUMBER, "status": _STATUS, "status_reason": TEXT, "status_at": MOMENT}
_IMAGES = {"study_uid": UID, "modalities": _several(TEXT), "series": NUMBER, "instances": NUMBER}
_PERFORMED_SERIES = {
    "series_uid": UID,
    "description": TEXT,
    "protocol": TEXT,
    "retrieve_ae": TEXT,
    "instances": NUMBER,
}

SCHEMAS: dict[str, Schema] = {
    "NewOrder": _object(
        {
            "accession_number": TEXT | {"description": "Made when absent"},
            **_more(REQUEST_MORE),
            "patient": _object(_NEW_PATIENT, ("identifier", "name")),
            "procedures": _several(
                _object(
                    _NEW_PROCEDURE | {"steps": _several(_object(_NEW_STEP, ("modality", "scheduled")), MOST_STEPS)},
                    ("steps",),
                ),
                MOST_PROCEDURES,
            ),
        },
        ("patient", "procedures"),
    ),
    "Order": _object(
        {
            "id": NUMBER,
            "status": _STATUS,
            "accession_number": TEXT,
            "created_at": MOMENT,
            "changed_at": MOMENT,
            **_more(REQUEST_MORE),
            "patient": _object(_NEW_PATIENT),
            "procedures": _several(
                _object(_NEW_PROCEDURE | {"steps": _several(_object(_NEW_STEP | _STEP_STATE))}),
            ),
            "images": _several(_object(_IMAGES)),
            "performed_steps": _several(_named("PerformedStep")),
        }
    ),
    "Orders": _object({"orders": _several(_named("Order")), "next": _maybe(TEXT)}),
    "NewStatus": _object(
        {"status": _STATUS, "step": NUMBER | {"description": "Absent: all that can go there"}, "reason": TEXT},
        ("status",),
    ),
    "Cancellation": _object({"reason": TEXT}),
    "PerformedStep": _object(
        {
            "sop_instance_uid": UID,
            "status": _one_of(*PerformedStatus),
            "wrong_entry": FLAG,
            "station_ae": TEXT,
            "modality": TEXT,
            "description": TEXT,
            "study_uids": _several(UID),
            "orders": _several(NUMBER),
            "patient_identifier": TEXT,
            "started": TEXT,
            "ended": _maybe(TEXT),
            "series": _several(_object(_PERFORMED_SERIES)),
            "dose": {"type": "object", "additionalProperties": {"type": "number"}},
        }
    ),
    "PerformedSteps": _object({"performed_steps": _several(_named("PerformedStep")), "next": _maybe(TEXT)}),
    "NewNode": _object(
        {
            "establishment": TEXT | {"description": "Its code"},
            "name": TEXT,
            "kind": _one_of(*NodeKind),
            "title": TEXT | {"description": "AE title, of a DIMSE node"},
            "host": TEXT,
            "port": NUMBER | {"minimum": 1, "maximum": 65_535},
            "url": TEXT | {"description": "Base address, of a DICOMweb node"},
            "authorization": TEXT | {"description": "Header sent to a DICOMweb node; never shown again"},
            "concurrency": NUMBER | {"minimum": 1, "maximum": LARGEST_CONCURRENCY, "default": 2},
            "commitment": FLAG | {"default": False},
            "tls": FLAG | {"default": False},
        },
        ("establishment", "name"),
    ),
    "Node": _object(
        {
            "id": NUMBER,
            "establishment": TEXT,
            "name": TEXT,
            "kind": _one_of(*NodeKind),
            "title": TEXT,
            "address": TEXT,
            "concurrency": NUMBER,
            "commitment": FLAG,
            "tls": FLAG,
            "health": _one_of("answers", "silent", "paused", "unknown"),
            "failure": TEXT,
            "last_contact": _maybe(MOMENT),
            **dict.fromkeys(("held", "waiting", "sending", "committing", "dead"), NUMBER),
        }
    ),
    "Nodes": _object({"nodes": _several(_named("Node"))}),
    "Echo": _object({"answers": FLAG, "failure": TEXT}),
    "NewDelivery": _object(
        {
            "node": TEXT | {"description": "Name of a node of one's establishment"},
            "study": UID,
            "series": UID | {"description": "Absent: the whole study"},
            "priority": _one_of(*(priority.name.lower() for priority in Priority)) | {"default": "normal"},
            "hold": FLAG | {"default": False, "description": "Somebody has to release it"},
        },
        ("node", "study"),
    ),
    "Delivery": _object(
        {
            "id": NUMBER,
            "establishment": TEXT,
            "node": TEXT,
            "study": UID,
            "series": _maybe(UID),
            "rule": _maybe(TEXT),
            "asked_by": TEXT,
            "priority": _one_of(*(priority.name.lower() for priority in Priority)),
            "state": _one_of(*State),
            "reason": TEXT,
            **dict.fromkeys(("attempts", "objects", "delivered", "bytes", "bytes_delivered"), NUMBER),
            "created": MOMENT,
            "finished": _maybe(MOMENT),
        }
    ),
    "DeliveryWithMissing": {
        "allOf": [
            _named("Delivery"),
            _object({"missing": _several(_object({"sop_instance_uid": UID, "reason": TEXT}))}),
        ]
    },
    "Deliveries": _object({"deliveries": _several(_named("Delivery"))}),
}

_COMMON = {400: "The body or a parameter is not well formed", 401: "A token or session is needed"}
_ROLE = {403: "The role does not do this"}
_THERE = {404: "Not there, or not yours: the answer is the same"}
_MOVED_ON = {412: "It is not in a state for this"}

_PAGE = (
    Parameter("from", "First day", DAY),
    Parameter("to", "Last day", DAY),
    Parameter("after", "next of the page before"),
    Parameter("limit", "Answers at most", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
)
_ORDERS = (
    *_PAGE,
    Parameter("modality", "Modality of a scheduled step"),
    Parameter("station", "AE title of a scheduled step; steps for any station fit as well"),
    Parameter("status", "State of a scheduled step", _STATUS),
    Parameter("open", "true: what is to be done", FLAG),
    Parameter("accession_number", "Exactly this one"),
)


def _operation(
    tag: str, summary: str, statuses: Mapping[int, str], answer: str = "", body: str = "", success: int = 200,
    query: tuple[Parameter, ...] = (), source: str = "",
) -> Operation:  # fmt: skip
    return Operation(
        summary, source, tag, query, (JSON,) if body else (), (JSON,) if answer else (), success, statuses,
        body=body, answer=answer,
    )  # fmt: skip


_ORDER, _NODE, _DELIVERY = "/api/orders/{}", "/api/nodes/{}", "/api/queue/{}"
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/api/orders"): _operation(
        "Orders", "Enter an order in one's establishment", _COMMON | _ROLE | {409: "One of its numbers is taken"},
        "Order", "NewOrder", 201, source="PS3.3 C.4.10 to C.4.12",
    ),
    ("GET", "/api/orders"): _operation(
        "Orders", "List orders by their scheduled steps", _COMMON | _ROLE, "Orders", query=_ORDERS
    ),
    ("GET", _ORDER): _operation(
        "Orders", "Read an order, with images and performed steps", _COMMON | _ROLE | _THERE, "Order"
    ),
    ("POST", _ORDER + "/status"): _operation(
        "Orders", "Move scheduled steps to another state", _COMMON | _ROLE | _THERE | _MOVED_ON, "Order", "NewStatus"
    ),
    ("POST", _ORDER + "/cancel"): _operation(
        "Orders", "Cancel every step that has not been started", _COMMON | _ROLE | _THERE | _MOVED_ON, "Order",
        "Cancellation",
    ),
    ("GET", "/api/performed-steps"): _operation(
        "Orders", "List what modalities reported", _COMMON | _ROLE, "PerformedSteps",
        query=(*_PAGE, Parameter("unscheduled", "true: what no order was there for", FLAG)), source="PS3.4 F.7",
    ),
    ("GET", "/api/nodes"): _operation("Sending", "List remote nodes with how they are doing", _COMMON | _ROLE, "Nodes"),
    ("POST", "/api/nodes"): _operation(
        "Sending", "Add a remote node", _COMMON | _ROLE | {404: "No such establishment", 409: "The name is taken"},
        "Node", "NewNode", 201,
    ),
    ("DELETE", _NODE): _operation(
        "Sending", "Forget a remote node for which nothing waits", _COMMON | _ROLE | _THERE | _MOVED_ON, success=204
    ),
    ("POST", _NODE + "/echo"): _operation(
        "Sending", "Ask a remote node whether it is there", _COMMON | _ROLE | _THERE, "Echo"
    ),
    ("POST", _NODE + "/pause"): _operation("Sending", "Send nothing there for now", _COMMON | _ROLE | _THERE, "Node"),
    ("POST", _NODE + "/resume"): _operation("Sending", "Send there again", _COMMON | _ROLE | _THERE, "Node"),
    ("GET", "/api/queue"): _operation(
        "Sending", "List deliveries, what needs somebody first", _COMMON | _ROLE, "Deliveries",
        query=(Parameter("state", "Repeated for several", _several(_one_of(*State))),),
    ),
    ("POST", "/api/queue"): _operation(
        "Sending", "Send a study, or a series of it, to a remote node", _COMMON | _ROLE | _THERE, "Delivery",
        "NewDelivery", 202,
    ),
    ("GET", _DELIVERY): _operation(
        "Sending", "Read a delivery, with the objects that were not acknowledged", _COMMON | _ROLE | _THERE,
        "DeliveryWithMissing",
    ),
    ("POST", _DELIVERY + "/retry"): _operation(
        "Sending", "Send what is missing of a dead delivery again", _COMMON | _ROLE | _THERE | _MOVED_ON, "Delivery"
    ),
    ("POST", _DELIVERY + "/release"): _operation(
        "Sending", "Let a held delivery go", _COMMON | _ROLE | _THERE | _MOVED_ON, "Delivery"
    ),
    ("POST", _DELIVERY + "/cancel"): _operation(
        "Sending", "Send no more of a delivery", _COMMON | _ROLE | _THERE | _MOVED_ON, "Delivery"
    ),
}  # fmt: skip

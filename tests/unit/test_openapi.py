"""The OpenAPI document and the capabilities of PS3.18 8.9, made from the route table."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from negatoscope.errors import NegatoscopeError, Unauthenticated, wire_form
from negatoscope.http_app import PROGRAMS
from negatoscope.routing import DeliveryRow, Node, NodeKind, Priority, State
from negatoscope.web import openapi_programs
from negatoscope.web.health import health_routes
from negatoscope.web.nodes import SendingServices, delivery_json, new_node, node_json, node_routes
from negatoscope.web.openapi import (
    OPERATIONS,
    SCHEMAS,
    capabilities_routes,
    describe,
    document,
    document_route,
    missing,
    skeleton,
    wadl,
)
from negatoscope.web.orders import order_json, order_routes, performed_json
from negatoscope.web.pages import page_routes
from negatoscope.web.qido import qido_routes
from negatoscope.web.services import Services
from negatoscope.web.stow import stow_routes
from negatoscope.web.viewer import viewer_routes
from negatoscope.web.wado import wado_routes
from negatoscope.web.wado_uri import wado_uri_routes
from negatoscope.worklist import (
    ImagesRow,
    OrderRow,
    PerformedRow,
    PerformedStatus,
    ProcedureRow,
    SeriesRow,
    StepStatus,
    read_order,
)
from negatoscope.worklist import StepRow as OrderStep
from negatoscope.worklist.orders import OrderedPatient

NAMESPACE = "{http://wadl.dev.java.net/2009/02}"


def listing(request: Request) -> Response:
    """List things.

    More about it.
    """
    return JSONResponse([])


ROUTES: list[BaseRoute] = [
    Route("/dicom-web/studies", listing, methods=["GET"]),
    Route("/dicom-web/studies", listing, methods=["POST"]),
    Route("/dicom-web/studies/{study_uid}", listing, methods=["GET"]),
    Route("/dicom-web/studies/{s}/series/{r}/instances/{i}/bulkdata/{path:path}", listing),
    Mount("/api", routes=[Route("/things", listing)]),
    Mount("/static", app=Starlette()),
]


def authenticate(request: Request) -> None:
    if "authorization" not in request.headers:
        raise Unauthenticated("a token is needed")


def problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, NegatoscopeError)
    return JSONResponse({}, status_code=wire_form(error).http)


@pytest.fixture
def client() -> TestClient:
    routes = [*ROUTES, *capabilities_routes(ROUTES[:4], authenticate)]
    app = Starlette(routes=routes, exception_handlers={NegatoscopeError: problem})
    return TestClient(app, headers={"Authorization": "Bearer x"})


def test_every_method_of_every_route_is_in_the_document() -> None:
    paths = document(describe(ROUTES))["paths"]
    assert {(path, method) for path in paths for method in paths[path]} == {
        ("/dicom-web/studies", "get"),
        ("/dicom-web/studies", "post"),
        ("/dicom-web/studies/{study_uid}", "get"),
        ("/dicom-web/studies/{s}/series/{r}/instances/{i}/bulkdata/{path}", "get"),
        ("/api/things", "get"),
    }


def test_a_route_without_a_row_is_described_by_its_docstring_and_reported() -> None:
    assert document(describe(ROUTES))["paths"]["/api/things"]["get"]["summary"] == "List things."
    assert missing(ROUTES) == [("GET", "/api/things")]


def test_path_and_query_parameters_are_declared() -> None:
    paths = document(describe(ROUTES))["paths"]
    search = {parameter["name"] for parameter in paths["/dicom-web/studies"]["get"]["parameters"]}
    assert {"includefield", "fuzzymatching", "limit", "offset", "accept", "charset"} <= search
    retrieve = paths["/dicom-web/studies/{study_uid}"]["get"]["parameters"]
    assert {"name": "study_uid", "in": "path", "required": True, "schema": {"type": "string"}} in retrieve


def test_what_needs_a_login_says_so() -> None:
    found = document(describe([Route("/health/live", listing), *ROUTES]))
    assert found["security"] == [{"bearer": []}, {"session": []}]
    assert found["paths"]["/health/live"]["get"]["security"] == []
    assert "security" not in found["paths"]["/dicom-web/studies"]["get"]


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: " ".join(row))
def test_each_row_is_named_as_routes_are_looked_up(row: tuple[str, str]) -> None:
    method, path = row
    assert skeleton(path) == path
    assert method in ("GET", "POST", "PUT", "DELETE")
    assert OPERATIONS[row].summary
    assert all(status >= 202 for status in OPERATIONS[row].statuses)


def test_references_of_the_document_point_to_something() -> None:
    found = document(describe(ROUTES))
    known = set(found["components"]["schemas"])
    served = document(describe(every_route()))
    named = set(re.findall(r"'#/components/schemas/(\w+)'", str(served)))
    assert named == known, "none is missing, and none is without use"
    content = found["paths"]["/dicom-web/studies"]["get"]["responses"]["200"]["content"]
    assert content["application/dicom+json"]["schema"]["$ref"].rsplit("/", 1)[1] in found["components"]["schemas"]


def test_capabilities_are_json_unless_wadl_is_asked_for(client: TestClient) -> None:
    answer = client.options("/dicom-web")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert "/dicom-web/studies" in answer.json()["paths"]
    answer = client.options("/dicom-web", headers={"Accept": "application/vnd.sun.wadl+xml"})
    assert answer.headers["content-type"].startswith("application/vnd.sun.wadl+xml")
    resources = ElementTree.fromstring(answer.content).find(f"{NAMESPACE}resources")
    assert resources is not None
    assert resources.get("base") == "http://testserver/"
    assert "dicom-web/studies" in {resource.get("path") for resource in resources}


def test_one_resource_answers_for_itself_with_its_methods(client: TestClient) -> None:
    answer = client.options("/dicom-web/studies")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert list(answer.json()["paths"]) == ["/dicom-web/studies"]
    assert client.options("/dicom-web/studies/1.2.3").headers["allow"] == "GET, HEAD, OPTIONS"


def test_capabilities_are_not_for_strangers_nor_in_other_media_types(client: TestClient) -> None:
    assert client.options("/dicom-web", headers={"Accept": "image/png"}).status_code == 406
    del client.headers["Authorization"]
    assert client.options("/dicom-web").status_code == 401


def test_the_routes_keep_their_own_methods(client: TestClient) -> None:
    assert client.get("/dicom-web/studies").json() == []
    assert client.delete("/dicom-web/studies").status_code == 405
    assert client.get("/dicom-web/unknown").status_code == 404


def test_the_document_is_served_to_anybody_and_describes_itself() -> None:
    client = TestClient(Starlette(routes=[*ROUTES, document_route(ROUTES)]))
    answer = client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["openapi"] == "3.1.0"
    assert "/openapi.json" in answer.json()["paths"]


def every_route() -> list[BaseRoute]:
    """All that the application serves, capabilities and the document itself left out."""
    services = cast(Services, None)  # routes are made without asking it anything
    return [
        *qido_routes(services),
        *wado_routes(services),
        *wado_uri_routes(services),
        *stow_routes(services),
        *health_routes(services),
        *order_routes(services),
        *node_routes(services, cast(SendingServices, None)),
        *page_routes,
        *viewer_routes(language=lambda request: "fr"),
    ]


def test_every_route_is_described_or_is_a_page_for_people() -> None:
    served = every_route()
    programs = [route for route in served if getattr(route, "path", "").startswith(PROGRAMS)]
    assert len(programs) > 45
    assert missing(programs) == []
    pages = {getattr(route, "name", "") for route in [*page_routes, *viewer_routes(language=lambda request: "fr")]}
    assert {getattr(route, "name", "") for route in served if route not in programs} <= pages


def test_no_row_describes_what_is_not_served() -> None:
    served = {(one.method, skeleton(one.path)) for one in describe(every_route())}
    assert set(openapi_programs.OPERATIONS) - served == set()


def properties(name: str, *inside: str) -> set[str]:
    found: Any = SCHEMAS[name]
    for step in inside:
        found = found["properties"][step]
        found = found.get("items", found)
    return set(found["properties"])


NOW = datetime(2026, 11, 22, tzinfo=UTC)
CODE = {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["1"]}}]}


def test_what_is_answered_of_orders_is_what_is_described() -> None:
    step = OrderStep(1, "S", "CT", "CT_1", "20261122", "083000", "", "", StepStatus.READY, "", NOW, {"00400008": CODE})
    procedure = ProcedureRow(1, "R", "2.25.1", "", "", {"00321064": CODE}, (step,))
    series = SeriesRow("2.25.2", "", "", "", "", 1)
    performed = PerformedRow(
        1, "2.25.3", PerformedStatus.COMPLETED, False, "CT_1", "CT", ("2.25.1",), "20261122", "083000", "", "", "", "P",
        (1,), (series,), {},
    )  # fmt: skip
    order = OrderRow(
        1, "A", OrderedPatient("P", "N"), {"001021C0": {"vr": "US", "Value": [1]}}, NOW, NOW, (procedure,),
        (ImagesRow("2.25.1", ("CT",), 1, 1),), (performed,),
    )  # fmt: skip
    said = order_json(order)
    assert set(said) <= properties("Order")
    assert set(said["patient"]) <= properties("Order", "patient")
    assert set(said["procedures"][0]) <= properties("Order", "procedures")
    assert set(said["procedures"][0]["steps"][0]) <= properties("Order", "procedures", "steps")
    assert set(said["images"][0]) == properties("Order", "images")
    assert set(performed_json(performed)) == properties("PerformedStep")
    assert set(performed_json(performed)["series"][0]) == properties("PerformedStep", "series")


def example(schema: Any) -> Any:
    """Something that fits, every property given."""
    if "enum" in schema:
        return schema["enum"][0]
    if "pattern" in schema:
        return "2.25.1"
    if "YYYY" in schema.get("description", ""):
        return "2026-11-22T08:30"
    if schema["type"] == "object":
        return {name: example(one) for name, one in schema["properties"].items()}
    if schema["type"] == "array":
        return [example(schema["items"])]
    simple = {"string": "2026-11-22" if schema.get("format") == "date" else "X", "integer": 7, "number": 7.5}
    return simple.get(schema["type"], True)


def test_what_is_described_of_an_order_and_of_a_node_is_taken_with_every_field() -> None:
    order = read_order(example(SCHEMAS["NewOrder"]))
    assert order.procedures[0].steps[0].start_time == "083000"
    assert new_node(example(SCHEMAS["NewNode"])).port == 7


def test_what_is_answered_of_sending_is_what_is_described() -> None:
    node = Node(1, 1, "A", "N", NodeKind.DIMSE, "T", "h", 104, "", 2, False, False, None, None, 0, "", NOW)
    assert set(node_json(node)) == properties("Node")
    row = DeliveryRow(
        1, 1, "A", 1, "N", "2.25.1", None, None, "x", Priority.NORMAL, State.DONE, "", 0, 1, 1, 1, 1, NOW, NOW, NOW
    )
    assert set(delivery_json(row)) == properties("Delivery")


def test_a_body_of_which_nothing_is_needed_may_be_left_out() -> None:
    paths = document(describe(every_route()))["paths"]
    assert paths["/api/orders/{request_id}/cancel"]["post"]["requestBody"]["required"] is False
    assert paths["/api/orders"]["post"]["requestBody"]["required"] is True
    assert paths["/dicom-web/studies"]["post"]["requestBody"]["required"] is True


def test_wadl_escapes_what_it_is_given() -> None:
    assert b'base="http://x/?a&amp;b"' in wadl(describe(ROUTES), "http://x/?a&b")

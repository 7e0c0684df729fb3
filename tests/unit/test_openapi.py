"""The OpenAPI document and the capabilities of PS3.18 8.9, made from the route table."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import cast

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from negatoscope.errors import NegatoscopeError, Unauthenticated, wire_form
from negatoscope.web.openapi import (
    capabilities_routes,
    describe,
    document,
    document_route,
    missing,
    skeleton,
    wadl,
)
from negatoscope.web.openapi_table import OPERATIONS
from negatoscope.web.qido import qido_routes
from negatoscope.web.services import Services
from negatoscope.web.wado import wado_routes
from negatoscope.web.wado_uri import wado_uri_routes

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
    assert method in ("GET", "POST")
    assert OPERATIONS[row].summary
    assert all(status >= 202 for status in OPERATIONS[row].statuses)


def test_references_of_the_document_point_to_something() -> None:
    found = document(describe(ROUTES))
    assert set(found["components"]["schemas"]) == {"Problem", "DicomJson"}
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


def test_no_dicomweb_route_is_without_a_description() -> None:
    services = cast(Services, None)  # routes are made without asking it anything
    served = [*qido_routes(services), *wado_routes(services), *wado_uri_routes(services)]
    assert len(served) > 20
    assert missing(served) == []


def test_wadl_escapes_what_it_is_given() -> None:
    assert b'base="http://x/?a&amp;b"' in wadl(describe(ROUTES), "http://x/?a&b")

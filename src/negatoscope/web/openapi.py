"""What can be asked of this server: OpenAPI 3.1, and the capabilities of PS3.18 8.9 (WADL or JSON).

Both are made from the route table and one table of descriptions (``openapi_table``), so that a route
cannot be served without being described: a test holds that for all that programs are meant to use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from negatoscope import __version__
from negatoscope.web import openapi_programs, openapi_table
from negatoscope.web.media_types import DICOM_JSON, JSON, Offer, accept_of, negotiate
from negatoscope.web.openapi_table import Operation

OPERATIONS = openapi_table.OPERATIONS | openapi_programs.OPERATIONS
SCHEMAS = openapi_table.SCHEMAS | openapi_programs.SCHEMAS
WADL = "application/vnd.sun.wadl+xml"
_CAPABILITIES = (Offer(JSON), Offer(WADL))
_PARAMETER = re.compile(r"\{([A-Za-z_]+)(?::[a-z]+)?\}")
_UNLISTED = frozenset({"HEAD", "OPTIONS"})  # they go without saying


@dataclass(frozen=True, slots=True)
class Described:
    """One method of one route, with its description."""

    method: str
    path: str  # with {names}, no converters
    operation: Operation

    @property
    def parameters(self) -> list[str]:
        return _PARAMETER.findall(self.path)


def describe(routes: Iterable[BaseRoute]) -> list[Described]:
    """Every method of every route, in the order of the route table.

    A route without a row in the table is described by the first line of its function's docstring.
    """
    found = []
    for path, route in _flat(routes, ""):
        for method in sorted((route.methods or set()) - _UNLISTED):
            operation = OPERATIONS.get((method, skeleton(path))) or _undescribed(route)
            found.append(Described(method, _PARAMETER.sub(r"{\1}", path), operation))
    return found


def missing(routes: Iterable[BaseRoute]) -> list[tuple[str, str]]:
    """(method, path) of what has no row in the table."""
    return [
        (method, path)
        for path, route in _flat(routes, "")
        for method in sorted((route.methods or set()) - _UNLISTED)
        if (method, skeleton(path)) not in OPERATIONS
    ]


def skeleton(path: str) -> str:
    """The path with nameless parameters: how the table names it."""
    return _PARAMETER.sub("{}", path)


def document(described: Sequence[Described]) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for one in described:
        paths.setdefault(one.path, {})[one.method.lower()] = _openapi(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Négatoscope",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "security": [{"bearer": []}, {"session": []}],
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "session"},
            },
            "schemas": SCHEMAS,
        },
    }


def wadl(described: Sequence[Described], base: str) -> bytes:
    """A WADL document of the resources below ``base``, which ends with a slash."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<application xmlns="http://wadl.dev.java.net/2009/02" xmlns:xs="http://www.w3.org/2001/XMLSchema">',
        f"<resources base={quoteattr(base)}>",
    ]
    by_path: dict[str, list[Described]] = {}
    for one in described:
        by_path.setdefault(one.path, []).append(one)
    for path, methods in by_path.items():
        lines.append(f"<resource path={quoteattr(path.lstrip('/'))}>")
        lines += [_wadl_parameter(name, "template", required=True) for name in methods[0].parameters]
        for one in methods:
            lines += _wadl_method(one)
        lines.append("</resource>")
    return "\n".join([*lines, "</resources>", "</application>", ""]).encode()


def document_route(routes: Sequence[BaseRoute], path: str = "/openapi.json") -> Route:
    """Where the document of ``routes`` is served, to anybody: it holds nothing of anybody."""
    described = describe([*routes, Route(path, lambda request: Response(), methods=["GET"])])
    body = orjson.dumps(document(described), option=orjson.OPT_INDENT_2)

    async def openapi(request: Request) -> Response:
        return Response(body, media_type=JSON)

    return Route(path, openapi, methods=["GET"], name="openapi")


def capabilities_routes(
    routes: Sequence[BaseRoute], authenticate: Callable[[Request], object], base: str = "/dicom-web"
) -> list[Route]:
    """Retrieve Capabilities, PS3.18 8.9: OPTIONS of ``base`` (all of ``routes``) and of each path (itself).

    They go after ``routes`` in the table. ``authenticate`` raises ``Unauthenticated`` for strangers.
    """
    table = describe(routes)
    by_path: dict[str, list[Described]] = {}
    for path, _ in _flat(routes, ""):
        plain = _PARAMETER.sub(r"{\1}", path)
        by_path[path] = [one for one in table if one.path == plain]
    return [
        Route(path, _capabilities(of_path, authenticate), methods=["OPTIONS"])
        for path, of_path in ({base: table} | by_path).items()
    ]


def _capabilities(
    described: Sequence[Described], authenticate: Callable[[Request], object]
) -> Callable[[Request], Response]:
    of_one_path = len({one.path for one in described}) == 1
    methods = {one.method for one in described} if of_one_path else set()
    allow = ", ".join(sorted({"OPTIONS", *methods, *({"HEAD"} if "GET" in methods else ())}))
    as_json = orjson.dumps(document(described))

    def capabilities(request: Request) -> Response:
        authenticate(request)
        accepted = accept_of(request.headers.get("accept"), request.query_params.get("accept"))
        chosen = negotiate(accepted, _CAPABILITIES).offer.essence
        body = as_json if chosen == JSON else wadl(described, str(request.base_url))
        return Response(body, media_type=chosen, headers={"Allow": allow, "Vary": "Accept"})

    return capabilities


def _flat(routes: Iterable[BaseRoute], prefix: str) -> Iterator[tuple[str, Route]]:
    for route in routes:
        if isinstance(route, Route):
            yield prefix + route.path, route
        elif isinstance(route, Mount) and route.routes:
            yield from _flat(route.routes, prefix + route.path)


def _undescribed(route: Route) -> Operation:
    text = (route.endpoint.__doc__ or route.name or "").strip()
    return Operation(summary=text.split("\n", 1)[0])


def _openapi(one: Described) -> dict[str, Any]:
    operation = one.operation
    success: dict[str, Any] = {"description": "Success"}
    if operation.answers:
        success["content"] = {media: {"schema": _schema(media, operation.answer)} for media in operation.answers}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {str(operation.success): success}
        | {
            str(status): {
                "description": operation.statuses[status],
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
            for status in sorted(operation.statuses)
        },
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in one.parameters
        ]
        + [
            {"name": parameter.name, "in": "query", "description": parameter.text, "schema": parameter.schema}
            for parameter in operation.query
        ],
    }
    if operation.source:
        described["description"] = operation.source
    if operation.tag:
        described["tags"] = [operation.tag]
    if operation.takes:
        described["requestBody"] = {
            # A JSON body of which nothing is needed may be left out.
            "required": not operation.body or "required" in SCHEMAS[operation.body],
            "content": {media: {"schema": _schema(media, operation.body)} for media in operation.takes},
        }
    if operation.public:
        described["security"] = []
    return described


def _schema(media: str, named: str) -> dict[str, Any]:
    if named and media == JSON:
        return {"$ref": f"#/components/schemas/{named}"}
    if media == DICOM_JSON:
        return {"$ref": "#/components/schemas/DicomJson"}
    return {} if media == JSON else {"type": "string", "format": "binary"}


def _wadl_parameter(name: str, style: str, *, required: bool = False) -> str:
    return f'<param name={quoteattr(name)} style="{style}" type="xs:string" required="{str(required).lower()}"/>'


def _wadl_method(one: Described) -> list[str]:
    operation = one.operation
    lines = [f"<method name={quoteattr(one.method)} id={quoteattr(f'{one.method} {one.path}')}>", "<request>"]
    lines += [_wadl_parameter(parameter.name, "query") for parameter in operation.query]
    lines += [f"<representation mediaType={quoteattr(media)}/>" for media in operation.takes]
    lines += ["</request>", f'<response status="{operation.success}">']
    lines += [f"<representation mediaType={quoteattr(media)}/>" for media in operation.answers]
    lines.append("</response>")
    if operation.statuses:
        lines.append(f'<response status="{" ".join(map(str, sorted(operation.statuses)))}"/>')
    return [*lines, "</method>"]

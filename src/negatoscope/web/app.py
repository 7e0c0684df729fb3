"""The web application: the visible list of routes and what holds for every answer.

:class:`Guard` is the one middleware: security headers, bounds on request bodies, errors as answers, counts.
Programs (``/dicom-web``, ``/wado``, ``/fhir``, ``/api``) get problem documents; people get a page.
"""

from __future__ import annotations

import logging
import traceback
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from negatoscope.errors import (
    BadRequest,
    Forbidden,
    NegatoscopeError,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
    wire_form,
)
from negatoscope.metrics import Metrics
from negatoscope.web import health, problem, stow, wado, wado_uri
from negatoscope.web.refusing import note_forbidden
from negatoscope.web.sending import CONNECTION
from negatoscope.web.services import Services

log = logging.getLogger(__name__)

ErrorPage = Callable[[Request, NegatoscopeError, str], Response]

IMAGE_PATHS = ("/dicom-web", "/wado")
PROGRAM_PATHS = ("/dicom-web", "/wado", "/fhir", "/api", "/health", "/metrics", "/openapi.json")
STREAMED = "/dicom-web/studies"  # POST: parts are bounded one by one as they stream, not the body
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Set on every answer that does not say otherwise itself (the viewer has its own policy).
DEFAULT_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # As the viewer has it: from a page that is isolated as it is, a click stays in the browser's process and finds
    # its scripts compiled. The first image comes a second sooner.
    "cross-origin-embedder-policy": "require-corp",
    "cache-control": "no-store",
}


def build_app(services: Services, more: Sequence[BaseRoute] = (), *, error_page: ErrorPage | None = None) -> Starlette:
    """The application. ``more``: pages, viewer, search, made by their own factories."""
    routes: list[BaseRoute] = [
        *wado.wado_routes(services),
        *wado_uri.wado_uri_routes(services),
        *stow.stow_routes(services),
        *health.health_routes(services),
        *more,
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, services.metrics, services.limits.json_body, error_page)],
        exception_handlers={HTTPException: partial(_routing_error, services)},
    )
    app.router.redirect_slashes = False  # an address is one; and a redirection would answer before authentication
    app.state.authentication = services.authentication
    return app


async def _routing_error(services: Services, request: Request, error: Exception) -> Response:
    """Starlette's own refusals (no such route, no such method) in our form; where images are, to those known only."""
    if request.url.path.startswith(IMAGE_PATHS):
        await services.run(services.authentication.actor_of, request)
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        response = problem.problem(BadRequest("this method is not served here"))
        response.status_code = 405
        response.headers["allow"] = allowed
        return response
    if isinstance(error, HTTPException) and error.status_code != 404:
        raise BadRequest("the request is not well formed")
    raise NotFound("no such address")


class Guard:
    """Holds for every request, whichever route it takes."""

    def __init__(self, app: ASGIApp, metrics: Metrics, body_limit: int, error_page: ErrorPage | None) -> None:
        self._app, self._metrics, self._body_limit, self._error_page = app, metrics, body_limit, error_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, None if _streams(scope) else self._body_limit)
        try:
            _refuse_coded_bodies(scope)
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the edge: logged, counted, answered
            await self._answer(error, scope, receive, exchange)
        self._metrics.count("http_requests_total", status=f"{exchange.status // 100}xx")

    async def _answer(self, error: Exception, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        instance = ""
        if not isinstance(error, NegatoscopeError):
            instance = str(uuid.uuid4())
            self._metrics.count("http_errors_total")
            log.error("unforeseen id=%s path_kind=%s\n%s", instance, _kind(scope), anonymous_trace(error))
            error = NegatoscopeError("")
        if exchange.status:
            # Too late for another answer: what was sent must not look complete.
            log.error("body_cut error=%s", type(error).__name__)
            connection = (scope.get("extensions") or {}).get(CONNECTION)
            if connection is None:
                raise error
            connection.cut()
            return
        if isinstance(error, Forbidden):
            await run_in_threadpool(note_forbidden, Request(scope, receive))
        response = self._response(error, scope, receive, instance)
        if wire_form(error).http in (413, 415):
            response.headers["connection"] = "close"  # rather than read a body that nobody wants
        await response(scope, receive, exchange.send)

    def _response(self, error: NegatoscopeError, scope: Scope, receive: Receive, instance: str) -> Response:
        if self._error_page is not None and _kind(scope) == "page":
            return self._error_page(Request(scope, receive), error, instance)
        return problem.problem(error, instance)


class _Exchange:
    """One request's body, bounded, and its answer's head, completed."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_limit: int | None) -> None:
        self._receive, self._send, self._left = receive, send, body_limit
        self._limit = body_limit
        self.status = 0  # of the answer; 0 until it starts

    async def receive(self) -> Message:
        message = await self._receive()
        if self._left is not None and message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise TooLarge(f"a request body here may have {self._limit} bytes")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in DEFAULT_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def _streams(scope: Scope) -> bool:
    return scope["method"] == "POST" and str(scope["path"]).startswith(STREAMED)


def _kind(scope: Scope) -> str:
    return "program" if str(scope["path"]).startswith(PROGRAM_PATHS) else "page"


def _refuse_coded_bodies(scope: Scope) -> None:
    """Compressed request bodies are not taken: nothing here needs them, and they are how bombs arrive."""
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise UnsupportedMediaType("request bodies are taken as they are, without Content-Encoding")


def anonymous_trace(error: BaseException) -> str:
    """Where it happened, without messages: those of the database quote values, which may be a person's."""
    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        lines += [
            f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(seen.__traceback__)
        ]
        lines.append(type(seen).__name__ + (f": {seen}" if isinstance(seen, NegatoscopeError) else ""))
        seen = seen.__cause__ or seen.__context__
    return "\n".join(lines)


def route_methods(routes: Sequence[BaseRoute]) -> list[tuple[str, set[str]]]:
    """Path and methods of every route: what the authorization matrix is generated from."""
    found: list[tuple[str, set[str]]] = []
    for route in routes:
        inner: Any = getattr(route, "routes", None)
        if inner:
            found += [(str(getattr(route, "path", "")) + path, methods) for path, methods in route_methods(inner)]
        elif methods := getattr(route, "methods", None):
            found.append((str(getattr(route, "path", "")), set(methods)))
    return found

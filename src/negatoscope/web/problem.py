"""Errors as answers: ``application/problem+json`` (RFC 9457) for programs, a page for people.

Statuses come from the one table in :mod:`negatoscope.errors`; nothing is invented here. An error nobody
foresaw shows an id that stands in the log beside its traceback, and nothing else.
"""

from __future__ import annotations

import orjson
from starlette.responses import Response

from negatoscope.errors import NegatoscopeError, Unauthenticated, WireForm, title, wire_form

PROBLEM_JSON = "application/problem+json"
_RETRY_AFTER_S = {429: "60", 503: "5", 507: "60"}


def problem(error: NegatoscopeError, instance: str = "") -> Response:
    """The problem document of ``error``. ``instance``: id under which it was logged."""
    form = wire_form(error)
    body: dict[str, object] = {
        "type": f"urn:negatoscope:problem:{form.slug}",
        "title": title(error),
        "status": form.http,
    }
    if str(error):
        body["detail"] = str(error)
    if instance:
        body["instance"] = f"urn:uuid:{instance}"
    return Response(orjson.dumps(body), form.http, headers_of(error, form), PROBLEM_JSON)


def headers_of(error: NegatoscopeError, form: WireForm) -> dict[str, str]:
    """What goes with the status: how to authenticate, when to come back."""
    headers = {"cache-control": "no-store"}
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = 'Bearer realm="negatoscope"'
    if form.http in _RETRY_AFTER_S:
        headers["retry-after"] = _RETRY_AFTER_S[form.http]
    return headers


def unforeseen(instance: str) -> Response:
    """The answer to a defect of ours: no detail, only the id in the log."""
    return problem(NegatoscopeError(""), instance)

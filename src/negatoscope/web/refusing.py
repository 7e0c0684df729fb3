"""Requests that a role does not allow leave a note for the audit trail."""

from __future__ import annotations

from starlette.requests import Request

from negatoscope.audit import Refusals
from negatoscope.errors import NegatoscopeError
from negatoscope.model.actor import Actor
from negatoscope.web import authentication
from negatoscope.web.services import DOOR


def note_refusal(request: Request, actor: Actor | None, door: str) -> None:
    """``app.state.refusals`` is told, where there is one. The first part of the address says what was asked for.

    The rest of an address may name a study or a person.
    """
    refusals: Refusals | None = getattr(request.app.state, "refusals", None)
    if refusals is not None:
        section = request.url.path.split("/")[1][:32]
        refusals.note("", f"role:{section}", door, authentication.address_of(request), actor)


def note_forbidden(request: Request) -> None:
    """The same for a program; it asks who it was, so call it from a thread."""
    try:
        actor = authentication.visitor_of(request)
    except NegatoscopeError:
        actor = None
    note_refusal(request, actor, DOOR)

"""Audit events of accounts: logins (PS3.15 A.5.3.12) and changes of who may do what (A.5.3.11)."""

from __future__ import annotations

from negatoscope.model.actor import Actor
from negatoscope.model.event import AuditEvent, EventAction, EventKind, EventOutcome


def login_succeeded(actor: Actor, address: str) -> AuditEvent:
    return _event(EventKind.USER_AUTHENTICATION, EventAction.EXECUTE, actor, "login", address, actor.name)


def login_failed(login: str, address: str, reason: str, outcome: EventOutcome) -> AuditEvent:
    """``login`` as it was given: it may name nobody."""
    return AuditEvent(
        kind=EventKind.USER_AUTHENTICATION,
        action=EventAction.EXECUTE,
        outcome=outcome,
        actor_id=None,
        actor_name=login,
        establishment_code="",
        address=address,
        door="page",
        detail={"what": "login", "reason": reason},
    )


def logged_out(actor: Actor, address: str) -> AuditEvent:
    return _event(EventKind.USER_AUTHENTICATION, EventAction.EXECUTE, actor, "logout", address, actor.name)


def administered(by: Actor, action: EventAction, what: str, subject: str, **detail: str | int) -> AuditEvent:
    """``by`` changed something. ``what``: account-, ae-, token- or establishment-administration."""
    return _event(EventKind.SECURITY_ALERT, action, by, what, "", subject, **detail)


def _event(
    kind: EventKind, action: EventAction, by: Actor, what: str, address: str, subject: str, **detail: str | int
) -> AuditEvent:
    return AuditEvent(
        kind=kind,
        action=action,
        outcome=EventOutcome.SUCCESS,
        actor_id=by.actor_id or None,
        actor_name=by.name,
        establishment_code=by.establishment_code,
        address=address,
        door="page" if by.actor_id else "cli",
        detail={"what": what, "subject": subject, **detail},
    )

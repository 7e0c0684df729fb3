"""Builders of the events that the archive and the doors write (PS3.15 A.5.3).

No patient's name ever enters an event; ``patient`` is "authority OID|identifier" or "". What is asked for in
a query is named by tag, never by value. Events of accounts and logins are built where they happen, in
``sharing``, because this layer and that one do not know each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from negatoscope.model.actor import Actor, Scope
from negatoscope.model.event import AuditEvent, EventAction, EventKind, EventOutcome
from negatoscope.model.source import Source

Detail = Mapping[str, str | int]


class Disclosure(StrEnum):
    """How images leave; each has its own event in a session's window."""

    VIEW = "view"  # rendered, metadata, thumbnails: seen here
    TRANSFER = "transfer"  # the objects go to another node: WADO-RS, C-MOVE, C-GET
    EXPORT = "export"  # the objects go to a medium or a file


_DISCLOSURE_KIND = {
    Disclosure.VIEW: EventKind.INSTANCES_ACCESSED,
    Disclosure.TRANSFER: EventKind.INSTANCES_TRANSFERRED,
    Disclosure.EXPORT: EventKind.DATA_EXPORT,
}


def disclosed(
    scope: Scope, action: Disclosure, study_uid: str, door: str, address: str, detail: Detail | None = None
) -> AuditEvent:
    """Images of a study are about to leave (A.5.3.4, A.5.3.6, A.5.3.7). Write it through ``Trail.disclose``."""
    return _by_actor(
        scope.actor, _DISCLOSURE_KIND[action], EventAction.READ, door, address,
        purpose=scope.purpose.value, study_uid=study_uid, detail=detail,
    )  # fmt: skip


def transfer_begun(
    scope: Scope, study_uid: str, destination: str, instances: int, door: str, address: str
) -> AuditEvent:
    """Instances of a study begin to go to ``destination`` (A.5.3.3 Begin Transferring)."""
    return _by_actor(
        scope.actor, EventKind.BEGIN_TRANSFERRING, EventAction.EXECUTE, door, address,
        purpose=scope.purpose.value, study_uid=study_uid, detail={"destination": destination, "instances": instances},
    )  # fmt: skip


def instances_stored(
    source: Source, study_uid: str, instances: int, *, sop_classes: Iterable[str] = (), patient: str = ""
) -> AuditEvent:
    """Instances were received and kept (A.5.3.7 Instances Transferred, action Create)."""
    detail: Detail = {"instances": instances, "sop_classes": " ".join(sorted(set(sop_classes)))}
    return _by_source(source, EventKind.INSTANCES_TRANSFERRED, study_uid, detail, patient=patient)


def instances_imported(source: Source, study_uid: str, instances: int, medium: str, patient: str = "") -> AuditEvent:
    """Instances came from a medium, a folder or an archive file (A.5.3.5 Data Import)."""
    detail: Detail = {"instances": instances, "medium": medium}
    return _by_source(source, EventKind.DATA_IMPORT, study_uid, detail, patient=patient)


def instance_quarantined(source: Source, study_uid: str, sop_instance_uid: str, reason: str) -> AuditEvent:
    """An object was kept aside (A.5.3.11 Security Alert): conflicting UID, parents or patient."""
    detail: Detail = {"what": "quarantined", "sop_instance_uid": sop_instance_uid, "reason": reason}
    return _by_source(source, EventKind.SECURITY_ALERT, study_uid, detail, outcome=EventOutcome.MINOR_FAILURE)


def queried(
    scope: Scope, level: str, keys: Iterable[str], answers: int, door: str, address: str,
    outcome: EventOutcome = EventOutcome.SUCCESS,
) -> AuditEvent:  # fmt: skip
    """A query was answered (A.5.3.10). ``keys``: the tags that were matched on, eight hexadecimal digits."""
    return _by_actor(
        scope.actor, EventKind.QUERY, EventAction.EXECUTE, door, address, outcome=outcome,
        purpose=scope.purpose.value, detail={"level": level, "keys": " ".join(sorted(set(keys))), "answers": answers},
    )  # fmt: skip


def order_recorded(
    actor: Actor, action: EventAction, order: int, door: str, address: str, *,
    study_uid: str, patient: str, detail: Detail | None = None,
) -> AuditEvent:  # fmt: skip
    """An order was entered or changed (A.5.3.13 Order Record)."""
    return _by_actor(
        actor, EventKind.ORDER_RECORD, action, door, address,
        study_uid=study_uid, patient=patient, detail={"order": order, **(detail or {})},
    )  # fmt: skip


def procedure_recorded(
    actor: Actor, action: EventAction, sop_instance_uid: str, status: str, door: str, address: str, *,
    study_uid: str, patient: str, orders: Iterable[int] = (),
) -> AuditEvent:  # fmt: skip
    """A modality reported what it does (A.5.3.15 Procedure Record). Without orders it was not scheduled."""
    detail: Detail = {"step": sop_instance_uid, "status": status, "orders": " ".join(map(str, orders))}
    return _by_actor(
        actor, EventKind.PROCEDURE_RECORD, action, door, address, study_uid=study_uid, patient=patient, detail=detail
    )


def quarantine_read(actor: Actor, count: int, door: str, address: str) -> AuditEvent:
    """The list of what was set aside was shown (it holds patient identifiers)."""
    return _by_actor(
        actor, EventKind.QUERY, EventAction.EXECUTE, door, address, detail={"what": "quarantine-list", "answers": count}
    )


def quarantine_exported(
    actor: Actor, quarantine_id: int, study_uid: str, sop_instance_uid: str, door: str, address: str
) -> AuditEvent:
    """A data set that was set aside leaves as a file (A.5.3.4 Data Export)."""
    detail: Detail = {
        "what": "quarantine-export",
        "quarantine_id": quarantine_id,
        "sop_instance_uid": sop_instance_uid,
    }
    return _by_actor(actor, EventKind.DATA_EXPORT, EventAction.READ, door, address, study_uid=study_uid, detail=detail)


def audit_log_used(actor: Actor, what: str, keys: Iterable[str], answers: int, door: str, address: str) -> AuditEvent:
    """The trail itself was read or exported (A.5.3.2). ``keys``: what was looked for, never the values."""
    detail: Detail = {"what": f"audit-log-{what}", "keys": " ".join(keys), "answers": answers, "subject": "audit log"}
    return _by_actor(actor, EventKind.AUDIT_LOG_USED, EventAction.READ, door, address, detail=detail)


def integrity_alert(
    flaw: str, container: str, container_id: int, byte_offset: int, study_uid: str = "", sop_instance_uid: str = ""
) -> AuditEvent:
    """Kept bytes are not what was kept (A.5.3.11 Security Alert). ``flaw``: missing, truncated, altered, swapped."""
    detail: Detail = {
        "what": "integrity",
        "flaw": flaw,
        "container": container,
        "container_id": container_id,
        "byte_offset": byte_offset,
        "sop_instance_uid": sop_instance_uid,
    }
    return _by_system(EventKind.SECURITY_ALERT, EventOutcome.SERIOUS_FAILURE, study_uid, detail)


def application_activity(what: str, detail: Detail | None = None) -> AuditEvent:
    """The server started or stopped (A.5.3.1). ``what``: start or stop."""
    return _by_system(EventKind.APPLICATION_ACTIVITY, EventOutcome.SUCCESS, "", {"what": what, **(detail or {})})


def refused(
    name: str, reason: str, door: str, address: str, *, actor: Actor | None = None, study_uid: str = "", count: int = 1
) -> AuditEvent:
    """Somebody was turned away (A.5.3.11 Security Alert): unknown title, missing right, foreign destination.

    ``name`` is the AE title or login as given; ``actor`` is known when the credentials were good. ``count``: so
    often; the name and the reason are those of the last time.
    """
    return AuditEvent(
        kind=EventKind.SECURITY_ALERT,
        action=EventAction.EXECUTE,
        outcome=EventOutcome.MINOR_FAILURE,
        actor_id=actor.actor_id if actor else None,
        actor_name=actor.name if actor else name,
        establishment_code=actor.establishment_code if actor else "",
        address=address,
        door=door,
        study_uid=study_uid,
        detail={"what": "refused", "reason": reason, "count": count},
    )


def _by_actor(
    actor: Actor, kind: EventKind, action: EventAction, door: str, address: str, *,
    outcome: EventOutcome = EventOutcome.SUCCESS, purpose: str = "normal", study_uid: str = "",
    patient: str = "", detail: Detail | None = None,
) -> AuditEvent:  # fmt: skip
    return AuditEvent(
        kind=kind,
        action=action,
        outcome=outcome,
        actor_id=actor.actor_id,
        actor_name=actor.name,
        establishment_code=actor.establishment_code,
        address=address,
        door=door,
        purpose=purpose,
        study_uid=study_uid,
        patient=patient,
        detail=dict(detail or {}),
    )


def _by_source(
    source: Source, kind: EventKind, study_uid: str, detail: Detail, *,
    outcome: EventOutcome = EventOutcome.SUCCESS, patient: str = "",
) -> AuditEvent:  # fmt: skip
    return AuditEvent(
        kind=kind,
        action=EventAction.CREATE,
        outcome=outcome,
        actor_id=source.actor_id,
        actor_name=source.name,
        establishment_code=source.establishment_code,
        address=source.address,
        door=source.door.value,
        study_uid=study_uid,
        patient=patient,
        detail=dict(detail),
    )


def _by_system(kind: EventKind, outcome: EventOutcome, study_uid: str, detail: Detail) -> AuditEvent:
    return AuditEvent(
        kind=kind,
        action=EventAction.EXECUTE,
        outcome=outcome,
        actor_id=None,
        actor_name="negatoscope",
        establishment_code="",
        door="job",
        study_uid=study_uid,
        detail=dict(detail),
    )

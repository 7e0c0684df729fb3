"""An audit event, PS3.15 A.5, before it is chained."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class EventKind(StrEnum):
    """Event identification: PS3.15 A.5.3 and codes of CID 400, DCM."""

    APPLICATION_ACTIVITY = "110100"
    AUDIT_LOG_USED = "110101"
    BEGIN_TRANSFERRING = "110102"
    DATA_EXPORT = "110106"
    DATA_IMPORT = "110107"
    INSTANCES_ACCESSED = "110103"
    INSTANCES_TRANSFERRED = "110104"
    STUDY_DELETED = "110105"
    ORDER_RECORD = "110109"
    PROCEDURE_RECORD = "110111"
    QUERY = "110112"
    SECURITY_ALERT = "110113"
    USER_AUTHENTICATION = "110114"


class EventAction(StrEnum):
    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class EventOutcome(StrEnum):
    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"
    MAJOR_FAILURE = "12"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """What happened, who did it, to which study. Never a patient's name (identifiers are allowed here only)."""

    kind: EventKind
    action: EventAction
    outcome: EventOutcome
    actor_id: int | None
    actor_name: str
    establishment_code: str
    address: str = ""
    door: str = ""  # dimse, dicomweb, page, cli, job
    purpose: str = "normal"
    study_uid: str = ""
    patient: str = ""  # "authority OID|identifier", or ""
    detail: dict[str, str | int] = field(default_factory=dict)  # counts, SOP classes, reason slugs

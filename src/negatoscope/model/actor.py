"""Who asks, and within what bounds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ActorKind(StrEnum):
    USER = "user"
    APPLICATION_ENTITY = "application-entity"
    SYSTEM = "system"  # our own jobs and the command line


class Role(StrEnum):
    ADMIN = "admin"  # administers the platform, reads no image
    REFERENT = "referent"
    RADIOGRAPHER = "radiographer"
    RADIOLOGIST = "radiologist"
    CLINICIAN = "clinician"
    SECRETARY = "secretary"
    DPO = "dpo"


class Purpose(StrEnum):
    """Why images are asked for; the values are those of the French access rules."""

    NORMAL = "normal"
    BREAK_GLASS = "bris_de_glace"
    CENTRE_15 = "centre_15"
    RESEARCH = "research"


class Right(StrEnum):
    """What an actor may do. Users get theirs from their role, application entities by ``ae add``."""

    STORE = "store"
    QUERY = "query"
    RETRIEVE = "retrieve"
    WORKLIST = "worklist"
    ADMINISTER = "administer"
    QUARANTINE = "quarantine"  # see and resolve what was set aside
    AUDIT = "audit"  # read the audit trail


@dataclass(frozen=True, slots=True)
class Actor:
    """An authenticated user, token or application entity."""

    actor_id: int
    kind: ActorKind
    name: str  # login or AE title
    role: Role | None
    establishment_id: int
    establishment_code: str
    authority_oid: str
    rights: frozenset[Right]
    only_study_uid: str | None = None  # a study-scoped token sees that study and nothing else
    session: str = ""  # opaque id of the session, token or association; groups audit events


@dataclass(frozen=True, slots=True)
class Scope:
    """What a query is bounded by. There is no unscoped query; the SQL relation takes these three."""

    actor: Actor
    purpose: Purpose = Purpose.NORMAL

    def parameters(self) -> dict[str, int | str | None]:
        """Named parameters of ``readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s)``."""
        return {
            "actor_id": self.actor.actor_id,
            "purpose": self.purpose.value,
            "only_study_uid": self.actor.only_study_uid,
        }

"""Users and establishments as rows, and what their names may be."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import DictRow

from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import BadRequest
from negatoscope.model.actor import Actor, ActorKind, Right, Role

_CODE = re.compile(r"[A-Za-z0-9._-]{1,32}")
_LOGIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")
_NAME_LIMIT = 200  # characters of a display name
LANGUAGES = ("fr", "en")


@dataclass(frozen=True, slots=True)
class EstablishmentRow:
    establishment_id: int
    code: str
    name: str
    authority_oid: str
    finess: str | None


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user as administration and the demonstration's login page show them."""

    actor_id: int
    name: str  # login
    role: Role
    disabled: bool
    establishment_id: int
    code: str  # of the establishment
    establishment_name: str
    display_name: str
    has_password: bool
    demonstration: bool
    language: str


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A token or session that still works; its secret is not kept anywhere."""

    credential_id: uuid.UUID
    kind: str  # token or session
    only_study_uid: str | None
    created_at: datetime
    expires_at: datetime


def check_establishment(code: str, name: str, authority_oid: str) -> None:
    """Raises ``BadRequest`` naming the field."""
    if not _CODE.fullmatch(code):
        raise BadRequest("an establishment's code has 1 to 32 letters, digits, dots, hyphens or underscores")
    if not is_valid_uid(authority_oid):
        raise BadRequest("the assigning authority is an OID")
    check_display_name(name)


def is_login(text: str) -> bool:
    """Whether a user could have this login."""
    return _LOGIN.fullmatch(text) is not None


def check_login(login: str) -> None:
    """Raises ``BadRequest``. Lower and upper case are different logins."""
    if not is_login(login):
        raise BadRequest("a login has 1 to 64 letters, digits, dots, hyphens, underscores or @")


def check_display_name(name: str) -> None:
    if not name.strip() or len(name) > _NAME_LIMIT or not name.isprintable():
        raise BadRequest(f"a name has 1 to {_NAME_LIMIT} printable characters")


def check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise BadRequest(f"languages: {', '.join(LANGUAGES)}")


def actor_of(row: DictRow, session: str = "") -> Actor:
    """The actor of a row that joins ``actor`` and ``establishment``."""
    return Actor(
        actor_id=row["actor_id"],
        kind=ActorKind(row["kind"]),
        name=row["name"],
        role=Role(row["role"]) if row["role"] else None,
        establishment_id=row["establishment_id"],
        establishment_code=row["code"],
        authority_oid=row["authority_oid"],
        rights=frozenset(map(Right, row["rights"])),
        session=session,
    )

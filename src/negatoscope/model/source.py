"""Who sends, and what was announced before the bytes came."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Door(StrEnum):
    """By which way an object came in."""

    DIMSE = "dimse"
    STOW = "stow"
    IMPORT = "import"


@dataclass(frozen=True, slots=True)
class Source:
    """The sender of an object, resolved by policy before its first byte is kept."""

    actor_id: int
    establishment_id: int
    establishment_code: str
    authority_oid: str  # assigning authority of the identifiers this establishment gives (IPP)
    name: str  # calling AE title or login; goes into provenance and audit, never a patient's name
    address: str  # network address of the peer, "" for the command line
    door: Door


@dataclass(frozen=True, slots=True)
class Announced:
    """What the peer says of the object that follows. ``None`` where the door does not say."""

    transfer_syntax_uid: str
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_uid: str | None = None  # STOW to /studies/{uid}: another study in the data set is refused

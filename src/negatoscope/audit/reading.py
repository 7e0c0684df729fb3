"""The trail for those who may read it: searched, newest first, page by page.

Only the time, the study and the establishment are columns. What else is searched stands in the canonical JSON,
which has one spelling: a field with its value is a piece of text that can stand nowhere else, since quotes
within a value are escaped. PostgreSQL's own JSON functions would fail on what a peer may have sent (NUL).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from negatoscope.audit.chain import canonical, event_of
from negatoscope.audit.ports import Unit, Units
from negatoscope.model.event import EventKind
from negatoscope.queries import load_queries

QUERIES = load_queries("negatoscope.audit")


@dataclass(frozen=True, slots=True)
class AuditSearch:
    """What to look for; every part narrows. ``since`` <= time < ``until``, aware."""

    since: datetime
    until: datetime
    person: str = ""  # login or AE title, as it was given
    patient: str = ""  # identifier, of whatever authority
    study_uid: str = ""
    kind: EventKind | None = None

    def keys(self) -> list[str]:
        """Names of what is looked for besides the time, never the values."""
        given = {"person": self.person, "patient": self.patient, "study": self.study_uid, "event": self.kind}
        return [name for name, value in given.items() if value]


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One event as it is shown."""

    sequence: int
    at: datetime
    kind: str
    action: str
    outcome: str
    person: str
    establishment_code: str
    address: str
    door: str
    purpose: str
    study_uid: str
    patient: str  # identifier alone
    detail: dict[str, str | int] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        return self.outcome != "0"


def search_trail(
    units: Units, establishment_code: str | None, search: AuditSearch, *, before: int | None, most: int
) -> list[AuditLine]:
    """The newest ``most`` events with a sequence number below ``before``; ``establishment_code``: of it alone.

    An event belongs to the establishment of who acted. Of a patient are the events that name an identifier, and
    those of the studies that are held under it.

    Raises:
        Unavailable: the database cannot be reached.
    """
    fragments = []
    if search.person:
        fragments.append(_fragment("actor_name", search.person))
    if search.kind:
        fragments.append(_fragment("kind", search.kind.value))
    with units.unit(None) as unit:
        values = {
            "before": before,
            "since": search.since,
            "until": search.until,
            "establishment_code": establishment_code,
            "study_uid": search.study_uid or None,
            "fragments": fragments,
            "patient": search.patient or None,
            "patients": _patients(unit, search.patient),
            "most": most,
        }
        rows = unit.execute(QUERIES["search_events"], values).fetchall()
    return [_line(row) for row in rows]


def _patients(unit: Unit, identifier: str) -> Sequence[str]:
    """Fragments of the events that name this identifier, one an assigning authority."""
    if not identifier:
        return []
    rows = unit.execute(QUERIES["authorities"]).fetchall()
    return [_fragment("patient", f"{row['authority_oid']}|{identifier}") for row in rows]


def _fragment(name: str, value: str) -> str:
    return canonical({name: value})[1:-1]


def _line(row: dict[str, Any]) -> AuditLine:
    _, at, fields = event_of(row["event"])
    detail = fields.get("detail")
    return AuditLine(
        sequence=row["sequence"],
        at=at.astimezone(UTC),
        kind=str(fields.get("kind", "")),
        action=str(fields.get("action", "")),
        outcome=str(fields.get("outcome", "")),
        person=str(fields.get("actor_name", "")),
        establishment_code=str(fields.get("establishment_code", "")),
        address=str(fields.get("address", "")),
        door=str(fields.get("door", "")),
        purpose=str(fields.get("purpose", "")),
        study_uid=str(fields.get("study_uid", "")),
        patient=str(fields.get("patient", "")).partition("|")[2],
        detail=detail if isinstance(detail, dict) else {},
    )

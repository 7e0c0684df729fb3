"""The hash chain of the audit trail: pure, so that a verifier needs nothing but the rows.

``hash = SHA-256(previous hash || canonical JSON)``. The canonical JSON holds the sequence number, the
time and every column of its row, so nothing beside it can be altered unseen. It is ASCII with sorted keys
and no blanks: whatever a peer sent (NUL, lone surrogates) is escaped and can always be stored and hashed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from negatoscope.model.event import AuditEvent

GENESIS = bytes(32)  # the hash before the first event
TEXT_LIMIT = 1024  # characters kept of one text of an event: an event must not grow with what a peer sends
DETAIL_LIMIT = 64  # entries kept of ``AuditEvent.detail``
_FIELDS = tuple(field.name for field in dataclasses.fields(AuditEvent))


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: its last sequence number (0: empty) and that event's hash (32 bytes)."""

    sequence: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One row of ``audit_event``."""

    sequence: int
    at: datetime  # aware
    actor_id: int | None
    establishment_code: str
    study_uid: str
    event: str  # canonical JSON
    hash: bytes

    @property
    def head(self) -> Head:
        return Head(self.sequence, self.hash)


def canonical(fields: Mapping[str, Any]) -> str:
    """The one spelling of ``fields`` that is hashed."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def link(previous: bytes, text: str) -> bytes:
    """The hash of an event whose predecessor's hash is ``previous``."""
    return hashlib.sha256(previous + text.encode("ascii")).digest()


def extend(head: Head, at: datetime, events: Iterable[AuditEvent]) -> list[Record]:
    """``events`` chained after ``head``, all at the time ``at`` (aware)."""
    records = []
    stamp = _stamp(at)
    for event in events:
        fields = _bounded(event)
        fields["at"] = stamp
        fields["sequence"] = head.sequence + 1
        text = canonical(fields)
        head = Head(head.sequence + 1, link(head.hash, text))
        code, study_uid = _storable(fields["establishment_code"]), _storable(fields["study_uid"])
        records.append(Record(head.sequence, at, event.actor_id, code, study_uid, text, head.hash))
    return records


def event_of(text: str) -> tuple[int, datetime, dict[str, Any]]:
    """Sequence number, time and fields (those of ``AuditEvent``) of a canonical JSON.

    Raises:
        ValueError: it is not one.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict) or not {"sequence", "at", "establishment_code", "study_uid"} <= fields.keys():
        raise ValueError("not the JSON of an audit event")
    return int(fields.pop("sequence")), datetime.fromisoformat(str(fields.pop("at"))), fields


class Flaw(StrEnum):
    """What a verifier can find."""

    ALTERED = "altered"  # the row is not what was hashed, or stands at another place than it was written
    MISSING = "missing"  # a sequence number has no row
    BROKEN = "broken"  # the row is whole in itself and does not follow its predecessor
    CUT = "cut"  # the trail ends before a head that was published
    SURPLUS = "surplus"  # rows after the head
    REWRITTEN = "rewritten"  # the chain is whole, and is not the one whose head was published


@dataclass(frozen=True, slots=True)
class Finding:
    """The first bad record. Everything before ``sequence`` is as it was written."""

    sequence: int
    flaw: Flaw

    def __str__(self) -> str:
        return f"record {self.sequence} is {self.flaw}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of a walk over the trail."""

    head: Head  # the last good record
    finding: Finding | None


def verify(records: Iterable[Record], head: Head, witnesses: Sequence[Head] = ()) -> Verification:
    """Walk ``records`` in order of sequence number and stop at the first bad one.

    Args:
        records: All of them, from sequence number 1.
        head: What the database says the end is; it shares the fate of the rows.
        witnesses: Heads that left the database earlier; they show a tail cut together with ``head``
            and a chain written anew.
    """
    published = {witness.sequence: witness.hash for witness in sorted(witnesses, key=lambda w: w.sequence)}
    last = max([head.sequence, *published])
    good = Head(0, GENESIS)
    for record in records:
        if flaw := _flaw(record, good, last, published):
            at = good.sequence + 1 if flaw is Flaw.MISSING else record.sequence
            return Verification(good, Finding(at, flaw))
        good = record.head
    if good.sequence < last:
        return Verification(good, Finding(good.sequence + 1, Flaw.CUT))
    if good.sequence > head.sequence:
        return Verification(good, Finding(head.sequence + 1, Flaw.SURPLUS))
    if good.hash != head.hash:
        return Verification(good, Finding(good.sequence, Flaw.REWRITTEN))
    return Verification(good, None)


def _flaw(record: Record, good: Head, last: int, published: Mapping[int, bytes]) -> Flaw | None:
    if record.sequence > last:
        return Flaw.SURPLUS
    if record.sequence != good.sequence + 1:
        return Flaw.MISSING
    if not _is_as_written(record):
        return Flaw.ALTERED
    if record.hash != link(good.hash, record.event):
        return Flaw.BROKEN
    if published.get(record.sequence, record.hash) != record.hash:
        return Flaw.REWRITTEN
    return None


def _is_as_written(record: Record) -> bool:
    try:
        sequence, at, fields = event_of(record.event)
        record.event.encode("ascii")
    except ValueError:
        return False
    return (
        sequence == record.sequence
        and at == record.at
        and fields.get("actor_id") == record.actor_id
        and _storable(str(fields["establishment_code"])) == record.establishment_code
        and _storable(str(fields["study_uid"])) == record.study_uid
    )


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _bounded(event: AuditEvent) -> dict[str, Any]:
    values = {name: getattr(event, name) for name in _FIELDS}
    bounded = {name: value[:TEXT_LIMIT] if isinstance(value, str) else value for name, value in values.items()}
    bounded["detail"] = {
        name[:TEXT_LIMIT]: value[:TEXT_LIMIT] if isinstance(value, str) else value
        for name, value in list(event.detail.items())[:DETAIL_LIMIT]
    }
    return bounded


def _storable(text: str) -> str:
    """As a text column can hold it: PostgreSQL has no NUL and no lone surrogate."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")

"""C-FIND as provider: PS3.4 C.4.1. Answers are encoded and sent as they are read, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from negatoscope.archive.instance_details import instance_details
from negatoscope.archive.query import Level, Query, Stream, find_instances, stream
from negatoscope.archive.query_conditions import known_at
from negatoscope.audit.events import queried
from negatoscope.dicom.answers import AnswerWriter
from negatoscope.dicom.matching import Kind, parse_identifier
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.model.actor import Right, Scope
from negatoscope.servers.dicom_query import (
    CANCELLED,
    DOOR,
    LEVEL_KEY,
    OUT_OF_RESOURCES,
    Archive,
    Asked,
    Identifier,
)
from negatoscope.sharing import policy
from negatoscope.wire.dimse import Command, encode, response_to
from negatoscope.wire.dimse.commands import PENDING, SUCCESS

RETRIEVE_TITLE = "00080054"
# Always answered, or not an attribute of what is found: no support to speak of.
_FREE = frozenset({"00080005", LEVEL_KEY, "00080053", RETRIEVE_TITLE, "00080056"})
BATCH = 64 << 10  # bytes of answers sent at once
# Relational queries, fuzzy names, empty value matching, multiple value matching: PS3.4 table C.5-1. Not combined
# date and time matching, time zones, views.
_GRANTED = bytes([1, 0, 1, 0, 0, 1, 1])
_FUZZY, _EMPTY = 3, 6  # bytes of it, from 1

Dataset = Mapping[str, Mapping[str, Any]]


def find_information(proposed: bytes) -> bytes:
    """What we grant of an extended negotiation for C-FIND."""
    return bytes(ours & theirs for ours, theirs in zip(_GRANTED, proposed, strict=False))


def find(archive: Archive, asked: Asked, identifier: Identifier) -> Command:
    """Answer a query: its pending responses are sent, its last one returned.

    Raises:
        Forbidden, BadRequest, LimitExceeded, Unavailable: nothing was answered.
        Gone: the association has ended.
    """
    scope = policy.scope(asked.peer.actor, Right.QUERY)
    matches = parse_identifier(identifier.keys, empty_value_matching=asked.grants(_EMPTY), limits=archive.limits)
    query = Query(
        study_uid=identifier.unique(Level.STUDY) or None,
        series_uid=identifier.unique(Level.SERIES) or None,
        matches=matches,
        include=frozenset(int(key, 16) for key in identifier.keys),
        fuzzy=asked.grants(_FUZZY),
        limit=archive.limits.find_answers,
        as_known=True,
    )
    found = _found(archive, scope, identifier.level, query)
    used = [key for key, match in matches.items() if match.kind is not Kind.UNIVERSAL]
    archive.trail.record([queried(scope, identifier.level, used, found.count, DOOR, asked.peer.address)])
    archive.count("dicom_find_answers_total", found.count)
    shape = _Shape.of(identifier, archive.title, detailed=query.study_uid is not None)
    partly = shape.lacking or bool(found.ignored)
    if not _send(asked, identifier, found.rows, shape, PENDING[partly]):
        return response_to(asked.command, CANCELLED, "cancelled")
    if found.more:
        return response_to(asked.command, OUT_OF_RESOURCES, f"more than {found.count} answers")
    return response_to(asked.command, SUCCESS)


def _found(archive: Archive, scope: Scope, level: Level, query: Query) -> Stream:
    if level is not Level.INSTANCE:
        return stream(archive.transactions, scope, level, query)
    details = partial(instance_details, archive.retrieval, archive.limits)
    answers = find_instances(archive.transactions, scope, query, details)
    return Stream(iter(answers.rows), len(answers.rows), answers.more, answers.ignored)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which attributes an answer has, in order."""

    wanted: tuple[tuple[str, Mapping[str, Any] | None], ...]  # key, and what is answered when there is no value
    parts: Mapping[str, Mapping[str, Any]]  # of sequences: the attributes asked for of their items
    lacking: bool  # some keys are not supported: those are left out (PS3.4 C.2.2.1.3)

    @classmethod
    def of(cls, identifier: Identifier, title: str, *, detailed: bool) -> _Shape:
        known = known_at(identifier.level, detailed=detailed)
        wanted: dict[str, Mapping[str, Any] | None] = {
            key: {"vr": element["vr"]} if key in known else None for key, element in identifier.keys.items()
        }
        lacking = any(empty is None and key not in _FREE for key, empty in wanted.items())
        wanted[LEVEL_KEY] = {"vr": "CS", "Value": [identifier.level.value]}
        wanted[RETRIEVE_TITLE] = {"vr": "AE", "Value": [title]}
        parts = {
            key: element["Value"][0]
            for key, element in identifier.keys.items()
            if element["vr"] == "SQ" and element.get("Value") and element["Value"][0]
        }
        return cls(tuple(sorted(wanted.items())), parts, lacking)

    def pick(self, row: Dataset) -> Dataset:
        answer = {}
        for key, empty in self.wanted:
            element = row.get(key, empty)
            if element is not None:
                answer[key] = element
        for key, asked in self.parts.items():
            if key in answer:
                answer[key] = _parts(answer[key], asked)
        return answer


def _parts(element: Mapping[str, Any], asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """A sequence whose items have what was asked for of them."""
    items = [{key: value for key, value in (item or {}).items() if key in asked} for item in element.get("Value", ())]
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}


def _send(asked: Asked, identifier: Identifier, rows: Iterator[Dataset], shape: _Shape, status: int) -> bool:
    """Send each row as a pending response; False: cancelled."""
    link, context_id = asked.link, asked.context_id
    writer = AnswerWriter(transfer_syntax(asked.syntax).explicit, identifier.character_sets)
    pending = link.framed(context_id, encode(response_to(asked.command, status, data_set=True)), command=True)
    message_id = asked.command.message_id
    batch = bytearray()
    for row in rows:
        batch += pending
        batch += link.framed(context_id, writer.encode(shape.pick(row)), command=False)
        if len(batch) >= BATCH:
            if link.cancelled(message_id):
                return False
            link.send(batch)
            batch.clear()
    if link.cancelled(message_id):
        return False
    if batch:
        link.send(batch)
    return True

"""Modality worklist as provider: C-FIND of the Modality Worklist Information Model, PS3.4 annex K."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from negatoscope.archive.ports import Count
from negatoscope.audit.events import queried
from negatoscope.dicom.answers import AnswerWriter
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.matching import Kind, Match, parse_identifier
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.errors import BadRequest, MismatchedObject, NegatoscopeError, title, wire_form
from negatoscope.model.actor import Right
from negatoscope.servers.dicom_gathered import Gathered, read_data_set, takes
from negatoscope.servers.dicom_link import Link
from negatoscope.servers.dicom_negotiation import Service
from negatoscope.servers.dicom_query import CANCELLED, DOOR, MISMATCH, OUT_OF_RESOURCES
from negatoscope.servers.dicom_store import Answer, Exchange, Peer
from negatoscope.sharing import policy
from negatoscope.wire.dimse import Command, Element, Message, encode, response_to
from negatoscope.wire.dimse.commands import C_FIND, PENDING, SUCCESS
from negatoscope.worklist import EMPTY_KEYS, KEYS, STATION_TITLE, STEP_KEYS, STEP_SEQUENCE, find_entries
from negatoscope.worklist.ports import Journal, Transactions

MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"
SOP_CLASS_UNSUPPORTED = 0x0122
BATCH = 64 << 10  # bytes of answers sent at once
# No attributes of what is found: asking for them is no key that we lack.
_FREE = frozenset({"00080005", "00080052", "00080201"})

Dataset = Mapping[str, Mapping[str, Any]]

WORKLIST = Service(lambda uid: uid == MODALITY_WORKLIST, Right.WORKLIST, takes)


class Worklist:
    """Implements ``dicom_association.Operations``.

    Args:
        only_own: show a modality the steps of its own title and of any station alone.
    """

    services = (WORKLIST,)

    def __init__(
        self, transactions: Transactions, journal: Journal, limits: Limits, count: Count, *, only_own: bool = False
    ) -> None:
        self._transactions, self._journal, self._limits, self._count = transactions, journal, limits, count
        self._only_own = only_own

    def open(self, message: Message, context: tuple[str, str], peer: Peer, link: Link) -> Exchange | None:
        """See ``Operations``."""
        command = message.command
        if command.field != C_FIND or context[0] != MODALITY_WORKLIST:
            return None
        if command.text(Element.AFFECTED_SOP_CLASS_UID) != MODALITY_WORKLIST:
            return Answer(
                command, SOP_CLASS_UNSUPPORTED, "Affected SOP class is not the one of its presentation context"
            )
        if not command.has_data_set:
            return Answer(command, MISMATCH, "no identifier")

        def run(data: bytes) -> Command:
            return self._find(command, message.context_id, context[1], data, peer, link)

        return Gathered(command, self._limits.identifier, run, lambda error: _refused(command, error))

    def _find(self, command: Command, context_id: int, syntax: str, data: bytes, peer: Peer, link: Link) -> Command:
        """Answer a query: its pending responses are sent, its last one returned."""
        link.begin()
        scope = policy.scope(peer.actor, Right.WORKLIST)
        asked, sets = read_data_set(data, syntax, self._limits)
        _check(asked)
        keys = parse_identifier(asked, empty_value_matching=False, limits=self._limits)
        found = find_entries(
            self._transactions,
            scope,
            keys,
            station=_station(keys) or peer.calling_title,
            own=peer.calling_title if self._only_own else "",
            limit=self._limits.find_answers,
        )
        used = [key for key in _used(keys) if key != STEP_SEQUENCE]
        used += [f"{STEP_SEQUENCE}.{key}" for key in _used(_items(keys))]
        self._journal.record([queried(scope, "MWL", used, found.count, DOOR, peer.address)])
        self._count("dicom_find_answers_total", found.count)
        shape = _Shape.of(asked)
        writer = AnswerWriter(transfer_syntax(syntax).explicit, sets)
        pending = link.framed(
            context_id, encode(response_to(command, PENDING[shape.lacking], data_set=True)), command=True
        )
        rows = (link.framed(context_id, writer.encode(shape.pick(one)), command=False) for one in found.entries)
        if not _send(link, command.message_id, pending, rows):
            return response_to(command, CANCELLED, "cancelled")
        if found.more:
            return response_to(command, OUT_OF_RESOURCES, f"more than {found.count} answers")
        return response_to(command, SUCCESS)


def _check(asked: Dataset) -> None:
    """Raises MismatchedObject: a sequence key has several items (PS3.4 C.2.2.2.6 knows one)."""
    if any(element["vr"] == "SQ" and len(element.get("Value") or ()) > 1 for element in asked.values()):
        raise MismatchedObject("a sequence in the identifier has one item at most")


def _used(keys: Mapping[str, Match]) -> list[str]:
    return [key for key, match in keys.items() if match.kind is not Kind.UNIVERSAL]


def _items(keys: Mapping[str, Match]) -> Mapping[str, Match]:
    return keys[STEP_SEQUENCE].items if STEP_SEQUENCE in keys else {}


def _station(keys: Mapping[str, Match]) -> str:
    """The one title that is asked for, "" when it is not one: a step of any station is answered as that one's."""
    match = _items(keys).get(STATION_TITLE)
    return match.values[0] if match and match.kind is Kind.SINGLE and len(match.values) == 1 else ""


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which attributes an answer has: those of the identifier, at its depth (PS3.4 C.2.2.1.3, K.4.1.3.1)."""

    asked: Dataset
    lacking: bool  # some keys are not supported: those are left out

    @classmethod
    def of(cls, asked: Dataset) -> _Shape:
        step = _item(asked.get(STEP_SEQUENCE, {}))
        lacking = not (asked.keys() - _FREE <= KEYS | EMPTY_KEYS and step.keys() <= STEP_KEYS)
        return cls({key: element for key, element in asked.items() if key in KEYS | EMPTY_KEYS}, lacking)

    def pick(self, found: Dataset) -> Dataset:
        answer = {}
        for key, element in sorted(self.asked.items()):
            answer[key] = found.get(key) or {"vr": element["vr"]}
            if wanted := _item(element):
                answer[key] = _parts(answer[key], wanted, STEP_KEYS if key == STEP_SEQUENCE else None)
        return answer


def _item(element: Mapping[str, Any]) -> Dataset:
    """The attributes asked for of a sequence's items; none: all of them."""
    values = element.get("Value") or [{}]
    return values[0] or {} if element.get("vr") == "SQ" else {}


def _parts(element: Mapping[str, Any], wanted: Dataset, known: frozenset[str] | None) -> Mapping[str, Any]:
    """A sequence whose items have what was asked for of them; ``known``: shown empty where they have no value."""
    items = []
    for item in element.get("Value", ()):
        shown = {}
        for key, asked in sorted(wanted.items()):
            if key in item:
                below = _item(asked)
                shown[key] = _parts(item[key], below, None) if below else item[key]
            elif known is not None and key in known:
                shown[key] = {"vr": asked["vr"]}
        items.append(shown)
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}


def _send(link: Link, message_id: int, pending: bytes, rows: Iterator[bytes]) -> bool:
    """Send each row as a pending response; False: cancelled."""
    batch = bytearray()
    for row in rows:
        batch += pending
        batch += row
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


def _refused(command: Command, error: NegatoscopeError) -> Command:
    """PS3.4 table K.4-1: what cannot be read does not match the SOP class."""
    wrong = isinstance(error, MismatchedObject | BadRequest)
    return response_to(command, MISMATCH if wrong else wire_form(error).dimse, str(error) or title(error))

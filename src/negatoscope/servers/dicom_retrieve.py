"""What C-GET and C-MOVE share: which instances, in which transfer syntax, how many came over. PS3.4 C.4.2, C.4.3."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from negatoscope.archive.ports import Buffer
from negatoscope.archive.query import Level, Query, stream
from negatoscope.dicom.answers import AnswerWriter
from negatoscope.dicom.matching import parse_identifier
from negatoscope.dicom.uid import is_valid_uid, transfer_syntax
from negatoscope.errors import MismatchedObject, NegatoscopeError, NotFound
from negatoscope.model.actor import Scope
from negatoscope.model.stored import InstanceRecord
from negatoscope.servers.dicom_client import PeerUnavailable
from negatoscope.servers.dicom_pixels import choose
from negatoscope.servers.dicom_query import CANCELLED, DOOR, UNIQUE, Archive, Asked, Identifier
from negatoscope.servers.dicom_sending import PATIENCE_S, Content, Stored
from negatoscope.wire.dimse import Command, Element, response_to
from negatoscope.wire.dimse.commands import PENDING, SUCCESS, Value

log = logging.getLogger(__name__)

SOME_FAILED = 0xB000  # one or more sub-operations failed or gave a warning
NONE_SENT = 0xA702  # unable to perform sub-operations
FAILED_LIST = "00080058"
WARNINGS = frozenset({0x0107, 0x0116})  # besides 0xB000 to 0xBFFF, PS3.7 annex C.4
MOST_COUNTED = 0xFFFF  # counts have two bytes
MOST_SELECTED = 1_000_000  # answers of the query behind a relational retrieve
LOSSES = 3  # associations lost one after the other, without an object in between, before the rest is given up


def retrieve_information(proposed: bytes) -> bytes:
    """What we grant of an extended negotiation: relational retrieval, no conversion (PS3.4 table C.5-3)."""
    return bytes(ours & theirs for ours, theirs in zip(b"\1\0", proposed, strict=False))


# Which instances ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """One instance on its way out."""

    study_uid: str
    record: InstanceRecord


def select(archive: Archive, scope: Scope, identifier: Identifier) -> list[Item]:
    """The instances that an identifier names and ``scope`` may read, in the order they are served.

    Raises:
        MismatchedObject: no patient, study, series or instance is named.
    """
    items = []
    for study_uid, series_uid, sop_uids in _targets(archive, scope, identifier):
        only = next(iter(sop_uids)) if len(sop_uids) == 1 else None
        try:
            holdings = archive.retrieval.locate(scope, study_uid, series_uid, only)
        except NotFound:
            continue
        for holding in holdings:
            items += [
                Item(study_uid, record)
                for record in holding.instances
                if not sop_uids or record.sop_instance_uid in sop_uids
            ]
    return items


_Target = tuple[str, str | None, frozenset[str]]  # study; series, None: all; SOP instances, empty: all


def _targets(archive: Archive, scope: Scope, identifier: Identifier) -> Iterable[_Target]:
    level = identifier.level
    named = list(dict.fromkeys(identifier.values(UNIQUE[level])))
    if level is Level.PATIENT:
        if not identifier.unique(level):
            raise MismatchedObject("one patient must be named")
    elif not named or not all(map(is_valid_uid, named)):
        raise MismatchedObject(f"no {level.value.lower()} is named by its UID")
    study_uid, series_uid = identifier.unique(Level.STUDY), identifier.unique(Level.SERIES)
    if not identifier.values(UNIQUE[Level.PATIENT]):
        if level is Level.STUDY:
            return [(uid, None, frozenset()) for uid in named]
        if level is Level.SERIES and study_uid:
            return [(study_uid, uid, frozenset()) for uid in named]
        if level is Level.INSTANCE and study_uid and series_uid:
            return [(study_uid, series_uid, frozenset(named))]
    return _found(archive, scope, identifier)


def _found(archive: Archive, scope: Scope, identifier: Identifier) -> Iterable[_Target]:
    """By a query: the keys above are missing (relational), or a patient is named besides."""
    keys = {key: identifier.keys[key] for key in UNIQUE.values() if identifier.values(key)}
    query = Query(matches=parse_identifier(keys, empty_value_matching=False), limit=MOST_SELECTED)
    level = Level.STUDY if identifier.level is Level.PATIENT else identifier.level
    targets: dict[tuple[str, str | None], set[str]] = {}
    for row in stream(archive.transactions, scope, level, query).rows:
        study_uid = row[UNIQUE[Level.STUDY]]["Value"][0]
        series_uid = row[UNIQUE[Level.SERIES]]["Value"][0] if level is not Level.STUDY else None
        sop_uids = targets.setdefault((study_uid, series_uid), set())
        if level is Level.INSTANCE:
            sop_uids.add(row[UNIQUE[Level.INSTANCE]]["Value"][0])
    return [(study_uid, series_uid, frozenset(uids)) for (study_uid, series_uid), uids in targets.items()]


# What came of it ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """Sub-operations, counted."""

    total: int
    completed: int = 0
    warned: int = 0
    failures: list[str] = field(default_factory=list)  # SOP Instance UIDs
    sent: int = 0  # bytes of data sets as stored

    def note(self, item: Item, status: int) -> None:
        """The peer's answer to one C-STORE."""
        self.sent += item.record.location.length
        if status == SUCCESS:
            self.completed += 1
        elif status >> 12 == 0xB or status in WARNINGS:
            self.warned += 1
        else:
            log.warning("an object was refused by its receiver: status 0x%04X", status)
            self.fail(item)

    def fail(self, item: Item) -> None:
        self.failures.append(item.record.sop_instance_uid)

    @property
    def remaining(self) -> int:
        return self.total - self.completed - self.warned - len(self.failures)

    def values(self, *, unfinished: bool) -> dict[Element, Value]:
        """The counts as a response holds them: what remains only while something does (PS3.4 C.4.2.1.6)."""
        counts = {
            Element.COMPLETED_SUBOPERATIONS: self.completed,
            Element.FAILED_SUBOPERATIONS: len(self.failures),
            Element.WARNING_SUBOPERATIONS: self.warned,
        }
        if unfinished:
            counts[Element.REMAINING_SUBOPERATIONS] = self.remaining
        return {element: min(count, MOST_COUNTED) for element, count in counts.items()}


def report(asked: Asked, tally: Tally) -> None:
    """A pending response. Raises Gone."""
    response = response_to(asked.command, PENDING[0], values=tally.values(unfinished=True))
    asked.link.respond(asked.context_id, response)


def conclude(archive: Archive, asked: Asked, tally: Tally, *, cancelled: bool) -> Command | None:
    """The last response; None: it had the list of failed instances with it and is sent. Raises Gone."""
    archive.count("dicom_sent_total", tally.completed + tally.warned)
    archive.count("served_bytes_total", tally.sent, door=DOOR)
    archive.count("dicom_send_failures_total", len(tally.failures))
    if cancelled:
        status = CANCELLED
    elif not tally.failures:
        status = SOME_FAILED if tally.warned else SUCCESS
    else:
        status = SOME_FAILED if tally.completed or tally.warned else NONE_SENT
    listed = bool(tally.failures)
    response = response_to(asked.command, status, values=tally.values(unfinished=cancelled), data_set=listed)
    if not listed:
        return response
    writer = AnswerWriter(transfer_syntax(asked.syntax).explicit)
    failed = writer.encode({FAILED_LIST: {"vr": "UI", "Value": tally.failures}})
    asked.link.respond(asked.context_id, response, failed)
    return None


# Sub-operations -------------------------------------------------------------------------------------


class Carrier(Protocol):
    """An association over which objects leave."""

    def syntaxes(self, sop_class_uid: str) -> Mapping[str, int]:
        """Contexts accepted for a class, by transfer syntax."""
        ...

    def send(self, item: Item, syntax: str, content: Content) -> None:
        """A C-STORE request. Raises PeerUnavailable, and whatever reading raises: then :meth:`reopen`."""
        ...

    def answered(self, within_s: float) -> bool:
        """Whether its response, or the end, comes within this time. Raises PeerUnavailable."""
        ...

    def answer(self) -> int:
        """The status of its response. Raises PeerUnavailable."""
        ...

    def reopen(self) -> bool:
        """End the association in the middle of an object; whether there is another. May raise Gone."""
        ...


def by_class(contexts: Mapping[int, tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Presentation contexts by abstract syntax, then transfer syntax."""
    found: dict[str, dict[str, int]] = {}
    for context_id, (abstract, syntax) in contexts.items():
        found.setdefault(abstract, {})[syntax] = context_id
    return found


def even(pieces: Iterator[bytes]) -> Iterator[Buffer]:
    """Pieces of which only the last may be odd, with a NUL behind it if it is."""
    for piece in pieces:
        yield piece + b"\0" if len(piece) & 1 else piece


@dataclass(frozen=True, slots=True)
class _Parcel:
    """An object ready to be sent, its first bytes read and verified."""

    item: Item
    syntax: str
    content: Content

    def forget(self) -> None:
        """Hold nothing that can be read again."""
        if isinstance(self.content, Stored):
            self.content.forget()


class SubOperations:
    """Sends items one after the other. While the peer keeps one, the next is read already."""

    def __init__(self, archive: Archive, asked: Asked, carrier: Carrier, tally: Tally) -> None:
        self._archive, self._asked, self._carrier, self._tally = archive, asked, carrier, tally
        self._losses = 0

    def run(self, items: Sequence[Item]) -> bool:
        """False: the peer cancelled. Raises Gone, ProtocolViolation."""
        following = self._prepare(items[0])
        for index, item in enumerate(items):
            if self._asked.link.cancelled(self._asked.command.message_id):
                return False
            parcel, following = following, None
            rest = items[index + 1 :] if index + 1 < len(items) else ()

            def read_ahead(rest: Sequence[Item] = rest) -> _Parcel | None:
                return self._prepare(rest[0]) if rest else None

            if parcel is None:
                self._tally.fail(item)
                following = read_ahead()
            else:
                following = self._deliver(parcel, read_ahead)
            if self._losses >= LOSSES:
                for one in rest:
                    self._tally.fail(one)
                return True
            if rest:
                report(self._asked, self._tally)
        return True

    def _deliver(self, parcel: _Parcel, read_ahead: Callable[[], _Parcel | None]) -> _Parcel | None:
        """Send one object, once more if the association is lost over it; the next one, read meanwhile."""
        again: _Parcel | None = parcel
        for attempt in (1, 2):
            assert again is not None
            try:
                self._carrier.send(again.item, again.syntax, again.content)
                following = read_ahead()
                if following is not None and not self._carrier.answered(PATIENCE_S):
                    following.forget()  # a slow peer gets no memory of ours
                self._tally.note(again.item, self._carrier.answer())
                self._losses = 0
                return following
            except PeerUnavailable as error:
                log.warning("sending an object failed: %s", error)
            except NegatoscopeError as error:  # its bytes are not what was kept, and half of it is under way
                log.error("sending an object failed: %s", type(error).__name__)
                attempt = 2
            if not self._carrier.reopen():
                self._losses = LOSSES
                break
            again = self._prepare(parcel.item) if attempt == 1 else None
            if again is None:
                break
        self._tally.fail(parcel.item)
        if self._losses >= LOSSES:
            return None
        self._losses += 1
        return read_ahead()

    def _prepare(self, item: Item) -> _Parcel | None:
        """None: it cannot be sent, for a reason that is logged."""
        record = item.record
        stored = record.transfer_syntax_uid
        syntax = choose(stored, self._carrier.syntaxes(record.sop_class_uid).keys())
        if syntax is None:
            log.warning("an object cannot be sent: nothing was accepted that %s can be had in", stored)
            return None
        try:
            content: Content
            if syntax == stored:
                content = self._stored(item)
                content.begin()
            else:
                content = even(self._archive.transcoder.transcode(record, item.study_uid, syntax))
        except NegatoscopeError as error:
            log.error("an object cannot be sent: %s", type(error).__name__)
            return None
        return _Parcel(item, syntax, content)

    def _stored(self, item: Item) -> Stored:
        record, read_range = item.record, self._archive.retrieval.read_range
        length = record.location.length
        if length & 1:  # malformed, or deflated: fragments are even (PS3.8 annex E), a NUL pads (PS3.5 A.5)

            def read_padded(offset: int, size: int) -> Buffer:
                inside = min(size, length - offset)
                return read_range(record, offset, inside, item.study_uid) + b"\0" * (size - inside)

            return Stored(length + 1, read_padded)
        return Stored(length, lambda offset, size: read_range(record, offset, size, item.study_uid))

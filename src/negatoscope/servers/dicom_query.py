"""What query and retrieve share: information models, identifiers, the course of an operation. PS3.4 annex C."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from negatoscope.archive.ports import Count, Transactions
from negatoscope.archive.query import Level
from negatoscope.archive.retrieve import Retrieval
from negatoscope.audit.events import Disclosure
from negatoscope.dicom.json_model import to_json
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.matching import json_text
from negatoscope.dicom.tags import SPECIFIC_CHARACTER_SET
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, transfer_syntax
from negatoscope.dicom.values import character_sets
from negatoscope.dicom.walk import walk
from negatoscope.errors import BadRequest, LimitExceeded, MismatchedObject, NegatoscopeError, title, wire_form
from negatoscope.model.actor import Actor, Scope
from negatoscope.model.event import AuditEvent
from negatoscope.servers.dicom_link import Gone, Link
from negatoscope.servers.dicom_pixels import Transcoder
from negatoscope.servers.dicom_store import PROCESSING_FAILURE, Peer, where
from negatoscope.servers.dicom_tls import Secured
from negatoscope.sharing import Destination
from negatoscope.wire.dimse import Command, response_to
from negatoscope.wire.dimse.commands import C_FIND, C_GET, C_MOVE
from negatoscope.wire.dul.items import ProtocolViolation

log = logging.getLogger(__name__)

DOOR = "dimse"  # in audit events
CANCELLED = 0xFE00
OUT_OF_RESOURCES = 0xA700
NOT_CALCULATED = 0xA701  # C-GET, C-MOVE: unable to calculate the number of matches
MISMATCH = 0xA900  # the identifier does not match the SOP class
LEVEL_KEY = "00080052"
# The unique key of each level, PS3.4 C.6.1.1 and C.6.2.1.
UNIQUE: dict[Level, str] = {
    Level.PATIENT: "00100020",
    Level.STUDY: "0020000D",
    Level.SERIES: "0020000E",
    Level.INSTANCE: "00080018",
}
_SYNTAXES = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)


@dataclass(frozen=True, slots=True)
class Model:
    """One information model; its levels from the top."""

    name: str
    root: str  # of its three SOP class UIDs
    levels: tuple[Level, ...]

    def above(self, level: Level) -> tuple[Level, ...]:
        return self.levels[: self.levels.index(level)]


MODELS = (
    Model("Patient Root", "1.2.840.10008.5.1.4.1.2.1", (Level.PATIENT, Level.STUDY, Level.SERIES, Level.INSTANCE)),
    Model("Study Root", "1.2.840.10008.5.1.4.1.2.2", (Level.STUDY, Level.SERIES, Level.INSTANCE)),
    Model("Patient/Study Only (retired)", "1.2.840.10008.5.1.4.1.2.3", (Level.PATIENT, Level.STUDY)),
)
_ENDS = {C_FIND: ".1", C_MOVE: ".2", C_GET: ".3"}
SOP_CLASSES: dict[str, tuple[int, Model]] = {
    model.root + end: (verb, model) for model in MODELS for verb, end in _ENDS.items()
}


def takes(syntax: str) -> bool:
    """Transfer syntaxes of identifiers."""
    return syntax in _SYNTAXES


class Disclosing(Protocol):
    """The audit trail as this door uses it."""

    def record(self, events: Sequence[AuditEvent]) -> None: ...

    def disclose(
        self,
        scope: Scope,
        action: Disclosure,
        study_uids: Sequence[str],
        door: str,
        address: str,
        detail: Mapping[str, str | int] | None = None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Archive:
    """The use cases that query and retrieve run on."""

    title: str  # ours: Retrieve AE Title, and what C-MOVE calls by
    transactions: Transactions
    retrieval: Retrieval
    trail: Disclosing
    destination_of: Callable[[str, Actor], Destination]
    transcoder: Transcoder
    limits: Limits
    count: Count
    secured: Callable[[Destination], Secured | None] = lambda destination: None  # how a destination is called


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of C-FIND, C-GET or C-MOVE, without its identifier."""

    command: Command
    context_id: int
    syntax: str  # of identifiers
    model: Model
    granted: bytes  # of the extended negotiation of its SOP class
    peer: Peer
    link: Link

    def grants(self, number: int) -> bool:
        """Byte ``number``, from 1, of what was negotiated (PS3.4 tables C.5-1 and C.5-3)."""
        return len(self.granted) >= number and self.granted[number - 1] == 1

    @property
    def relational(self) -> bool:
        return self.grants(1)


@dataclass(frozen=True, slots=True)
class Identifier:
    """What is asked for."""

    level: Level
    keys: dict[str, Any]  # DICOM JSON, without the level and the character set
    character_sets: tuple[str, ...]

    def values(self, key: str) -> list[str]:
        """The values of a key that has any content."""
        values = self.keys.get(key, {}).get("Value") or []
        return [text for value in values if (text := json_text(value))]

    def unique(self, level: Level) -> str:
        """The one value of a level's unique key; "" when there is none or it is no single value."""
        values = self.values(UNIQUE[level])
        if len(values) != 1 or (level is Level.PATIENT and set(values[0]) & set("*?")):
            return ""
        return values[0]


def read_identifier(data: bytes, asked: Asked, limits: Limits) -> Identifier:
    """The identifier of a request.

    Raises:
        MismatchedObject: no level that the model has, or a hierarchical request that does not name the one
            patient, study or series above it (PS3.4 C.4.1.2.1); relational requests need not.
        InvalidObject and its kinds: not a data set.
    """
    keys = to_json(data, asked.syntax, None, limits)
    sets: tuple[str, ...] = ()
    if "00080005" in keys:
        for element in walk(data, transfer_syntax(asked.syntax), limits):
            if element.tag == SPECIFIC_CHARACTER_SET:
                sets = character_sets(bytes(data[element.offset : element.end]))
                break
    keys.pop("00080005", None)
    levels = keys.pop(LEVEL_KEY, {}).get("Value") or [""]
    level = next((one for one in asked.model.levels if one.value == str(levels[0]).strip().upper()), None)
    if level is None or len(levels) > 1:
        raise MismatchedObject("no query/retrieve level, or not one of this model")
    found = Identifier(level, keys, sets)
    if not asked.relational:
        for above in asked.model.above(level):
            if not found.unique(above):
                raise MismatchedObject(f"not relational: one {above.value.lower()} above must be named")
    return found


Run = Callable[[Archive, Asked, Identifier], Command | None]  # None: the last response is sent already


class Operation:
    """An exchange that gathers its identifier, then runs. Its last response is what ``finish`` returns."""

    def __init__(self, archive: Archive, asked: Asked, run: Run) -> None:
        self._archive, self._asked, self._run = archive, asked, run
        self._data = bytearray()
        self._excess = False

    def write(self, fragments: Sequence[memoryview]) -> None:
        for fragment in fragments:
            self._excess = self._excess or len(self._data) + len(fragment) > self._archive.limits.identifier
            if not self._excess:
                self._data += fragment

    def finish(self) -> Command | None:
        """Raises Gone and ProtocolViolation, nothing else."""
        asked = self._asked
        try:
            if self._excess:
                raise LimitExceeded(f"an identifier has {self._archive.limits.identifier} bytes at most")
            identifier = read_identifier(bytes(self._data), asked, self._archive.limits)
            asked.link.begin()
            return self._run(self._archive, asked, identifier)
        except (Gone, ProtocolViolation):
            raise
        except (MismatchedObject, BadRequest) as error:
            return response_to(asked.command, MISMATCH, str(error) or title(error))
        except NegatoscopeError as error:
            status = wire_form(error).dimse
            if status == OUT_OF_RESOURCES and asked.command.field != C_FIND:
                status = NOT_CALCULATED
            log.warning("query or retrieve refused: %s, status 0x%04X", type(error).__name__, status)
            return response_to(asked.command, status, str(error) or title(error))
        except Exception as error:  # noqa: BLE001  # a server answers whatever happened behind it
            log.error("query or retrieve failed: %s", where(error))
            return response_to(asked.command, PROCESSING_FAILURE, "internal error")

    def abort(self) -> None:
        self._data.clear()

"""What each DIMSE request does here: C-ECHO, C-STORE, and a clear no to the rest."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from negatoscope.archive.ports import Buffer, Receiver, Reception
from negatoscope.errors import (
    Forbidden,
    MismatchedObject,
    NegatoscopeError,
    UnsupportedSOPClass,
    title,
    wire_form,
)
from negatoscope.model.actor import Actor, Right
from negatoscope.model.source import Announced, Door, Source
from negatoscope.wire.dimse.commands import C_ECHO, C_STORE, SUCCESS, Command, Element, response_to
from negatoscope.wire.dimse.messages import Message

log = logging.getLogger(__name__)

Count = Callable[[str, float], None]
UNRECOGNIZED_OPERATION = 0x0211
PROCESSING_FAILURE = 0x0110
_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)  # whether it is a proper one is the archive's to say


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of an association, as policy resolved it."""

    actor: Actor
    calling_title: str
    address: str

    def source(self) -> Source:
        actor = self.actor
        return Source(
            actor.actor_id,
            actor.establishment_id,
            actor.establishment_code,
            actor.authority_oid,
            self.calling_title,
            self.address,
            Door.DIMSE,
        )


class Exchange(Protocol):
    """One request on its way: its data set if it has one, then its response. Never raises."""

    def write(self, fragments: Sequence[memoryview]) -> None:
        """Bytes of the data set; the views are good during the call only."""
        ...

    def finish(self) -> Command | None:
        """The request is complete; its response. None: it is sent already."""
        ...

    def abort(self) -> None:
        """The association ended before the request was complete."""
        ...


class Answer:
    """A request of which the response is known at once. Its data set, if any, is dropped."""

    def __init__(self, command: Command, status: int, comment: str = "") -> None:
        self._response = response_to(command, status, comment)

    def write(self, fragments: Sequence[memoryview]) -> None:
        pass

    def finish(self) -> Command:
        return self._response

    def abort(self) -> None:
        pass


class Storing:
    """A C-STORE. After a failure the rest of the data set is drained, and the failure is the answer."""

    def __init__(
        self, command: Command, context: tuple[str, str], source: Source, receiver: Receiver, count: Count
    ) -> None:
        self._command, self._count = command, count
        self._reception: Reception | None = None
        self._failure: tuple[int, str] | None = None  # status, comment
        try:
            self._reception = receiver.begin(source, _announced(command, context))
        except Exception as error:  # noqa: BLE001  # a server answers whatever happened behind it
            self._fail(error)

    def write(self, fragments: Sequence[Buffer]) -> None:
        if self._reception is None:
            return
        try:
            self._reception.write(fragments)
        except Exception as error:  # noqa: BLE001  # same
            self._fail(error)

    def finish(self) -> Command:
        reception, self._reception = self._reception, None
        if reception is not None:
            try:
                reception.commit()
            except Exception as error:  # noqa: BLE001  # same
                self._fail(error)
        if self._failure is not None:
            self._count("dicom_store_failures_total", 1)
            return response_to(self._command, *self._failure)
        self._count("dicom_acknowledged_total", 1)
        return response_to(self._command, SUCCESS)

    def abort(self) -> None:
        reception, self._reception = self._reception, None
        if reception is not None:
            reception.abort()

    def _fail(self, error: Exception) -> None:
        self.abort()
        if isinstance(error, NegatoscopeError):
            self._failure = wire_form(error).dimse, str(error) or title(error)
            log.warning("C-STORE refused: %s, status 0x%04X", type(error).__name__, self._failure[0])
        else:
            self._failure = PROCESSING_FAILURE, "internal error"
            log.error("C-STORE failed: %s", where(error))


def _announced(command: Command, context: tuple[str, str]) -> Announced:
    """Raises MismatchedObject and UnsupportedSOPClass for an announcement that no data set can meet."""
    abstract_syntax, transfer_syntax = context
    sop_class = command.text(Element.AFFECTED_SOP_CLASS_UID)
    sop_instance = command.text(Element.AFFECTED_SOP_INSTANCE_UID)
    for name, uid in (("class", sop_class), ("instance", sop_instance)):
        if not _UID.fullmatch(uid):
            raise MismatchedObject(f"Affected SOP {name} UID is missing or malformed")
    if sop_class != abstract_syntax:
        raise UnsupportedSOPClass("Affected SOP class is not the one of its presentation context")
    return Announced(transfer_syntax, sop_class, sop_instance)


def open_exchange(
    message: Message, contexts: dict[int, tuple[str, str]], peer: Peer, receiver: Receiver, count: Count
) -> Exchange:
    """What answers ``message``, a request of verification or storage."""
    command = message.command
    if command.field == C_ECHO:
        return Answer(command, SUCCESS)
    if command.field == C_STORE:
        if Right.STORE not in peer.actor.rights:  # its context was accepted for C-GET alone
            return Answer(command, wire_form(Forbidden()).dimse, "no right to store")
        if not command.has_data_set:
            return Answer(command, wire_form(MismatchedObject()).dimse, "no data set")
        return Storing(command, contexts[message.context_id], peer.source(), receiver, count)
    return Answer(command, UNRECOGNIZED_OPERATION)


def where(error: BaseException) -> str:
    """Kind and place of an unforeseen error, without its text, which may quote a data set."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown place"
    return f"{type(error).__name__} at {place}"

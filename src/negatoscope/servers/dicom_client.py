"""A lean sender on the same machine as the server, as requestor: associate, echo, store, release.

One object is one association and belongs to one thread.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from negatoscope.archive.ports import Buffer
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.errors import Unavailable, UnsupportedSOPClass
from negatoscope.servers.dicom_association import make_blocking
from negatoscope.servers.dicom_link import quick_acknowledge
from negatoscope.servers.dicom_sending import Stored, readable, send_all, send_content
from negatoscope.servers.dicom_tls import Connection, Secured, TlsRefused, connect
from negatoscope.wire.dimse import Command, Element, MessageReader, encode, request
from negatoscope.wire.dimse.commands import C_ECHO, C_STORE, MEDIUM_PRIORITY, Value
from negatoscope.wire.dul import Association, ProtocolViolation, Role
from negatoscope.wire.dul.events import (
    AssociationAccepted,
    AssociationRejected,
    CommandReceived,
    DataReceived,
    Event,
    Released,
    ReleaseRequested,
    Violated,
)
from negatoscope.wire.dul.items import (
    AsynchronousOperations,
    PresentationContext,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from negatoscope.wire.dul.pdu import AssociateAccept, AssociateReject, AssociateRequest

VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
CHUNK = 1 << 16  # bytes read at once
LAST_MESSAGE_ID = 0xFFFF


class PeerUnavailable(Unavailable):
    """The peer cannot be reached, or the association ended before the answer came."""


class AssociationRefused(PeerUnavailable):
    """The peer rejected the association."""

    def __init__(self, reject: AssociateReject) -> None:
        super().__init__(f"rejected: result {reject.result}, source {reject.source}, reason {reject.reason}")
        self.reject = reject


@dataclass(frozen=True, slots=True)
class Proposal:
    """What an association is opened with."""

    called_title: str
    calling_title: str
    contexts: Sequence[tuple[str, Sequence[str]]] = ((VERIFICATION, (IMPLICIT_LITTLE_ENDIAN,)),)
    window: int = 1  # requests that we would like to have outstanding
    user_identity: UserIdentity | None = None
    roles: Sequence[RoleSelection] = ()
    limits: Limits = field(default=DEFAULT_LIMITS)
    secured: Secured | None = None  # None: plain text


class Sender:
    """An open association. Use :func:`associate` to get one, and ``with`` to end it well."""

    def __init__(self, connection: Connection, machine: Association) -> None:
        self._connection, self._machine = connection, machine
        self._messages = MessageReader()
        self._events: deque[Event] = deque()
        self._message_id = 0
        self.accepted: AssociateAccept | None = None

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()

    @property
    def window(self) -> int:
        """How many requests may be outstanding."""
        granted = self.accepted.user.asynchronous_operations if self.accepted else None
        return granted.invoked if granted else 1

    @property
    def contexts(self) -> dict[int, tuple[str, str]]:
        """Accepted presentation contexts: abstract syntax, transfer syntax."""
        return self._machine.contexts

    def context_for(self, sop_class_uid: str, transfer_syntax_uid: str) -> int:
        """The accepted context for an object. Raises UnsupportedSOPClass when there is none."""
        for context_id, accepted in self._machine.contexts.items():
            if accepted == (sop_class_uid, transfer_syntax_uid):
                return context_id
        raise UnsupportedSOPClass("the peer accepted no presentation context for this object")

    def echo(self) -> int:
        """C-ECHO; its status."""
        syntaxes = [id_ for id_, (abstract, _) in self._machine.contexts.items() if abstract == VERIFICATION]
        if not syntaxes:
            raise UnsupportedSOPClass("the peer did not accept verification")
        self._ask(syntaxes[0], C_ECHO, {Element.AFFECTED_SOP_CLASS_UID: VERIFICATION})
        return self.answer().status

    def store(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, data: Buffer) -> Command:
        """C-STORE one data set (no file meta) and wait; the response, whatever its status."""
        self.begin_store(sop_class_uid, sop_instance_uid, transfer_syntax_uid, [data])
        return self.answer()

    def begin_store(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        data: Iterable[Buffer] | Stored,
        originator: tuple[str, int] | None = None,
    ) -> int:
        """Send without waiting; the message ID. At most :attr:`window` of them before an :meth:`answer`.

        ``data`` is the data set in pieces of any size. Only what ``sendmsg`` holds is in memory.
        ``originator``: AE title and message ID of the C-MOVE that this is a part of.
        """
        context_id = self.context_for(sop_class_uid, transfer_syntax_uid)
        values: dict[Element, Value] = {
            Element.AFFECTED_SOP_CLASS_UID: sop_class_uid,
            Element.AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
            Element.PRIORITY: MEDIUM_PRIORITY,
        }
        if originator is not None:
            values[Element.MOVE_ORIGINATOR_TITLE], values[Element.MOVE_ORIGINATOR_MESSAGE_ID] = originator
        message_id = self._ask(context_id, C_STORE, values, data_set=True)
        try:
            send_content(self._connection, self._machine, context_id, data if isinstance(data, Stored) else iter(data))
        except OSError as error:
            raise PeerUnavailable(f"connection lost while sending: {_why(error)}") from error
        return message_id

    def answered(self, within_s: float) -> bool:
        """Whether something comes within this time, an answer perhaps."""
        return bool(self._events) or readable(self._connection, within_s)

    def answer(self) -> Command:
        """The next response. PeerUnavailable when the association ends instead."""
        while True:
            event = self._next()
            try:
                if isinstance(event, CommandReceived):
                    message = self._messages.command(event)
                    if message.command.is_response:
                        return message.command
                    raise ProtocolViolation(0, "a request, where a response was due")
                if isinstance(event, DataReceived):
                    self._messages.data(event)
                    continue
            except ProtocolViolation as violation:
                self.abort()
                raise PeerUnavailable(f"aborted: {violation}") from violation
            self._over(event)

    def ask(self, context_id: int, kind: int, values: Mapping[Element, Value], data_set: bytes) -> int:
        """Any request with a small data set, without waiting; its message ID. Raises PeerUnavailable."""
        message_id = self._ask(context_id, kind, values, data_set=True)
        self._send(self._machine.message(context_id, data_set, command=False))
        return message_id

    def receive(self, longest: int) -> tuple[int, Command, bytes]:
        """The next message whole, request or response: its context, command set, data set.

        PeerUnavailable when the association ends instead, or the data set is over ``longest`` bytes.
        """
        message, data = None, bytearray()
        while True:
            event = self._next()
            try:
                if isinstance(event, CommandReceived):
                    message = self._messages.command(event)
                    if not message.command.has_data_set:
                        return message.context_id, message.command, b""
                    continue
                if isinstance(event, DataReceived):
                    self._messages.data(event)
                    data += event.data
                    if len(data) > longest:
                        raise ProtocolViolation(0, f"a data set of over {longest} bytes")
                    if event.last:
                        assert message is not None
                        return message.context_id, message.command, bytes(data)
                    continue
            except ProtocolViolation as violation:
                self.abort()
                raise PeerUnavailable(f"aborted: {violation}") from violation
            self._over(event)

    def respond(self, context_id: int, response: Command) -> None:
        """Answer a request of the peer. Raises PeerUnavailable."""
        self._send(self._machine.message(context_id, encode(response), command=True))

    def release(self) -> None:
        """End the association in order. PeerUnavailable when the peer does not answer in kind."""
        try:
            self._send(self._machine.release(time.monotonic()))
            while not isinstance(event := self._next(), Released):
                if isinstance(event, ReleaseRequested):
                    self._send(self._machine.release_answer(time.monotonic()))
                elif not isinstance(event, CommandReceived | DataReceived):
                    self._over(event)
        finally:
            self._connection.close()

    def abort(self) -> None:
        """End the association at once. Never raises."""
        with contextlib.suppress(OSError):
            self._connection.sendall(self._machine.abort(time.monotonic()))
        self._connection.close()

    # ---- inside ---------------------------------------------------------------------------

    def open(self, asked: AssociateRequest) -> None:
        """Used by :func:`associate` alone."""
        self._send(self._machine.request(asked, time.monotonic()))
        event = self._next()
        if isinstance(event, AssociationRejected):
            raise AssociationRefused(event.reject)
        if not isinstance(event, AssociationAccepted):
            self._over(event)
            raise PeerUnavailable("no answer to the association request")
        self.accepted = event.accept

    def _ask(self, context_id: int, kind: int, values: Mapping[Element, Value], data_set: bool = False) -> int:
        for event in self._events:  # the end may have come together with the last response
            if not isinstance(event, CommandReceived | DataReceived):
                self._over(event)
        self._message_id = self._message_id % LAST_MESSAGE_ID + 1
        command = request(kind, self._message_id, values, data_set)
        parts = self._machine.data(context_id, encode(command), command=True)
        self._send(b"".join(part for pair in parts for part in pair))
        return self._message_id

    def _send(self, data: bytes) -> None:
        try:
            send_all(self._connection, [data])
        except OSError as error:
            raise PeerUnavailable(f"connection lost while sending: {_why(error)}") from error

    def _next(self) -> Event:
        """The next event; waits for it. Data set bytes are copied by nobody: see DataReceived."""
        while not self._events:
            try:
                data = self._connection.recv(CHUNK)
                if data:
                    quick_acknowledge(self._connection)
            except BlockingIOError as error:
                self.abort()
                raise PeerUnavailable("no answer in time") from error
            except OSError as error:
                raise PeerUnavailable(f"connection lost: {_why(error)}") from error
            now = time.monotonic()
            self._events += self._machine.receive(data, now) if data else self._machine.closed(now)
            if not data and not self._events:
                raise PeerUnavailable("connection closed")
        return self._events.popleft()

    def _over(self, event: Event) -> None:
        """The association has ended otherwise than asked."""
        if isinstance(event, Violated):
            with contextlib.suppress(OSError):
                self._connection.sendall(event.reply)
        self._connection.close()
        raise PeerUnavailable(f"association ended: {type(event).__name__}")


def associate(address: tuple[str, int], proposal: Proposal) -> Sender:
    """Open an association.

    Raises:
        AssociationRefused: the peer said no; ``reject`` has its reasons.
        PeerUnavailable: no connection, no answer, or nonsense.
    """
    limits = proposal.limits
    connection = _connection(address, proposal)
    sender = Sender(connection, Association(Role.REQUESTOR, limits, time.monotonic()))
    try:
        make_blocking(connection, limits.dimse_answer_s, limits.dimse_answer_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sender.open(_request(proposal))
    except BaseException:
        connection.close()
        raise
    return sender


def _connection(address: tuple[str, int], proposal: Proposal) -> Connection:
    """A connection, secure if it shall be; ``artim_s`` for each of the two steps."""
    limits, secured = proposal.limits, proposal.secured
    try:
        plain = socket.create_connection(address, timeout=limits.artim_s)
        if secured is None:
            return plain
        try:
            return connect(plain, secured, address[0], limits.artim_s)
        except BaseException:
            plain.close()
            raise
    except OSError as error:
        raise PeerUnavailable(f"no connection: {_why(error)}") from error


def _why(error: OSError) -> str:
    return str(error) if isinstance(error, TlsRefused) else f"errno {error.errno}"


def _request(proposal: Proposal) -> AssociateRequest:
    contexts = tuple(
        PresentationContext(2 * index + 1, abstract, tuple(syntaxes))
        for index, (abstract, syntaxes) in enumerate(proposal.contexts)
    )
    window = AsynchronousOperations(proposal.window, 1) if proposal.window != 1 else None
    return AssociateRequest(
        proposal.called_title,
        proposal.calling_title,
        contexts,
        UserInformation(
            proposal.limits.pdu_offered,
            asynchronous_operations=window,
            user_identity=proposal.user_identity,
            roles=tuple(proposal.roles),
        ),
    )

"""What an operation that lasts may do with its association: send, and hear what comes meanwhile.

While C-FIND, C-GET or C-MOVE runs, the peer may cancel it, answer sub-operations, send further requests or
leave. One thread does all of it: the operation looks, at points of its own choosing, at what has arrived.
Requests that come meanwhile wait, within bounds; then nothing more is read until the operation ends.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque

from negatoscope.archive.ports import Buffer
from negatoscope.servers.dicom_sending import Content, readable, send_content
from negatoscope.servers.dicom_tls import Connection
from negatoscope.wire.dimse import Command, decode, encode
from negatoscope.wire.dimse.commands import C_CANCEL, Element
from negatoscope.wire.dul import Association
from negatoscope.wire.dul.events import CommandReceived, DataReceived, Event
from negatoscope.wire.dul.items import PROVIDER_SOURCE

CHUNK = 1 << 16  # bytes read at once during an operation
MOST_WAITING = 1 << 20  # bytes of requests that may wait for the operation's end


class Gone(Exception):
    """The association has ended, or ends next: nothing can be said on it any more."""


def quick_acknowledge(connection: Connection) -> None:
    """Answer the next segment at once: peers with Nagle's algorithm on wait for it. Linux forgets; set it again."""
    if hasattr(socket, "TCP_QUICKACK"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class Link:
    """One open association, as an operation sees it. Belongs to the association's thread."""

    def __init__(self, connection: Connection, machine: Association) -> None:
        self._connection, self._machine = connection, machine
        self.extended: dict[str, bytes] = {}  # what was granted by extended negotiation, by SOP class
        self.receives: frozenset[str] = frozenset()  # SOP classes of which the peer may be sent objects
        self.waiting: deque[Event] = deque()  # not yet acted on, in order; shared with the conversation
        self._answers: deque[Command] = deque()
        self._cancelled: set[int] = set()
        self._held = 0  # bytes of data sets in ``waiting``

    @property
    def contexts(self) -> dict[int, tuple[str, str]]:
        """Accepted presentation contexts: abstract syntax, transfer syntax."""
        return self._machine.contexts

    def begin(self) -> None:
        """An operation starts: what arrived together with its request is looked at. Raises Gone."""
        self._answers.clear()
        self._cancelled.clear()
        self._held = 0
        arrived = list(self.waiting)
        self.waiting.clear()
        for event in arrived:
            self._sort(event)

    def framed(self, context_id: int, payload: bytes, command: bool) -> bytes:
        """The PDUs of a small command set or data set."""
        return self._machine.message(context_id, payload, command)

    def send(self, data: Buffer) -> None:
        """Bytes that are framed already. Raises Gone."""
        try:
            self._connection.sendall(data)
        except OSError as error:
            self._lost(error)

    def respond(self, context_id: int, response: Command, data_set: bytes | None = None) -> None:
        """Raises Gone."""
        framed = self.framed(context_id, encode(response), command=True)
        if data_set is not None:
            framed += self.framed(context_id, data_set, command=False)
        self.send(framed)

    def send_content(self, context_id: int, content: Content) -> None:
        """A data set. Raises Gone, and whatever reading it raises: then the association must end."""
        try:
            send_content(self._connection, self._machine, context_id, content)
        except OSError as error:
            self._lost(error)

    def cancelled(self, message_id: int) -> bool:
        """Whether the peer has cancelled that request. Does not wait. Raises Gone, ProtocolViolation."""
        while message_id not in self._cancelled and self._held < MOST_WAITING and self._read(wait=False):
            pass
        return message_id in self._cancelled

    def answered(self, within_s: float) -> bool:
        """Whether something comes within this time, an answer perhaps."""
        return bool(self._answers) or readable(self._connection, within_s)

    def answer(self) -> Command:
        """The next response to a sub-operation; waits for it. Raises Gone, ProtocolViolation."""
        while not self._answers:
            if self._held >= MOST_WAITING or not self._read(wait=True):
                self.abort()
                raise Gone
        return self._answers.popleft()

    def abort(self) -> None:
        """End the association now; whoever called raises Gone."""
        with contextlib.suppress(OSError):
            self._connection.sendall(self._machine.abort(time.monotonic(), PROVIDER_SOURCE))

    # ---- inside ---------------------------------------------------------------------------

    def _lost(self, error: OSError) -> None:
        self._machine.closed(time.monotonic())
        raise Gone from error

    def _read(self, wait: bool) -> bool:
        """Sort what has arrived; False: nothing has, yet or in time."""
        try:
            data = self._connection.recv(CHUNK, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lost(error)
        if not data:
            self._machine.closed(time.monotonic())
            raise Gone
        quick_acknowledge(self._connection)
        for event in self._machine.receive(data, time.monotonic()):
            self._sort(event)
        return True

    def _sort(self, event: Event) -> None:
        if isinstance(event, CommandReceived):
            command = decode(event.data)
            if command.field == C_CANCEL:
                self._cancelled.add(command.number(Element.MESSAGE_ID_BEING_RESPONDED_TO))
            elif command.is_response:
                self._answers.append(command)
            else:
                self.waiting.append(event)
        elif isinstance(event, DataReceived):
            self.waiting.append(event)
            self._held += len(event.data)
        else:  # the end; requests that waited are void
            self.waiting.clear()
            self.waiting.append(event)
            raise Gone

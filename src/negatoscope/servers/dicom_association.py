"""One association, from its accepted request to its end, in a thread of its own: the thin shell."""

from __future__ import annotations

import contextlib
import logging
import mmap
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from negatoscope.archive.ports import Receiver
from negatoscope.dicom.limits import Limits
from negatoscope.errors import NegatoscopeError
from negatoscope.model.actor import Actor
from negatoscope.servers import dicom_negotiation as negotiation
from negatoscope.servers.dicom_link import Gone, Link, quick_acknowledge
from negatoscope.servers.dicom_store import Count, Exchange, Peer, open_exchange, where
from negatoscope.servers.dicom_tls import Connection
from negatoscope.wire.dimse import Command, Message, MessageReader, encode
from negatoscope.wire.dimse.commands import C_CANCEL
from negatoscope.wire.dul import Association, ProtocolViolation
from negatoscope.wire.dul.events import (
    CommandReceived,
    DataReceived,
    Event,
    ReleaseRequested,
    Violated,
)
from negatoscope.wire.dul.items import PROVIDER_SOURCE, UserIdentity
from negatoscope.wire.dul.pdu import CALLING_TITLE_UNKNOWN, TEMPORARY_CONGESTION, AssociateReject, AssociateRequest

log = logging.getLogger(__name__)

RECEIVE_BUFFER = 1 << 20  # bytes
Authenticate = Callable[[str, str, str, UserIdentity | None], Actor | None]
Refused = Callable[[str, str, str], None]  # calling title, reason, address: for the audit trail; returns at once


def unheard(title: str, reason: str, address: str) -> None:
    """For servers without an audit trail."""


class Operations(Protocol):
    """Services besides verification and storage, whose operations may last and answer many times."""

    @property
    def services(self) -> Sequence[negotiation.Service]:
        """What is accepted on their behalf."""
        ...

    def open(self, message: Message, context: tuple[str, str], peer: Peer, link: Link) -> Exchange | None:
        """What answers ``message``; None: not theirs. ``finish`` may raise Gone and ProtocolViolation."""
        ...


@dataclass(frozen=True, slots=True)
class Node:
    """What every association of one server is given."""

    title: str
    receiver: Receiver
    authenticate: Authenticate
    limits: Limits
    count: Count
    operations: Sequence[Operations] = ()
    refused: Refused = unheard
    stranger: str = "title-or-address"  # the reason when nobody is known by this title there


def make_blocking(connection: Connection, receive_s: float, send_s: float) -> None:
    """Blocking calls that the kernel ends (BlockingIOError): cheaper than a poll before each of them."""
    connection.setblocking(True)
    for option, seconds in ((socket.SO_RCVTIMEO, receive_s), (socket.SO_SNDTIMEO, send_s)):
        whole = int(seconds)
        timeval = struct.pack("ll", whole, max(int((seconds - whole) * 1e6), 0 if whole else 1))
        connection.setsockopt(socket.SOL_SOCKET, option, timeval)


class Conversation:
    """The thread's work. ``stop`` may be called from another thread; nothing else may."""

    def __init__(
        self,
        node: Node,
        connection: Connection,
        machine: Association,
        address: str,
        leave: Callable[[], None],
    ) -> None:
        """``leave`` frees the association's place; it is called once the peer can know that it is over."""
        self._node, self._connection, self._machine = node, connection, machine
        self._address, self._leave = address, leave
        self._messages = MessageReader()
        self._link = Link(connection, machine)
        self._exchange: Exchange | None = None
        self._exchange_context = 0
        self._peer: Peer | None = None
        self._stopping = self._over = False

    def run(self, request: AssociateRequest) -> None:
        """Answer ``request`` and serve until the end. Leaves the socket open, for its last bytes to arrive."""
        try:
            make_blocking(self._connection, self._node.limits.idle_s, self._node.limits.dimse_answer_s)
            if self._answer(request):
                self._serve()
        except OSError:  # reset, or our bytes were not taken in time
            self._machine.closed(time.monotonic())
        except Exception as error:  # noqa: BLE001  # one association's failure is not the server's
            log.error("association failed: %s", where(error))
            self._node.count("dicom_failures_total", 1)
            with contextlib.suppress(OSError):
                self._send(self._machine.abort(time.monotonic(), PROVIDER_SOURCE))
        finally:
            try:
                if self._exchange is not None:
                    self._exchange.abort()
            finally:
                self._leave()

    def stop(self, now: bool) -> None:
        """End soon: after the message under way, or ``now``. The peer gets an A-ABORT."""
        self._stopping = True
        if now or self._exchange is None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RD)  # wakes the thread

    def _answer(self, request: AssociateRequest) -> bool:
        """Ask who it is; accept or reject."""
        limits, rejection = self._node.limits, CALLING_TITLE_UNKNOWN
        actor: Actor | None = None
        try:
            actor = self._node.authenticate(
                request.calling_title, request.called_title, self._address, request.user.user_identity
            )
        except NegatoscopeError as error:
            rejection = TEMPORARY_CONGESTION
            log.warning("no association: %s", type(error).__name__)
        except Exception as error:  # noqa: BLE001  # the peer is told to come again, the log what it was
            rejection = TEMPORARY_CONGESTION
            log.error("no association: %s", where(error))
        if actor is None:
            if rejection is CALLING_TITLE_UNKNOWN:
                self._node.refused(request.calling_title, self._node.stranger, self._address)
            self._reject(rejection)
            return False
        self._peer = Peer(actor, request.calling_title, self._address)
        more = [service for operations in self._node.operations for service in operations.services]
        accepted = negotiation.accept(request, actor, limits, (*negotiation.SERVICES, *more))
        self._link.receives = frozenset(role.sop_class_uid for role in accepted.user.roles if role.scp)
        self._link.extended = {one.sop_class_uid: one.information for one in accepted.user.extended}
        self._send(self._machine.accept(accepted, time.monotonic()))
        self._node.count("dicom_associations_total", 1)
        return True

    def _reject(self, rejection: AssociateReject) -> None:
        self._leave()
        self._send(self._machine.reject(rejection, time.monotonic()))
        self._node.count("dicom_rejections_total", 1)

    def _serve(self) -> None:
        # A mapping, not a bytearray: only pages that are ever filled cost memory, and all go back at
        # the end. The heap would zero the whole buffer, and keep it, for a peer that sends 100 bytes.
        buffer = mmap.mmap(-1, RECEIVE_BUFFER, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        view, connection, machine = memoryview(buffer), self._connection, self._machine
        while not self._over:
            if self._stopping and self._exchange is None:
                self._send(machine.abort(time.monotonic(), PROVIDER_SOURCE))
                return
            try:
                received = connection.recv_into(buffer)
            except BlockingIOError:
                self._handle(machine.expire(time.monotonic()))
                continue
            if received:
                quick_acknowledge(connection)
                self._handle(machine.receive(view[:received], time.monotonic()))
            elif self._stopping:
                self._send(machine.abort(time.monotonic(), PROVIDER_SOURCE))
                return
            else:
                machine.closed(time.monotonic())
                return

    def _handle(self, events: list[Event]) -> None:
        """Act on events in order. Data set bytes of one receive go to the archive in one call."""
        fragments: list[memoryview] = []
        waiting = self._link.waiting  # an operation that lasts adds what comes meanwhile
        waiting.extend(events)
        try:
            while waiting:
                event = waiting.popleft()
                if isinstance(event, DataReceived):
                    self._messages.data(event)
                    fragments.append(event.data)
                    if event.last:
                        self._write(fragments)
                        self._finish()
                elif isinstance(event, CommandReceived):
                    self._begin(event)
                else:
                    self._end(event)
            self._write(fragments)
        except ProtocolViolation as violation:
            self._violated(str(violation))
            self._send(self._machine.abort(time.monotonic()))
            self._over = True

    def _begin(self, event: CommandReceived) -> None:
        message = self._messages.command(event)
        if message.command.is_response:
            raise ProtocolViolation(0, "a response to nothing that was asked")
        if message.command.field == C_CANCEL:  # what it would cancel is answered already
            return
        assert self._peer is not None
        self._exchange_context = message.context_id
        self._exchange = self._open(message, self._peer)
        if not message.command.has_data_set:
            self._finish()

    def _open(self, message: Message, peer: Peer) -> Exchange:
        contexts = self._machine.contexts
        for operations in self._node.operations:
            exchange = operations.open(message, contexts[message.context_id], peer, self._link)
            if exchange is not None:
                return exchange
        return open_exchange(message, contexts, peer, self._node.receiver, self._node.count)

    def _write(self, fragments: list[memoryview]) -> None:
        if fragments and self._exchange is not None:
            self._exchange.write(fragments)
            self._node.count("dicom_received_bytes_total", sum(map(len, fragments)))
        fragments.clear()

    def _finish(self) -> None:
        if self._exchange is None:
            return
        context_id = self._exchange_context
        try:
            response = self._exchange.finish()
        except Gone:  # what ended the association comes next, unless it just broke
            self._over = self._over or not self._link.waiting
            return
        finally:
            self._exchange = None
        if response is not None:
            self._respond(context_id, response)

    def _respond(self, context_id: int, response: Command) -> None:
        parts = self._machine.data(context_id, encode(response), command=True)
        self._send(b"".join(part for pair in parts for part in pair))

    def _end(self, event: Event) -> None:
        """Every event but data and commands ends the association."""
        self._over = True
        if isinstance(event, ReleaseRequested):
            self._leave()
            self._send(self._machine.release_answer(time.monotonic()))
        elif isinstance(event, Violated):
            self._violated(event.detail)
            self._leave()
            self._send(event.reply)

    def _violated(self, detail: str) -> None:
        self._node.count("dicom_violations_total", 1)
        log.warning("association aborted: %s", detail)

    def _send(self, data: bytes) -> None:
        if data:
            self._connection.sendall(data)

"""Lean DICOM peers for query and retrieve: what they are sent is counted and dropped, on our own wire code."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.clients import Address, ClientFailed
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.servers.dicom_client import Proposal, Sender, associate
from negatoscope.wire.dimse import Command, Element, decode, encode, request, response_to
from negatoscope.wire.dimse.commands import C_MOVE, C_STORE, MEDIUM_PRIORITY, PENDING, SUCCESS, Value
from negatoscope.wire.dul import Association, Role
from negatoscope.wire.dul.events import AssociationRequested, CommandReceived, DataReceived, Event, ReleaseRequested
from negatoscope.wire.dul.items import ContextAnswer, RoleSelection, UserInformation
from negatoscope.wire.dul.pdu import AssociateAccept, AssociateRequest, PDUType

MODALITY, RECEIVER = "MODALITY", "RECEIVER"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2"
FIND, MOVE, GET = (f"{STUDY_ROOT}.{number}" for number in (1, 2, 3))
# Servers may think for minutes before the first of many answers.
LIMITS = replace(DEFAULT_LIMITS, dimse_answer_s=600.0, idle_s=600.0)
_CHUNK = 1 << 20
_HEADS = 12  # bytes of the headers of a PDU and of the fragment in it
_WHOLE_COMMAND = 3  # message control header: a command, its last fragment


@dataclass
class Counter:
    """One association, in either role, and what came over it."""

    connection: socket.socket
    machine: Association
    checking: bool = False  # keep the SHA-256 of each data set
    objects: int = 0
    size: int = 0  # bytes of their data sets
    answers: int = 0  # pending responses
    last: Command | None = None  # the response that ends the request
    digests: dict[str, bytes] = field(default_factory=dict)  # by SOP Instance UID

    def __post_init__(self) -> None:
        self._buffer = memoryview(bytearray(_CHUNK))
        self._storing: Command | None = None
        self._hash = hashlib.sha256()
        self._pending = b""  # the last pending response: the next is often the same

    def take(self) -> bool:
        """Read once and act on it; False: nothing more will come."""
        got = self.connection.recv_into(self._buffer)
        if not got:
            return False
        return all(self._act(event) for event in self.machine.receive(self._buffer[:got], time.monotonic()))

    def until_answered(self) -> Command:
        """The response that ends the request."""
        while self.last is None:
            if not self.take() and self.last is None:
                raise ClientFailed("the association ended early")
        return self.last

    def _act(self, event: Event) -> bool:
        if isinstance(event, DataReceived):
            if self._storing is not None:
                self._data(event)
        elif isinstance(event, CommandReceived):
            self._command(event)
        elif isinstance(event, AssociationRequested):
            self.connection.sendall(self.machine.accept(_acceptance(event.request), time.monotonic()))
        elif isinstance(event, ReleaseRequested):
            self.connection.sendall(self.machine.release_answer(time.monotonic()))
        else:
            return False
        return True

    def _command(self, event: CommandReceived) -> None:
        if event.data == self._pending:
            self.answers += 1
            return
        command = decode(event.data)
        if command.field == C_STORE:
            self._storing, self._hash = command, hashlib.sha256()
        elif command.status in PENDING:
            self._pending = event.data
            self.answers += 1
        else:
            self.last = command

    def _data(self, event: DataReceived) -> None:
        assert self._storing is not None
        self.size += len(event.data)
        if self.checking:
            self._hash.update(event.data)
        if event.last:
            if self.checking:
                self.digests[self._storing.text(Element.AFFECTED_SOP_INSTANCE_UID)] = self._hash.digest()
            response = encode(response_to(self._storing, SUCCESS))
            self.connection.sendall(self.machine.message(event.context_id, response, command=True))
            self.objects += 1
            self._storing = None


def _acceptance(asked: AssociateRequest) -> AssociateAccept:
    """Everything that is proposed in explicit little endian, in that."""
    answers = [
        ContextAnswer(context.context_id, 0 if EXPLICIT_LITTLE_ENDIAN in context.transfer_syntaxes else 4,
                      EXPLICIT_LITTLE_ENDIAN)
        for context in asked.contexts
    ]  # fmt: skip
    return AssociateAccept(tuple(answers), UserInformation(LIMITS.pdu_offered), echo=asked.echo)


# As requestor ----------------------------------------------------------------------------------------


def open_for(address: Address, title: str, sop_class: str, given: str = "") -> Sender:
    """An association for one query or retrieve class; ``given``: the class of the objects that C-GET gives."""
    contexts = [(sop_class, (EXPLICIT_LITTLE_ENDIAN,))]
    roles = []
    if given:
        contexts.append((given, (EXPLICIT_LITTLE_ENDIAN,)))
        roles.append(RoleSelection(given, scu=False, scp=True))
    sender = associate(address, Proposal(title, MODALITY, contexts, roles=roles, limits=LIMITS))
    if 1 not in sender.contexts:
        sender.abort()
        raise ClientFailed("the service was not accepted")
    return sender


def ask(sender: Sender, verb: int, identifier: bytes, destination: str = "", *, checking: bool = False) -> Counter:
    """Ask on the first context and count what comes until it is answered. ClientFailed unless it went well."""
    counter = Counter(_send(sender, verb, identifier, destination), sender._machine, checking)
    _succeeded(counter.until_answered())
    return counter


def count_answers(sender: Sender, verb: int, identifier: bytes) -> int:
    """Ask for many small answers and count them, with as little work for each as there can be."""
    connection = _send(sender, verb, identifier)
    buffer, pending, answers = bytearray(), bytearray(), 0
    while True:
        got = connection.recv(_CHUNK)
        if not got:
            raise ClientFailed("the association ended early")
        buffer += got
        at, end = 0, len(buffer)
        while end - at >= _HEADS and end >= (after := at + 6 + int.from_bytes(buffer[at + 2 : at + 6], "big")):
            if buffer[at] != PDUType.P_DATA_TF or int.from_bytes(buffer[at + 6 : at + 10], "big") != after - at - 10:
                raise ClientFailed("not one fragment a PDU")
            if buffer[at + 11] == _WHOLE_COMMAND:
                command = buffer[at + _HEADS : after]
                if command != pending:
                    last = decode(bytes(command))
                    if last.status not in PENDING:
                        _succeeded(last)
                        return answers
                    pending = command
                answers += 1
            at = after
        del buffer[:at]


def _send(sender: Sender, verb: int, identifier: bytes, destination: str = "") -> socket.socket:
    connection, machine = sender._connection, sender._machine
    assert isinstance(connection, socket.socket)
    values: dict[Element, Value] = {
        Element.AFFECTED_SOP_CLASS_UID: sender.contexts[1][0],
        Element.PRIORITY: MEDIUM_PRIORITY,
    }
    if verb == C_MOVE:
        values[Element.MOVE_DESTINATION] = destination
    command = machine.message(1, encode(request(verb, 1, values, data_set=True)), command=True)
    connection.sendall(command + machine.message(1, identifier, command=False))
    return connection


def _succeeded(final: Command) -> None:
    if final.status != SUCCESS:
        raise ClientFailed(f"status 0x{final.status:04X} {final.text(Element.ERROR_COMMENT)}")


# As receiver of C-MOVE -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """Since it was last asked."""

    objects: int
    size: int  # bytes of their data sets
    cpu: float  # seconds
    digests: dict[str, bytes]


class Receiver:
    """A storage SCP in a process of its own."""

    def __init__(self, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_receive, args=(port, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # it listens

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(10)

    def expect(self, *, checking: bool) -> None:
        """Begin to count anew."""
        self._pipe.send(checking)
        self._pipe.recv()

    def tell(self) -> Received:
        self._pipe.send("tell")
        received: Received = self._pipe.recv()
        return received


def _receive(port: int, pipe: Connection) -> None:
    """Serve associations and answer questions, all in one loop."""
    open_: dict[socket.socket, Counter] = {}
    done: list[Counter] = []
    checking, began = False, 0.0
    with socket.create_server(("127.0.0.1", port)) as listener, selectors.DefaultSelector() as waiting:

        def begin() -> None:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            machine = Association(Role.ACCEPTOR, LIMITS, time.monotonic())
            counter = open_[connection] = Counter(connection, machine, checking)
            done.append(counter)
            waiting.register(connection, selectors.EVENT_READ, partial(serve, counter))

        def serve(counter: Counter) -> None:
            with contextlib.suppress(OSError):
                if counter.take():
                    return
            waiting.unregister(counter.connection)
            open_.pop(counter.connection).connection.close()

        waiting.register(listener, selectors.EVENT_READ, begin)
        waiting.register(pipe, selectors.EVENT_READ)
        pipe.send("listening")
        while True:
            for key, _ in waiting.select():
                if key.data is not None:
                    act: Callable[[], Any] = key.data
                    act()
                    continue
                asked = pipe.recv()
                if asked is None:
                    return
                if asked == "tell":
                    digests = {uid: digest for one in done for uid, digest in one.digests.items()}
                    cpu = time.process_time() - began
                    pipe.send(Received(sum(one.objects for one in done), sum(one.size for one in done), cpu, digests))
                else:
                    checking, began = asked, time.process_time()
                    done[:] = []
                    pipe.send("ready")

"""The DICOM door: one thread for the listening socket and all that is no association yet, one per association.

A peer that says nothing, or half a request, costs an entry in a table of 64 and nothing else:
threads start only for complete requests to our title within the limits on associations.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from negatoscope.archive.ports import Receiver
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.model.actor import Actor
from negatoscope.servers.dicom_association import Authenticate, Conversation, Node, Operations, Refused, unheard
from negatoscope.servers.dicom_link import quick_acknowledge
from negatoscope.servers.dicom_negotiation import refusal
from negatoscope.servers.dicom_store import Count, where
from negatoscope.servers.dicom_tls import Connection, SecureConnection, SecureDoor, TlsRefused
from negatoscope.wire.dul import Association, Role
from negatoscope.wire.dul.events import AssociationRequested, Violated
from negatoscope.wire.dul.items import UserIdentity
from negatoscope.wire.dul.pdu import (
    CALLED_TITLE_UNKNOWN,
    CALLING_TITLE_UNKNOWN,
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    AssociateReject,
    AssociateRequest,
)

log = logging.getLogger(__name__)

BACKLOG = 512  # connections that the kernel holds for us
ACCEPTED_AT_ONCE = 16  # then those already here are read: a burst must not push out who has just asked
CHUNK = 1 << 16  # bytes read at once from a socket without association
BREATH_S = 0.05  # pause when no file descriptor is left


def ignore(name: str, amount: float) -> None:
    """The metrics hook of those who count nothing."""


class Admission:
    """How many associations there are: in all, per calling title, per address."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._total = 0
        self._titles: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()

    def enter(self, title: str, address: str) -> Callable[[], None] | None:
        """A place, as the function that gives it back (once, however often it is called); None: there is none."""
        with self._lock:
            if (
                self._total >= self._limits.associations
                or self._titles[title] >= self._limits.associations_per_title
                or self._addresses[address] >= self._limits.associations_per_address
            ):
                self._forget_empty(title, address)
                return None
            self._total += 1
            self._titles[title] += 1
            self._addresses[address] += 1
        held = [True]

        def leave() -> None:
            with self._lock:
                if held:
                    held.clear()
                    self._total -= 1
                    self._titles[title] -= 1
                    self._addresses[address] -= 1
                    self._forget_empty(title, address)

        return leave

    def _forget_empty(self, title: str, address: str) -> None:
        if not self._titles[title]:
            del self._titles[title]
        if not self._addresses[address]:
            del self._addresses[address]


@dataclass(slots=True)
class _Waiting:
    """A connection without association: before it (Sta2), or after it, until the peer closes (Sta13)."""

    connection: Connection
    machine: Association
    address: str
    over: bool = False
    discarded: int = 0  # bytes that came after the end
    silent: bool = False  # nothing that comes is looked at: there was no security


class DicomServer:
    """Receives objects by C-STORE, answers C-ECHO, and gives room to further operations.

    Args:
        address: host and port to listen on; port 0 takes a free one, see :attr:`address`. None: no plain text.
        title: our AE title; requests that call another are rejected.
        receiver: where objects go.
        authenticate: ``(calling title, called title, address, user identity) -> Actor``, or None for
            a stranger. Called in the association's thread, so it may wait for a database.
        count: metrics hook ``(name, amount)``, called from many threads.
        listener: a socket that listens on ``address`` already: its owner keeps connections waiting
            while this process starts again.
        operations: services besides these two, as query/retrieve.
        secure: TLS, with limits, services and metrics in common.
        refused: told of whoever is turned away; called from many threads, must not wait.
    """

    def __init__(
        self,
        address: tuple[str, int] | None,
        title: str,
        receiver: Receiver,
        authenticate: Authenticate,
        limits: Limits = DEFAULT_LIMITS,
        count: Count = ignore,
        listener: socket.socket | None = None,
        operations: Sequence[Operations] = (),
        secure: SecureDoor | None = None,
        refused: Refused = unheard,
    ) -> None:
        self._wanted, self._given, self._secure = address, listener, secure
        self._node = Node(title, receiver, authenticate, limits, count, operations, refused)
        self._admission = Admission(limits)
        self._selector = selectors.DefaultSelector()
        self._waiting: dict[Connection, _Waiting] = {}  # in order of arrival
        self._returned: deque[_Waiting] = deque()  # from association threads, to await their end
        self._conversations: dict[threading.Thread, Conversation] = {}
        self._lock = threading.Lock()  # over _conversations
        self._stopping = False
        self._listening: socket.socket | None = None
        self._listening_securely: socket.socket | None = None
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="dicom", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens. Only once started."""
        assert self._listening is not None, "not started"
        host, port = self._listening.getsockname()[:2]
        return host, port

    @property
    def secure_address(self) -> tuple[str, int]:
        """Where it listens for TLS. Only once started."""
        assert self._listening_securely is not None, "not started, or not secure"
        host, port = self._listening_securely.getsockname()[:2]
        return host, port

    @property
    def alive(self) -> bool:
        """Whether new associations can come in; a process whose door has died should end."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Listen, and return. OSError when the address cannot be had."""
        self._listening = self._given
        if self._listening is None and self._wanted is not None:
            self._listening = socket.create_server(self._wanted, backlog=BACKLOG)
        if self._secure is not None:
            given = self._secure.listener
            self._listening_securely = given or socket.create_server(self._secure.address, backlog=BACKLOG)
        self._wake.setblocking(False)
        for one in (*self._doors(), self._woken):
            one.setblocking(False)
            self._selector.register(one, selectors.EVENT_READ)
        self._thread.start()

    def stop(self, grace_s: float = 2.0) -> None:
        """Refuse what is new, let messages under way end for ``grace_s``, abort the rest, and return."""
        self._stopping = True
        self._notify()
        if self._doors():
            self._thread.join()
        deadline = time.monotonic() + grace_s
        for now in (False, True):
            with self._lock:
                conversations = dict(self._conversations)
            for conversation in conversations.values():
                conversation.stop(now)
            for thread in conversations:
                thread.join(max(deadline - time.monotonic(), 0.0))
            deadline += 1.0
        for waiting in self._returned:
            waiting.connection.close()
        for one in (self._wake, self._woken):
            one.close()

    # ---- the selector thread ----------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                for key, _ in self._selector.select(self._patience()):
                    if key.fileobj is self._listening:
                        self._accept_all(self._listening, None)
                    elif key.fileobj is self._listening_securely:
                        self._accept_all(self._listening_securely, self._secure)
                    elif key.fileobj is self._woken:
                        self._take_back()
                    elif key.fileobj in self._waiting:
                        self._attend(self._waiting[key.fileobj])
                self._expire()
        finally:
            for waiting in list(self._waiting.values()):
                self._drop(waiting)
            for one in self._doors():
                one.close()
            self._selector.close()

    def _doors(self) -> list[socket.socket]:
        return [one for one in (self._listening, self._listening_securely) if one is not None]

    def _patience(self) -> float | None:
        """Seconds until the next timer."""
        due = [timer for waiting in self._waiting.values() if (timer := waiting.machine.timer()) is not None]
        return max(min(due) - time.monotonic(), 0.0) if due else None

    def _expire(self) -> None:
        now = time.monotonic()
        for waiting in list(self._waiting.values()):
            if waiting.machine.expire(now):  # ARTIM: nothing is said, the connection ends
                self._drop(waiting)

    def _accept_all(self, listening: socket.socket, secure: SecureDoor | None) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, peer = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:  # reset before it was taken, or no descriptor left
                log.warning("cannot accept a connection: errno %s", error.errno)
                self._drop_oldest()
                time.sleep(BREATH_S)
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            quick_acknowledge(connection)
            self._node.count("dicom_connections_total", 1)
            machine = Association(Role.ACCEPTOR, self._node.limits, time.monotonic())  # ARTIM bounds TLS too
            taken: Connection = connection
            if secure is not None:
                taken = SecureConnection(connection, secure.keys.server(), server_side=True)
            self._keep(_Waiting(taken, machine, str(peer[0])))

    def _keep(self, waiting: _Waiting) -> None:
        self._waiting[waiting.connection] = waiting
        self._selector.register(waiting.connection, selectors.EVENT_READ)
        if len(self._waiting) > self._node.limits.unfinished_associations:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Those whose association is over go first: all was said to them."""
        oldest = next((w for w in self._waiting.values() if w.over), next(iter(self._waiting.values()), None))
        if oldest is not None:
            self._node.count("dicom_unfinished_dropped_total", 0 if oldest.over else 1)
            self._drop(oldest)

    def _drop(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        waiting.connection.close()

    def _forget(self, waiting: _Waiting) -> None:
        del self._waiting[waiting.connection]
        self._selector.unregister(waiting.connection)

    def _attend(self, waiting: _Waiting) -> None:
        """Read, and whatever goes wrong for one peer stays with that peer."""
        try:
            self._read(waiting)
            while waiting.connection in self._waiting and self._holds_more(waiting.connection):
                self._read(waiting)
        except Exception as error:  # noqa: BLE001  # this thread is everybody's door
            log.error("connection dropped: %s", where(error))
            self._node.count("dicom_failures_total", 1)
            if waiting.connection in self._waiting:
                self._drop(waiting)

    @staticmethod
    def _holds_more(connection: Connection) -> bool:
        return isinstance(connection, SecureConnection) and connection.pending()

    def _read(self, waiting: _Waiting) -> None:
        try:
            data = waiting.connection.recv(CHUNK)
        except BlockingIOError:
            return
        except TlsRefused as refused:
            self._node.count("dicom_tls_refused_total", 1)
            log.warning("no TLS with %s: %s", waiting.address, refused)
            self._node.refused("", "no-valid-tls", waiting.address)
            waiting.over = waiting.silent = True  # the peer was told why; it closes, or ARTIM does
            return
        except OSError:
            data = b""
        if not data:
            self._drop(waiting)
            return
        if waiting.over:
            waiting.discarded += len(data)
            if waiting.discarded > self._node.limits.pdu_accepted:
                self._drop(waiting)
                return
        if waiting.silent:
            return
        events = waiting.machine.receive(data, time.monotonic())
        last = events[-1] if events else None  # what came before it (a request, then nonsense) is void
        if isinstance(last, AssociationRequested):
            self._requested(waiting, last.request)
        elif isinstance(last, Violated):
            self._node.count("dicom_violations_total", 1)
            log.warning("connection aborted: %s", last.detail)
            self._say(waiting, last.reply)
        elif last is not None:  # aborted, or over
            self._drop(waiting)

    def _say(self, waiting: _Waiting, last_words: bytes) -> None:
        """Send the end, then wait for the peer to close: closing first could destroy what was sent."""
        waiting.over = True
        with contextlib.suppress(OSError):
            waiting.connection.send(last_words)

    def _reject(self, waiting: _Waiting, rejection: AssociateReject) -> None:
        self._node.count("dicom_rejections_total", 1)
        self._say(waiting, waiting.machine.reject(rejection, time.monotonic()))

    def _requested(self, waiting: _Waiting, request: AssociateRequest) -> None:
        rejection = refusal(request, self._node.title)
        if rejection is not None:
            if rejection in (CALLED_TITLE_UNKNOWN, CALLING_TITLE_UNKNOWN):
                reason = "called-title" if rejection == CALLED_TITLE_UNKNOWN else "title-or-address"
                self._node.refused(request.calling_title, reason, waiting.address)
            self._reject(waiting, rejection)
            return
        leave = self._admission.enter(request.calling_title, waiting.address)
        if leave is None:
            self._reject(waiting, LOCAL_LIMIT_EXCEEDED)
            return
        conversation = Conversation(
            self._node_for(waiting.connection), waiting.connection, waiting.machine, waiting.address, leave
        )
        thread = threading.Thread(
            target=self._converse, args=(conversation, waiting, request), name="association", daemon=True
        )
        with self._lock:
            self._conversations[thread] = conversation
        self._forget(waiting)
        try:
            thread.start()
        except RuntimeError as error:  # no thread can be had
            log.error("no thread for an association: %s", where(error))
            with self._lock:
                del self._conversations[thread]
            leave()
            self._keep(waiting)
            self._reject(waiting, TEMPORARY_CONGESTION)

    def _node_for(self, connection: Connection) -> Node:
        """What an association is given: over TLS the caller's title is judged with its certificate."""
        if self._secure is None or not isinstance(connection, SecureConnection):
            return self._node
        authenticate, certificate = self._secure.authenticate, connection.certificate
        if certificate is None:  # never: no request is read before the handshake
            raise TlsRefused("no certificate")
        self._node.count("dicom_tls_associations_total", 1)

        def judge(calling: str, called: str, address: str, identity: UserIdentity | None) -> Actor | None:
            return authenticate(calling, called, address, identity, certificate)

        return replace(self._node, authenticate=judge, stranger="title-of-another-certificate")

    def _take_back(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(CHUNK):
                pass
        while self._returned:
            waiting = self._returned.popleft()
            waiting.connection.setblocking(False)
            self._keep(waiting)

    def _notify(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: nobody is left to wake
            self._wake.send(b"\0")

    # ---- the association threads ------------------------------------------------------------

    def _converse(self, conversation: Conversation, waiting: _Waiting, request: AssociateRequest) -> None:
        try:
            conversation.run(request)
        finally:
            waiting.over = True
            if self._stopping or waiting.machine.timer() is None:  # None: the peer ended it, none waits for more
                waiting.connection.close()
            else:
                self._returned.append(waiting)
                self._notify()
            with self._lock:
                del self._conversations[threading.current_thread()]

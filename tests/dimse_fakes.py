"""A receiver that keeps objects in memory, and a server around it: no database, no disk."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from negatoscope.archive.ports import Buffer
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.model.actor import Actor, ActorKind, Right
from negatoscope.model.source import Announced, Source
from negatoscope.model.stored import Outcome, StoreResult
from negatoscope.servers.dicom import DicomServer
from negatoscope.wire.dul.items import UserIdentity

TITLE = "NEGATOSCOPE"
CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"


def actor(*rights: Right, name: str = "CT_A") -> Actor:
    return Actor(1, ActorKind.APPLICATION_ENTITY, name, None, 1, "A", "2.25.1001", frozenset(rights))


@dataclass(frozen=True)
class Kept:
    source: Source
    announced: Announced
    data: bytes


@dataclass
class MemoryReceiver:
    """``fail`` may raise: it is asked with (step, bytes so far) at every step of every reception."""

    fail: Callable[[str, int], None] = lambda step, size: None
    keep_bytes: bool = True
    kept: list[Kept] = field(default_factory=list)
    aborted: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, source: Source, announced: Announced) -> MemoryReception:
        self.fail("begin", 0)
        return MemoryReception(self, source, announced)


@dataclass
class MemoryReception:
    receiver: MemoryReceiver
    source: Source
    announced: Announced
    data: bytearray = field(default_factory=bytearray)
    size: int = 0
    finished: bool = False

    def write(self, fragments: Sequence[Buffer]) -> None:
        assert not self.finished
        for fragment in fragments:
            self.size += len(fragment)
            if self.receiver.keep_bytes:
                self.data += fragment
        self.receiver.fail("write", self.size)

    def commit(self) -> StoreResult:
        assert not self.finished
        self.finished = True
        self.receiver.fail("commit", self.size)
        with self.receiver.lock:
            self.receiver.kept.append(Kept(self.source, self.announced, bytes(self.data)))
        uid = self.announced.sop_instance_uid or ""
        return StoreResult(Outcome.CREATED, 1, "1.2", "1.3", self.announced.sop_class_uid or "", uid)

    def abort(self) -> None:
        self.finished = True
        with self.receiver.lock:
            self.receiver.aborted += 1


@dataclass
class Door:
    """A running server and what it received and counted."""

    server: DicomServer
    receiver: MemoryReceiver
    counts: Counter[str]
    asked: deque[tuple[str, str, str, UserIdentity | None]]  # the last few
    address: tuple[str, int]

    @property
    def port(self) -> str:
        return str(self.address[1])


@contextmanager
def door(
    receiver: MemoryReceiver | None = None,
    limits: Limits = DEFAULT_LIMITS,
    authenticate: Callable[[str], Actor | None] = lambda title: actor(*Right),
) -> Iterator[Door]:
    """``authenticate`` is given the calling title."""
    receiver = receiver or MemoryReceiver()
    counts: Counter[str] = Counter()
    lock = threading.Lock()
    # Bounded: a list of all would look like a leak of the server when memory is watched.
    asked: deque[tuple[str, str, str, UserIdentity | None]] = deque(maxlen=16)

    def count(name: str, amount: float) -> None:
        with lock:
            counts[name] += int(amount)

    def who(calling: str, called: str, address: str, identity: UserIdentity | None) -> Actor | None:
        asked.append((calling, called, address, identity))
        return authenticate(calling)

    server = DicomServer(("127.0.0.1", 0), TITLE, receiver, who, limits, count)
    server.start()
    try:
        yield Door(server, receiver, counts, asked, server.address)
    finally:
        server.stop()

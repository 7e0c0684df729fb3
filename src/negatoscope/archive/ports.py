"""What the archive needs from the outside, as protocols. ``db`` and ``storage`` are the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg import Connection
from psycopg.rows import DictRow

from negatoscope.errors import NegatoscopeError
from negatoscope.model.actor import Scope
from negatoscope.model.event import AuditEvent
from negatoscope.model.source import Announced, Source
from negatoscope.model.stored import Container, StoreResult

Buffer = bytes | bytearray | memoryview
Unit = Connection[DictRow]  # one open transaction; rows are dicts


class Transactions(Protocol):
    """The database. Each unit is one transaction: committed on leaving, rolled back on an exception."""

    def unit(self, establishments: Sequence[int] | None) -> AbstractContextManager[Unit]:
        """Row security lets these establishments through; ``None``: all, for our own jobs only.

        Raises ``Unavailable`` when the database cannot be reached or the pool is exhausted.
        """
        ...

    def statements(self, establishments: Sequence[int] | None) -> AbstractContextManager[Unit]:
        """No transaction around: each statement commits by itself, a pipeline as a whole. Bounds as ``unit``."""
        ...

    def reading(self, scope: Scope) -> AbstractContextManager[Unit]:
        """A unit bounded by the scope's establishment. Queries join ``readable_study`` besides."""
        ...


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """Beside each object in its segment: enough to index it again, from the store alone."""

    establishment_code: str
    authority_oid: str
    actor_id: int
    actor_name: str
    address: str
    door: str
    received_at: float  # seconds since the epoch
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    sha256: str  # hexadecimal

    def as_json(self) -> dict[str, str | int | float]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> RecordHeader:
        return cls(**{name: fields[name] for name in cls.__slots__})


class Record(Protocol):
    """An object being written at the end of a segment. Not thread-safe: one reception owns it."""

    @property
    def segment_id(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def length(self) -> int: ...

    def write(self, fragments: Sequence[Buffer]) -> None: ...

    def view(self) -> AbstractContextManager[memoryview]: ...

    def digest(self) -> tuple[bytes, bytes]: ...

    def finish(self, header: RecordHeader) -> None:
        """Make it whole."""
        ...

    def sync(self) -> None:
        """Make what is whole durable. Raises ``Unavailable``; it then never was."""
        ...

    def abort(self) -> None: ...

    def release(self) -> None:
        """Give the end of the segment back. Exactly once, after ``sync`` or ``abort``."""
        ...

    def behind(self, longest: int) -> Record:
        """The next one, once this is finished or aborted; to be released in its place. Raises OutOfResources."""
        ...


class SegmentEnds(Protocol):
    """The ends of open segments: one reception writes to one at a time."""

    def begin(self, longest: int) -> Record:
        """An object of at most ``longest`` bytes. Raises OutOfResources at the reserve, Unavailable."""
        ...


class ContainerReader(Protocol):
    """Reads of immutable bytes by container."""

    def read(self, container: Container, container_id: int, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, unverified. Raises ``CorruptObject`` when they are not there."""
        ...

    def read_into(
        self, container: Container, container_id: int, offset: int, buffer: memoryview, *, wait: bool = True
    ) -> bool:
        """Fill ``buffer``, unverified. Without ``wait`` only with what is in memory: False when that is not all.

        Raises ``CorruptObject`` when the bytes are not there.
        """
        ...

    def view(
        self, container: Container, container_id: int, offset: int, length: int
    ) -> AbstractContextManager[memoryview]:
        """The same bytes mapped, for objects too large to read. Raises ``CorruptObject``."""
        ...


class PackWriter(Protocol):
    """A pack being written; nothing of it is visible before ``finish`` returns."""

    @property
    def size(self) -> int: ...

    def add(self, buffers: Sequence[Buffer]) -> int:
        """Append; returns the offset."""
        ...

    def finish(self, footer: bytes) -> str:
        """Durable on return; the name is the footer's SHA-256."""
        ...

    def abort(self) -> None: ...


class PackStore(Protocol):
    """Where packs are. Raises OutOfResources, Unavailable, CorruptObject."""

    def create(self) -> PackWriter: ...

    def footer(self, name: str) -> bytes: ...

    def names(self) -> Iterator[str]: ...

    def delete(self, name: str) -> None: ...


class AuditTrail(Protocol):
    """The audit trail as use cases see it."""

    def record(self, events: Sequence[AuditEvent]) -> None:
        """Return once the events are committed. Raises ``Unavailable`` otherwise: then disclose nothing."""
        ...

    def append(self, unit: Unit, events: Sequence[AuditEvent]) -> None:
        """Append within an open transaction, so that row and action share one commit."""
        ...


class Reception(Protocol):
    """One object on its way in. ``commit`` or ``abort`` is called exactly once, whatever happens."""

    def write(self, fragments: Sequence[Buffer]) -> None:
        """Bytes of the data set, in order. The buffers may be reused after the call.

        Raises:
            OutOfResources: disk full, or the reserve is reached.
            TooLarge: over ``Limits.data_set``.
        """
        ...

    def commit(self) -> StoreResult:
        """Block until bytes and rows would survive a power cut.

        Raises:
            InvalidObject and its kinds: the data set cannot be kept; nothing is.
            OutOfResources, Unavailable: nothing was acknowledged; send again.
        """
        ...

    def abort(self) -> None:
        """Cut off what was written. Never raises."""
        ...


class BatchedReception(Protocol):
    """One object of a batch on its way in. ``finish`` or ``abort`` is called exactly once, before the next begins."""

    def write(self, fragments: Sequence[Buffer]) -> None:
        """As ``Reception.write``."""
        ...

    def finish(self) -> None:
        """It is complete. Raises InvalidObject and its kinds, OutOfResources, Unavailable: nothing of it is kept."""
        ...

    def abort(self) -> None:
        """Cut off what was written. Never raises."""
        ...


class Batch(Protocol):
    """Objects of one sender that come one after the other and share their syncs. One thread at a time."""

    def begin(self, source: Source, announced: Announced) -> BatchedReception:
        """Start the next object. Raises as ``Receiver.begin``."""
        ...

    @property
    def bytes(self) -> int:
        """Of the finished objects."""
        ...

    def commit(self) -> list[StoreResult | NegatoscopeError]:
        """Of each finished object, in order, what became of it. Call it once, whatever happened; then it is over.

        Blocks until bytes and rows would survive a power cut.
        """
        ...


class Receiver(Protocol):
    """What every door that takes objects in is given."""

    def begin(self, source: Source, announced: Announced) -> Reception:
        """Start one object. Raises ``OutOfResources`` early when the reserve is already reached."""
        ...


class BatchReceiver(Receiver, Protocol):
    """And whose objects are acknowledged together."""

    def batch(self) -> Batch: ...


class Count(Protocol):
    """Adds to a counter of ``negatoscope.metrics``. Labels are slugs of ours, never received text."""

    def __call__(self, name: str, amount: float = 1.0, **labels: str) -> None: ...


def uncounted(name: str, amount: float = 1.0, **labels: str) -> None:
    """For those who count nothing: commands and tests."""


BulkURI = Callable[[str], str]
Chunks = Iterator[bytes]

"""What the archive needs from the outside, as protocols. ``db`` and ``storage`` are the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from psycopg import Connection
from psycopg.rows import DictRow

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

    def reading(self, scope: Scope) -> AbstractContextManager[Unit]:
        """A unit bounded by the scope's establishment. Queries join ``readable_study`` besides."""
        ...


class Record(Protocol):
    """An object being written at the end of a segment. Not thread-safe: one association owns it."""

    def write(self, fragments: Sequence[Buffer]) -> None:
        """Append. Raises ``OutOfResources`` when the disk is full or the reserve is reached."""
        ...

    @property
    def length(self) -> int: ...

    def view(self) -> AbstractContextManager[memoryview]:
        """The data set written so far, mapped read-only."""
        ...


class ContainerReader(Protocol):
    """Reads of immutable bytes by container."""

    def read(self, container: Container, container_id: int, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, unverified. Raises ``CorruptObject`` when they are not there."""
        ...


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


class Receiver(Protocol):
    """What every door that takes objects in is given."""

    def begin(self, source: Source, announced: Announced) -> Reception:
        """Start one object. Raises ``OutOfResources`` early when the reserve is already reached."""
        ...


BulkURI = Callable[[str], str]
Chunks = Iterator[bytes]

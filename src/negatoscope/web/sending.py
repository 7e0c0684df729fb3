"""Bodies that are verified while they go out and that a slow reader cannot pile up in memory.

A body is a list of pieces: bytes of ours (part headers) and spans of stored objects. Its length is known
before it starts. A fast reader gets batches of a MiB, the next one read while one is sent. When the
connection's buffer stays full, everything that was read is let go, and once there is room again 32 KiB are
read anew: so a slow reader costs less than 64 KiB, whatever it asked for. All responses together hold a bounded
amount; who comes when it is used up is sent 32 KiB at a time from the start.

A checksum that fails after the first byte ends the connection before the announced length and before the
closing boundary: no client can take half for a whole.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

from negatoscope.model.checksum import BLOCK
from negatoscope.model.stored import InstanceRecord

log = logging.getLogger(__name__)

CONNECTION = "negatoscope.connection"  # in scope["extensions"], set by servers.http
STEP = 32 << 10  # bytes handed to the transport at once, and read at once for a slow reader
BATCH = 1 << 20  # bytes read at once for a reader that keeps up
MOST_HELD = 16 << 20  # bytes read and not yet sent, over all responses of a process; over it steps are read
AT_ONCE = 4 << 20  # a body up to this length is read whole before it starts
PATIENCE_S = 0.25  # a buffer full for longer makes a slow reader
QUICK_S = 0.05  # a slow reader that empties its buffer within this is read ahead for again


class Connection(Protocol):
    """What the server tells of the connection that a response goes to."""

    @property
    def full(self) -> bool:
        """The transport's buffer is over its limit."""
        ...

    @property
    def gone(self) -> bool:
        """The peer has left."""
        ...

    async def drained(self, timeout_s: float | None = None) -> bool:
        """Wait until there is room again or the peer has left; False: neither came in time."""
        ...

    def cut(self) -> None:
        """Close at once; what is in the buffers may still arrive."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """A run of a stored data set."""

    record: InstanceRecord
    offset: int
    length: int
    study_uid: str = ""


Data = bytes | memoryview
Piece = Data | Span
ReadSpan = Callable[[Span], bytes]
ReadSteps = Callable[[Span, int], Iterator[bytes]]


def length_of(pieces: Sequence[Piece]) -> int:
    return sum(piece.length if isinstance(piece, Span) else len(piece) for piece in pieces)


class Room:
    """How much all responses of a process may hold. Thread-safe."""

    def __init__(self, most: int = MOST_HELD) -> None:
        self._left = most
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there was room; if so give it back with :meth:`give`."""
        with self._lock:
            fits = self._left >= size
            if fits:
                self._left -= size
            return fits

    def give(self, size: int) -> None:
        with self._lock:
            self._left += size


class Batch:
    """Bytes read and not yet sent. The room they take is given back by :meth:`release`, or with the object."""

    __slots__ = ("_held", "_room", "data")

    def __init__(self, data: list[Data], room: Room, held: int) -> None:
        self.data, self._room, self._held = data, room, held

    @property
    def length(self) -> int:
        return sum(map(len, self.data))

    def release(self) -> None:
        self.data = []
        held, self._held = self._held, 0
        if held:
            self._room.give(held)

    def __del__(self) -> None:
        self.release()


class Body:
    """Pieces and a reader over them. Not thread-safe: one read at a time."""

    def __init__(self, pieces: Sequence[Piece], read: ReadSpan, steps: ReadSteps, room: Room) -> None:
        """``read`` gives a span whole; ``steps`` gives it a few bytes at a time, without holding more."""
        self.pieces, self._read, self._steps, self._room = pieces, read, steps, room
        self.length = length_of(pieces)
        self._index, self._offset = 0, 0  # next byte to read: piece, offset in it
        self._walking: tuple[tuple[int, int], Iterator[bytes]] | None = None  # where steps go on, and the steps

    def fill(self, budget: int) -> Batch:
        """:meth:`read` of ``budget`` bytes, or of one step when there is no room for more."""
        if budget <= STEP:
            return Batch(self.read(budget), self._room, 0)
        if not self._room.take(budget):
            return Batch(self.read(STEP), self._room, 0)
        batch = Batch([], self._room, budget)  # gives the room back whatever happens
        batch.data = self.read(budget)
        return batch

    @property
    def position(self) -> tuple[int, int]:
        return self._index, self._offset

    def read(self, budget: int) -> list[Data]:
        """The next pieces, about ``budget`` bytes of them; empty at the end. Raises CorruptObject."""
        out: list[Data] = []
        data: Data
        while budget > 0 and self._index < len(self.pieces):
            piece = self.pieces[self._index]
            if isinstance(piece, Span):
                data = self._read_span(piece, budget)
                whole = piece.length
            else:
                data = piece[self._offset :] if self._offset else piece
                whole = len(piece)
            self._offset += len(data)
            if self._offset >= whole:
                self._index, self._offset = self._index + 1, 0
            budget -= len(data)
            if data:
                out.append(data)
        return out

    def _read_span(self, span: Span, budget: int) -> bytes:
        at = span.offset + self._offset
        left = span.length - self._offset
        if budget <= STEP < left:
            return self._step(span, at, left)
        if budget > STEP:  # end on a block, so that none is read and verified twice
            budget = -(-(at + budget) // BLOCK) * BLOCK - at
        return self._read(Span(span.record, at, min(left, budget), span.study_uid))

    def _step(self, span: Span, at: int, left: int) -> bytes:
        """The next few bytes of a span, going on from the last ones when nothing came between."""
        if self._walking is None or self._walking[0] != self.position:
            steps = self._steps(Span(span.record, at, left, span.study_uid), STEP)
        else:
            steps = self._walking[1]
        data = next(steps)
        self._walking = ((self._index, self._offset + len(data)), steps)
        return data

    def seek(self, position: tuple[int, int], forward: int) -> None:
        """Go ``forward`` bytes on from a position taken earlier."""
        self._index, self._offset = position
        while forward:
            piece = self.pieces[self._index]
            left = (piece.length if isinstance(piece, Span) else len(piece)) - self._offset
            step = min(left, forward)
            self._offset += step
            forward -= step
            if step == left:
                self._index, self._offset = self._index + 1, 0


class VerifiedResponse:
    """An ASGI response over a :class:`Body`, which has been read up to ``first``."""

    def __init__(
        self,
        body: Body,
        first: Batch,
        executor: Executor,
        *,
        status: int = 200,
        headers: Mapping[str, str],
        sent: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._body, self._executor = body, executor
        self._first: Batch | None = first
        self.status_code = status
        self._headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._headers.append((b"content-length", str(body.length).encode("ascii")))
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first, self._first = self._first, None  # who sends it lets go of it
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._headers})
        if first is None or scope["method"] == "HEAD" or not self._body.length:
            await send({"type": "http.response.body", "body": b""})
            return
        connection = (scope.get("extensions") or {}).get(CONNECTION)
        sending = _Sending(self._body, first, self._executor, connection, send)
        del first
        await sending.run()
        self._sent(self._body.length)


class GeneratedResponse:
    """An ASGI response whose length is not known before: an archive file, transcoded objects.

    The first chunk has been made already, so that what fails at once is still an answer of its own.
    """

    def __init__(self, first: bytes, rest: Iterator[bytes], executor: Executor, *, headers: Mapping[str, str]) -> None:
        self._first, self._rest, self._executor = first, rest, executor
        self.status_code = 200
        self._headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._headers})
        connection: Connection | None = (scope.get("extensions") or {}).get(CONNECTION)
        chunk: bytes | None = b"" if scope["method"] == "HEAD" else self._first
        loop = asyncio.get_running_loop()
        while chunk and not (connection is not None and connection.gone):
            for at in range(0, len(chunk), STEP):
                await send({"type": "http.response.body", "body": chunk[at : at + STEP], "more_body": True})
            chunk = await loop.run_in_executor(self._executor, next, self._rest, None)
        await send({"type": "http.response.body", "body": b""})


class _Sending:
    """One body on its way to one connection."""

    def __init__(self, body: Body, first: Batch, executor: Executor, connection: Connection | None, send: Send) -> None:
        self._body, self._batch, self._executor = body, first, executor
        self._connection, self._send = connection, send
        self._left = body.length
        self._slow = False
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        start = (0, 0)  # where the batch began
        while self._left and not self._gone():
            after = self._body.position
            ahead = None if self._slow or self._left <= self._batch.length else self._fetch(BATCH)
            sent = await self._send_batch()
            self._batch.release()
            if self._slow and self._left:
                if ahead is not None:
                    (await ahead).release()  # the body takes one reader at a time
                self._body.seek(start, sent)
                await self._wait()
                after = self._body.position
                ahead = self._fetch(STEP)
            if ahead is not None:
                self._batch, start = await ahead, after

    def _fetch(self, budget: int) -> asyncio.Future[Batch]:
        return self._loop.run_in_executor(self._executor, self._body.fill, budget)

    async def _send_batch(self) -> int:
        """Send what was read until the end or until the reader proves slow; the number of bytes sent."""
        sent = 0
        for data in self._batch.data:
            view = memoryview(data)
            for at in range(0, len(data), STEP):
                if self._full() and not await self._room():
                    return sent
                piece = view[at : at + STEP]
                self._left -= len(piece)
                sent += len(piece)
                await self._send({"type": "http.response.body", "body": piece, "more_body": self._left > 0})
        return sent

    async def _room(self) -> bool:
        """Wait a little for room; whether it came in time. A slow reader is one that makes us wait longer."""
        self._slow = self._connection is not None and not await self._connection.drained(PATIENCE_S)
        return not self._slow and not self._gone()

    async def _wait(self) -> None:
        """Wait for room however long it takes; whoever makes room at once is slow no more."""
        began = self._loop.time()
        if self._connection is not None:
            await self._connection.drained()
        self._slow = self._loop.time() - began > QUICK_S

    def _full(self) -> bool:
        return self._connection is not None and self._connection.full

    def _gone(self) -> bool:
        return self._connection is not None and self._connection.gone

"""Bodies that are verified while they go out and that a slow reader cannot pile up in memory.

A body is a list of pieces: bytes of ours (part headers) and spans of stored objects. Its length is known
before it starts. It is read by blocks into buffers that all responses share and that come back when they have
been sent: the kernel takes the bytes from there. A fast reader gets batches of about a MiB. When the
connection's buffer stays full, everything that was read is let go, and once there is room again 32 KiB are
read anew: so a slow reader costs less than 64 KiB, whatever it asked for. Who comes when all buffers are out is
sent 32 KiB at a time from the start.

A checksum that fails after the first byte ends the connection before the announced length and before the
closing boundary: no client can take half for a whole.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

from negatoscope.model.checksum import BLOCK, covering
from negatoscope.model.stored import InstanceRecord

log = logging.getLogger(__name__)

CONNECTION = "negatoscope.connection"  # in scope["extensions"], set by servers.http
STEP = 32 << 10  # bytes handed to the transport at once, and read at once for a slow reader
BATCH = 1 << 20  # bytes read at once for a reader that keeps up
BUFFERS = 16  # of a MiB, over all responses of a process; when all are out, steps are read
KEPT = 8  # of them, while nobody uses them
AT_ONCE = 4 << 20  # a body up to this length is read whole before it starts
PATIENCE_S = 0.25  # a buffer full for longer makes a slow reader
QUICK_S = 0.05  # a slow reader that empties its buffer within this is read ahead for again


Data = bytes | memoryview


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

    def push(self, pieces: Sequence[Data]) -> int:
        """Give the kernel what it takes of the body without waiting; the number of bytes. Nothing is kept of them."""
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


Piece = Data | Span
ReadSpan = Callable[[Span, memoryview, bool], memoryview | None]
ReadSteps = Callable[[Span, int], Iterator[bytes]]


def length_of(pieces: Sequence[Piece]) -> int:
    return sum(piece.length if isinstance(piece, Span) else len(piece) for piece in pieces)


class Room:
    """The buffers, of a block each, that all responses of a process read into. Thread-safe."""

    def __init__(self, most: int = BUFFERS) -> None:
        self._left = most
        self._free: list[memoryview] = []
        self._lock = threading.Lock()

    def take(self) -> memoryview | None:
        """One of them, to be given back with :meth:`give`; None: all are out."""
        with self._lock:
            if self._free:
                return self._free.pop()
            if not self._left:
                return None
            self._left -= 1
        return memoryview(mmap.mmap(-1, BLOCK))

    def give(self, buffer: memoryview) -> None:
        with self._lock:
            if len(self._free) < KEPT:
                self._free.append(buffer)
            else:
                self._left += 1


class Batch:
    """Bytes read and not yet sent. The buffers they lie in are given back by :meth:`release`, or with the object."""

    __slots__ = ("_buffers", "_room", "_used", "data", "length")

    def __init__(self, room: Room) -> None:
        self.data: list[Data] = []
        self.length = 0
        self._room = room
        self._buffers: list[memoryview] = []
        self._used = BLOCK  # of the last buffer

    def add(self, data: Data) -> None:
        if data:
            self.data.append(data)
            self.length += len(data)

    def space(self, size: int) -> memoryview | None:
        """Where ``size`` bytes, a block at the most, can be read to. None: all buffers are out."""
        if self._used + size > BLOCK:
            buffer = self._room.take()
            if buffer is None:
                return None
            self._buffers.append(buffer)
            self._used = 0
        self._used += size
        return self._buffers[-1][self._used - size : self._used]

    def release(self) -> None:
        self.data = []
        buffers, self._buffers = self._buffers, []
        self._used = BLOCK
        for buffer in buffers:
            self._room.give(buffer)

    def __del__(self) -> None:
        self.release()


class Body:
    """Pieces and a reader over them. Not thread-safe: one read at a time."""

    def __init__(self, pieces: Sequence[Piece], read: ReadSpan, steps: ReadSteps, room: Room) -> None:
        """
        Args:
            read: Gives a span that lies within one block, in a buffer that has room for that block; with False
                only when nothing has to be waited for, else None.
            steps: Gives a span a few bytes at a time, without holding more.
        """
        self.pieces, self._read, self._steps, self._room = pieces, read, steps, room
        self.length = length_of(pieces)
        self._index, self._offset = 0, 0  # next byte to read: piece, offset in it
        self._walking: tuple[tuple[int, int], Iterator[bytes]] | None = None  # where steps go on, and the steps

    @property
    def position(self) -> tuple[int, int]:
        return self._index, self._offset

    def fill(self, budget: int) -> Batch:
        """The next pieces, ``budget`` bytes or a little more; one step when no buffer is left; empty at the end.

        Raises:
            CorruptObject: what was read is not what was kept.
        """
        batch = Batch(self._room)
        self._fill(batch, budget, wait=True)
        return batch

    def fill_from_memory(self, budget: int) -> Batch | None:
        """The same, and nothing blocks; None, and nothing was read, when all of it is not in memory, or is damaged."""
        began = self.position
        batch = Batch(self._room)
        if self._fill(batch, budget, wait=False):
            return batch
        self._index, self._offset = began
        return None

    def _fill(self, batch: Batch, budget: int, *, wait: bool) -> bool:
        """Whether the batch has all it should."""
        while batch.length < budget and self._index < len(self.pieces):
            piece = self.pieces[self._index]
            if isinstance(piece, Span):
                data = self._next_of(piece, batch, budget, wait=wait)
                if data is None:
                    return False
                whole = piece.length
            else:
                data = piece[self._offset :] if self._offset else piece
                whole = len(piece)
            self._offset += len(data)
            if self._offset >= whole:
                self._index, self._offset = self._index + 1, 0
            batch.add(data)
        return True

    def _next_of(self, span: Span, batch: Batch, budget: int, *, wait: bool) -> Data | None:
        """None: not without waiting, or not before buffers come back, which what is in the batch will see to."""
        at = span.offset + self._offset
        left = span.length - self._offset
        if budget > STEP or left <= STEP:
            size = min(left, BLOCK - at % BLOCK)  # to the end of the block, so that none is read and verified twice
            start, end = covering(at, size, span.record.location.length)
            space = batch.space(end - start)
            if space is not None:
                return self._read(Span(span.record, at, size, span.study_uid), space, wait)
            if batch.length:
                return None
        return self._step(span, at, left) if wait else None

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
    """An ASGI response over a :class:`Body`.

    It begins once a body of up to ``AT_ONCE`` bytes is verified whole, or the first batch of a longer one is: what
    is damaged until there is an answer of its own, and not half a body.
    """

    def __init__(
        self,
        body: Body,
        executor: Executor,
        *,
        status: int = 200,
        headers: Mapping[str, str],
        sent: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._body, self._executor = body, executor
        self._most = body.length if body.length <= AT_ONCE else BATCH
        self.status_code = status
        self._headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._headers.append((b"content-length", str(body.length).encode("ascii")))
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = self._body.fill_from_memory(self._most)
        if first is None:
            loop = asyncio.get_running_loop()
            first = await loop.run_in_executor(self._executor, self._body.fill, self._most)
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._headers})
        if scope["method"] == "HEAD" or not self._body.length:
            await send({"type": "http.response.body", "body": b""})
            return
        connection = (scope.get("extensions") or {}).get(CONNECTION)
        sending = _Sending(self._body, first, self._executor, connection, send)
        del first  # who sends it lets go of it
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
        while not self._gone():
            after = self._body.position
            sent = await self._send_batch()
            self._batch.release()
            if not self._left:
                break
            if self._slow:
                self._body.seek(start, sent)
                await self._wait()
                after = self._body.position
                self._batch, start = await self._fetch(STEP), after
            else:
                self._batch, start = await self._next(), after
        if not self._left:
            await self._send({"type": "http.response.body", "body": b""})

    async def _next(self) -> Batch:
        """From memory at once, letting others have their turn; from the disk on a thread."""
        await asyncio.sleep(0)
        return self._body.fill_from_memory(BATCH) or await self._fetch(BATCH)

    async def _fetch(self, budget: int) -> Batch:
        return await self._loop.run_in_executor(self._executor, self._body.fill, budget)

    async def _send_batch(self) -> int:
        """Send what was read until the end or until the reader proves slow; the number of bytes sent."""
        sent = 0
        waiting = [memoryview(data) for data in self._batch.data]
        while waiting:
            taken = 0 if self._connection is None else self._connection.push(waiting)
            if taken:
                self._left -= taken
                sent += taken
                _drop(waiting, taken)
                continue
            if self._full() and not await self._room():
                break
            # A copy: the transport may keep it, and the buffer goes to somebody else.
            step = bytes(waiting[0][:STEP])
            self._left -= len(step)
            sent += len(step)
            _drop(waiting, len(step))
            await self._send({"type": "http.response.body", "body": step, "more_body": True})
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


def _drop(views: list[memoryview], count: int) -> None:
    """The first ``count`` bytes are done with."""
    done = 0
    while done < len(views) and count >= len(views[done]):
        count -= len(views[done])
        done += 1
    del views[:done]
    if count:
        views[0] = views[0][count:]

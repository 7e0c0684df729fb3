"""Bodies that are verified while they go out and that a slow reader cannot pile up in memory.

A body is a list of pieces: bytes of ours (part headers) and spans of stored objects. Its length is known
before it starts. A fast reader gets batches of a MiB, the next one read while one is sent. When the
connection's buffer stays full, everything that was read is let go, and once there is room again 64 KiB are
read anew: so a slow reader costs 64 KiB, whatever it asked for.

A checksum that fails after the first byte ends the connection before the announced length and before the
closing boundary: no client can take half for a whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

from negatoscope.model.checksum import BLOCK
from negatoscope.model.stored import InstanceRecord

log = logging.getLogger(__name__)

CONNECTION = "negatoscope.connection"  # in scope["extensions"], set by servers.http
STEP = 64 << 10  # bytes handed to the transport at once
BATCH = 1 << 20  # bytes read at once for a reader that keeps up
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

    async def drained(self) -> None:
        """Return when there is room again, or the peer has left."""
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


def length_of(pieces: Sequence[Piece]) -> int:
    return sum(piece.length if isinstance(piece, Span) else len(piece) for piece in pieces)


class Body:
    """Pieces and a reader over them. Not thread-safe: one read at a time."""

    def __init__(self, pieces: Sequence[Piece], read: ReadSpan) -> None:
        self.pieces, self._read = pieces, read
        self.length = length_of(pieces)
        self._index, self._offset = 0, 0  # next byte to read: piece, offset in it

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
        if left > budget >= BATCH:  # end on a block, so that none is read and verified twice
            budget = (at + budget) // BLOCK * BLOCK - at or budget
        return self._read(Span(span.record, at, min(left, budget), span.study_uid))

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
        first: list[Data],
        executor: Executor,
        *,
        status: int = 200,
        headers: Mapping[str, str],
        sent: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._body, self._first, self._executor = body, first, executor
        self.status_code = status
        self._headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._headers.append((b"content-length", str(body.length).encode("ascii")))
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._headers})
        if scope["method"] == "HEAD" or not self._body.length:
            await send({"type": "http.response.body", "body": b""})
            return
        connection = (scope.get("extensions") or {}).get(CONNECTION)
        await _Sending(self._body, self._first, self._executor, connection, send).run()
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

    def __init__(
        self, body: Body, first: list[Data], executor: Executor, connection: Connection | None, send: Send
    ) -> None:
        self._body, self._batch, self._executor = body, first, executor
        self._connection, self._send = connection, send
        self._left = body.length
        self._slow = False
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        start = (0, 0)  # where the batch began
        while self._left and not self._gone():
            after = self._body.position
            ahead = None if self._slow or not self._more_than_batch() else self._fetch(BATCH)
            try:
                sent = await self._send_batch()
                if self._slow and self._left:
                    if ahead is not None:
                        await ahead  # the body takes one reader at a time; what it read is let go
                    self._batch, ahead = [], None
                    self._body.seek(start, sent)
                    await self._wait()
                    after = self._body.position
                    ahead = self._fetch(STEP)
                if self._left and ahead is not None:
                    self._batch, start = await ahead, after
            finally:
                if ahead is not None:
                    ahead.cancel()

    def _more_than_batch(self) -> bool:
        return self._left > sum(map(len, self._batch))

    def _fetch(self, budget: int) -> asyncio.Future[list[Data]]:
        return self._loop.run_in_executor(self._executor, self._body.read, budget)

    async def _send_batch(self) -> int:
        """Send what was read until the end or until the reader proves slow; the number of bytes sent."""
        sent = 0
        for data in self._batch:
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
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._wait()
        except TimeoutError:
            self._slow = True
        return not self._slow and not self._gone()

    async def _wait(self) -> None:
        """Wait for room however long it takes; whoever makes room at once is slow no more."""
        began = self._loop.time()
        if self._connection is not None:
            await self._connection.drained()
        self._slow = self._slow and self._loop.time() - began > QUICK_S

    def _full(self) -> bool:
        return self._connection is not None and self._connection.full

    def _gone(self) -> bool:
        return self._connection is not None and self._connection.gone

"""The rest of a large request body, read from its socket by worker threads.

asyncio passes a body on in small pieces, and each goes through the event loop, the parser and the thread pool:
that costs more than all that is done with it. So a large body of known length leaves that way. The event loop
only waits until much of it is there, and a worker thread then reads on for as long as its sender keeps up. A
slow sender holds no thread and no buffer of ours, only what the kernel keeps for its socket.

Small and chunked bodies and TLS go the ordinary way.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import termios
import threading
from collections.abc import Callable

DIRECT_BYTES = 256 << 10  # what must be left of a body to be worth it
WANTED = 256 << 10  # bytes that must be there before anybody is woken, unless the body ends before
PATIENCE_MS = 10  # how long a thread waits for them


class DirectBody:
    """What is left of one body. ``read_into`` is for one thread at a time, all else for the event loop.

    Args:
        connection: of the request; nobody else reads it before :meth:`close`.
        left: bytes to come; what follows them is of the next request and is not touched.
        on_close: told how many bytes were left.
    """

    def __init__(self, connection: socket.socket, left: int, on_close: Callable[[int], None]) -> None:
        self.left = left
        # A descriptor of our own: a thread never reads one that the transport has closed.
        self._socket, self._on_close = connection.dup(), on_close
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._mutex = threading.Lock()
        self._wanted = 1
        self._waiter: asyncio.Future[bool] | None = None
        self._gone = self._closed = False
        self._queued, self._queued_since = 0, 0.0  # bytes in the kernel while we wait

    def read_into(self, buffer: bytearray) -> int:
        """Fill the start of ``buffer``; 0: not enough came within a short while, wait for :meth:`ready`.

        Raises ConnectionError: the sender has left, or the body was closed.
        """
        with self._mutex:
            if self._closed:
                raise ConnectionAbortedError
            size = min(len(buffer), self.left)
            try:
                taken = self._socket.recv_into(buffer, size)
            except BlockingIOError:
                self._want(min(WANTED, self.left))
                if not self._poll.poll(PATIENCE_MS):
                    return 0
                try:
                    taken = self._socket.recv_into(buffer, size)
                except BlockingIOError:
                    return 0
            if taken == 0:
                raise ConnectionResetError
            self.left -= taken
            return taken

    async def ready(self) -> bool:
        """Wait until a good deal of the body is there. False: the connection is gone."""
        if self._gone or self._closed:
            return False
        self._want(min(WANTED, self.left))
        loop = asyncio.get_running_loop()
        self._queued, self._queued_since = 0, loop.time()
        self._waiter = loop.create_future()
        loop.add_reader(self._socket, self._wake, True)
        try:
            return await self._waiter
        finally:
            loop.remove_reader(self._socket)
            self._waiter = None

    def idle_s(self, now: float) -> float:
        """For how long nothing came although we wait; 0 while we do not."""
        if self._waiter is None:
            return 0.0
        queued = struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)))[0]
        if queued != self._queued:
            self._queued, self._queued_since = queued, now
        return now - self._queued_since

    def lost(self) -> None:
        """The transport has closed the connection."""
        self._gone = True
        self._wake(False)

    def close(self) -> None:
        """Leave the connection to the event loop again. The second call does nothing."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            self._want(1)
            self._socket.close()
        self._on_close(self.left)

    def _wake(self, there: bool) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(there)

    def _want(self, size: int) -> None:
        """Where the kernel cannot do this, we are woken more often."""
        if size != self._wanted:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            self._wanted = size

"""The HTTP server: uvicorn in this process, with bounds on what one connection may cost.

uvicorn gives backpressure both ways; what it lacks is added here:

- a request head is bounded in bytes (431) and in time (408), an idle body and a stalled reader in time;
- connections are counted, one too many is told 503 at once;
- a listening socket is given, so the supervisor keeps it over restarts and several workers share it.

What a slow reader holds is one step in the transport's buffer and what the response keeps. ``web.sending``
sends steps of 32 KiB and lets go of what waits; it finds the connection (its protocol
``web.sending.Connection``) in ``scope["extensions"]``.

Beside it is a function that gives the rest of a large body to be read by threads: see ``servers.http_body``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.servers.http_body import DIRECT_BYTES, DirectBody

log = logging.getLogger(__name__)

CONNECTION = "negatoscope.connection"  # key of this protocol in scope["extensions"]
_VECTORS = 64  # pieces given to the kernel at once
TAKE_BODY = "negatoscope.take_body"  # key of ``() -> DirectBody | None`` there
_SIOCOUTQ = 0x5411  # Linux: bytes in the socket's send queue not yet acknowledged by the peer
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # malloc.h
_PHRASES = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection, and all together, may cost."""

    header_bytes: int = DEFAULT_LIMITS.http_header  # request line and headers
    header_s: float = 30.0  # from the connection or the first byte to the end of the head
    keep_alive_s: float = 30.0  # idle between requests
    body_idle_s: float = 60.0  # no byte of a body that we are ready to read
    stalled_s: float = 120.0  # a reader that takes nothing
    write_buffer: int = 0  # bytes the kernel has not taken above which a response waits: it holds one step at most
    connections: int = 1000
    stop_s: float = 5.0  # requests under way when asked to stop


DEFAULT_BOUNDS = Bounds()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The sweep of :class:`BoundedServer` calls :meth:`check` each second."""

    bounds = DEFAULT_BOUNDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=self.bounds.write_buffer)
        # asyncio does this only for sockets that were made with their protocol named; 40 ms an answer without.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = connection.fileno() if transport.get_extra_info("sslcontext") is None else None
        self._now = self.loop.time
        self._head_bytes = 0  # of the head being read
        self._head_since: float | None = self._now()  # None: no head is being read
        self._in_body = False  # a head was read, its body not to the end
        self._heard = self._answered = self._now()
        self._queued, self._queued_since = 0, self._now()
        self._refused = False
        self._drain_waiter: asyncio.Future[bool] | None = None
        self._body_left = 0  # of a body of declared length, what the parser has not seen
        self._direct: DirectBody | None = None
        self._skipped = 0  # bytes of a body that threads read in part, still to be thrown away
        if len(self.connections) > self.bounds.connections:
            self._refuse(503, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wake(True)
        if self._direct is not None:
            self._direct.lost()
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._refused:
            return
        self._heard = self._now()
        if self._skipped:
            data = self._skip(data)
            if not data:
                return
        if self._head_since is None and not self._in_body:
            self._head_since = self._heard
        if self._head_since is not None:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if not self._refused:
                self._refuse(400, "not HTTP/1.1")
            return
        except httptools.HttpParserUpgrade:
            return  # nothing here upgrades; the request itself was answered as it stands
        # An unfinished head that is already too long: its exact length cannot matter any more.
        if self._head_since is not None and self._head_bytes > self.bounds.header_bytes:
            self._refuse(431, f"request head over {self.bounds.header_bytes} bytes")

    # What a response may know of its connection

    @property
    def full(self) -> bool:
        return self.flow.write_paused

    @property
    def gone(self) -> bool:
        return self.transport.is_closing()

    async def drained(self, timeout_s: float | None = None) -> bool:
        """No exception for a timeout: its traceback would keep what the waiting frames hold."""
        if not self.flow.write_paused:
            return True
        waiter: asyncio.Future[bool] = self.loop.create_future()
        self._drain_waiter = waiter
        timer = None if timeout_s is None else self.loop.call_later(timeout_s, self._wake, False)
        try:
            return await waiter
        finally:
            self._drain_waiter = None
            if timer is not None:
                timer.cancel()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wake(True)

    def _wake(self, drained: bool) -> None:
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(drained)

    def push(self, pieces: Sequence[bytes | memoryview]) -> int:
        """See ``web.sending.Connection``: to the socket itself, as long as nothing waits in the transport."""
        if self._fd is None or self.transport.is_closing() or self.transport.get_write_buffer_size():
            return 0
        if self.pipeline or self.cycle.chunked_encoding is not False:
            return 0  # the answer under way is not that of self.cycle, or has no length
        try:
            taken = os.writev(self._fd, pieces[:_VECTORS])
        except OSError:
            return 0  # full; or broken, and the transport will find out
        self.cycle.expected_content_length -= taken
        return taken

    def cut(self) -> None:
        self.transport.abort()

    # A body that threads read

    def _take_body(self, request: Any) -> DirectBody | None:
        """The rest of the body of ``request`` (its scope); None when it comes the ordinary way."""
        cycle = self.cycle
        if (
            cycle is None
            or cycle.scope is not request
            or cycle.body
            or not cycle.more_body
            or self.transport.is_closing()
        ):
            return None  # a later request, or there is something to be received first
        if self.scheme != "http" or self._direct is not None or self._body_left < DIRECT_BYTES:
            return None
        self.flow.pause_reading()
        self._direct = DirectBody(self.transport.get_extra_info("socket"), self._body_left, self._end_direct)
        return self._direct

    def _end_direct(self, left: int) -> None:
        self._direct, self._skipped = None, left
        self._heard = self._now()
        if left:
            self.flow.resume_reading()
        else:
            self._end_body()

    def _skip(self, data: bytes) -> bytes:
        """Throw away what threads have not read of a body; what follows it is of the next request."""
        rest = data[self._skipped :]
        self._skipped = max(0, self._skipped - len(data))
        if not self._skipped:
            self._end_body()
        return rest

    def _end_body(self) -> None:
        """The parser has not seen this body, so another one reads what follows."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.on_message_complete()

    # Parser callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_since = self._head_since or self._now()  # a pipelined head comes with what is before it
        self._exact = len(b"GET  HTTP/1.1\r\n\r\n")
        extensions: dict[str, Any] = {CONNECTION: self, TAKE_BODY: partial(self._take_body, self.scope)}
        self.scope["extensions"] = extensions

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def _count(self, length: int) -> None:
        self._exact += length
        if self._exact > self.bounds.header_bytes and not self._refused:
            self._refuse(431, f"request head over {self.bounds.header_bytes} bytes")

    def on_headers_complete(self) -> None:
        self._head_since, self._head_bytes, self._in_body = None, 0, True
        # The parser has refused a second length, and one beside chunks.
        self._body_left = next((int(value) for name, value in self.headers if name == b"content-length"), 0)
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_left -= len(body)
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._answered = self._now()
        super().on_response_complete()

    # Time

    def check(self, now: float) -> None:
        """Close what has waited too long."""
        if self._refused or self.transport.is_closing():
            return
        if self._head_since is not None and now - self._head_since > self.bounds.header_s:
            self._refuse(408, "the request head did not come in time")
        elif self._in_body and self._body_overdue(now):
            self.transport.close()
        elif self.transport.get_write_buffer_size():
            self._check_reader(now)
        else:
            self._queued_since = now

    def _body_overdue(self, now: float) -> bool:
        """Nothing came of a body we are ready to read; or it was answered and still goes on (what comes
        after the answer is thrown away for a while, so that a client sees a 401 before it stops sending)."""
        if self.cycle.response_complete:
            return now - self._answered > self.bounds.body_idle_s
        if self._direct is not None:
            return self._direct.idle_s(now) > self.bounds.body_idle_s
        return not self.flow.read_paused and now - self._heard > self.bounds.body_idle_s

    def _check_reader(self, now: float) -> None:
        """The kernel's queue moves whenever the peer acknowledges a byte; ours moves far less often."""
        with contextlib.suppress(OSError):
            answer = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), _SIOCOUTQ, bytes(4))
            queued: int = struct.unpack("i", answer)[0]
            if queued != self._queued:
                self._queued, self._queued_since = queued, now
        if now - self._queued_since > self.bounds.stalled_s:
            self.transport.abort()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer and close. When an answer is under way already, only close."""
        self._refused = True
        self._head_since = None
        if self.cycle is None or self.cycle.response_complete:
            body = f'{{"type":"about:blank","status":{status},"title":"{_PHRASES[status]}","detail":"{detail}"}}'
            self.transport.write(
                f"HTTP/1.1 {status} {_PHRASES[status]}\r\ncontent-type: application/problem+json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode("ascii")
            )
        self.transport.close()


class BoundedServer(uvicorn.Server):
    """Sweeps its connections each second and leaves signals to :func:`serve`."""

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.check(now)
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def bound_heaps() -> None:
    """Have glibc keep few heaps, and none of the MiB blocks that bodies are read in: those come and go in all
    threads, and would leave holes of their size in each thread's heap. Elsewhere than on glibc nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 2)
        libc.mallopt(_M_MMAP_THRESHOLD, 512 << 10)


def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    bounds: Bounds = DEFAULT_BOUNDS,
    started: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then let requests under way end for ``bounds.stop_s``.

    ``started`` is called once with a function that stops the server; that function may be called from any
    thread. Off the main thread no signal is taken.
    """
    bound_heaps()
    protocol = type("Protocol", (BoundedProtocol,), {"bounds": bounds})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # web.authentication judges who may say for whom it speaks
        timeout_keep_alive=int(bounds.keep_alive_s),
        timeout_graceful_shutdown=max(1, int(bounds.stop_s)),
    )
    server = BoundedServer(config)

    def stop(*_: Any) -> None:
        server.should_exit = True

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
    if started is not None:
        started(stop)
    server.run(sockets=[listener])

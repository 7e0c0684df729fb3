"""servers.http_body: a large body is read from the connection by a thread, and the connection lives on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from negatoscope.servers.http import Bounds
from negatoscope.servers.http_body import DIRECT_BYTES
from negatoscope.web.receiving import take_body
from web_harness import running

LARGE = 3 * DIRECT_BYTES + 17
QUICK = Bounds(body_idle_s=1.0)


class Echo:
    """Answers how many bytes came in all and how many of them a thread read. ``stop_at``: answers before the rest."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.bodies: list[bytes] = []
        self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        received, direct = bytearray(), 0
        async for chunk in request.stream():
            received += chunk
            if (body := take_body(request)) is None:
                continue
            try:
                while body.left and (self.stop_at is None or direct < self.stop_at):
                    buffer = bytearray(1 << 16)
                    length = await asyncio.to_thread(body.read_into, buffer)
                    if not length and not await body.ready():
                        raise ConnectionError
                    received += buffer[:length]
                    direct += length
            except ConnectionError:
                self.gone += 1
                return
            finally:
                body.close()
                body.close()
            break
        self.bodies.append(bytes(received))
        answer = f"{len(received)} {direct}\n".encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]}
        )
        await send({"type": "http.response.body", "body": answer})


@contextlib.contextmanager
def connected(app: Echo, bounds: Bounds = QUICK) -> Iterator[socket.socket]:
    with running(app, bounds) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        yield connection


def head(length: int, more: str = "") -> bytes:
    return f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def answers(connection: socket.socket, count: int) -> list[tuple[int, int]]:
    """Bytes in all and bytes read by threads, of so many answers."""
    found = []
    with connection.makefile("rb") as file:
        for _ in range(count):
            assert file.readline().startswith(b"HTTP/1.1 200")
            while file.readline() != b"\r\n":
                pass
            whole, direct = file.readline().split()
            found.append((int(whole), int(direct)))
    return found


def first_byte(connection: socket.socket, length: int) -> None:
    """The head and one byte, and time for both to be read: what is left of the body is then certain."""
    connection.sendall(head(length) + b"x")
    time.sleep(0.1)


@pytest.mark.parametrize(("left", "direct"), [(-1, False), (0, True), (1, True)])
def test_only_what_is_large_is_read_by_a_thread(left: int, direct: bool) -> None:
    left += DIRECT_BYTES
    with connected(Echo()) as connection:
        first_byte(connection, 1 + left)
        connection.sendall(bytes(left))
        assert answers(connection, 1) == [(1 + left, left if direct else 0)]


def test_the_body_comes_as_it_was_sent_and_what_follows_it_is_the_next_request() -> None:
    app = Echo()
    sent = bytes(range(256)) * (LARGE // 256)
    with connected(app) as connection:
        for _ in range(2):
            first_byte(connection, 1 + len(sent))
            connection.sendall(sent + head(5) + b"small" + head(1) + b"y")
            assert answers(connection, 3) == [(1 + len(sent), len(sent)), (5, 0), (1, 0)]
    assert app.bodies == [b"x" + sent, b"small", b"y"] * 2


def test_a_sender_with_pauses_is_waited_for() -> None:
    """Each piece is far below what wakes a thread; bytes in the kernel's queue are not idleness."""
    app, pieces = Echo(), [b"%05d" % n for n in range(8)]
    with connected(app) as connection:
        first_byte(connection, 1 + DIRECT_BYTES + 40)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.3)
        connection.sendall(bytes(DIRECT_BYTES))
        assert answers(connection, 1) == [(1 + DIRECT_BYTES + 40, DIRECT_BYTES + 40)]
    assert app.bodies == [b"x" + b"".join(pieces) + bytes(DIRECT_BYTES)]


def test_a_sender_that_stops_is_closed() -> None:
    app = Echo()
    with connected(app) as connection:
        first_byte(connection, 1 + LARGE)
        connection.sendall(b"some")
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):  # bytes that nobody read were on their way
            assert connection.recv(1) == b""
        assert 0.9 < time.monotonic() - began < 4
    assert (app.gone, app.bodies) == (1, [])


def test_a_sender_that_leaves_is_noticed_at_once() -> None:
    app = Echo()
    with connected(app, Bounds()) as connection:
        first_byte(connection, 1 + LARGE)
        connection.sendall(bytes(100))
        connection.close()
        until = time.monotonic() + 5
        while not app.gone and time.monotonic() < until:
            time.sleep(0.01)
    assert (app.gone, app.bodies) == (1, [])


def test_what_is_not_read_is_thrown_away_and_the_next_request_is_answered() -> None:
    app = Echo(stop_at=1)
    with connected(app) as connection:
        first_byte(connection, 1 + LARGE)
        connection.sendall(b"y" * LARGE + head(5) + b"small")
        ((whole, direct), small) = answers(connection, 2)
    assert 0 < direct < LARGE
    assert whole == 1 + direct
    assert small == (5, 0)


def test_the_body_of_a_later_request_is_not_taken_for_this_one() -> None:
    """Both heads come at once: the first request is small, and only its own body is its own."""
    with connected(Echo()) as connection:
        connection.sendall(head(5) + b"small" + head(1 + LARGE) + b"x")
        assert answers(connection, 1) == [(5, 0)]
        time.sleep(0.1)
        connection.sendall(bytes(LARGE))
        assert answers(connection, 1)[0][0] == 1 + LARGE


def test_chunks_come_the_ordinary_way() -> None:
    with connected(Echo()) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        time.sleep(0.1)
        connection.sendall(b"%x\r\n" % LARGE + bytes(LARGE) + b"\r\n0\r\n\r\n")
        assert answers(connection, 1) == [(1 + LARGE, 0)]


def test_expecting_100_continue_changes_nothing() -> None:
    with connected(Echo()) as connection:
        connection.sendall(head(1 + LARGE, "Expect: 100-continue\r\n"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"x")
        time.sleep(0.1)
        connection.sendall(bytes(LARGE))
        assert answers(connection, 1) == [(1 + LARGE, LARGE)]

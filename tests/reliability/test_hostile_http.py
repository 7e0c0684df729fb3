"""Peers that are slow, endless or broken cost a bounded amount, and the others do not notice (H1, H4, H6, H7)."""

from __future__ import annotations

import gc
import http.client
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import synthetic

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.servers.http import Bounds
from web_harness import SERIES, STUDY, WebBench, running, web_bench

LARGE = bytes(range(16)) * (12 << 16)  # 12 MiB: far over what the kernel buffers for a connection
INSTANCE = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/2.25.1"
QUICK = Bounds(header_s=1.0, keep_alive_s=1.0, body_idle_s=1.0, stalled_s=2.0, stop_s=1.0, connections=60)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def web(postgresql: EmbeddedPostgreSQL) -> Iterator[WebBench]:
    with web_bench(postgresql) as bench:
        bench.archive.keep(synthetic(pixels=LARGE), EXPLICIT_LITTLE_ENDIAN)
        bench.archive.keep(synthetic(sop="2.25.2", number=2), EXPLICIT_LITTLE_ENDIAN)
        yield bench


@pytest.fixture(scope="module")
def quick(web: WebBench) -> Iterator[int]:
    """Port of a server with short time limits."""
    with running(web.app, QUICK) as port:
        yield port


@pytest.fixture(scope="module")
def patient(web: WebBench) -> Iterator[int]:
    """Port of a server with the limits of production, but for how long it waits when asked to stop."""
    with running(web.app, Bounds(stop_s=1.0)) as port:
        yield port


def connect(port: int, receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    return client


def everything(client: socket.socket) -> bytes:
    """What the server says until it closes."""
    received = b""
    try:
        while chunk := client.recv(1 << 16):
            received += chunk
    except ConnectionError:
        pass
    return received


def request(web: WebBench, path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: application/dicom\r\n"
        f"Authorization: {web.bearer()['Authorization']}\r\n\r\n"
    ).encode()


def answered_s(port: int) -> float:
    """How long a good client waits."""
    began = time.monotonic()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    client.request("GET", "/health/live")
    assert client.getresponse().read() == b"alive\n"
    client.close()
    return time.monotonic() - began


# Heads


@pytest.mark.parametrize(("extra", "status"), [(-1, b"401"), (0, b"401"), (1, b"431")])
def test_request_heads_are_bounded(quick: int, extra: int, status: bytes) -> None:
    line = b"GET /wado HTTP/1.1\r\n"
    room = 32 * 1024 + extra - len(line) - len(b"X: \r\n\r\n")
    client = connect(quick)
    client.sendall(line + b"X: " + b"x" * room + b"\r\n\r\n")
    assert client.recv(1 << 16).startswith(b"HTTP/1.1 " + status)


def test_an_endless_head_is_refused_before_it_is_kept(quick: int) -> None:
    client = connect(quick)
    sent = 0
    client.sendall(b"GET / HTTP/1.1\r\nX: ")
    try:
        for _ in range(4096):
            sent += client.send(b"x" * (1 << 16))
    except OSError:
        pass
    assert sent < 16 << 20, "only what was in buffers when the refusal came"
    assert answered_s(quick) < 1


@pytest.mark.parametrize("count", [100, 6000])
def test_many_small_headers_are_one_large_head(quick: int, count: int) -> None:
    client = connect(quick)
    client.sendall(b"GET /wado HTTP/1.1\r\n" + b"X: y\r\n" * count + b"\r\n")
    assert everything(client)[9:12] == (b"401" if count == 100 else b"431")


@pytest.mark.parametrize("head", [b"", b"G", b"GET / HTTP/1.1\r\nHost", b"POST / HTTP/1.1\r\n"])
def test_a_head_that_does_not_come_in_time_is_given_up(quick: int, head: bytes) -> None:
    client = connect(quick)
    client.sendall(head)
    began = time.monotonic()
    assert b" 408 " in everything(client)
    assert 0.9 < time.monotonic() - began < 4


def test_a_head_that_trickles_is_given_up_too(quick: int) -> None:
    """The time counts from its first byte, not from its latest."""
    client = connect(quick)
    began = time.monotonic()
    client.settimeout(0.2)
    answer = b""
    while not answer and time.monotonic() - began < 8:
        try:
            client.sendall(b"G")
            answer = client.recv(1 << 16)
        except TimeoutError:
            continue
        except ConnectionError:
            break
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\x00\x01\x00", b"\x01\x00\x00\x00\x00\xff", b"HELO there\r\n\r\n"])
def test_another_protocol_is_refused_at_once(quick: int, noise: bytes) -> None:
    client = connect(quick)
    client.sendall(noise)
    assert everything(client).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /wado HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /wado HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /wado HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /wado HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_bodies_of_two_lengths_or_of_none_are_refused(quick: int, head: bytes) -> None:
    """Request smuggling: two servers in a row must not read different requests."""
    client = connect(quick)
    client.sendall(head)
    assert everything(client)[:12] in (b"HTTP/1.1 400", b"", b"HTTP/1.1 405")


# Connections


def test_idle_connections_are_closed(quick: int) -> None:
    client = connect(quick)
    client.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    began = time.monotonic()
    assert everything(client).endswith(b"alive\n")
    assert time.monotonic() - began < 4


def test_one_connection_too_many_is_told_so_and_the_others_go_on(quick: int) -> None:
    kept = []
    for _ in range(QUICK.connections):
        client = connect(quick)
        client.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        kept.append(client)
    over = connect(quick)
    assert everything(over).startswith(b"HTTP/1.1 503")
    for client in kept:
        client.close()
    time.sleep(0.2)
    assert answered_s(quick) < 1


def test_hundreds_of_silent_sockets_do_not_slow_a_good_client(patient: int) -> None:
    """H1: what each of them costs is a socket."""
    process = psutil.Process()
    before = process.memory_info().rss
    silent = [connect(patient) for _ in range(300)]
    for client in silent[::2]:
        client.sendall(b"G")
    waits = sorted(answered_s(patient) for _ in range(40))
    grown = process.memory_info().rss - before
    for client in silent:
        client.close()
    assert waits[37] < 0.25, "p95 with the test's own sockets on the same two cores"
    assert grown < 50 << 20


def test_answers_on_one_connection_never_wait_for_a_late_acknowledgement(patient: int) -> None:
    """Without TCP_NODELAY each takes 40 ms: Nagle's algorithm against delayed acknowledgements."""
    client = http.client.HTTPConnection("127.0.0.1", patient, timeout=10)
    waits = []
    for _ in range(20):
        began = time.monotonic()
        client.request("GET", "/health/live")
        client.getresponse().read()
        waits.append(time.monotonic() - began)
    client.close()
    assert sorted(waits)[10] < 0.03


# Bodies


def test_a_body_that_stops_coming_is_given_up_and_its_object_with_it(web: WebBench, quick: int) -> None:
    number = next(_numbers)
    file = write_file_meta("1.2.840.10008.5.1.4.1.1.2", f"2.25.7.{number}", EXPLICIT_LITTLE_ENDIAN)
    file += synthetic(sop=f"2.25.7.{number}", pixels=bytes(1 << 20))
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: a\r\nContent-Type: application/dicom\r\n"
        f"Content-Length: {len(file)}\r\nAuthorization: {web.bearer()['Authorization']}\r\n\r\n"
    )
    client = connect(quick)
    client.sendall(head.encode() + file[: len(file) // 2])
    began = time.monotonic()
    everything(client)
    assert time.monotonic() - began < 5
    assert web.get(f"/studies/{STUDY}/series/{SERIES}/instances/2.25.7.{number}").status_code == 404


def test_a_refused_upload_learns_why_although_it_goes_on_sending(quick: int) -> None:
    client = connect(quick)
    size = 8 << 20
    client.sendall(f"POST /dicom-web/studies HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
    client.sendall(bytes(size))
    assert b" 401 " in client.recv(1 << 16)


def test_a_large_upload_is_never_held_in_memory(web: WebBench, patient: int) -> None:
    number = next(_numbers)
    file = write_file_meta("1.2.840.10008.5.1.4.1.1.2", f"2.25.8.{number}", EXPLICIT_LITTLE_ENDIAN)
    file += synthetic(sop=f"2.25.8.{number}", series="2.25.208", pixels=bytes(96 << 20))
    process = psutil.Process()
    gc.collect()
    before = peak = process.memory_info().rss
    client = connect(patient)
    head = (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: a\r\nContent-Type: application/dicom\r\n"
        f"Content-Length: {len(file)}\r\nAuthorization: {web.bearer()['Authorization']}\r\n\r\n"
    )
    client.sendall(head.encode())
    view = memoryview(file)
    for at in range(0, len(view), 1 << 20):
        client.sendall(view[at : at + (1 << 20)])
        info = process.memory_info()
        peak = max(peak, info.rss - info.shared)
    assert b"HTTP/1.1 200" in client.recv(1 << 16)
    assert peak - before < 32 << 20


# Slow readers


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[psutil.Process, int]]:
    """A server alone in its process, and its port; every answer is an object of 12 MiB."""
    script = Path(__file__).parent.parent / "http_process.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), "12"], stdout=subprocess.PIPE, text=True, cwd=script.parent
    )
    try:
        assert process.stdout is not None
        yield psutil.Process(process.pid), int(process.stdout.readline())
    finally:
        process.terminate()
        assert process.wait(10) == 0, "a server that is asked to stop ends well"


def settled_memory(process: psutil.Process) -> int:
    """Resident bytes once nothing moves any more: on a busy machine readers take a while to prove slow."""
    lowest, since = process.memory_info().rss, time.monotonic()
    until = since + 20
    while time.monotonic() < min(until, since + 2):
        time.sleep(0.1)
        now = process.memory_info().rss
        if now < lowest - (128 << 10):
            lowest, since = now, time.monotonic()
    return int(lowest)


def slow_readers(port: int, count: int) -> list[socket.socket]:
    """Readers that take about a kilobyte a second."""
    readers = []
    for _ in range(count):
        client = connect(port, receive_buffer=4096)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        readers.append(client)
    time.sleep(1.5)  # long enough for each to prove slow
    for _ in range(3):
        for client in readers:
            assert client.recv(256)
        time.sleep(0.2)
    return readers


def test_slow_readers_hold_64_kib_each(apart: tuple[psutil.Process, int]) -> None:
    """H4, short. Threads, code and the room that all responses share are there with the first readers; this is
    what 200 more cost."""
    process, port = apart
    readers = slow_readers(port, 100)
    before = settled_memory(process)
    readers += slow_readers(port, 100)
    readers += slow_readers(port, 100)
    grown = settled_memory(process) - before
    for client in readers:
        client.close()
    assert grown <= 200 * (64 << 10), f"{grown / 200 / 1024:.0f} KiB for each"


def test_slow_readers_do_not_keep_others_waiting(web: WebBench, patient: int) -> None:
    readers = []
    for _ in range(60):
        client = connect(patient, receive_buffer=4096)
        client.sendall(request(web, INSTANCE))
        readers.append(client)
    waits = sorted(answered_s(patient) for _ in range(20))
    for client in readers:
        client.close()
    assert waits[18] < 0.25


def test_a_reader_that_takes_nothing_is_cut_off(web: WebBench, quick: int) -> None:
    client = connect(quick, receive_buffer=4096)
    client.sendall(request(web, INSTANCE))
    time.sleep(6)
    received = len(everything(client))
    assert received < len(LARGE), "the connection was cut before the announced length"


def test_pipelined_requests_are_answered_whole_and_in_order(web: WebBench, patient: int) -> None:
    last = request(web, INSTANCE).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    client = connect(patient, receive_buffer=1 << 16)
    client.sendall(request(web, INSTANCE) * 2 + last)
    received = everything(client)
    assert received.count(synthetic(pixels=LARGE)) == 3
    assert received.count(b"HTTP/1.1 200 OK") == 3


def test_a_slow_reader_gets_every_byte(web: WebBench, patient: int) -> None:
    client = connect(patient, receive_buffer=4096)
    client.sendall(request(web, INSTANCE).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    time.sleep(1)
    assert everything(client).endswith(synthetic(pixels=LARGE))

"""Lean clients, the same for both servers: one process a connection, nothing parsed that need not be.

Each tells its own CPU time, so that a row shows when the client and not the server was the limit.
"""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import IOBase
from multiprocessing.synchronize import Barrier
from typing import Any

from benchmarks.data import DataSet
from negatoscope.servers.dicom_client import Proposal, associate

Address = tuple[str, int]
PATIENCE_S = 600.0
_BUFFER = 1 << 20


class ClientFailed(Exception):
    """What was asked was not done; a row of it would be meaningless."""


@dataclass(frozen=True, slots=True)
class Driven:
    """What the clients of one run did together."""

    seconds: float  # from the first start to the last end
    client_cpu: float  # seconds, all of them
    count: int  # objects sent or requests answered
    bytes: int


def drive(work: Callable[..., tuple[int, int]], jobs: Sequence[tuple[Any, ...]]) -> Driven:
    """Run ``work(ready, *job)`` in a process for each job, at once; ``ready`` waits until all are connected."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(len(jobs)), context.SimpleQueue()
    processes = [context.Process(target=_run, args=(work, barrier, answers, job)) for job in jobs]
    for process in processes:
        process.start()
    told = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    if failures := [answer for answer in told if isinstance(answer, str)]:
        causes = [failure for failure in failures if not failure.startswith("BrokenBarrierError")]
        raise ClientFailed((causes or failures)[0])
    seconds = max(end for _, end, _, _, _ in told) - min(start for start, _, _, _, _ in told)
    return Driven(
        seconds, sum(cpu for _, _, cpu, _, _ in told), sum(n for *_, n, _ in told), sum(size for *_, size in told)
    )


def _run(work: Callable[..., tuple[int, int]], barrier: Barrier, answers: Any, job: tuple[Any, ...]) -> None:
    began: list[float] = []

    def ready() -> float:
        barrier.wait(PATIENCE_S)
        began[:] = [time.monotonic(), time.process_time()]
        return began[0]

    try:
        count, size = work(ready, *job)
        answers.put((began[0], time.monotonic(), time.process_time() - began[1], count, size))
    except BaseException as error:  # told to whoever waits
        barrier.abort()
        answers.put(f"{type(error).__name__}: {error}")


# C-STORE ---------------------------------------------------------------------------------------------


def store(
    ready: Callable[[], float], address: Address, title: str, data: DataSet, run: int, first: int, last: int
) -> tuple[int, int]:
    """One association, one object at a time."""
    classes = {(item.sop_class, item.syntax) for item in data.items[first:last]}
    proposal = Proposal(title, "MODALITY", [(sop_class, (syntax,)) for sop_class, syntax in classes])
    count = size = 0
    with associate(address, proposal) as sender:
        ready()
        for sending in data.sendings(run, first, last):
            head, rest = sending.data_set_pieces()
            pieces = (head, rest) if len(rest) else (head,)
            sender.begin_store(sending.sop_class, sending.sop, sending.syntax, pieces)
            answer = sender.answer()
            if answer.status:
                raise ClientFailed(f"C-STORE status 0x{answer.status:04X}")
            count += 1
            size += len(head) + len(rest)
    return count, size


def store_all(address: Address, title: str, data: DataSet, run: int, associations: int) -> Driven:
    """The data set over so many associations, each a study of its own (as modalities do)."""
    share = -(-len(data.items) // associations)
    jobs = [
        (address, title, data, run * 10 + place, place * share, min((place + 1) * share, len(data.items)))
        for place in range(associations)
    ]
    return drive(store, jobs)


# HTTP ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    length: int
    body: bytes  # empty unless it was to be kept


class Http:
    """A keep-alive connection; opened again when the server closes it."""

    def __init__(self, address: Address, headers: dict[str, str]) -> None:
        self.address = address
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._buffer = memoryview(bytearray(_BUFFER))
        self._socket: socket.socket | None = None
        self._file: IOBase

    def connect(self) -> None:
        self.close()
        self._socket = socket.create_connection(self.address, timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", buffering=1 << 16)

    def close(self) -> None:
        if self._socket is not None:
            self._file.close()
            self._socket.close()
            self._socket = None

    def get(self, path: str, accept: str, *, keep: bool = False, more: str = "") -> Reply:
        head = f"GET {path} HTTP/1.1\r\nHost: {self.address[0]}\r\nAccept: {accept}\r\n{more}{self._fixed}\r\n"
        return self._exchange([head.encode()], keep)

    def post(self, path: str, content_type: str, body: Sequence[bytes | memoryview]) -> Reply:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.address[0]}\r\nAccept: application/dicom+json\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {sum(map(len, body))}\r\n{self._fixed}\r\n"
        )
        return self._exchange([head.encode(), *body], keep=True)

    def _exchange(self, sent: Sequence[bytes | memoryview], keep: bool) -> Reply:
        line = b""
        for _ in range(2):  # a server may close a connection that it has kept: then once more, on a new one
            if self._socket is None:
                self.connect()
            assert self._socket is not None
            try:
                _send_all(self._socket, sent)
                line = self._file.readline()
            except (BrokenPipeError, ConnectionResetError):
                line = b""
            if line:
                break
            self.close()
        if not line:
            raise ClientFailed("no answer")
        status = int(line.split(b" ", 2)[1])
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        kept: list[bytes] = []
        if "content-length" in headers:
            length = self._take(int(headers["content-length"]), kept if keep else None)
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            length = 0
            while size := int(self._file.readline().split(b";")[0], 16):
                length += self._take(size, kept if keep else None)
                self._file.readline()
            self._file.readline()
        else:
            length = self._take(None, kept if keep else None)
            headers["connection"] = "close"
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Reply(status, headers, length, b"".join(kept))

    def _take(self, wanted: int | None, kept: list[bytes] | None) -> int:
        """Read so many bytes, or to the end; the number read."""
        taken = 0
        while wanted is None or taken < wanted:
            room = self._buffer if wanted is None else self._buffer[: wanted - taken]
            got = self._file.readinto(room)  # type: ignore[attr-defined]  # a BufferedReader
            if not got:
                if wanted is None:
                    break
                raise ClientFailed("the body ended early")
            if kept is not None:
                kept.append(bytes(self._buffer[:got]))
            taken += got
        return taken


def _send_all(connection: socket.socket, buffers: Sequence[bytes | memoryview]) -> None:
    left = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while left:
        sent = connection.sendmsg(left[:512])
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if left and sent:
            left[0] = left[0][sent:]


@dataclass(frozen=True, slots=True)
class Target:
    """A DICOMweb server as the clients see it."""

    address: Address
    root: str  # /dicom-web
    headers: dict[str, str]

    def open(self) -> Http:
        return Http(self.address, self.headers)


def stow(
    ready: Callable[[], float], target: Target, data: DataSet, run: int, first: int, last: int, each: int
) -> tuple[int, int]:
    """One connection, ``each`` objects a request."""
    http = target.open()
    http.connect()
    boundary = b"bound4ry"
    head = b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n"
    count = size = 0
    ready()
    for start in range(first, last, each):
        body: list[bytes | memoryview] = []
        # Views of one object end when the next is taken: copies keep the batch together.
        for sending in data.sendings(run, start, min(start + each, last)):
            body += [head, sending.pieces[0], bytes(sending.pieces[1]), b"\r\n"]
            count += 1
            size += sending.length - sending.data_set
        body.append(b"--" + boundary + b"--\r\n")
        reply = http.post(
            f"{target.root}/studies", f'multipart/related; type="application/dicom"; boundary={boundary.decode()}', body
        )
        if reply.status != 200:
            raise ClientFailed(f"STOW-RS status {reply.status}: {reply.body[:200]!r}")
    return count, size


def stow_all(target: Target, data: DataSet, run: int, connections: int, each: int = 25) -> Driven:
    share = -(-len(data.items) // connections)
    jobs = [
        (target, data, run * 10 + place, place * share, min((place + 1) * share, len(data.items)), each)
        for place in range(connections)
    ]
    return drive(stow, jobs)


def fetch(
    ready: Callable[[], float], target: Target, paths: Sequence[str], accept: str, seconds: float
) -> tuple[int, int]:
    """GET one path after another for so long."""
    http = target.open()
    http.connect()
    http.get(target.root + paths[-1], accept)
    count = size = 0
    end = ready() + seconds
    while time.monotonic() < end:
        reply = http.get(target.root + paths[count % len(paths)], accept)
        if reply.status != 200:
            raise ClientFailed(f"status {reply.status} for {paths[count % len(paths)]}")
        count += 1
        size += reply.length
    return count, size


def fetch_all(target: Target, paths: Sequence[str], accept: str, connections: int, seconds: float) -> Driven:
    """The paths dealt out to so many connections."""
    return drive(fetch, [(target, paths[place::connections], accept, seconds) for place in range(connections)])


def latencies(target: Target, paths: Sequence[str], accept: str, *, more: str = "") -> list[float]:
    """Seconds of each GET, one after the other on one connection."""
    http = target.open()
    http.connect()
    taken = []
    for path in paths:
        began = time.perf_counter()
        reply = http.get(target.root + path, accept, more=more)
        taken.append(time.perf_counter() - began)
        if reply.status != 200:
            raise ClientFailed(f"status {reply.status} for {path}")
    http.close()
    return taken

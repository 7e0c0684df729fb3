"""The pool of bounded child processes in which all pixels are decoded.

A decoder that crashes, hangs or eats memory costs one child and one answer, never the server. Children
are warm (libraries loaded, codecs tried), take one job at a time, and are replaced after any failure and
every so many jobs. An object travels in a memory file that the child can only read: a sealed one of its own, so
that it is copied once whatever its size, or the file that each child has for objects that are read from the store.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.pixels.header import Buffer
from negatoscope.dicom.pixels.render import RenderOptions
from negatoscope.dicom.pixels.source import Source
from negatoscope.errors import WIRE_FORMS, NegatoscopeError, PixelsUnreadable, Unavailable
from negatoscope.servers.pixel_protocol import Closed, Header, receive, send

log = logging.getLogger(__name__)

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE, Linux 5.1: what is mapped already stays writable, nothing else becomes so
_LENT_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _FUTURE_WRITE | fcntl.F_SEAL_SEAL
_LENT = 32 << 20  # bytes of the memory file that a child keeps: a mammogram fits; larger objects get one of their own
_START_S = 30.0  # a child that is not ready by then never will be
_RETRY_S = 1.0  # between attempts to start one
_PIECE = 1 << 20
Extents = Sequence[tuple[int, int]] | None  # see web.pixel_work
_KINDS = {kind.__name__: kind for kind in WIRE_FORMS}
_WAITING_PER_CHILD = 32  # jobs that may queue for each child; more are refused at once


class _Child:
    """One process and our end of its socket. Owned by one thread at a time."""

    def __init__(self, memory: int, cpu_s: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "negatoscope.servers.pixel_child"]
                + [str(number) for number in (theirs.fileno(), os.getpid(), memory, cpu_s)],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # decoders write there what the file tells them to
                env=_environment(),
                cwd="/",
                process_group=0,
            )
        self._connection = ours
        self._lent: _Lent | None = None
        self.jobs = 0
        self._connection.settimeout(_START_S)
        try:
            receive(self._connection, 0)
        except (Closed, OSError):
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, header: Header, descriptors: Sequence[int], deadline_s: float) -> tuple[Header, list[bytes]]:
        """One job. Raises ``Closed`` or ``OSError`` (a timeout too) when the child is lost."""
        self.jobs += 1
        # A child that trickles bytes is still bounded: its CPU limit and this timer end it.
        timer = threading.Timer(deadline_s, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            self._connection.settimeout(deadline_s)
            send(self._connection, header, fds=descriptors)
            answer, parts, strays = receive(self._connection, DEFAULT_LIMITS.inflated)
        finally:
            timer.cancel()
        for descriptor in strays:
            os.close(descriptor)
        return answer, parts

    @contextmanager
    def given(self, source: Source) -> Iterator[int]:
        """The descriptor of a memory file that holds the object from its start. Raises what reading it raises.

        Pages that were touched once cost nothing the second time, and a fresh 24 MB costs 20 ms: so a child keeps
        its file. It goes with the child, and no other child ever sees it.
        """
        fresh = source.length > _LENT or 2 * source.touched < source.length  # few pages of a long object: no more
        if fresh:
            lent = _Lent(source.length)
        else:
            # doubled, so that small objects do not make it grow again and again
            if self._lent is None or self._lent.size < source.length:
                self._drop_lent()
                self._lent = _Lent(min(max(1 << source.length.bit_length(), 1 << 20), _LENT))
            lent = self._lent
        try:
            with memoryview(lent.memory) as whole, whole[: source.length] as room:
                source.fill(room, blank=fresh)
            yield lent.descriptor
        finally:
            if fresh:
                lent.close()

    def _drop_lent(self) -> None:
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.close()

    def kill(self) -> None:
        """End it and reap it. Never raises."""
        self._connection.close()
        with suppress(OSError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._drop_lent()


class _Lent:
    """A memory file that this process writes through one mapping, and that nobody else can write or resize."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.descriptor = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            self.memory = mmap.mmap(self.descriptor, size)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _LENT_SEALS)
        except BaseException:
            os.close(self.descriptor)
            raise

    def close(self) -> None:
        with suppress(BufferError):  # whoever reads into it still holds a slice: freed with that
            self.memory.close()
        os.close(self.descriptor)


class PixelPool:
    """Jobs in children; blocking and thread-safe. Frames count from 0, objects are plain data sets.

    Every method raises what the job raises (``NotAcceptable``, ``NotFound``, ``LimitExceeded``...),
    ``PixelsUnreadable`` when the child dies or runs out of memory or time, and ``Unavailable`` when
    too many jobs wait already or none was free within ``wait_s``.
    """

    def __init__(
        self,
        children: int = 2,
        memory: int = 1 << 30,
        cpu_s: int = 20,
        *,
        wait_s: float = 30.0,
        jobs_per_child: int = 1000,
        spool: Path | None = None,
    ) -> None:
        """
        Args:
            children: processes, and so jobs at once.
            memory: address space of a child, bytes, besides the object that it is given.
            cpu_s: CPU seconds of one job; it may last twice that by the clock.
            wait_s: how long a job waits for a child.
            jobs_per_child: jobs after which a child is replaced.
            spool: folder of the unnamed files that hold transcoded objects; the system's own by default.
        """
        self._memory, self._cpu_s = memory, cpu_s
        self._wait_s, self._jobs_per_child = wait_s, jobs_per_child
        self._spool = spool
        self._size = max(children, 1)
        self._changed = threading.Condition()
        self._idle: list[_Child] = []
        self._existing: set[_Child] = set()
        self._waiting = 0
        self._closing = threading.Event()
        # Children die with the thread that started them (PR_SET_PDEATHSIG), so one thread starts them all.
        self._starter = threading.Thread(target=self._keep_full, name="pixel-children", daemon=True)
        self._starter.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the children; jobs under way end with ``Unavailable`` or ``PixelsUnreadable``."""
        with self._changed:
            self._closing.set()
            self._idle.clear()
            leaving = list(self._existing)
            self._existing.clear()
            self._changed.notify_all()
        for child in leaving:
            child.kill()
        self._starter.join()

    def pids(self) -> list[int]:
        """Of the children that exist, for metrics and tests."""
        with self._changed:
            return [child.pid for child in self._existing]

    def render(
        self,
        data: Buffer | Source,
        transfer_syntax_uid: str,
        frame: int,
        options: RenderOptions | None = None,
        *,
        extents: Extents = None,
    ) -> bytes:
        """See ``dicom.pixels.render.render``."""
        options = options or RenderOptions()
        asked = asdict(options) | {
            "window": astuple(options.window) if options.window else None,
            "viewport": astuple(options.viewport) if options.viewport else None,
        }
        return self._job(
            data, {"job": "render", "uid": transfer_syntax_uid, "frame": frame, "options": asked}, extents=extents
        )[0]

    def thumbnail(
        self,
        data: Buffer | Source,
        transfer_syntax_uid: str,
        frame: int | None,
        size: int,
        media: str = "image/jpeg",
        *,
        extents: Extents = None,
    ) -> bytes:
        """See ``dicom.pixels.render.thumbnail``."""
        job = {"job": "thumbnail", "uid": transfer_syntax_uid, "frame": frame, "length": size, "media": media}
        return self._job(data, job, extents=extents)[0]

    def decode_frames(self, data: Buffer, transfer_syntax_uid: str, frames: Sequence[int]) -> list[NDArray[Any]]:
        """Stored values of frames, little endian; see ``dicom.pixels.decode.decode_frame``."""
        parts = self._job(data, {"job": "decode_frames", "uid": transfer_syntax_uid, "frames": list(frames)})
        return [_array(shape, raw) for shape, raw in zip(parts[::2], parts[1::2], strict=True)]

    def transcode_frames(
        self, data: Buffer, source_uid: str, target_uid: str, frames: Sequence[int], *, extents: Extents = None
    ) -> list[bytes]:
        """See ``dicom.pixels.transcode.transcode_frames``."""
        job = {"job": "transcode_frames", "uid": source_uid, "target": target_uid, "frames": list(frames)}
        return self._job(data, job, extents=extents)

    def transcode(self, data: Buffer, source_uid: str, target_uid: str) -> Iterator[bytes]:
        """A data set in another syntax, wholly written and proven before this returns.

        See ``dicom.pixels.transcode.transcode``. Close the iterator, or use it up, to free its file.
        """
        out: IO[bytes] = tempfile.TemporaryFile(dir=self._spool, prefix="pixels-")  # noqa: SIM115 - outlives the call
        try:
            self._job(data, {"job": "transcode", "uid": source_uid, "target": target_uid}, (out.fileno(),))
        except BaseException:
            out.close()
            raise
        return _pieces(out)

    def _job(
        self, data: Buffer | Source, header: Header, outputs: Sequence[int] = (), *, extents: Extents = None
    ) -> list[bytes]:
        size = data.length if isinstance(data, Source) else memoryview(data).nbytes
        child = self._take()
        usable = True
        try:
            with child.given(data) if isinstance(data, Source) else _sealed(data, extents) as memory_file:
                usable = False
                try:
                    answer, parts = child.ask({**header, "size": size}, (memory_file, *outputs), 2.0 * self._cpu_s)
                except (Closed, OSError) as lost:
                    log.warning("pixel child lost", extra={"pid": child.pid, "job": header["job"], "jobs": child.jobs})
                    raise PixelsUnreadable("the decoder ran out of memory or time, or crashed") from lost
            if "error" in answer:
                error = _error(answer)
                usable = not str(error).startswith("the job failed")
                raise error
            usable = True
            return parts
        finally:
            self._give_back(child, usable)

    def _take(self) -> _Child:
        until = time.monotonic() + self._wait_s
        with self._changed:
            if self._waiting >= self._size * _WAITING_PER_CHILD:
                raise Unavailable("too many pixel jobs wait already")
            self._waiting += 1
            try:
                while True:
                    if self._closing.is_set():
                        raise Unavailable("the pixel pool is closing")
                    while self._idle:
                        child = self._idle.pop()
                        if child.alive:
                            return child
                        self._drop(child)
                    left = until - time.monotonic()
                    if left <= 0:
                        raise Unavailable(f"no pixel child was free within {self._wait_s:g} s")
                    self._changed.wait(left)
            finally:
                self._waiting -= 1

    def _give_back(self, child: _Child, usable: bool) -> None:
        with self._changed:
            if usable and child.jobs < self._jobs_per_child and child in self._existing:
                self._idle.append(child)
                self._changed.notify()
                return
            self._drop(child)
        child.kill()

    def _drop(self, child: _Child) -> None:
        """Forget a child, lock held; the starter makes another."""
        self._existing.discard(child)
        self._changed.notify_all()

    def _keep_full(self) -> None:
        while True:
            with self._changed:
                while len(self._existing) >= self._size and not self._closing.is_set():
                    self._changed.wait()
                if self._closing.is_set():
                    return
            try:
                child = _Child(self._memory, self._cpu_s)
            except (Closed, OSError) as error:
                log.error("pixel child does not start", extra={"error": type(error).__name__})
                with self._changed:
                    self._changed.wait_for(self._closing.is_set, _RETRY_S)
                continue
            with self._changed:
                if self._closing.is_set():
                    child.kill()
                    return
                self._existing.add(child)
                self._idle.append(child)
                self._changed.notify_all()


def _environment() -> dict[str, str]:
    """Nothing of ours but what finds the interpreter's libraries; one thread, one heap."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH") if name in os.environ}
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
    return {"LANG": "C.UTF-8", "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"} | single | kept


@contextmanager
def _sealed(data: Buffer, extents: Extents = None) -> Iterator[int]:
    """A memory file of ``data`` that nobody can change any more. Only ``extents`` are copied: the rest is a hole."""
    descriptor = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with memoryview(data) as whole, whole.cast("B") as view:
            os.ftruncate(descriptor, len(view))
            for start, end in extents if extents is not None else ((0, len(view)),):
                at = start
                while at < end:
                    with view[at:end] as rest:
                        at += os.pwrite(descriptor, rest, at)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        yield descriptor
    finally:
        os.close(descriptor)


def _error(answer: Header) -> NegatoscopeError:
    """The error a child named; only ours are believed."""
    kind = _KINDS.get(str(answer["error"]), PixelsUnreadable)
    return kind(str(answer.get("message", ""))[:300])


def _array(described: bytes, raw: bytes) -> NDArray[Any]:
    try:
        kind, shape = described.decode("ascii").rsplit("|", 1)  # the name of a byte has a bar too
        dtype = np.dtype(kind if kind[1:2] in ("u", "i", "f") else "<u1")
        return np.frombuffer(raw, dtype).reshape([int(side) for side in shape.split(",")])
    except (ValueError, TypeError) as error:
        raise PixelsUnreadable("a child's answer makes no sense") from error


def _pieces(out: IO[bytes]) -> Iterator[bytes]:
    with out:
        position = 0
        while piece := os.pread(out.fileno(), _PIECE, position):
            position += len(piece)
            yield piece

"""Ingest segments: append-only files that received data sets go to straight from the socket.

A record is ``header (1 KiB) | data set as received | CRC-32C of its MiB blocks``, and the header alone is
enough to index it again. The header is written last, so a record without one never happened: a crash
leaves at most a torn tail. One writer a file, held by flock; a file that nobody holds can be recovered.

A failed sync may have lost pages that later syncs report as safe (PostgreSQL, 2018): so it ends the
process, and the file is never synced again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from negatoscope.archive.ports import RecordHeader
from negatoscope.errors import OutOfResources, TooLarge, Unavailable
from negatoscope.model.checksum import BLOCK, Buffer, blocks_match, crc32c

log = logging.getLogger(__name__)

ADVANCE_BYTES = 16 << 20  # at most about this much of a segment is read again after a crash
HEADER = 1024  # bytes reserved before each data set
_FIXED = struct.Struct(">8sIIQII")  # magic, JSON length, trailer length, data length, CRC of JSON, CRC of trailer
_MAGIC = b"NEGAREC1"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def end_process(reason: str) -> None:
    """What a failed sync does: no retry, no cleanup, the supervisor starts another process."""
    log.critical("storage_sync_failed reason=%s", reason)
    os._exit(70)


class SegmentWriter:
    """The end of one segment. Leased to one reception at a time; not thread-safe."""

    def __init__(self, path: Path, segment_id: int, fatal: Callable[[str], None]) -> None:
        self.segment_id = segment_id
        self._fatal = fatal
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sync_folder(path.parent)
        self.end = 0  # bytes of finished records
        self.advanced = 0  # of them, what the index has been told to be in it

    @property
    def fd(self) -> int:
        return self._fd

    def sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._fatal(f"fdatasync: {error.strerror}")
            raise Unavailable("storage failed") from error

    def close(self) -> None:
        os.close(self._fd)


class SegmentRecord:
    """One object being received. Small objects stay in memory until :meth:`finish` and take one write."""

    def __init__(self, writer: SegmentWriter, longest: int, segments: Segments) -> None:
        self._writer = writer
        self._fd, self._start = writer.fd, writer.end
        self._longest, self._segments = longest, segments
        self._block = bytearray()  # what is not written yet: at most one MiB
        self._spilled = 0  # bytes of the data set already in the file
        self._crcs = bytearray()
        self._sha256 = hashlib.sha256()

    @property
    def segment_id(self) -> int:
        return self._writer.segment_id

    @property
    def offset(self) -> int:
        """Of the data set in the segment."""
        return self._start + HEADER

    @property
    def length(self) -> int:
        return self._spilled + len(self._block)

    def write(self, fragments: Sequence[Buffer]) -> None:
        """Append. Raises OutOfResources (disk full), TooLarge (over the limit of one data set)."""
        for fragment in fragments:
            self._block += fragment
            self._sha256.update(fragment)  # now, while the sender sends on
        if self.length > self._longest:
            raise TooLarge(f"a data set may have {self._longest} bytes")
        if len(self._block) > BLOCK:
            whole = len(self._block) // BLOCK * BLOCK
            with memoryview(self._block) as view:
                for at in range(0, whole, BLOCK):
                    self._account(view[at : at + BLOCK])
                self._put([view[:whole]], self.offset + self._spilled)
            self._spilled += whole
            del self._block[:whole]

    @contextmanager
    def view(self) -> Iterator[memoryview]:
        """The data set so far, without a copy. Released on leaving."""
        if not self._spilled:
            with memoryview(self._block).toreadonly() as view:
                yield view
            return
        self._put([self._block], self.offset + self._spilled)
        with mapped(self._fd, self.offset, self.length) as view:
            yield view

    def digest(self) -> tuple[bytes, bytes]:
        """(SHA-256, block checksums) of the whole data set. Nothing may be written afterwards."""
        if self._block or not self._crcs:
            self._account(self._block)
        return self._sha256.digest(), bytes(self._crcs)

    def finish(self, header: RecordHeader) -> None:
        """Make the record whole. It survives a power cut once :meth:`sync` returns. Call :meth:`digest` before."""
        text = orjson.dumps(header.as_json())
        crcs, length = bytes(self._crcs), self.length
        fixed = _FIXED.pack(_MAGIC, len(text), len(crcs), length, crc32c(text), crc32c(crcs))
        if len(fixed) + len(text) > HEADER:
            raise ValueError("record header over its room")
        head = (fixed + text).ljust(HEADER, b"\0")
        if self._spilled:
            # Header last: until it is there the record does not exist.
            self._put([self._block, crcs], self.offset + self._spilled)
            self._put([head], self._start)
        else:
            self._put([head, self._block, crcs], self._start)
        self._block = bytearray()
        self._spilled = length
        self._writer.end = self.offset + length + len(crcs)

    def sync(self) -> None:
        """Make this and every finished record before it durable."""
        self._writer.sync()

    def abort(self) -> None:
        """Cut off what was written. Never raises: a tail that stays is dropped at the next start."""
        try:
            os.ftruncate(self._fd, self._start)
        except OSError:
            log.warning("segment_truncate_failed segment_id=%d", self.segment_id)
        self._writer.end = self._start

    def release(self) -> None:
        """Give the end of the segment back to the next reception."""
        self._segments.give_back(self._writer)

    def behind(self, longest: int) -> SegmentRecord:
        """The next record, once this is finished or aborted; to be released in place of this."""
        return self._segments.begin_behind(self._writer, longest)

    def _account(self, block: Buffer) -> None:
        self._crcs += crc32c(block).to_bytes(4, "big")

    def _put(self, buffers: Sequence[Buffer], at: int) -> None:
        views = [memoryview(buffer) for buffer in buffers]
        try:
            while views:
                done = os.pwritev(self._fd, views, at)
                at += done
                while views and done >= len(views[0]):
                    done -= len(views.pop(0))
                if views and done:
                    views[0] = views[0][done:]
        except OSError as error:
            if error.errno in NO_ROOM:
                raise OutOfResources("the store is full") from error
            raise Unavailable("storage failed") from error
        finally:
            for view in views:
                view.release()


class Segments:
    """The open segments of this process: leased to receptions, sealed when long. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        *,
        create: Callable[[], int],
        advance: Callable[[int, int], None],
        seal: Callable[[int, int], None],
        longest: int,
        reserve: int,
        fatal: Callable[[str], None] = end_process,
    ) -> None:
        """
        Args:
            create: gives a new segment_id.
            advance: ``(segment_id, end)``: whatever was acknowledged before ``end`` is in the index.
            seal: the same, and no writer will come back.
            longest: bytes after which a segment is sealed.
            reserve: free bytes below which nothing is taken.
            fatal: ends the process after a failed sync.
        """
        self._folder = folder
        self._create, self._advance, self._seal = create, advance, seal
        self._longest, self._reserve, self._fatal = longest, reserve, fatal
        self._idle: list[SegmentWriter] = []
        self._mutex = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)

    def begin(self, longest: int) -> SegmentRecord:
        """A record for one reception; release it. Raises OutOfResources at the reserve, Unavailable."""
        self._check_room()
        return SegmentRecord(self._lease(), longest, self)

    def begin_behind(self, writer: SegmentWriter, longest: int) -> SegmentRecord:
        self._check_room()
        return SegmentRecord(writer, longest, self)

    def _check_room(self) -> None:
        room = os.statvfs(self._folder)
        if room.f_bavail * room.f_frsize < self._reserve or room.f_favail == 0 < room.f_files:
            raise OutOfResources("the reserve of the store is reached")

    def _lease(self) -> SegmentWriter:
        with self._mutex:
            if self._idle:
                return self._idle.pop()
        while True:
            segment_id = self._create()
            try:
                return SegmentWriter(segment_path(self._folder, segment_id), segment_id, self._fatal)
            except FileExistsError:
                continue  # of an index that was lost: its bytes stay until they are indexed again
            except OSError as error:
                if error.errno in NO_ROOM:
                    raise OutOfResources("the store is full") from error
                raise Unavailable("storage failed") from error

    def give_back(self, writer: SegmentWriter) -> None:
        if writer.end < self._longest:
            if writer.end - writer.advanced > ADVANCE_BYTES:
                # So that a start after a crash reads little again. A record whose commit failed may lie
                # before: it was not acknowledged, its sender sends it again.
                try:
                    self._advance(writer.segment_id, writer.end)
                    writer.advanced = writer.end
                except Unavailable:
                    log.warning("segment_advance_postponed segment_id=%d", writer.segment_id)
            with self._mutex:
                self._idle.append(writer)
            return
        self._retire(writer)

    def close(self) -> None:
        """Seal what is idle. Leased writers are sealed by whoever recovers them."""
        with self._mutex:
            idle, self._idle = self._idle, []
        for writer in idle:
            self._retire(writer)

    def _retire(self, writer: SegmentWriter) -> None:
        try:
            self._seal(writer.segment_id, writer.end)
        except Unavailable:
            log.warning("segment_seal_postponed segment_id=%d", writer.segment_id)
        writer.close()


def segment_path(folder: Path, segment_id: int) -> Path:
    """Named by sequence number: no path ever comes from received text."""
    return folder / f"{segment_id:012d}.seg"


def segment_ids(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.seg")) if folder.exists() else []


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A whole record found in a segment, its checksums verified."""

    fd: int
    header: RecordHeader
    offset: int
    length: int
    crcs: bytes

    @contextmanager
    def view(self) -> Iterator[memoryview]:
        with mapped(self.fd, self.offset, self.length) as view:
            yield view


class ClaimedSegment:
    """A segment that no writer holds; see :func:`claim`."""

    def __init__(self, segment_id: int, fd: int) -> None:
        self.segment_id, self._fd = segment_id, fd
        self.passed_over: list[int] = []  # offsets of data sets that have their header and do not match

    def records(self, start: int) -> Iterator[FoundRecord]:
        """Records from ``start`` on whose header, trailer and data all match their checksums.

        One that has its header and does not match is passed over: it was damaged later, or it is among the last,
        which were never acknowledged because no sync of theirs ended.
        """
        size = os.fstat(self._fd).st_size
        while start + HEADER <= size:
            head = _read_head(self._fd, start)
            offset = start + HEADER
            if head is None or offset + head.length + head.trailer_length > size:
                return
            crcs = os.pread(self._fd, head.trailer_length, offset + head.length)
            if crc32c(crcs) == head.trailer_crc and _data_matches(self._fd, offset, head.length, crcs):
                yield FoundRecord(self._fd, head.header, offset, head.length, crcs)
            else:
                self.passed_over.append(offset)
            start = offset + head.length + head.trailer_length

    def cut(self, end: int) -> None:
        """Drop what follows ``end``: a torn tail."""
        if os.fstat(self._fd).st_size > end:
            os.ftruncate(self._fd, end)
            os.fsync(self._fd)


@contextmanager
def claim(folder: Path, segment_id: int) -> Iterator[ClaimedSegment | None]:
    """The segment when no writer holds it; None when one does, or when its file is gone."""
    try:
        fd = os.open(segment_path(folder, segment_id), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        os.fdatasync(fd)  # a writer that was killed may not have: an index must not refer to what could still go
        yield ClaimedSegment(segment_id, fd)
    finally:
        os.close(fd)


@contextmanager
def mapped(fd: int, offset: int, length: int) -> Iterator[memoryview]:
    """A run of a file, read-only, at any offset; it must lie within the file."""
    page = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    with (
        mmap.mmap(fd, offset - page + length, prot=mmap.PROT_READ, offset=page) as memory,
        memoryview(memory) as whole,
        whole[offset - page :] as view,
    ):
        yield view


@dataclass(frozen=True, slots=True)
class _Head:
    header: RecordHeader
    length: int  # of the data set
    trailer_length: int
    trailer_crc: int


def _read_head(fd: int, start: int) -> _Head | None:
    """The head of the record at ``start``; None when there is no whole one."""
    raw = os.pread(fd, HEADER, start)
    if len(raw) < HEADER:
        return None
    magic, text_length, trailer_length, length, text_crc, trailer_crc = _FIXED.unpack_from(raw)
    text = raw[_FIXED.size : _FIXED.size + text_length]
    if magic != _MAGIC or len(text) != text_length or crc32c(text) != text_crc:
        return None
    return _Head(RecordHeader.from_json(orjson.loads(text)), length, trailer_length, trailer_crc)


def record_header(folder: Path, segment_id: int, offset: int) -> RecordHeader | None:
    """The header of the record whose data set is at ``offset``; None when it is not whole."""
    try:
        fd = os.open(segment_path(folder, segment_id), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        head = _read_head(fd, offset - HEADER)
    finally:
        os.close(fd)
    return head.header if head else None


def _data_matches(fd: int, offset: int, length: int, crcs: bytes) -> bool:
    return all(
        blocks_match(os.pread(fd, min(BLOCK, length - at), offset + at), crcs, at) for at in range(0, length, BLOCK)
    )


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

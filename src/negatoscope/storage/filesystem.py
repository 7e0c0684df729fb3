"""Segments and packs on a file system. Names are sequence numbers or digests: never received text."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from negatoscope.archive.ports import RecordHeader
from negatoscope.errors import CorruptObject
from negatoscope.model.stored import Container
from negatoscope.storage.segments import mapped, record_header, segment_path


class Containers:
    """Implements ``archive.ports.ContainerReader``. Thread-safe, keeps no file open."""

    def __init__(self, segments: Path, packs: Path, pack_name: Callable[[int], str]) -> None:
        """``pack_name`` gives the object name of a pack by its id."""
        self._segments, self._packs, self._pack_name = segments, packs, pack_name
        self._file_names = lru_cache(4096)(
            lambda container, container_id: os.fspath(self.path(container, container_id))
        )

    def path(self, container: Container, container_id: int) -> Path:
        if container is Container.SEGMENT:
            return segment_path(self._segments, container_id)
        return pack_path(self._packs, self._pack_name(container_id))

    def header(self, segment_id: int, offset: int) -> RecordHeader | None:
        """The header of the record whose data set is at ``offset``; None when it is not whole."""
        return record_header(self._segments, segment_id, offset)

    def delete_segment(self, segment_id: int) -> None:
        segment_path(self._segments, segment_id).unlink(missing_ok=True)

    def read(self, container: Container, container_id: int, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, unverified. Raises CorruptObject when they are not there."""
        fd = self._open(container, container_id)
        try:
            data = os.pread(fd, length, offset)
            while len(data) < length:
                more = os.pread(fd, length - len(data), offset + len(data))
                if not more:
                    raise CorruptObject(f"{container.value} {container_id} is truncated")
                data += more
            return data
        except OSError as error:
            raise CorruptObject(f"{container.value} {container_id} cannot be read") from error
        finally:
            os.close(fd)

    def read_into(
        self, container: Container, container_id: int, offset: int, buffer: memoryview, *, wait: bool = True
    ) -> bool:
        """Fill ``buffer``, unverified; without ``wait`` only from the page cache, and False when that has not all.

        Raises CorruptObject: the bytes are not there.
        """
        fd = self._open(container, container_id)
        try:
            done = 0
            while done < len(buffer):
                rest = buffer[done:] if done else buffer
                read = os.preadv(fd, [rest], offset + done, 0 if wait else os.RWF_NOWAIT)
                if not read:
                    raise CorruptObject(f"{container.value} {container_id} is truncated")
                done += read
        except OSError as error:
            if not wait:  # not in memory (EAGAIN), or a file system that cannot tell (EOPNOTSUPP)
                return False
            raise CorruptObject(f"{container.value} {container_id} cannot be read") from error
        finally:
            os.close(fd)
        return True

    def _open(self, container: Container, container_id: int) -> int:
        try:
            return os.open(self._file_names(container, container_id), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CorruptObject(f"{container.value} {container_id} is missing") from error

    @contextmanager
    def view(self, container: Container, container_id: int, offset: int, length: int) -> Iterator[memoryview]:
        """The run mapped read-only, unverified. Raises CorruptObject when it is not there whole."""
        fd = self._open(container, container_id)
        try:
            # A mapping past the end of the file would be a bus error, not an exception.
            if os.fstat(fd).st_size < offset + length or not length:
                raise CorruptObject(f"{container.value} {container_id} is truncated")
            with mapped(fd, offset, length) as view:
                yield view
        finally:
            os.close(fd)


def pack_path(folder: Path, name: str) -> Path:
    """Spread over 256 folders by the first byte of the digest."""
    return folder / name[:2] / f"{name}.pack"

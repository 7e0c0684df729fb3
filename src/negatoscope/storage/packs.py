"""Series packs on a file system: written once, named by digest, read-only ever after.

``objects end to end | metadata | frame table | footer | tail``. The tail says where the footer is and
has its CRC-32C; the name is the SHA-256 of the footer, which holds the digests of everything else.
So a pack proves by itself that it is whole and that it is the one its name says.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from negatoscope.errors import CorruptObject, OutOfResources, Unavailable
from negatoscope.model.checksum import Buffer, crc32c
from negatoscope.storage.filesystem import pack_path
from negatoscope.storage.segments import NO_ROOM, sync_folder

_TAIL = struct.Struct(">8sQQI")  # magic, footer offset, footer length, CRC of footer
_MAGIC = b"NEGAPAK1"


class PackWriter:
    """A pack being written. Nothing is visible before :meth:`finish` returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        incoming = folder / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        try:
            fd, name = tempfile.mkstemp(dir=incoming)
        except OSError as error:
            raise _refused(error) from error
        self._path, self._file = Path(name), os.fdopen(fd, "wb", buffering=0)
        self.size = 0

    def add(self, buffers: Sequence[Buffer]) -> int:
        """Append; returns the offset of the first byte. Raises OutOfResources, Unavailable."""
        offset = self.size
        try:
            for buffer in buffers:
                view = memoryview(buffer)
                while view:
                    done = self._file.write(view)
                    view = view[done:]
                self.size += len(buffer)
        except OSError as error:
            raise _refused(error) from error
        return offset

    def finish(self, footer: bytes) -> str:
        """Make the pack durable under its name, and return that. Raises OutOfResources, Unavailable."""
        offset = self.add([footer])
        self.add([_TAIL.pack(_MAGIC, offset, len(footer), crc32c(footer))])
        name = hashlib.sha256(footer).hexdigest()
        path = pack_path(self._folder, name)
        try:
            os.fchmod(self._file.fileno(), 0o440)
            os.fsync(self._file.fileno())
            self._file.close()
            if not path.parent.exists():
                path.parent.mkdir(exist_ok=True)
                sync_folder(self._folder)
            os.replace(self._path, path)
            sync_folder(path.parent)
        except OSError as error:
            raise _refused(error) from error
        return name

    def abort(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class Packs:
    """The folder of packs. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)

    def create(self) -> PackWriter:
        return PackWriter(self.folder)

    def footer(self, name: str) -> bytes:
        """The footer, verified against tail and name.

        Raises:
            CorruptObject: missing, truncated, altered, or another pack under this name; the message's first
                word says which.
        """
        try:
            with pack_path(self.folder, name).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                tail = os.pread(file.fileno(), _TAIL.size, max(0, size - _TAIL.size))
                if len(tail) < _TAIL.size or tail[:8] != _MAGIC:
                    raise CorruptObject("truncated: the pack has no tail")
                _, offset, length, crc = _TAIL.unpack(tail)
                footer = os.pread(file.fileno(), min(length, size), offset)
        except FileNotFoundError as error:
            raise CorruptObject("missing: no such pack") from error
        except OSError as error:
            raise CorruptObject("altered: the pack cannot be read") from error
        if offset + length + _TAIL.size != size or len(footer) != length or crc32c(footer) != crc:
            raise CorruptObject("altered: the footer does not match its checksum")
        if hashlib.sha256(footer).hexdigest() != name:
            raise CorruptObject("swapped: another pack lies under this name")
        return footer

    def names(self) -> Iterator[str]:
        for path in sorted(self.folder.glob("[0-9a-f][0-9a-f]/*.pack")):
            yield path.stem

    def older_than(self, moment: float) -> Callable[[str], bool]:
        """Whether a pack was written before ``moment``, seconds since the epoch."""

        def check(name: str) -> bool:
            try:
                return pack_path(self.folder, name).stat().st_mtime < moment
            except FileNotFoundError:
                return False

        return check

    def delete(self, name: str) -> None:
        pack_path(self.folder, name).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what writers of dead processes left. Only at start, before any writer exists."""
        left = list((self.folder / "incoming").glob("*"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


def _refused(error: OSError) -> OutOfResources | Unavailable:
    return OutOfResources("the store is full") if error.errno in NO_ROOM else Unavailable("storage failed")

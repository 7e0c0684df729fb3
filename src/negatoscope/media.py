"""Files of a medium to be imported: a folder, a ZIP, or a disc with its DICOMDIR.

Discs are often damaged, indexed wrongly, or carry a viewer and its icons beside the images, so every file is
looked at and the DICOMDIR is only believed where it names a file that is not there (PS3.10 8.5, PS3.3 F.3).
Each file becomes one :class:`MediaEntry`, with a reason where it will not be imported: nothing is dropped
silently, nothing is read whole, and no received name is ever used as a path.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, BinaryIO

from negatoscope.dicom.limits import DEFAULT_LIMITS, KIB, MIB, Limits
from negatoscope.errors import BadRequest, InvalidObject, NotFound, TooLarge, TruncatedObject

HEAD = 512  # bytes looked at to tell what a file is
RATIO_COUNTS_FROM = 16 * MIB  # a black image deflates 800:1 in earnest; below this nobody is hurt
ZIP_READ = 4 * KIB  # least read of a ZIP entry
DICOMDIR_READ = 64 * MIB  # a longer index is not used as a hint

# All that zipfile was seen to raise on archives damaged at random.
DAMAGE = (zipfile.BadZipFile, OSError, ValueError, OverflowError, RuntimeError, struct.error)
_DICOMDIR_CLASS = b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"  # Media Storage SOP Class in the file meta
_ZIP_FILE = b"PK\x03\x04"
_REFERENCED_FILE = re.compile(  # (0004,1500) Referenced File ID, CS: explicit, implicit, big endian
    rb"\x04\x00\x00\x15(?:CS(?P<explicit>..)|(?P<implicit>..\x00\x00))|\x00\x04\x15\x00CS(?P<big>..)", re.DOTALL
)
_FILE_ID = re.compile(rb"[A-Z0-9_ ]{1,16}(?:\\[A-Z0-9_ ]{1,16}){0,7}")  # twice what PS3.10 8.2 allows a component


class Kind(StrEnum):
    DICOM = "dicom"  # to be imported
    SKIPPED = "skipped"  # no image: nothing is lost by leaving it
    REFUSED = "refused"  # should have been an image, or might hide one: a person must know


@dataclass(frozen=True, slots=True)
class MediaEntry:
    """One file of the medium.

    ``path`` is as the medium names it, for the eyes of the person who imports: people name folders after
    patients, so it goes to no log. ``label`` may.
    """

    number: int  # 1 upwards, in the order of reading
    path: str
    kind: Kind
    reason: str = ""
    size: int | None = None  # bytes, as declared by the medium
    opener: Callable[[], BinaryIO] | None = None

    @property
    def label(self) -> str:
        return f"file {self.number}"

    def open(self) -> BinaryIO:
        """A stream of the file from its first byte. Use it before asking for the next entry.

        Reading may raise ``TooLarge`` (inflates beyond its bounds) or ``InvalidObject`` (damaged).
        """
        if self.opener is None:
            raise NotFound(f"{self.label} cannot be opened: {self.reason}")
        return self.opener()


@dataclass(frozen=True, slots=True)
class _File:
    """A file before it was looked at."""

    parts: tuple[str, ...]  # below the root of the medium
    size: int
    open: Callable[[], BinaryIO]
    refused: str = ""


def entries(path: Path, limits: Limits = DEFAULT_LIMITS) -> Iterator[MediaEntry]:
    """Every file of the medium at ``path``: a folder, a ZIP, a DICOMDIR (its folder is read), or one file.

    Entries of missing files come last. Symbolic links are reported and not followed.

    Raises:
        NotFound: there is nothing at ``path``.
        BadRequest: a ZIP that cannot be read at all.
        TooLarge: a ZIP of more than ``limits.zip_entries`` entries.
    """
    if path.is_dir():
        return _looked_at(_folder(path))
    if not path.is_file():
        raise NotFound("no folder, ZIP or file to import there")
    head = _head(lambda: path.open("rb"))
    if _DICOMDIR_CLASS in head or path.name.upper() == "DICOMDIR":
        return _looked_at(_folder(path.parent))
    if not looks_like_dicom(head) and (head.startswith(_ZIP_FILE) or zipfile.is_zipfile(path)):
        _judge_zip(path, limits)
        return _looked_at(_zip(path, limits))
    return _looked_at(iter([_File((path.name,), path.stat().st_size, lambda: path.open("rb"))]))


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes are those of a DICOM file: the Part 10 mark, or, as old files have it, a data
    set that starts at once with an element of group 0002 or 0008 of a plausible length."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 12:
        return False
    for order in ("<", ">"):
        group, element, length = struct.unpack_from(order + "HHI", head)
        short = struct.unpack_from(order + "H", head, 6)[0]
        if group in (0x0002, 0x0008) and element <= 0x0070:
            explicit = head[4:6].isalpha() and head[4:6].isupper() and short <= 1024
            if explicit or length <= 1024:
                return True
    return False


def referenced_files(index: bytes) -> list[tuple[str, ...]]:
    """File IDs that a DICOMDIR names, in any of its encodings, found by their tag alone: a broken index still
    tells what should be there. A file named twice is listed once."""
    found: dict[tuple[str, ...], None] = {}
    for mark in _REFERENCED_FILE.finditer(index):
        length = int.from_bytes(mark["explicit"] or mark["implicit"] or mark["big"], "big" if mark["big"] else "little")
        value = index[mark.end() : mark.end() + length].rstrip(b" \0")
        if length <= 256 and _FILE_ID.fullmatch(value):
            found[tuple(part.strip() for part in value.decode("ascii").split("\\"))] = None
    return list(found)


def _looked_at(files: Iterator[_File]) -> Iterator[MediaEntry]:
    """The entries of ``files``, then those that an index names and nobody saw."""
    seen: set[tuple[str, ...]] = set()
    expected: dict[tuple[str, ...], str] = {}
    number = 0
    for number, file in enumerate(files, start=1):
        seen.add(_comparable(file.parts))
        kind, reason = _judged(file, expected)
        yield MediaEntry(number, "/".join(file.parts), kind, reason, file.size, file.open if not file.refused else None)
    for missing in [name for parts, name in expected.items() if parts not in seen]:
        number += 1
        yield MediaEntry(number, missing, Kind.REFUSED, "missing from media")


def _judged(file: _File, expected: dict[tuple[str, ...], str]) -> tuple[Kind, str]:
    """What to do with a file, from its first bytes; what a DICOMDIR names is added to ``expected``."""
    if file.refused:
        return Kind.REFUSED, file.refused
    try:
        head = _head(file.open)
        if _DICOMDIR_CLASS in head or file.parts[-1].upper() == "DICOMDIR":
            with file.open() as stream:
                index = stream.read(DICOMDIR_READ) if file.size <= DICOMDIR_READ else b""
            for below in referenced_files(index):
                parts = (*file.parts[:-1], *below)
                expected.setdefault(_comparable(parts), "/".join(parts))
            return Kind.SKIPPED, "index of the medium"
    except OSError:
        return Kind.REFUSED, "cannot be read"
    except InvalidObject as error:
        return Kind.REFUSED, str(error)
    except TooLarge as error:
        return Kind.REFUSED, str(error)
    if looks_like_dicom(head):
        return Kind.DICOM, ""
    if head.startswith(_ZIP_FILE):
        return Kind.REFUSED, "a ZIP within the medium: import it by itself"
    return Kind.SKIPPED, "empty" if not head else "not DICOM"


def _comparable(parts: tuple[str, ...]) -> tuple[str, ...]:
    """ISO 9660 knows no case, and some systems show its version or a final dot."""
    return tuple(part.upper().partition(";")[0].rstrip(".") for part in parts)


def _head(opener: Callable[[], BinaryIO]) -> bytes:
    with opener() as stream:
        return stream.read(HEAD)


# Folders -----------------------------------------------------------------------------------------


def _folder(root: Path) -> Iterator[_File]:
    """Regular files below ``root`` in order of name, depth first, without recursion of ours."""
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        path = root.joinpath(*parts)
        try:
            mode = path.lstat() if parts else path.stat()
            if stat.S_ISDIR(mode.st_mode):
                waiting += [(*parts, name) for name in sorted(os.listdir(path), reverse=True)]
                continue
        except OSError:
            yield _File(parts or (root.name,), 0, _never, "cannot be read")
            continue
        if stat.S_ISLNK(mode.st_mode):
            yield _File(parts, 0, _never, "symbolic link, not followed")
        elif not stat.S_ISREG(mode.st_mode):
            yield _File(parts, 0, _never, "not a regular file")
        else:
            yield _File(parts, mode.st_size, lambda path=path: _open_file(path))  # type: ignore[misc]  # bound now


def _open_file(path: Path) -> BinaryIO:
    """Open without following a link put there since it was listed."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _never() -> BinaryIO:
    raise NotFound("this file was refused")


# ZIP ---------------------------------------------------------------------------------------------


def _judge_zip(path: Path, limits: Limits) -> None:
    """Refuse before ``zipfile`` builds an object an entry: it would for as many as are declared.

    Walks the central directory, 46 bytes an entry and three lengths (APPNOTE 4.3.12), whatever the count
    declared at the end says.
    """
    try:
        with path.open("rb") as stream:
            start, size = _central_directory(stream)
            stream.seek(start)
            counted, left = 0, size
            while left >= 46:
                header = stream.read(46)
                if header[:4] != b"PK\x01\x02":
                    break
                counted += 1
                if counted > limits.zip_entries:
                    raise TooLarge(f"the ZIP has more than {limits.zip_entries} entries")
                skipped = sum(struct.unpack_from("<HHH", header, 28))
                stream.seek(skipped, os.SEEK_CUR)
                left -= 46 + skipped
    except DAMAGE as error:
        raise BadRequest("the ZIP cannot be read: damaged or cut short") from error


def _central_directory(stream: BinaryIO) -> tuple[int, int]:
    """Offset and size of the central directory, found just as ``zipfile`` will find it: an archive that
    shows one directory here and another there would pass the count."""
    end = stream.seek(0, os.SEEK_END)
    tail_at = max(0, end - 64 * KIB - 22)
    stream.seek(tail_at)
    tail = stream.read()
    at_end = tail[-22:-18] == b"PK\x05\x06" and tail[-2:] == b"\0\0"
    found = len(tail) - 22 if at_end else tail.rfind(b"PK\x05\x06")
    if found < 0:
        raise ValueError("no end record")
    size, at = struct.unpack_from("<I", tail, found + 12)[0], tail_at + found
    stream.seek(max(0, at - 76))
    longer = stream.read(76)  # ZIP64 end record (56) and its locator (20)
    if longer[56:60] == b"PK\x06\x07" and longer[:4] == b"PK\x06\x06":
        size, at = struct.unpack_from("<Q", longer, 40)[0], at - 76
    if size > at:
        raise ValueError("the directory is longer than the file")
    return at - size, size


@dataclass(slots=True)
class _Allowance:
    """How many bytes an archive may still inflate to: entries that share compressed bytes share this."""

    left: int


def _zip(path: Path, limits: Limits) -> Iterator[_File]:
    """Files of an archive, from its central directory. Names are labels: nothing is extracted to a path."""
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise BadRequest("the ZIP cannot be read: damaged or cut short") from error
    inflated = max(limits.inflate_ratio * path.stat().st_size, RATIO_COUNTS_FROM)
    allowance = _Allowance(inflated + ZIP_READ * len(archive.infolist()))  # each entry's head is read twice
    with archive:
        for info in archive.infolist():
            if info.filename.endswith("/"):  # a folder; is_dir() fails on an empty name
                continue
            parts = tuple(part for part in info.filename.replace("\\", "/").split("/") if part) or ("?",)
            refused = _refused_in_zip(info, limits)
            yield _File(parts, info.file_size, _zip_opener(archive, info, limits, allowance), refused)


def _refused_in_zip(info: zipfile.ZipInfo, limits: Limits) -> str:
    if info.flag_bits & 0x1:
        return "encrypted: give the medium without a password"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"ZIP compression method {info.compress_type} is not supported"
    if info.file_size > limits.data_set:
        return f"larger than {limits.data_set} bytes"
    return ""


def _zip_opener(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: Limits, allowance: _Allowance
) -> Callable[[], BinaryIO]:
    def opener() -> BinaryIO:
        bound = min(max(limits.inflate_ratio * info.compress_size, RATIO_COUNTS_FROM), limits.inflated)
        if info.compress_type == zipfile.ZIP_STORED:
            bound = limits.data_set
        try:
            inner = archive.open(info)
        except DAMAGE as error:
            raise InvalidObject("damaged in the ZIP") from error
        return io.BufferedReader(_Inflating(inner, bound, allowance), ZIP_READ)

    return opener


class _Inflating(io.RawIOBase):
    """Bytes of one ZIP entry, counted as they come out: a declared size is never believed."""

    def __init__(self, inner: IO[bytes], bound: int, allowance: _Allowance) -> None:
        self._inner, self._left, self._allowance = inner, bound, allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io hands a memoryview
        try:
            data = self._inner.read(len(buffer))
        except (EOFError, zlib.error) as error:
            raise TruncatedObject("cut short or damaged in the ZIP") from error
        except DAMAGE as error:
            raise InvalidObject("damaged in the ZIP: its checksum does not match") from error
        self._left -= len(data)
        self._allowance.left -= len(data)
        if self._left < 0 or self._allowance.left < 0:
            raise TooLarge("inflates beyond the bound: a ZIP bomb")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._inner.close()
        super().close()

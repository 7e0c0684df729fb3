"""Media to the archive: each file through the ordinary door, each refusal with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from negatoscope import media
from negatoscope.archive.ports import Receiver
from negatoscope.dicom.limits import DEFAULT_LIMITS, KIB, MIB, Limits
from negatoscope.dicom.part10 import read_file_meta
from negatoscope.errors import NegatoscopeError, Unavailable, title
from negatoscope.model.source import Announced, Source
from negatoscope.model.stored import StoreResult

CHUNK = 1 * MIB


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one file. ``path`` is for the eyes of whoever imports: it goes to no log."""

    number: int
    path: str
    size: int | None
    result: StoreResult | None  # None: not an object, or refused
    refused: bool
    reason: str


def import_media(path: Path, receiver: Receiver, source: Source, limits: Limits = DEFAULT_LIMITS) -> Iterator[Imported]:
    """Every file of the folder, ZIP, disc or file at ``path``, in order.

    Raises:
        NotFound, BadRequest, TooLarge: nothing to import there, or a ZIP that cannot be read.
        Unavailable: the archive is not there; what was yielded is kept, so import again.
    """
    for entry in media.entries(path, limits):
        if entry.kind is not media.Kind.DICOM:
            refused = entry.kind is media.Kind.REFUSED
            yield Imported(entry.number, entry.path, entry.size, None, refused, entry.reason)
            continue
        try:
            result = _store(entry, receiver, source, limits)
        except Unavailable:
            raise
        except NegatoscopeError as error:
            yield Imported(entry.number, entry.path, entry.size, None, True, f"{title(error)} {error}")
        else:
            yield Imported(entry.number, entry.path, entry.size, result, False, result.reason)


def _store(entry: media.MediaEntry, receiver: Receiver, source: Source, limits: Limits) -> StoreResult:
    with entry.open() as file:
        head = file.read(limits.file_meta + 1 * KIB)
        meta, start = read_file_meta(head, limits)
        reception = receiver.begin(source, Announced(meta.transfer_syntax_uid))
        try:
            reception.write([head[start:]])
            while chunk := file.read(CHUNK):
                reception.write([chunk])
        except BaseException:
            reception.abort()
            raise
        return reception.commit()

"""Where the frames of an instance lie, found once and remembered: stored bytes never change.

A native object's frames follow from its header. Of an encapsulated one with many frames the fragment headers
must be walked, so the whole object is read and verified once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from negatoscope.archive.partial import PartialObject
from negatoscope.archive.retrieve import Retrieval
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.describe import describe_header
from negatoscope.dicom.pixels.frames import Fragments, frame_locations
from negatoscope.dicom.uid import EXPLICIT_BIG_ENDIAN, EXPLICIT_LITTLE_ENDIAN, transfer_syntax
from negatoscope.model.stored import Container, InstanceRecord

REMEMBERED = 100_000  # frames, over all tables; a native object counts as one
_MOST_AT_ONCE = 2  # whole objects read at a time to find their frames


@dataclass(frozen=True, slots=True)
class FrameTable:
    """Frames of one stored object."""

    encapsulated: bool
    frames: Sequence[Fragments]  # offset and length in the data set as it is stored
    addressable: bool  # each is a run of whole stored bytes: not deflated, no bits or swapped words to share
    little_endian: bool
    header_end: int  # where the pixel data element begins
    frame_bytes: int  # of one frame without compression


class FrameTables:
    """The tables of one process. Thread-safe."""

    def __init__(self, retrieval: Retrieval, limits: Limits = DEFAULT_LIMITS, room: int = REMEMBERED) -> None:
        self._retrieval, self._limits, self._room = retrieval, limits, room
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Container, int, int], FrameTable] = OrderedDict()
        self._frames = 0
        self._large = threading.BoundedSemaphore(_MOST_AT_ONCE)

    def known(self, record: InstanceRecord) -> bool:
        """Whether :meth:`of` can answer from memory."""
        place = record.location
        return (place.container, place.container_id, place.offset) in self._kept

    def of(self, record: InstanceRecord, study_uid: str = "") -> FrameTable:
        """The table of an instance.

        Raises:
            CorruptObject: bytes that had to be read do not match their checksum.
            PixelsUnreadable, LimitExceeded, TruncatedObject: no pixels, or frames that cannot be told apart.
        """
        place = record.location
        key = (place.container, place.container_id, place.offset)
        with self._lock:
            table = self._kept.get(key)
            if table is not None:
                self._kept.move_to_end(key)
                return table
        table = self._read(record, study_uid)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = table
                self._frames += _weight(table)
            while self._frames > self._room and len(self._kept) > 1:
                self._frames -= _weight(self._kept.popitem(last=False)[1])
        return table

    def _read(self, record: InstanceRecord, study_uid: str) -> FrameTable:
        syntax = transfer_syntax(record.transfer_syntax_uid)
        with PartialObject(self._retrieval, record, study_uid, self._limits) as opened:
            header = opened.header()
            if opened.sparse and syntax.encapsulated:
                with self._large:
                    opened.need_all()
            description = describe_header(
                header, EXPLICIT_LITTLE_ENDIAN if syntax.deflated else record.transfer_syntax_uid, self._limits
            )
            frames = frame_locations(header.view, description, self._limits)
        whole_bytes = description.encapsulated or (description.frame_bits % 8 == 0 and description.unit == 1)
        return FrameTable(
            encapsulated=description.encapsulated,
            frames=frames,
            addressable=whole_bytes and not syntax.deflated,
            little_endian=record.transfer_syntax_uid != EXPLICIT_BIG_ENDIAN,
            header_end=description.pixels.start,
            frame_bytes=-(-description.frame_bits // 8),
        )


def _weight(table: FrameTable) -> int:
    return len(table.frames) if table.encapsulated else 1

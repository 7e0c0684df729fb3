"""Where each frame lies, found by arithmetic or by reading fragment headers only.

Source: PS3.5 A.4 and annex A.4.x (fragments, Basic Offset Table), PS3.3 C.7.6.3.1.8 (Extended Offset Table).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise
from struct import Struct
from typing import overload

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.describe import PixelDescription
from negatoscope.dicom.pixels.header import ITEM, SEQUENCE_END, UNDEFINED, Buffer
from negatoscope.errors import LimitExceeded, PixelsUnreadable, TruncatedObject

Fragments = tuple[tuple[int, int], ...]  # (offset, length) in the plain data set, in order

_ITEM = Struct("<HHL")
# How a codestream begins: JPEG and JPEG-LS SOI, J2K SOC+SIZ, JP2 and JPEG XL boxes, bare JPEG XL.
_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP", b"\0\0\0\x0cJX", b"\xff\x0a")


class NativeFrames(Sequence[Fragments]):
    """Frames at a fixed step: costs nothing however many are declared.

    Frames of one-bit pixels may begin and end within a byte (PS3.5 8.1.1); the range then covers
    every byte they touch, and the first bit is ``index * frame_bits % 8``. In the same way frames
    of bytes in big endian words (``unit`` 2) cover every word that they touch.
    """

    def __init__(self, offset: int, frame_bits: int, frames: int, unit: int = 1) -> None:
        self._offset, self._bits, self._frames, self._unit = offset, frame_bits, frames, unit

    def __len__(self) -> int:
        return self._frames

    @overload
    def __getitem__(self, index: int) -> Fragments: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Fragments]: ...
    def __getitem__(self, index: int | slice) -> Fragments | Sequence[Fragments]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._frames))]
        if index < 0:
            index += self._frames
        if not 0 <= index < self._frames:
            raise IndexError(index)
        step = 8 * self._unit
        first = index * self._bits // step * self._unit
        after = -((index + 1) * self._bits // -step) * self._unit
        return ((self._offset + first, after - first),)


def frame_locations(
    data: Buffer, description: PixelDescription, limits: Limits = DEFAULT_LIMITS
) -> Sequence[Fragments]:
    """The byte ranges of every frame of a plain data set.

    Args:
        data: the plain data set that ``description`` was read from.

    Raises:
        PixelsUnreadable: fragments cannot be attributed to frames.
        LimitExceeded: more fragments than ``limits.elements``.
        TruncatedObject: a fragment ends after the data set, or frames are missing.
    """
    if not description.encapsulated:
        return NativeFrames(description.pixels.offset, description.frame_bits, description.frames, description.unit)
    view = memoryview(data).cast("B")
    table, offsets, lengths, _ = _fragments(view, description.pixels.offset, limits)
    frames = description.frames
    if not offsets:
        raise TruncatedObject("encapsulated pixel data without a fragment")
    if frames == 1:
        return [tuple(zip(offsets, lengths, strict=True))]
    starts = offsets[0] - 8  # offsets in both tables count from the first fragment's item tag
    for candidate in (_basic(view, table), _extended(view, description)):
        groups = _by_offsets(candidate, starts, offsets, lengths, frames)
        if groups is not None:
            return groups
    if len(offsets) == frames:
        return [((offset, length),) for offset, length in zip(offsets, lengths, strict=True)]
    if len(offsets) < frames:
        raise TruncatedObject(f"{len(offsets)} fragments for {frames} frames")
    return _by_codestream(view, offsets, lengths, frames)


def after_fragments(data: Buffer, description: PixelDescription, limits: Limits = DEFAULT_LIMITS) -> int:
    """Where the data set goes on after encapsulated pixel data. Errors as :func:`frame_locations`."""
    return _fragments(memoryview(data).cast("B"), description.pixels.offset, limits)[3]


def all_fragments(data: Buffer, description: PixelDescription, limits: Limits = DEFAULT_LIMITS) -> Fragments:
    """Every fragment whatever frame it belongs to: a video. Errors as :func:`frame_locations`."""
    if not description.encapsulated:
        raise PixelsUnreadable("pixel data that are not encapsulated")
    _, offsets, lengths, _ = _fragments(memoryview(data).cast("B"), description.pixels.offset, limits)
    return tuple(zip(offsets, lengths, strict=True))


def frame_bytes(data: Buffer, fragments: Fragments) -> Buffer:
    """The bytes of one frame; joined only when there is more than one fragment."""
    view = memoryview(data).cast("B")
    pieces = [view[offset : offset + length] for offset, length in fragments]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _fragments(view: memoryview, position: int, limits: Limits) -> tuple[tuple[int, int], array[int], array[int], int]:
    """The Basic Offset Table's range, offset and length of each fragment, and where they end."""
    table: tuple[int, int] | None = None
    offsets, lengths = array("Q"), array("Q")
    end = len(view)
    while position + 8 <= end:
        group, number, length = _ITEM.unpack_from(view, position)
        tag = group << 16 | number
        if tag == SEQUENCE_END:
            position += 8
            break
        if tag != ITEM or length == UNDEFINED:
            raise PixelsUnreadable(f"no fragment at byte {position}")
        position += 8
        if position + length > end:
            raise TruncatedObject(f"the fragment at byte {position - 8} ends after the data set")
        if table is None:
            table = (position, length)
        else:
            if len(offsets) >= limits.elements:
                raise LimitExceeded(f"more than {limits.elements} fragments")
            offsets.append(position)
            lengths.append(length)
        position += length
    return table or (position, 0), offsets, lengths, position


def _basic(view: memoryview, table: tuple[int, int]) -> Sequence[int]:
    offset, length = table
    return Struct(f"<{length // 4}L").unpack_from(view, offset)


def _extended(view: memoryview, description: PixelDescription) -> Sequence[int]:
    if description.offset_table is None:
        return ()
    element = description.offset_table[0]
    return Struct(f"<{element.length // 8}Q").unpack_from(view, element.offset)


def _by_offsets(
    table: Sequence[int], start: int, offsets: array[int], lengths: array[int], frames: int
) -> Sequence[Fragments] | None:
    """Fragments grouped by an offset table, or nothing when the table is empty or does not fit them."""
    if len(table) != frames or table[0] != 0:
        return None
    places = {offset - 8 - start: number for number, offset in enumerate(offsets)}
    try:
        firsts = [places[offset] for offset in table]
    except KeyError:
        return None
    if any(later <= earlier for earlier, later in pairwise(firsts)):
        return None
    return _grouped(firsts, offsets, lengths)


def _by_codestream(view: memoryview, offsets: array[int], lengths: array[int], frames: int) -> Sequence[Fragments]:
    """A frame begins at each fragment that begins a codestream."""
    firsts = [n for n, offset in enumerate(offsets) if bytes(view[offset : offset + 8]).startswith(_STARTS)]
    if len(firsts) != frames or firsts[0] != 0:
        raise PixelsUnreadable(f"{len(offsets)} fragments cannot be shared among {frames} frames")
    return _grouped(firsts, offsets, lengths)


def _grouped(firsts: Sequence[int], offsets: array[int], lengths: array[int]) -> list[Fragments]:
    ends = [*firsts[1:], len(offsets)]
    return [
        tuple(zip(offsets[first:end], lengths[first:end], strict=True)) for first, end in zip(firsts, ends, strict=True)
    ]

"""Lookup tables as the data set writes them: modality, VOI, palette; discrete or segmented.

Sources: PS3.3 C.11.1.1.1, C.11.2.1.1, C.7.6.3.1.5, C.7.6.3.1.6, C.7.9.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from negatoscope.dicom.pixels.header import Header
from negatoscope.errors import PixelsUnreadable

DESCRIPTOR, DATA = 0x00283002, 0x00283006
RED, GREEN, BLUE = 0x00281101, 0x00281102, 0x00281103
_LONGEST = 1 << 16  # entries; a descriptor's 0 means that many


@dataclass(frozen=True, slots=True, eq=False)
class Lut:
    """``values[clip(input - first)]``, of ``bits`` significant bits."""

    first: int
    bits: int
    values: NDArray[np.uint16]

    def __call__(self, inputs: NDArray[np.float64]) -> NDArray[np.uint16]:
        """Values below the first input take the first entry, those above the last one the last."""
        places = np.clip(np.rint(inputs) - self.first, 0, len(self.values) - 1)
        found: NDArray[np.uint16] = self.values[places.astype(np.intp)]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Palette:
    """Red, green, blue tables of PALETTE COLOR."""

    red: Lut
    green: Lut
    blue: Lut


def read_lut(item: Header, signed_input: bool) -> Lut | None:
    """The table of an item of a Modality or VOI LUT Sequence, or nothing when it holds none."""
    if DESCRIPTOR not in item or DATA not in item:
        return None
    count, first, bits = _descriptor(item, DESCRIPTOR, signed_input)
    return Lut(first, bits, _entries(item, DATA, count, bits))


def read_palette(header: Header, signed_input: bool) -> Palette | None:
    """The palette of an image, expanded when segmented.

    Raises:
        PixelsUnreadable: a table is missing its data or a segment makes no sense.
    """
    if RED not in header:
        return None
    return Palette(*(_palette_lut(header, tag, signed_input) for tag in (RED, GREEN, BLUE)))


def _palette_lut(header: Header, descriptor: int, signed_input: bool) -> Lut:
    count, first, bits = _descriptor(header, descriptor, signed_input)
    discrete, segmented = descriptor + 0x100, descriptor + 0x120
    if discrete in header:
        values = _entries(header, discrete, count, bits)
    elif segmented in header:
        values = _expand(_words(header, segmented, bits), count)
    else:
        raise PixelsUnreadable("a palette without its data")
    if bits == 16 and len(values) and values.max() < 256:
        bits = 8  # old writers declare 16 bits and fill 8
    return Lut(first, bits, values)


def _descriptor(header: Header, tag: int, signed_input: bool) -> tuple[int, int, int]:
    values = header.packed(tag, "H")
    if len(values) < 3:
        raise PixelsUnreadable("a lookup table descriptor without its three values")
    count, first, bits = (int(v) for v in values[:3])
    if signed_input and first >= 1 << 15:
        first -= 1 << 16  # the second value has the sign of the pixels, PS3.3 C.11.1.1
    if not 8 <= bits <= 16:
        bits = 16 if bits == 0 or bits > 16 else 8
    return count or _LONGEST, first, bits


def _words(header: Header, tag: int, bits: int) -> NDArray[np.uint16]:
    raw = header.raw(tag)
    return np.frombuffer(raw[: len(raw) // 2 * 2], header.encoding.order + "u2").astype(np.uint16)


def _entries(header: Header, tag: int, count: int, bits: int) -> NDArray[np.uint16]:
    raw = header.raw(tag)
    if bits == 8 and len(raw) < 2 * count:  # two entries to the word, PS3.3 C.7.6.3.1.6
        if not header.encoding.little and header.elements[tag].vr in (b"OW", b"US"):
            raw = np.frombuffer(raw[: len(raw) // 2 * 2], ">u2").astype("<u2").tobytes()
        values = np.frombuffer(raw, np.uint8)[:count].astype(np.uint16)
    else:
        values = _words(header, tag, bits)[:count]
    if not len(values):
        raise PixelsUnreadable("an empty lookup table")
    return values


def _expand(words: NDArray[np.uint16], count: int) -> NDArray[np.uint16]:
    """Segments (discrete, linear, indirect) to ``count`` entries, never more."""
    values: list[int] = []
    starts: list[tuple[int, int]] = []  # (kind, position) of each segment, for indirect ones
    position, words_list = 0, words.tolist()
    try:
        while position < len(words_list) and len(values) < count:
            kind, length = words_list[position], words_list[position + 1]
            if kind == 2:
                starts.append((2, position))
                target = words_list[position + 2] | words_list[position + 3] << 16
                _indirect(words_list, target // 2, length, values, count)
                position += 4
            else:
                starts.append((kind, position))
                position = _segment(words_list, position, values)
    except IndexError as error:
        raise PixelsUnreadable("a segmented palette ends within a segment") from error
    if len(values) < count:
        values += values[-1:] * (count - len(values))
    return np.array(values[:count], np.uint16)


def _segment(words: list[int], position: int, values: list[int]) -> int:
    """Append one discrete (0) or linear (1) segment; the position after it."""
    kind, length = words[position], words[position + 1]
    if kind == 0:
        if position + 2 + length > len(words):
            raise IndexError
        values += words[position + 2 : position + 2 + length]
        return position + 2 + length
    if kind != 1:
        raise PixelsUnreadable(f"palette segment of type {kind}")
    last = words[position + 2]
    before = values[-1] if values else 0
    rise = last - before  # rounded to the nearest, in whole numbers
    values += [before + (2 * rise * step + length) // (2 * length) for step in range(1, length + 1)]
    return position + 3


def _indirect(words: list[int], position: int, segments: int, values: list[int], count: int) -> None:
    """Copy ``segments`` segments from ``position``; an indirect one may not point to another."""
    for _ in range(segments):
        if len(values) >= count:
            return
        position = _segment(words, position, values)

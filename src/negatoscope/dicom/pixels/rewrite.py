"""Copies the elements of a data set from one encoding to another, streaming over the buffer.

Elements whose encoding does not change are copied as they lie. Otherwise headers are written anew and
sequences get undefined lengths, so nothing has to be measured first. Source: PS3.5 chapter 7.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from functools import lru_cache
from struct import pack
from typing import NamedTuple

import numpy as np

from negatoscope.dicom.dictionary import ELEMENTS
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.pixels.header import (
    IMPLICIT,
    ITEM,
    ITEM_END,
    LONG_VRS,
    PIXEL_TAGS,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    Encoding,
    Walker,
)
from negatoscope.errors import LimitExceeded, PixelsUnreadable, TruncatedObject

Changes = Mapping[int, tuple[bytes, bytes] | None]  # tag -> (VR, little endian value), None: leave out

_CHUNK = 1 << 20
_SWAPPED = (
    dict.fromkeys((b"US", b"SS", b"OW", b"AT"), 2)
    | dict.fromkeys((b"UL", b"SL", b"FL", b"OF", b"OL"), 4)
    | dict.fromkeys((b"FD", b"OD", b"OV", b"SV", b"UV"), 8)
)
_AMBIGUOUS = {"OB or OW": b"OW", "US or OW": b"OW", "US or SS or OW": b"OW"}


def element_header(tag: int, vr: bytes, length: int, encoding: Encoding) -> bytes:
    """Header of one element, little endian."""
    if not encoding.explicit:
        return pack("<HHL", tag >> 16, tag & 0xFFFF, length)
    if vr in LONG_VRS:
        return pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, length)
    return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length)


class _Open(NamedTuple):
    """A sequence or item that is being read."""

    in_item: bool
    end: int  # at the latest
    undefined: bool  # a delimiter ends it
    encoding: Encoding  # of what is inside


class Rewriter:
    """One pass over one data set; ``signed`` settles ``US or SS``."""

    def __init__(self, view: memoryview, source: Encoding, target: Encoding, signed: bool, limits: Limits) -> None:
        self._view = view
        self._source, self._target = source, target
        self._signed = signed
        self._top = Walker(view, limits)
        self._walker = Walker(view, limits)  # of what is nested: read twice, counted once each
        self._deepest = 2 * limits.sequence_depth

    def top_level(self, start: int, end: int, changes: Changes) -> Iterator[bytes]:
        """Elements between two offsets, up to the first pixel data element.

        Group lengths are left out; ``changes`` replaces elements or adds them in their place.
        """
        waiting = sorted(tag for tag, change in changes.items() if change is not None)
        position, out = start, bytearray()
        while position < end:
            found = self._top.element(position, end, self._source)
            if found.tag in PIXEL_TAGS:
                break
            while waiting and waiting[0] <= found.tag:
                out += self._new(waiting[0], changes)
                waiting.pop(0)
            if found.tag not in changes and found.tag & 0xFFFF:
                for piece in self.element(found):
                    out += piece
                    if len(out) >= _CHUNK:
                        yield bytes(out)
                        out.clear()
            position = found.end
        for tag in waiting:
            out += self._new(tag, changes)
        yield bytes(out)

    def _new(self, tag: int, changes: Changes) -> bytes:
        vr, value = changes[tag] or (b"UN", b"")
        return element_header(tag, vr, len(value), self._target) + value

    def element(self, found: Element) -> Iterator[bytes | memoryview]:
        """One element of the top level, in the target encoding."""
        if self._source == self._target:
            yield from self._raw(found.start, found.end)
            return
        if self._is_sequence(found, self._source):
            yield from self._sequence(found)
        else:
            yield from self._value(found, self._source)

    def _raw(self, start: int, end: int) -> Iterator[memoryview]:
        for position in range(start, end, _CHUNK):
            yield self._view[position : min(position + _CHUNK, end)]

    def _is_sequence(self, found: Element, source: Encoding) -> bool:
        if found.vr == b"SQ":
            return True
        if found.undefined:
            return found.tag not in PIXEL_TAGS and found.vr in (b"", b"UN")
        return not source.explicit and _dictionary_vr(found.tag) == "SQ"

    def _value(self, found: Element, source: Encoding) -> Iterator[bytes | memoryview]:
        vr = found.vr or self._vr(found.tag)
        if found.length > 0xFFFF and vr not in LONG_VRS and not found.undefined:
            vr = b"UN"  # too long for its own header, PS3.5 6.2.2
        if found.undefined:  # encapsulated, as in an icon: fragments are written alike everywhere
            yield element_header(found.tag, vr, UNDEFINED, self._target)
            yield from self._raw(found.offset, found.end)
            return
        yield element_header(found.tag, vr, found.length, self._target)
        width = _SWAPPED.get(found.vr, 1) if not source.little else 1
        for piece in self._raw(found.offset, found.end):
            yield swap(piece, width)

    def _vr(self, tag: int) -> bytes:
        if tag >> 16 & 1:
            return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"
        name = _dictionary_vr(tag)
        if name == "US or SS":
            return b"SS" if self._signed else b"US"
        return _AMBIGUOUS.get(name) or name.encode()

    def _sequence(self, found: Element) -> Iterator[bytes | memoryview]:
        """A sequence and all it holds, read once from front to back."""
        yield element_header(found.tag, b"SQ", UNDEFINED, self._target)
        inner = IMPLICIT if found.vr == b"UN" else self._source
        stack = [_Open(False, found.end if found.undefined else found.offset + found.length, found.undefined, inner)]
        position = found.offset
        while stack:
            if len(stack) > self._deepest:
                raise LimitExceeded("sequences nested too deep")
            top = stack[-1]
            closing = ITEM_END if top.in_item else SEQUENCE_END
            if not top.undefined and position >= top.end:
                stack.pop()
                yield pack("<HHL", 0xFFFE, closing & 0xFFFF, 0)
                continue
            tag, length = self._walker.item(position, top.end, top.encoding)
            if tag == closing:
                position = position + 8 if top.undefined else top.end
                if top.undefined:
                    stack.pop()
                    yield pack("<HHL", 0xFFFE, closing & 0xFFFF, 0)
            elif not top.in_item:
                if tag != ITEM:
                    raise PixelsUnreadable(f"no item at byte {position}")
                yield pack("<HHL", 0xFFFE, ITEM & 0xFFFF, UNDEFINED)
                position += 8
                stack.append(_Open(True, *self._extent(position, length, top), top.encoding))
            else:
                position = yield from self._nested(position, stack)

    def _nested(self, position: int, stack: list[_Open]) -> Generator[bytes | memoryview, None, int]:
        """One element of an item; a sequence is only opened. Returns where to go on."""
        top = stack[-1]
        tag, vr, offset, length = self._walker.head(position, top.end, top.encoding)
        end, undefined = self._extent(offset, length, top)
        found = Element(tag, vr, position, offset, length, undefined, end)
        if self._is_sequence(found, top.encoding):
            yield element_header(tag, b"SQ", UNDEFINED, self._target)
            stack.append(_Open(False, end, undefined, IMPLICIT if vr == b"UN" else top.encoding))
            return offset
        if undefined:  # encapsulated pixels of an icon: measured to their own end
            end = self._walker.after_fragments(offset, top.end)
            found = found._replace(end=end)
        if tag & 0xFFFF:
            yield from self._value(found, top.encoding)
        return end

    def _extent(self, offset: int, length: int, top: _Open) -> tuple[int, bool]:
        """Where something in ``top`` ends at the latest, and whether a delimiter ends it before."""
        if length == UNDEFINED:
            return top.end, True
        if offset + length > top.end:
            raise TruncatedObject(f"the value at byte {offset} ends after what holds it")
        return offset + length, False


def swap(piece: bytes | memoryview, width: int) -> bytes | memoryview:
    """Bytes of each ``width``-byte value turned round."""
    if width == 1 or len(piece) < width:
        return piece
    if len(piece) % width:
        raise PixelsUnreadable(f"a value of {len(piece)} bytes is no array of {width}-byte numbers")
    return np.frombuffer(piece, f">u{width}").astype(f"<u{width}").tobytes()


@lru_cache(maxsize=4096)
def _dictionary_vr(tag: int) -> str:
    entry = ELEMENTS.get(tag)
    return entry[0] if entry else "UN"

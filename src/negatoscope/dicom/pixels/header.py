"""The elements of a data set that say how its pixels read, found without reading the pixels.

A small bounded reader: one pass over the top level, defined lengths skipped, undefined ones walked
with an explicit stack. Values are decoded only when asked for. Sources: PS3.5 chapter 7, annex A.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from negatoscope.dicom.limits import Limits
from negatoscope.dicom.uid import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
)
from negatoscope.errors import LimitExceeded, PixelsUnreadable, TruncatedObject

Buffer = bytes | bytearray | memoryview

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
FLOAT_PIXELS, DOUBLE_PIXELS, PIXELS = 0x7FE00008, 0x7FE00009, 0x7FE00010
PIXEL_TAGS = (FLOAT_PIXELS, DOUBLE_PIXELS, PIXELS)
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_INFLATE_SLACK = 1 << 20  # bytes any deflated data set may reach whatever its ratio


@dataclass(frozen=True, slots=True)
class Encoding:
    """How element headers are written."""

    explicit: bool
    little: bool

    @property
    def order(self) -> str:
        return "<" if self.little else ">"


IMPLICIT = Encoding(explicit=False, little=True)
EXPLICIT = Encoding(explicit=True, little=True)
BIG = Encoding(explicit=True, little=False)

_SHORT_LETTERS = b"AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS"
_SHORT_VRS = frozenset(_SHORT_LETTERS[at : at + 2] for at in range(0, len(_SHORT_LETTERS), 2))

_STRUCTS = {order: (Struct(order + "HHL"), Struct(order + "HH2sH"), Struct(order + "L")) for order in "<>"}


class Element(NamedTuple):
    """One element where it lies. ``length`` is of the value; undefined ones reach to their delimiter."""

    tag: int
    vr: bytes  # two letters, or empty in implicit VR
    start: int  # of the element header
    offset: int  # of the value
    length: int
    undefined: bool
    end: int  # after the value and its delimiter


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """How a data set in this syntax is written, once inflated."""
    if transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN:
        return IMPLICIT
    return BIG if transfer_syntax_uid == EXPLICIT_BIG_ENDIAN else EXPLICIT


def plain(data: Buffer, transfer_syntax_uid: str, limits: Limits) -> tuple[memoryview, str]:
    """The data set and its syntax with deflate taken off: what every offset in this package refers to.

    Raises:
        LimitExceeded: it inflates past ``limits.inflated`` or ``limits.inflate_ratio``.
        TruncatedObject: the deflated stream ends early.
        PixelsUnreadable: not a deflated stream.
    """
    view = memoryview(data).cast("B")
    if transfer_syntax_uid != DEFLATED_LITTLE_ENDIAN:
        return view, transfer_syntax_uid
    most = min(limits.inflated, max(len(view) * limits.inflate_ratio, _INFLATE_SLACK))
    return memoryview(inflate(view, most, limits)), EXPLICIT_LITTLE_ENDIAN


def inflate(view: Buffer, most: int, limits: Limits) -> bytes:
    """RFC 1951 data as bytes, ``most`` at the most. Errors as :func:`plain`."""
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = machine.decompress(view, most)
    except zlib.error as error:
        raise PixelsUnreadable("not a deflated stream") from error
    if machine.eof:
        return inflated
    if len(inflated) >= most:
        raise LimitExceeded(f"deflated data inflates past {most} bytes (ratio {limits.inflate_ratio})")
    raise TruncatedObject("the deflated stream ends before its end")


class Walker:
    """Reads element headers of one buffer; counts them against the limits."""

    __slots__ = ("_left", "_limits", "view")

    def __init__(self, view: memoryview, limits: Limits) -> None:
        self.view = view
        self._limits = limits
        self._left = limits.elements

    def head(self, position: int, end: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
        """Tag, VR, value offset and length of the element at ``position``; its value is not looked at."""
        self._left -= 1
        if self._left < 0:
            raise LimitExceeded(f"more than {self._limits.elements} elements outside the pixels")
        if position + 8 > end:
            raise TruncatedObject(f"element header cut at byte {position}")
        plain_header, explicit_header, long_length = _STRUCTS[encoding.order]
        if not encoding.explicit:
            group, number, length = plain_header.unpack_from(self.view, position)
            return group << 16 | number, b"", position + 8, length
        group, number, vr, length = explicit_header.unpack_from(self.view, position)
        offset = position + 8
        if vr in LONG_VRS:
            if offset + 4 > end:
                raise TruncatedObject(f"element header cut at byte {position}")
            (length,) = long_length.unpack_from(self.view, offset)
            offset += 4
        elif not (vr.isalpha() and vr.isupper()) and group != 0xFFFE:
            raise PixelsUnreadable(f"no value representation at byte {position}")
        return group << 16 | number, vr, offset, length

    def element(self, position: int, end: int, encoding: Encoding) -> Element:
        """The element at ``position``, its end found without looking at defined values."""
        tag, vr, offset, length = self.head(position, end, encoding)
        if length != UNDEFINED:
            if offset + length > end and tag not in PIXEL_TAGS:
                raise TruncatedObject(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) ends after the data set")
            return Element(tag, vr, position, offset, length, False, offset + length)
        if tag in PIXEL_TAGS:
            return Element(tag, vr, position, offset, end - offset, True, end)
        inner = IMPLICIT if vr == b"UN" else encoding  # PS3.5 6.2.2: UN of undefined length is implicit
        after = self._skip(offset, end, inner)
        return Element(tag, vr, position, offset, after - 8 - offset, True, after)

    def item(self, position: int, end: int, encoding: Encoding) -> tuple[int, int]:
        """Tag and length of the item header or delimiter at ``position``."""
        if position + 8 > end:
            raise TruncatedObject(f"item header cut at byte {position}")
        group, number, length = _STRUCTS[encoding.order][0].unpack_from(self.view, position)
        return group << 16 | number, length

    def items(self, element: Element, encoding: Encoding) -> Iterator[tuple[int, int]]:
        """(offset, end) of each item of a sequence, in order."""
        position, end = element.offset, element.offset + element.length
        while position < end:
            tag, length = self.item(position, end, encoding)
            if tag == SEQUENCE_END:
                return
            if tag != ITEM:
                raise PixelsUnreadable(f"no item at byte {position}")
            position += 8
            after = position + length
            if length == UNDEFINED:
                after = self._skip_item(position, end, encoding)
                yield position, after - 8
            else:
                if after > end:
                    raise TruncatedObject(f"item at byte {position - 8} ends after its sequence")
                yield position, after
            position = after

    def after_fragments(self, position: int, end: int) -> int:
        """The byte after the sequence delimiter of encapsulated pixel data whose items begin here."""
        return self._skip(position, end, EXPLICIT)

    def _skip_item(self, position: int, end: int, encoding: Encoding) -> int:
        return self._skip(position, end, encoding, inside_item=True)

    def _skip(self, position: int, end: int, encoding: Encoding, inside_item: bool = False) -> int:
        """The byte after the delimiter of the open sequence (or item), however deep it nests."""
        stack: list[tuple[bool, Encoding]] = [(inside_item, encoding)]  # (in an item?, its encoding)
        deepest = 2 * self._limits.sequence_depth
        while stack:
            if len(stack) > deepest:
                raise LimitExceeded(f"sequences nested deeper than {self._limits.sequence_depth}")
            in_item, encoding = stack[-1]
            if in_item:
                position = self._pass_defined(position, end, encoding)
            tag, length = self.item(position, end, encoding)
            if tag in (ITEM_END, SEQUENCE_END):
                if (tag == ITEM_END) != in_item:
                    raise PixelsUnreadable(f"stray delimiter at byte {position}")
                stack.pop()
                position += 8
            elif not in_item:
                if tag != ITEM:
                    raise PixelsUnreadable(f"no item at byte {position}")
                position += 8
                if length == UNDEFINED:
                    stack.append((True, encoding))
                else:
                    position += length
            else:
                position = self._enter(stack, position, end, encoding)
            if position > end:
                raise TruncatedObject("a sequence ends after the data set")
        return position

    def _pass_defined(self, position: int, end: int, encoding: Encoding) -> int:
        """Where the first delimiter or undefined length is; :meth:`head` unrolled, as items hold thousands."""
        plain_header, explicit_header, long_length = (form.unpack_from for form in _STRUCTS[encoding.order])
        view, left = self.view, self._left
        while position + 8 <= end:
            if encoding.explicit:
                group, _, vr, length = explicit_header(view, position)
                after = position + 8
                if group == 0xFFFE or not (vr in _SHORT_VRS or vr in LONG_VRS):
                    break
                if vr in LONG_VRS:
                    if after + 4 > end:
                        break
                    (length,) = long_length(view, after)
                    after += 4
            else:
                group, _, length = plain_header(view, position)
                after = position + 8
                if group == 0xFFFE:
                    break
            if length == UNDEFINED:
                break
            left -= 1
            if left < 0:
                raise LimitExceeded(f"more than {self._limits.elements} elements outside the pixels")
            position = after + length
        self._left = left
        return position

    def _enter(self, stack: list[tuple[bool, Encoding]], position: int, end: int, encoding: Encoding) -> int:
        """Pass one element of an open item: its value, or only its header when its length is undefined."""
        _, vr, offset, length = self.head(position, end, encoding)
        if length != UNDEFINED:
            return offset + length
        stack.append((False, IMPLICIT if vr == b"UN" else encoding))
        return offset


class Header:
    """The elements of one level, by tag, with their values decoded on demand."""

    __slots__ = ("elements", "encoding", "walker")

    def __init__(self, walker: Walker, encoding: Encoding, elements: dict[int, Element]) -> None:
        self.walker = walker
        self.encoding = encoding
        self.elements = elements

    @property
    def view(self) -> memoryview:
        return self.walker.view

    def __contains__(self, tag: int) -> bool:
        return tag in self.elements

    def raw(self, tag: int) -> bytes:
        """Bytes of the value; empty when absent."""
        found = self.elements.get(tag)
        return bytes(self.view[found.offset : found.offset + found.length]) if found else b""

    def text(self, tag: int) -> str:
        """First value of a string; Latin letters are all we ever ask for."""
        return self.raw(tag).decode("latin-1").split("\\", 1)[0].strip(" \0")

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Values of a DS or IS; what is not a number is left out. FL and FD by their own VR."""
        vr = self.elements[tag].vr if tag in self.elements else b""
        if vr in (b"FD", b"FL"):
            return self.packed(tag, "d" if vr == b"FD" else "f")
        values = []
        for part in self.raw(tag).split(b"\\"):
            try:
                values.append(float(part))
            except ValueError:
                continue
        return tuple(values)

    def packed(self, tag: int, code: str) -> tuple[float, ...]:
        """Binary values by ``struct`` code, as many as are whole."""
        raw = self.raw(tag)
        size = Struct("<" + code).size
        return Struct(f"{self.encoding.order}{len(raw) // size}{code}").unpack_from(raw)

    def integer(self, tag: int, default: int) -> int:
        """First value of a US."""
        raw = self.raw(tag)
        return int.from_bytes(raw[:2], "little" if self.encoding.little else "big") if len(raw) >= 2 else default

    def items(self, tag: int) -> Iterator[Header]:
        """Each item of a sequence, in order; none when absent."""
        found = self.elements.get(tag)
        if found is None or (found.vr and found.vr not in (b"SQ", b"UN")):
            return
        inner = IMPLICIT if found.vr == b"UN" else self.encoding
        for start, end in self.walker.items(found, inner):
            yield level(self.walker, start, end, inner)

    def first(self, tag: int) -> Header | None:
        """The first item of a sequence, if any."""
        return next(self.items(tag), None)


def level(walker: Walker, start: int, end: int, encoding: Encoding) -> Header:
    """All elements between two offsets, up to and with the first pixel data element."""
    elements: dict[int, Element] = {}
    position = start
    while position < end:
        found = walker.element(position, end, encoding)
        if found.tag == ITEM_END:
            break
        elements.setdefault(found.tag, found)
        if found.tag in PIXEL_TAGS:
            break
        position = found.end
    return Header(walker, encoding, elements)


def read_header(view: memoryview, transfer_syntax_uid: str, limits: Limits) -> Header:
    """The top level of a plain data set, up to its pixel data.

    Raises:
        LimitExceeded: too many elements, sequences too deep.
        TruncatedObject: an element ends after the data set.
        PixelsUnreadable: not a data set in this syntax.
    """
    encoding = encoding_of(transfer_syntax_uid)
    return level(Walker(view, limits), 0, len(view), encoding)

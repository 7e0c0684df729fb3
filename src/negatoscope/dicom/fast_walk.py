"""The walk of ``walk.py`` without its objects, for the two encodings that nearly all instances have.

Finds top-level elements of little endian data sets. At the first thing out of the ordinary, broken or
merely rare, it raises :class:`Unusual` and the general walk decides: this file refuses nothing itself.
What it passes over, nested sequences included, it judges as strictly.

Tags are compared as the number that their four bytes make in little endian, see :func:`swapped`.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct

from negatoscope.dicom.dictionary import ELEMENTS
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.tags import (
    BULK_VRS,
    ITEM,
    ITEM_DELIMITATION,
    LONG_VRS,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    vr_of,
)
from negatoscope.dicom.walk import Buffer, fragments_end
from negatoscope.errors import InvalidObject, LimitExceeded

# Tag to VR, offset, length in bytes, little endian: of the value, but of a sequence the whole of it,
# header and delimiter included. Of encapsulated pixel data the length is ``UNDEFINED_LENGTH``.
Found = dict[int, tuple[str, int, int, bool]]


class Unusual(Exception):
    """Ask the general walk."""


def swapped(tag: int) -> int:
    """``tag`` as its bytes in little endian read when taken for one number."""
    return (tag >> 16) | (tag & 0xFFFF) << 16


_ITEM = swapped(ITEM)
_ITEM_END = swapped(ITEM_DELIMITATION)
_SEQUENCE_END = swapped(SEQUENCE_DELIMITATION)
_PIXEL_DATA = swapped(PIXEL_DATA)
_SEQUENCES = frozenset(swapped(tag) for tag in ELEMENTS if vr_of(tag) == "SQ")
_SHORT = {vr.encode(): vr for vr in SHORT_VRS}
_LONG = {vr.encode(): vr for vr in LONG_VRS}
_UNBOUNDED = frozenset(vr.encode() for vr in BULK_VRS)
_explicit_header = Struct("<I2sH").unpack_from
_implicit_header = Struct("<II").unpack_from
_long_length = Struct("<I").unpack_from


def find_fast(data: Buffer, explicit: bool, wanted: Mapping[int, int], limits: Limits) -> Found:
    """Where the top-level elements of ``wanted`` (swapped tag to tag) lie; the first of each counts.

    Raises:
        Unusual: let the general walk decide.
        LimitExceeded: it would decide so.
    """
    try:
        return (_find_explicit if explicit else _find_implicit)(data, wanted, limits)
    except LimitExceeded:
        raise
    except InvalidObject as error:
        raise Unusual from error


def _find_explicit(data: Buffer, wanted: Mapping[int, int], limits: Limits) -> Found:
    found: Found = {}
    position = count = 0
    end = len(data)
    while position < end:
        if end - position < 12:  # no whole header of four bytes' length: rare at the end
            raise Unusual
        count += 1
        tag, vr, length = _explicit_header(data, position)
        if vr in _SHORT:
            if tag in wanted:
                found.setdefault(wanted[tag], (_SHORT[vr], position + 8, length, True))
            elif tag & 0xFFFF == 0xFFFE:
                raise Unusual
            position += 8 + length
            continue
        if vr not in _LONG or tag & 0xFFFF == 0xFFFE:
            raise Unusual
        start = position
        length = _long_length(data, position + 8)[0]
        position += 12
        if vr == b"SQ":
            position, count = _sequence_end(data, position, length, end, count, True, limits)
            if tag in wanted:
                found.setdefault(wanted[tag], ("SQ", start, position - start, True))
            continue
        if tag in wanted:
            found.setdefault(wanted[tag], (_LONG[vr], position, length, True))
        if length == UNDEFINED_LENGTH:
            if tag != _PIXEL_DATA:
                raise Unusual
            position = fragments_end(data, position, end, True, limits) + 8
            continue
        if length > limits.value and vr not in _UNBOUNDED:
            raise Unusual
        position += length
    if position > end:
        raise Unusual
    if count > limits.elements:  # the general walk would say so too, in three times the time
        raise LimitExceeded(f"more than {limits.elements} elements")
    return found


def _find_implicit(data: Buffer, wanted: Mapping[int, int], limits: Limits) -> Found:
    found: Found = {}
    position = count = 0
    end = len(data)
    most = limits.value
    while position < end:
        if end - position < 8:
            raise Unusual
        count += 1
        tag, length = _implicit_header(data, position)
        position += 8
        if tag in _SEQUENCES or length == UNDEFINED_LENGTH:
            start = position - 8
            if tag not in _SEQUENCES and vr_of(swapped(tag)) != "UN":
                raise Unusual
            position, count = _sequence_end(data, position, length, end, count, False, limits)
            if tag in wanted:
                found.setdefault(wanted[tag], ("SQ", start, position - start, True))
            continue
        if tag & 0xFFFF == 0xFFFE or tag == 0:
            raise Unusual
        if tag in wanted:
            found.setdefault(wanted[tag], (vr_of(wanted[tag]), position, length, True))
        if length > most and vr_of(swapped(tag)) not in BULK_VRS:
            raise Unusual
        position += length
    if position > end:
        raise Unusual
    if count > limits.elements:  # the general walk would say so too, in three times the time
        raise LimitExceeded(f"more than {limits.elements} elements")
    return found


def _sequence_end(
    data: Buffer, position: int, length: int, end: int, count: int, explicit: bool, limits: Limits
) -> tuple[int, int]:
    """Behind the sequence whose first item is at ``position``, and the count of elements so far."""
    # End, and whether the length is undefined: of what is around the sequence, the sequence, its item,
    # a sequence in that, ... so an even number of entries means that items are expected.
    stack = [(end, False)]
    stack.append((_within(position, length, end), length == UNDEFINED_LENGTH))
    while len(stack) > 1:
        end, undefined = stack[-1]
        if len(stack) % 2:
            position, count, inner = _elements(data, position, end, undefined, count, explicit, limits)
            if inner is None:
                stack.pop()
                continue
            stack.append((_within(position, inner, end), inner == UNDEFINED_LENGTH))
            if len(stack) // 2 > limits.sequence_depth:
                raise Unusual
            continue
        if position == end and not undefined:
            stack.pop()
            continue
        if end - position < 8:
            raise Unusual
        count += 1
        tag, length = _implicit_header(data, position)
        position += 8
        if tag == _ITEM:
            stack.append((_within(position, length, end), length == UNDEFINED_LENGTH))
        elif tag == _SEQUENCE_END and undefined:
            stack.pop()
        else:
            raise Unusual
    return position, count


def _elements(
    data: Buffer, position: int, end: int, undefined: bool, count: int, explicit: bool, limits: Limits
) -> tuple[int, int, int | None]:
    """Elements of an item up to its end or to a sequence in it.

    Returns:
        The position behind, the count, and the declared length of the sequence (``None``: the item has ended).
    """
    while position < end or undefined:
        if end - position < 8:
            raise Unusual
        count += 1
        header = 8
        if explicit:
            tag, vr, length = _explicit_header(data, position)
            if vr in _SHORT and tag & 0xFFFF != 0xFFFE:
                position += 8 + length
                if position > end:
                    raise Unusual
                continue
            if vr in _LONG:
                if end - position < 12:
                    raise Unusual
                length = _long_length(data, position + 8)[0]
                header = 12
        else:
            tag, length = _implicit_header(data, position)
            vr = b"SQ" if tag in _SEQUENCES else b""
        position += header
        if tag & 0xFFFF == 0xFFFE:
            # Of a delimiter, where explicit elements have their VR, is half of its length.
            if tag != _ITEM_END or length or header != 8 or not undefined or (explicit and vr != b"\0\0"):
                raise Unusual
            return position, count, None
        if vr == b"SQ":
            return position, count, length
        if length == UNDEFINED_LENGTH or (explicit and header == 8):
            raise Unusual  # a UN sequence, encapsulated icons; a strange VR
        if length > limits.value and vr not in _UNBOUNDED:
            raise Unusual
        position += length
        if position > end:
            raise Unusual
    return position, count, None


def _within(position: int, length: int, end: int) -> int:
    """Where something of ``length`` ends; if that is undefined, at the latest where ``end`` is."""
    if length == UNDEFINED_LENGTH:
        return end
    if length > end - position:
        raise Unusual
    return position + length

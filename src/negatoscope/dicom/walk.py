"""A bounded walk over the structure of a data set, whatever is in it.

One loop and one stack, no recursion: a hostile data set costs at most ``Limits.elements`` steps
and ``Limits.sequence_depth`` stack entries. No value is copied. Source: PS3.5 chapter 7.

Taken as real senders write them: odd lengths, unknown and wrong VRs, elements of groups 0000 and
0002, elements out of order, zeros after the last element, stray item delimiters.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.tags import (
    BULK_VRS,
    ITEM,
    ITEM_DELIMITATION,
    LONG_VRS,
    PIXEL_DATA,
    SEQUENCE_DELIMITATION,
    UNDEFINED_LENGTH,
    VRS,
    tag_text,
    vr_of,
)
from negatoscope.dicom.uid import TransferSyntax
from negatoscope.errors import InvalidObject, LimitExceeded, SequenceTooDeep, TruncatedObject

Buffer = bytes | bytearray | memoryview | mmap.mmap

_FRAGMENTED_VRS = frozenset(["OB", "OW", "OF", "OD", "OL", "OV"])


class Element(NamedTuple):
    """A data element, or an item of a sequence (``tag`` is ``ITEM``, ``vr`` is "").

    Elements come in the order of the bytes. What follows a sequence at a greater depth lies in it;
    an item has the depth of the elements in it. Made by the million, hence a tuple.
    """

    tag: int
    vr: str  # as written, or from the dictionary; UN for one that is unknown
    offset: int  # of the value; of the first fragment's header if pixel data is encapsulated
    length: int  # declared, bytes; ``UNDEFINED_LENGTH`` for undefined
    depth: int  # number of sequences around it
    end: int  # of the value, delimiters not counted; -1 for a sequence or item of undefined length
    explicit: bool  # encoding of the value, which a UN of undefined length changes
    little_endian: bool
    start: int  # of the header


class _Level(NamedTuple):
    """What to go back to when a sequence or item ends."""

    of_items: bool  # a sequence: items expected; else elements
    end: int
    undefined: bool
    explicit: bool
    little_endian: bool


_EXPLICIT = {True: Struct("<HH2sH"), False: Struct(">HH2sH")}
_IMPLICIT = {True: Struct("<HHI"), False: Struct(">HHI")}
_LONG = {True: Struct("<I"), False: Struct(">I")}
_VR_NAMES: dict[bytes, str] = {vr.encode(): vr for vr in VRS}
_ZEROS = bytes(1 << 16)


def walk(data: Buffer, syntax: TransferSyntax, limits: Limits = DEFAULT_LIMITS) -> Iterator[Element]:
    """Every element and item of ``data``, nested ones included, in order.

    Args:
        data: one whole data set, not deflated (see ``deflate.inflate``), without file meta.
        syntax: how it is encoded.

    Raises:
        TruncatedObject: something declared goes past the end of the data.
        SequenceTooDeep: over ``limits.sequence_depth``.
        LimitExceeded: over ``limits.elements``, or a value over ``limits.value``.
        InvalidObject: no data set at all.
    """
    if syntax.deflated:
        raise InvalidObject("a deflated data set must be inflated first")
    size = len(data)
    position, depth, count = 0, 0, 0
    level = _Level(
        of_items=False, end=size, undefined=False, explicit=syntax.explicit, little_endian=syntax.little_endian
    )
    stack: list[_Level] = []
    while True:
        while position >= level.end and not level.undefined:
            if not stack:
                return
            depth -= level.of_items
            level = stack.pop()
        if level.end - position < 8:
            if not stack and _all_zero(data, position, size):
                return
            raise TruncatedObject(f"{level.end - position} bytes left where an element should begin")
        count += 1
        if count > limits.elements:
            raise LimitExceeded(f"more than {limits.elements} elements")
        group, number, length = _IMPLICIT[level.little_endian].unpack_from(data, position)
        tag = group << 16 | number
        start = position

        if level.of_items:
            position += 8
            if tag == SEQUENCE_DELIMITATION and level.undefined:
                depth -= 1
                level = stack.pop()
            elif tag == ITEM:
                undefined = length == UNDEFINED_LENGTH
                end = level.end if undefined else position + length
                if end > level.end:
                    raise _overrun(tag, position, length, level.end, size)
                explicit = level.explicit or _explicit_against_the_rule(data, position, end)
                yield Element(
                    tag, "", position, length, depth, -1 if undefined else end, explicit, level.little_endian, start
                )
                stack.append(level)
                level = _Level(False, end, undefined, explicit, level.little_endian)
            else:
                raise InvalidObject(f"{tag_text(tag)} where an item should begin")
            continue

        if group == 0xFFFE:
            position += 8
            if tag != ITEM_DELIMITATION or length:
                raise InvalidObject(f"{tag_text(tag)} where an element should begin")
            if level.undefined:
                level = stack.pop()
            continue  # a delimiter of an item that has its length is harmless
        if tag == 0 and not stack and _all_zero(data, position, size):
            return

        explicit = level.explicit
        if explicit:
            vr, header, length = _explicit_header(data, position, level)
            position += header
        else:
            vr, position = vr_of(tag), position + 8

        if length == UNDEFINED_LENGTH:
            if tag == PIXEL_DATA or (explicit and vr in _FRAGMENTED_VRS):
                end = fragments_end(data, position, level.end, level.little_endian, limits)
                yield Element(tag, vr, position, length, depth, end, explicit, level.little_endian, start)
                position = end + 8
                continue
            if vr == "UN":  # PS3.5 6.2.2: a sequence in implicit little endian, whatever is around it
                explicit, little_endian = False, True
            elif vr == "SQ":
                little_endian = level.little_endian
            else:
                raise InvalidObject(f"{tag_text(tag)} {vr} of undefined length")
            end = -1
        else:
            end = position + length
            if end > level.end:
                raise _overrun(tag, position, length, level.end, size)
            if vr != "SQ":
                if length > limits.value and vr not in BULK_VRS:
                    raise LimitExceeded(f"{tag_text(tag)} {vr} of {length} bytes, {limits.value} allowed")
                yield Element(tag, vr, position, length, depth, end, explicit, level.little_endian, start)
                position = end
                continue
            little_endian = level.little_endian

        yield Element(tag, "SQ", position, length, depth, end, explicit, little_endian, start)
        depth += 1
        if depth > limits.sequence_depth:
            raise SequenceTooDeep(f"sequences nested deeper than {limits.sequence_depth}")
        stack.append(level)
        level = _Level(True, level.end if end < 0 else end, end < 0, explicit, little_endian)


def _explicit_against_the_rule(data: Buffer, position: int, end: int) -> bool:
    """Whether an item that should be implicit little endian is explicit, as one mammography maker writes
    the items of a UN sequence: no room for the implicit length, which spells a VR."""
    if end - position < 8:
        return False
    _, _, code, _ = _EXPLICIT[True].unpack_from(data, position)
    return code in _VR_NAMES and _IMPLICIT[True].unpack_from(data, position)[2] > end - position - 8


def _explicit_header(data: Buffer, position: int, level: _Level) -> tuple[str, int, int]:
    """VR, bytes of the header, declared length. At least eight bytes are there."""
    _, _, code, length = _EXPLICIT[level.little_endian].unpack_from(data, position)
    vr = _VR_NAMES.get(code)
    if vr is None:
        if not (code.isalpha() and code.isupper()):
            # "??" and the like come with a short length; what is no text is the length of an
            # element written in implicit VR by mistake.
            if not code.isascii() or min(code) < 0x20:
                return "UN", 8, _IMPLICIT[level.little_endian].unpack_from(data, position)[2]
            return "UN", 8, length
        vr = "UN"  # of a newer edition, which gives every new VR the long form (PS3.5 7.1.2)
    if vr not in LONG_VRS:
        return vr, 8, length
    if level.end - position < 12:
        raise TruncatedObject("the data end in the header of an element")
    return vr, 12, _LONG[level.little_endian].unpack_from(data, position + 8)[0]


def fragments_end(data: Buffer, position: int, end: int, little_endian: bool, limits: Limits = DEFAULT_LIMITS) -> int:
    """Where the sequence delimiter of encapsulated pixel data begins, PS3.5 A.4.

    Args:
        position: of the first item's header.
        end: of what the fragments lie in.
    """
    header = _IMPLICIT[little_endian]
    for _ in range(limits.elements):
        if end - position < 8:
            raise TruncatedObject("encapsulated pixel data without its delimiter")
        group, number, length = header.unpack_from(data, position)
        tag = group << 16 | number
        if tag == SEQUENCE_DELIMITATION:
            return position
        if tag != ITEM:
            raise InvalidObject(f"{tag_text(tag)} where a fragment should begin")
        if length > end - position - 8:
            raise TruncatedObject(f"a fragment of {length} bytes, {end - position - 8} left")
        position += 8 + length
    raise LimitExceeded(f"more than {limits.elements} fragments")


def _overrun(tag: int, position: int, length: int, end: int, size: int) -> InvalidObject:
    if length > size - position:
        return TruncatedObject(f"{tag_text(tag)} declares {length} bytes, {size - position} left")
    return InvalidObject(
        f"{tag_text(tag)} of {length} bytes goes past the end of what it lies in by {position + length - end}"
    )


def _all_zero(data: Buffer, position: int, end: int) -> bool:
    """Whether nothing but padding follows."""
    while position < end:
        stop = min(position + len(_ZEROS), end)
        if bytes(data[position:stop]) != _ZEROS[: stop - position]:
            return False
        position = stop
    return True

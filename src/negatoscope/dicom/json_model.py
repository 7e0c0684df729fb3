"""Data sets in the DICOM JSON model, PS3.18 annex F, read as DCMTK's ``dcm2json`` reads them.

Where a sender wrote UN for an attribute of the standard, the representation of the dictionary is shown.

Paths of bulk values: keys (eight hexadecimal digits) and item indices from 0, alternating, joined by
slashes: ``7FE00010``, ``00540016/0/00280010``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from negatoscope.dicom.charset import UNICODE, decode
from negatoscope.dicom.deflate import inflate
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.tags import (
    BULK_VRS,
    ITEM,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    PIXEL_VALUED,
    SPECIFIC_CHARACTER_SET,
    UNDEFINED_LENGTH,
    known_vr,
)
from negatoscope.dicom.uid import TransferSyntax, transfer_syntax
from negatoscope.dicom.values import PADDING, character_sets, element_json, little_endian_bytes
from negatoscope.dicom.walk import Buffer, Element, walk
from negatoscope.dicom.writer import Bulk, encode
from negatoscope.dicom.xml_model import to_xml
from negatoscope.errors import NotFound

__all__ = ["find_bulk", "from_json", "inflated", "read_bulk", "to_json", "to_xml", "walked_json"]

BULK_FROM = 1024  # bytes; a longer binary value or UT is given by reference
JSONDataset = dict[str, Any]

_PATH = re.compile(r"[0-9A-F]{8}(?:/[0-9]{1,9}/[0-9A-F]{8})*")


def inflated(data: Buffer, transfer_syntax_uid: str, limits: Limits = DEFAULT_LIMITS) -> tuple[Buffer, TransferSyntax]:
    """The data set in a form that can be walked. Only a deflated one is copied."""
    syntax = transfer_syntax(transfer_syntax_uid)
    if not syntax.deflated:
        return data, syntax
    return b"".join(inflate([data], limits)), replace(syntax, deflated=False)


class _Open:
    """A data set (the root or an item) that elements are being added to."""

    __slots__ = ("character_sets", "content", "highest", "index", "items", "key", "signed")

    def __init__(self, sets: tuple[str, ...], signed: bool, index: int) -> None:
        self.content: JSONDataset = {}
        self.character_sets = sets
        self.signed = signed  # Pixel Representation in force
        self.index = index  # among the items of its sequence
        self.highest = -1  # tag
        self.key = ""  # of the sequence that is open in it
        self.items: JSONDataset = {}  # and its entry


def to_json(
    data: Buffer,
    transfer_syntax_uid: str,
    bulk_uri: Callable[[str], str] | None,
    limits: Limits = DEFAULT_LIMITS,
) -> JSONDataset:
    """One data set as a DICOM JSON object that ``orjson.dumps`` takes.

    Args:
        bulk_uri: makes the BulkDataURI of a path; ``None``: everything inline, but for pixel data,
            which is left out.

    Raises:
        InvalidObject and its kinds, as ``walk``.
    """
    data, syntax = inflated(data, transfer_syntax_uid, limits)
    return walked_json(data, syntax, bulk_uri, limits)


def walked_json(
    data: Buffer,
    syntax: TransferSyntax,
    bulk_uri: Callable[[str], str] | None,
    limits: Limits = DEFAULT_LIMITS,
    sets: tuple[str, ...] = (),
) -> JSONDataset:
    """``to_json`` of what is not, or no longer, deflated.

    Args:
        sets: Specific Character Set in force before the first element.
    """
    return _build(data, walk(data, syntax, limits), bulk_uri, sets)


def _build(
    data: Buffer, elements: Iterable[Element], bulk_uri: Callable[[str], str] | None, sets: tuple[str, ...]
) -> JSONDataset:
    stack = [_Open(sets, False, 0)]  # by depth
    unsorted: list[JSONDataset] = []
    for tag, vr, offset, length, depth, end, explicit, little_endian, _start in elements:
        if tag == ITEM:
            del stack[depth:]
            parent = stack[-1]
            siblings = parent.items.setdefault("Value", [])
            item = _Open(parent.character_sets, parent.signed, len(siblings))
            siblings.append(item.content)
            stack.append(item)
            continue
        inside = stack[depth]
        if tag <= inside.highest:
            unsorted.append(inside.content)
        else:
            inside.highest = tag
        if tag & 0xFFFF == 0:
            continue  # group lengths mean nothing outside of a file, PS3.18 F.2.2
        key = f"{tag:08X}"
        if vr == "SQ":
            inside.key, inside.items = key, {"vr": "SQ"}
            entry = inside.items
        elif tag == SPECIFIC_CHARACTER_SET:
            inside.character_sets = character_sets(bytes(data[offset:end]))
            entry = {"vr": "CS", "Value": [UNICODE]}
        elif length == 0:
            entry = {"vr": vr}
        elif (length > BULK_FROM and vr in BULK_VRS) or tag == PIXEL_DATA or length == UNDEFINED_LENGTH:
            entry = {"vr": vr}
            if bulk_uri:
                del stack[depth + 1 :]
                entry["BulkDataURI"] = bulk_uri(_path(stack, key))
            elif length != UNDEFINED_LENGTH and tag != PIXEL_DATA:
                entry = element_json(vr, bytes(data[offset:end]), inside.character_sets, little_endian)
        else:
            if vr == "UN":
                vr, little_endian = known_vr(tag), True
            elif tag in PIXEL_VALUED and inside.signed and vr == "US" and not explicit:
                vr = "SS"
            entry = element_json(vr, bytes(data[offset:end]), inside.character_sets, little_endian)
            if tag == PIXEL_REPRESENTATION:
                inside.signed = entry.get("Value") == [1]
        inside.content.setdefault(key, entry)  # of an element sent twice, the first counts everywhere
    for content in unsorted:  # keys ascend, PS3.18 F.2.2
        ordered = sorted(content.items())
        content.clear()
        content.update(ordered)
    return stack[0].content


def _path(stack: list[_Open], key: str) -> str:
    steps = [f"{outer.key}/{inner.index}/" for outer, inner in pairwise(stack)]
    return "".join(steps) + key


def find_bulk(data: Buffer, transfer_syntax_uid: str, path: str, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Offset and length in bytes of the value at ``path``, in ``data`` as it is after inflating.

    The bytes are as they were sent; ``read_bulk`` gives them as DICOMweb wants them. Of encapsulated
    pixel data the fragments come with their item headers, without the last delimiter.

    Raises:
        NotFound: nothing there, or no such path.
    """
    data, syntax = inflated(data, transfer_syntax_uid, limits)
    element, _ = _locate(data, syntax, path, limits)
    return element.offset, element.end - element.offset


def _locate(data: Buffer, syntax: TransferSyntax, path: str, limits: Limits) -> tuple[Element, tuple[str, ...]]:
    """The element at ``path`` and the character sets in force there."""
    if not _PATH.fullmatch(path):
        raise NotFound("bulk data")
    steps = path.split("/")
    wanted = [(int(key, 16), int(index)) for key, index in zip(steps[:-1:2], steps[1::2], strict=True)]
    tag, depth = int(steps[-1], 16), len(wanted)
    at: list[tuple[int, int]] = []  # sequence and item index that we are in, by depth
    sets: tuple[str, ...] = ()
    for element in walk(data, syntax, limits):
        if element.tag == ITEM:
            sequence, index = at[element.depth - 1]
            at[element.depth - 1 :] = [(sequence, index + 1)]
            continue
        if element.vr == "SQ":
            at[element.depth :] = [(element.tag, -1)]
        elif element.depth <= depth and at[: element.depth] == wanted[: element.depth]:
            if element.tag == tag and element.depth == depth:
                return element, sets
            if element.tag == SPECIFIC_CHARACTER_SET:
                sets = character_sets(bytes(data[element.offset : element.end]))
    raise NotFound("bulk data")


def read_bulk(data: Buffer, transfer_syntax_uid: str, path: str, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The value at ``path`` as DICOMweb gives it: little endian, text in UTF-8. Raises as ``find_bulk``."""
    data, syntax = inflated(data, transfer_syntax_uid, limits)
    element, sets = _locate(data, syntax, path, limits)
    raw = bytes(data[element.offset : element.end])
    if element.vr == "UT":
        return decode(raw, sets, "UT").rstrip(PADDING).encode()
    if element.length == UNDEFINED_LENGTH:
        return raw
    return little_endian_bytes(element.vr, raw, element.little_endian)


def from_json(dataset: Mapping[str, Any], bulk: Callable[[str], Bulk], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """An explicit little endian data set of the metadata that a STOW-RS request carries.

    Text is written in UTF-8, and Specific Character Set says so whenever there is any that needs it.
    Args and errors: as ``writer.encode``.
    """
    encoded = encode(dataset, bulk, limits)
    if "00080005" in dataset or not _needs_unicode(dataset):
        return encoded
    return encode({**dataset, "00080005": {"vr": "CS", "Value": [UNICODE]}}, bulk, limits)


def _needs_unicode(value: Any) -> bool:
    """Whether text outside of ASCII lies anywhere in a JSON value; its depth was judged before."""
    if isinstance(value, str):
        return not value.isascii()
    if isinstance(value, Mapping):
        return any(_needs_unicode(inner) for inner in value.values())
    return isinstance(value, list) and any(_needs_unicode(inner) for inner in value)

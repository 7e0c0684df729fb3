"""Explicit VR little endian from the DICOM JSON model: objects stored as metadata and bulk data (PS3.18 10.5).

Small on purpose: what was received is never encoded again, so this only serves peers that send JSON.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Any

from negatoscope.dicom.charset import UNICODE
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.tags import (
    BINARY_VRS,
    LONG_VRS,
    SPECIFIC_CHARACTER_SET,
    UNDEFINED_LENGTH,
    VRS,
)
from negatoscope.errors import InvalidObject, LimitExceeded, SequenceTooDeep

# Bytes of a bulk value; a list: the fragments of encapsulated pixel data, one a frame.
Bulk = bytes | Sequence[bytes]

_KEY = re.compile(r"[0-9A-Fa-f]{8}", re.ASCII)
_NUMBERS = {"FL": "f", "FD": "d", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_FORMS = {vr: Struct("<" + code) for vr, code in _NUMBERS.items()}
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"
_LONGEST_SHORT = 0xFFFE
_PADDED_BY_ZERO = BINARY_VRS | {"UI"}


def encode(dataset: Mapping[str, Any], bulk: Callable[[str], Bulk], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """A data set, elements in ascending order, sequences and items of defined length, text in UTF-8.

    Group lengths and groups 0000 and 0002 are left out.

    Args:
        dataset: DICOM JSON object.
        bulk: gives the value of a BulkDataURI.

    Raises:
        InvalidObject: not the DICOM JSON model, or values that their VR cannot have.
        SequenceTooDeep, LimitExceeded: over ``limits``.
    """
    return _Writer(bulk, limits).dataset(dataset, 0)


class _Writer:
    def __init__(self, bulk: Callable[[str], Bulk], limits: Limits) -> None:
        self._bulk, self._limits = bulk, limits
        self._count = 0

    def dataset(self, dataset: Mapping[str, Any], depth: int) -> bytes:
        if not isinstance(dataset, Mapping):
            raise InvalidObject("a data set must be an object")
        parts: list[bytes] = []
        for key in sorted(dataset, key=str.upper):
            if not _KEY.fullmatch(key):
                raise InvalidObject("a key is not a tag")
            tag = int(key, 16)
            group = tag >> 16
            if tag & 0xFFFF == 0 or group in (0x0000, 0x0002):
                continue
            if group == 0xFFFE:
                raise InvalidObject("an item is no element")
            self._count += 1
            if self._count > self._limits.elements:
                raise LimitExceeded(f"more than {self._limits.elements} elements")
            parts.append(self._element(tag, key, dataset[key], depth))
        return b"".join(parts)

    def _element(self, tag: int, key: str, element: Any, depth: int) -> bytes:
        vr = element.get("vr") if isinstance(element, Mapping) else None
        if not isinstance(vr, str) or vr not in VRS:
            raise InvalidObject(f"{key}: no VR, or none that is known")
        uri = element.get("BulkDataURI")
        if uri is not None:
            value = self._bulk(str(uri))
            if not isinstance(value, bytes):
                return _header(tag, vr, UNDEFINED_LENGTH) + _encapsulated(value)
        elif "InlineBinary" in element:
            try:
                value = b64decode(element["InlineBinary"], validate=True)
            except (TypeError, ValueError) as error:
                raise InvalidObject(f"{key}: InlineBinary is not base64") from error
        else:
            values = element.get("Value", [])
            if not isinstance(values, list):
                raise InvalidObject(f"{key}: Value is not an array")
            if vr == "SQ":
                value = self._items(values, depth)
            elif tag == SPECIFIC_CHARACTER_SET:
                value = UNICODE.encode()
            else:
                value = _value(key, vr, values)
        if len(value) % 2:
            value += b"\0" if vr in _PADDED_BY_ZERO else b" "
        if len(value) >= UNDEFINED_LENGTH:
            raise LimitExceeded(f"{key}: {len(value)} bytes in one value")
        if vr not in LONG_VRS and len(value) > _LONGEST_SHORT:
            vr = "UN"  # PS3.5 6.2.2, note 5
        return _header(tag, vr, len(value)) + value

    def _items(self, items: list[Any], depth: int) -> bytes:
        if depth >= self._limits.sequence_depth:
            raise SequenceTooDeep(f"sequences nested deeper than {self._limits.sequence_depth}")
        parts: list[bytes] = []
        for item in items:
            content = self.dataset(item if item is not None else {}, depth + 1)
            parts += [_ITEM, len(content).to_bytes(4, "little"), content]
        return b"".join(parts)


def _header(tag: int, vr: str, length: int) -> bytes:
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
    if vr in LONG_VRS:
        return head + b"\0\0" + length.to_bytes(4, "little")
    return head + length.to_bytes(2, "little")


def _encapsulated(fragments: Sequence[bytes]) -> bytes:
    """PS3.5 A.4, with an empty Basic Offset Table."""
    parts = [_ITEM, bytes(4)]
    for fragment in fragments:
        padded = fragment + b"\0" * (len(fragment) % 2)
        parts += [_ITEM, len(padded).to_bytes(4, "little"), padded]
    return b"".join([*parts, _SEQUENCE_END])


def _value(key: str, vr: str, values: list[Any]) -> bytes:
    try:
        if vr in _FORMS:
            read = float if vr in ("FL", "FD") else int
            return b"".join(_FORMS[vr].pack(read(value)) for value in values if value is not None)
        if vr == "AT":
            return b"".join(_tag_bytes(value) for value in values if value is not None)
        if vr in BINARY_VRS:
            if values:
                raise InvalidObject(f"{key}: a binary value is not in Value")
            return b""
        return "\\".join(_text(vr, value) for value in values).encode()
    except (TypeError, ValueError, OverflowError, struct_error) as error:
        raise InvalidObject(f"{key}: a value that {vr} cannot have") from error


def _tag_bytes(value: Any) -> bytes:
    if not _KEY.fullmatch(value):
        raise ValueError
    return bytes.fromhex(value[2:4] + value[:2] + value[6:] + value[4:6])


def _text(vr: str, value: Any) -> str:
    if value is None:
        return ""
    if vr == "PN":
        if isinstance(value, str):
            return value
        if not isinstance(value, Mapping):
            raise TypeError
        groups = [str(value.get(name) or "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    if isinstance(value, float):
        return decimal_string(value)
    return str(value)


def decimal_string(number: float) -> str:
    """``number`` in the 16 characters that a DS has (PS3.5 6.2), as exactly as they allow.

    Raises:
        ValueError: infinite, or not a number.
    """
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError("a DS is finite")
    text = repr(number)
    if number.is_integer() and len(text) > 2 and text.endswith(".0"):
        text = text[:-2]
    digits = 16
    while len(text) > 16:
        digits -= 1
        text = f"{number:.{digits}g}"
    return text

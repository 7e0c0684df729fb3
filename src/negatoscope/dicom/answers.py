"""Answers to queries as data sets: DICOM JSON to bytes, in the character set of whoever asked.

Only what a C-FIND answer holds: no bulk data. Little endian, explicit or implicit (PS3.5 7.1, A.1, A.2).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

from negatoscope.dicom.charset import TEXT_VRS, UNICODE, codec_of
from negatoscope.dicom.tags import BINARY_VRS, LONG_VRS, SHORT_VRS
from negatoscope.dicom.writer import decimal_string

Dataset = Mapping[str, Mapping[str, Any]]
_NUMBERS = {"FL": "f", "FD": "d", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_FORMS = {vr: Struct("<" + code) for vr, code in _NUMBERS.items()}
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_PADDED_BY_ZERO = BINARY_VRS | {"UI"}
_LONGEST_SHORT = 0xFFFE  # bytes of a value whose length has two bytes
_ITEM = b"\xfe\xff\x00\xe0"
_ASCII = "ascii"
_CHARACTER_SET = "00080005"
_FEW = 256  # bytes of a value whose length is not worth computing
_LENGTHS = [length.to_bytes(2, "little") for length in range(_FEW)]


class AnswerWriter:
    """Encodes the answers to one query. Holds what is the same for all of them."""

    def __init__(self, explicit: bool, character_sets: Sequence[str] = ()) -> None:
        """``character_sets``: Specific Character Set of the query, as it came."""
        self._explicit = explicit
        self._declared = character_sets[0].strip() if character_sets else ""
        self._codec = codec_of(self._declared) or _ASCII
        if self._codec == _ASCII:  # none was named, or one whose code extensions we do not write
            self._declared = ""
        self._heads: dict[tuple[str, str], bytes] = {}
        self._shorts = SHORT_VRS if explicit else frozenset()  # lengths of two bytes

    def encode(self, dataset: Dataset) -> bytes:
        """``dataset``, whose keys ascend, in the query's character set if that can hold it, else in UTF-8.

        Specific Character Set is written first, whenever text may be outside of the default repertoire.
        """
        try:
            body, declared = self._elements(dataset, self._codec), self._declared
        except UnicodeEncodeError:
            body, declared = self._elements(dataset, "utf_8"), UNICODE
        if not declared:
            return body
        value = declared.encode(_ASCII)
        value += b" " * (len(value) & 1)
        return self._head(_CHARACTER_SET, "CS") + self._length(value, "CS") + value + body

    def _elements(self, dataset: Dataset, codec: str) -> bytes:
        """The hot loop: nearly all values are one plain string, and take the first branch."""
        parts = []
        heads, shorts = self._heads, self._shorts
        for key, element in dataset.items():
            vr = element["vr"]
            values = element.get("Value")
            if not values:
                value = b64decode(element["InlineBinary"]) if "InlineBinary" in element else b""
            else:
                one = values[0]
                if vr == "PN" and len(one or ()) == 1:
                    one = one.get("Alphabetic")
                if len(values) == 1 and type(one) is str and one.isascii() and vr != "AT":
                    value = one.encode()
                else:
                    value = self._items(values, codec) if vr == "SQ" else _value(vr, values, codec)
            length = len(value)
            if length & 1:
                value += b"\0" if vr in _PADDED_BY_ZERO else b" "
                length += 1
            head = heads.get((key, vr))
            if head is not None and length < _FEW and vr in shorts:
                parts.append(head + _LENGTHS[length] + value)
            elif key != _CHARACTER_SET:
                parts.append(self._element(key, vr, value))
        return b"".join(parts)

    def _items(self, items: Sequence[Any], codec: str) -> bytes:
        parts = []
        for item in items:
            content = self._elements(item or {}, codec)
            parts += [_ITEM, len(content).to_bytes(4, "little"), content]
        return b"".join(parts)

    def _element(self, key: str, vr: str, value: bytes) -> bytes:
        if self._explicit and len(value) > _LONGEST_SHORT and vr not in LONG_VRS:
            vr = "UN"  # PS3.5 6.2.2, note 5
        head = self._heads.get((key, vr))
        if head is None:
            head = self._heads[key, vr] = self._head(key, vr)
        return head + self._length(value, vr) + value

    def _length(self, value: bytes, vr: str) -> bytes:
        return len(value).to_bytes(2 if self._explicit and vr not in LONG_VRS else 4, "little")

    def _head(self, key: str, vr: str) -> bytes:
        tag = bytes.fromhex(key[2:4] + key[:2] + key[6:] + key[4:6])
        if not self._explicit:
            return tag
        return tag + vr.encode(_ASCII) + (b"\0\0" if vr in LONG_VRS else b"")


def _value(vr: str, values: Sequence[Any], codec: str) -> bytes:
    """Raises UnicodeEncodeError: ``codec`` cannot hold it."""
    if vr in _FORMS:
        read = float if vr in ("FL", "FD") else int
        return b"".join(_FORMS[vr].pack(read(value)) for value in values if value is not None)
    if vr == "AT":
        return b"".join(bytes.fromhex(tag[2:4] + tag[:2] + tag[6:] + tag[4:6]) for tag in values if tag)
    text = _text(values[0]) if len(values) == 1 else "\\".join(map(_text, values))
    if vr in TEXT_VRS:
        return text.encode(codec)
    return text.encode(_ASCII, "replace")  # codes, dates and numbers have no other letters


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, Mapping):
        if len(value) == 1 and "Alphabetic" in value:
            return str(value["Alphabetic"])
        return "=".join(str(value.get(group) or "") for group in _GROUPS).rstrip("=")
    return decimal_string(value) if isinstance(value, float) else str(value)

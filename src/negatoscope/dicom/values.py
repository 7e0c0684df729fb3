"""One value field to the values of the DICOM JSON model, PS3.18 F.2.3, and nothing but.

Never fails: what does not have the form of its VR is given as the text that it is. All results can
be serialised and kept by PostgreSQL: numbers fit 64 bits and are finite, text is Unicode without NUL.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from math import isinf, isnan
from struct import Struct
from typing import Any

from negatoscope.dicom.charset import decode, decode_values
from negatoscope.dicom.tags import BINARY_VRS

JSONValue = Any  # str | int | float | None | dict: what JSON has
Converter = Callable[[bytes, Sequence[str], bool], list[JSONValue]]

PADDING = " \0"
LONGEST_NUMBER = 16  # bytes of a DS, PS3.5 table 6.2-1; a longer one would lose digits as a number
_INT = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
# Size in bytes of one number, and of what is swapped in binary values.
WORDS = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def character_sets(raw: bytes) -> tuple[str, ...]:
    """The values of Specific Character Set (0008,0005)."""
    return tuple(value.strip(PADDING) for value in raw.decode("latin_1").split("\\"))


def text(raw: bytes) -> str:
    """A value of the default repertoire: UID, code, date. Padding is stripped."""
    return decode(raw, (), "CS").strip(PADDING)


def integer(raw: bytes) -> int | None:
    """An IS value, ``None`` if it is no number."""
    value = text(raw).split("\\")[0]
    return int(value) if _INT.fullmatch(value) else None


def _only_if_any(values: list[JSONValue]) -> list[JSONValue]:
    """Values of which none has content are no values."""
    return values if any(value is not None for value in values) else []


def _texts(vr: str) -> Converter:
    def convert(raw: bytes, sets: Sequence[str], little_endian: bool) -> list[JSONValue]:
        raw = raw.replace(b"\0", b"")
        if b"\\" not in raw and raw.isascii() and b"\x1b" not in raw:
            value = raw.decode("ascii").strip(PADDING)
            return [value] if value else []
        return _only_if_any([value.strip(PADDING) or None for value in decode_values(raw, sets, vr)])

    return convert


def _paragraph(vr: str) -> Converter:
    def convert(raw: bytes, sets: Sequence[str], little_endian: bool) -> list[JSONValue]:
        value = decode(raw.replace(b"\0", b""), sets, vr).rstrip(PADDING)  # leading spaces count, PS3.5 6.2
        return [value] if value else []

    return convert


def person_name(value: str) -> dict[str, str] | None:
    """The component groups of one PN value, PS3.18 F.2.2; ``None`` if all are empty. A fourth is dropped."""
    groups = {
        name: stripped
        for name, group in zip(_GROUPS, value.split("="), strict=False)
        if (stripped := group.strip(PADDING).rstrip("^").rstrip(PADDING))
    }
    return groups or None


def _person_names(raw: bytes, sets: Sequence[str], little_endian: bool) -> list[JSONValue]:
    return _only_if_any([person_name(value) for value in decode_values(raw.replace(b"\0", b""), sets, "PN")])


def _number(value: str) -> JSONValue:
    value = value.strip(PADDING)
    if not value:
        return None
    if len(value) <= LONGEST_NUMBER:
        if _INT.fullmatch(value):
            return int(value)
        if _DECIMAL.fullmatch(value):
            number = float(value)
            return value if isinf(number) else number
    return value


def _decimals(raw: bytes, sets: Sequence[str], little_endian: bool) -> list[JSONValue]:
    return _only_if_any([_number(value) for value in decode(raw.replace(b"\0", b""), (), "DS").split("\\")])


def _integers(raw: bytes, sets: Sequence[str], little_endian: bool) -> list[JSONValue]:
    values = [value.strip(PADDING) for value in decode(raw.replace(b"\0", b""), (), "IS").split("\\")]
    return _only_if_any([int(v) if _INT.fullmatch(v) else v or None for v in values])


def _numbers(code: str) -> Converter:
    little, big = Struct("<" + code), Struct(">" + code)
    size = little.size

    def convert(raw: bytes, sets: Sequence[str], little_endian: bool) -> list[JSONValue]:
        form = little if little_endian else big
        if len(raw) == size:
            return list(form.unpack(raw))
        return [number for (number,) in form.iter_unpack(raw[: len(raw) // size * size])]

    return convert


def _finite(number: float) -> float | str:
    # JSON has no other way to say them, PS3.18 F.2.3
    return "NaN" if isnan(number) else "inf" if number > 0 else "-inf"


def _floats(code: str) -> Converter:
    numbers = _numbers(code)

    def convert(raw: bytes, sets: Sequence[str], little_endian: bool) -> list[JSONValue]:
        return [
            _finite(number) if isnan(number) or isinf(number) else number
            for number in numbers(raw, sets, little_endian)
        ]

    return convert


def _tags(raw: bytes, sets: Sequence[str], little_endian: bool) -> list[JSONValue]:
    halves = _US(raw[: len(raw) // 4 * 4], sets, little_endian)
    return [f"{group:04X}{element:04X}" for group, element in zip(halves[::2], halves[1::2], strict=True)]


_US = _numbers("H")
CONVERTERS: dict[str, Converter] = {
    **{vr: _texts(vr) for vr in ("AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UC", "UI")},
    **{vr: _paragraph(vr) for vr in ("LT", "ST", "UT", "UR")},
    "PN": _person_names,
    "DS": _decimals,
    "IS": _integers,
    "AT": _tags,
    "FL": _floats("f"),
    "FD": _floats("d"),
    "SL": _numbers("i"),
    "SS": _numbers("h"),
    "SV": _numbers("q"),
    "UL": _numbers("I"),
    "US": _US,
    "UV": _numbers("Q"),
}


def little_endian_bytes(vr: str, raw: bytes, little_endian: bool) -> bytes:
    """A binary value as little endian has it, which is what the JSON model carries (PS3.18 F.2.7)."""
    size = WORDS.get(vr, 1)
    if little_endian or size == 1:
        return raw
    swapped = bytearray(raw)
    whole = len(raw) // size * size
    for byte in range(size):
        swapped[byte:whole:size] = raw[size - 1 - byte : whole : size]
    return bytes(swapped)


def element_json(vr: str, raw: bytes, sets: Sequence[str], little_endian: bool) -> dict[str, JSONValue]:
    """``{"vr": ..., "Value": [...]}`` or with ``InlineBinary``; an empty value has ``vr`` alone."""
    if vr in BINARY_VRS:
        if not raw:
            return {"vr": vr}
        return {"vr": vr, "InlineBinary": b64encode(little_endian_bytes(vr, raw, little_endian)).decode("ascii")}
    values = CONVERTERS[vr](raw, sets, little_endian)
    return {"vr": vr, "Value": values} if values else {"vr": vr}

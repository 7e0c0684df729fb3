"""The data dictionary: value representation and keyword of a tag, PS3.6 chapters 6 to 9.

A tag is an int, group in the upper 16 bits. Where PS3.6 leaves a choice ("US or SS", "OB or OW")
the form of implicit VR little endian is given (PS3.5 A.1): OW for pixels and tables of them, and
US for numbers, which :data:`PIXEL_VALUED` names because a signed Pixel Representation makes them SS.
"""

from __future__ import annotations

from functools import lru_cache

from negatoscope.dicom.dictionary import ELEMENTS, REPEATERS

ITEM = 0xFFFEE000
ITEM_DELIMITATION = 0xFFFEE00D
SEQUENCE_DELIMITATION = 0xFFFEE0DD
UNDEFINED_LENGTH = 0xFFFFFFFF

SPECIFIC_CHARACTER_SET = 0x00080005
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
PIXEL_REPRESENTATION = 0x00280103
PIXEL_DATA = 0x7FE00010
FLOAT_PIXEL_DATA = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00009

# Explicit VR: those followed by two reserved bytes and a length of four bytes, PS3.5 table 7.1-1.
LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
SHORT_VRS = frozenset(
    [
        "AE",
        "AS",
        "AT",
        "CS",
        "DA",
        "DS",
        "DT",
        "FD",
        "FL",
        "IS",
        "LO",
        "LT",
        "PN",
        "SH",
        "SL",
        "SS",
        "ST",
        "TM",
        "UI",
        "UL",
        "US",
    ]
)
VRS = LONG_VRS | SHORT_VRS
# Values that may be as long as they like; all others are bounded by ``Limits.value``.
BULK_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "UN", "UT"])
BINARY_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "UN"])

_CHOICES = {"OB or OW": "OW", "US or SS": "US", "US or OW": "OW", "US or SS or OW": "OW"}
_PUBLIC: dict[int, str] = {tag: _CHOICES.get(row[0], row[0]) for tag, row in ELEMENTS.items()}
PIXEL_VALUED = frozenset(tag for tag, row in ELEMENTS.items() if row[0] == "US or SS")
_REPEATING: dict[str, dict[int, tuple[str, str]]] = {"50": {}, "60": {}, "7F": {}}
for _mask, _row in REPEATERS.items():
    if _mask[2:4] == "xx":  # the other forms (0020,31xx; 0028,04x0; 1000,xxx0) have been retired since 1993
        _REPEATING[_mask[:2]][int(_mask[4:], 16)] = (_CHOICES.get(_row[0], _row[0]), _row[4])


def _repeating(tag: int) -> tuple[str, str] | None:
    rows = _REPEATING.get(f"{tag >> 24:02X}")
    return rows.get(tag & 0xFFFF) if rows else None


@lru_cache(maxsize=4096)
def vr_of(tag: int) -> str:
    """The VR of ``tag``; UN where the dictionary has none (private tags, newer editions)."""
    known = _PUBLIC.get(tag)
    if known:
        return known
    if tag & 0xFFFF == 0:
        return "UL"  # group length
    if tag & 0x10000:
        return "LO" if 0x0010 <= tag & 0xFFFF <= 0x00FF else "UN"  # private creator, or whatever it made
    repeating = _repeating(tag)
    return repeating[0] if repeating else "UN"


def known_vr(tag: int) -> str:
    """What an element written as UN is read as, in little endian (PS3.5 6.2.2): UN unless the standard has it.

    A sequence stays UN: without undefined length nothing says how its items are written.
    """
    vr = vr_of(tag)
    return "UN" if vr == "SQ" else vr


def keyword_of(tag: int) -> str:
    """The keyword of ``tag``, "" where the dictionary has none."""
    row = ELEMENTS.get(tag)
    if row:
        return row[4]
    repeating = None if tag & 0x10000 else _repeating(tag)
    return repeating[1] if repeating else ""


def tag_text(tag: int) -> str:
    """``(gggg,eeee)``, for messages."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"

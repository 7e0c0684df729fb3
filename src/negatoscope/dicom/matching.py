"""Does an attribute match a query key? PS3.4 C.2.2.2, for C-FIND and QIDO-RS alike.

Pure: used where SQL does not answer, and as the model that the SQL is tested against. Person names
compare without case and accents; all other text compares as it is, which the standard asks for.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

from negatoscope.dicom.charset import fold
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.tags import BINARY_VRS, tag_text
from negatoscope.errors import BadRequest, LimitExceeded

# PS3.4 C.2.2.2.4: all text but codes with a form of their own.
WILD_CARD_VRS = frozenset(["AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"])
RANGE_VRS = frozenset(["DA", "TM", "DT"])
_NUMBER_VRS = frozenset(["DS", "IS", "FL", "FD", "SL", "SS", "SV", "UL", "US", "UV"])


class Kind(StrEnum):
    UNIVERSAL = "universal"
    SINGLE = "single"
    UID_LIST = "uid-list"
    WILD_CARD = "wild-card"
    RANGE = "range"
    EMPTY = "empty"
    SEQUENCE = "sequence"


@dataclass(frozen=True, slots=True)
class Match:
    """One matching key, parsed."""

    kind: Kind
    vr: str
    values: tuple[str, ...] = ()  # any of them (Single, UID list, wild card); as written, padding stripped
    # Range, both ends included, "" is open. Dates YYYYMMDD; times without colons, the high end down to the
    # microsecond, so that both compare as text with stored values.
    low: str = ""
    high: str = ""
    items: dict[str, Match] = field(default_factory=dict)  # Sequence: keys of one item, by JSON key


def parse_match(
    tag: int,
    vr: str,
    value: str | Mapping[str, Any],
    *,
    empty_value_matching: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> Match:
    """A key of ``tag`` as a peer wrote it.

    Args:
        value: text, several values separated by a backslash (UIDs by a comma too); of a sequence the
            key item as DICOM JSON.
        empty_value_matching: whether two quotation marks mean "has no value", PS3.4 C.2.2.2.7.

    Raises:
        BadRequest: not a date or range of them, not a number, too many wild cards.
        LimitExceeded: key items nested too deep.
    """
    if isinstance(value, Mapping) or vr == "SQ":
        return _sequence(value, empty_value_matching, limits, 1)
    text = value.strip(" \0")
    if not text or vr in BINARY_VRS:
        return Match(Kind.UNIVERSAL, vr)
    if empty_value_matching and text == '""':
        return Match(Kind.EMPTY, vr)
    if vr == "UI":
        return Match(Kind.UID_LIST, vr, tuple(v.strip(" \0") for v in re.split(r"[\\,]", text) if v.strip(" \0")))
    if vr in RANGE_VRS:
        return _range(tag, vr, text)
    values = (text,) if vr in ("LT", "ST", "UT", "UR") else tuple(v.strip() for v in text.split("\\") if v.strip())
    if vr in WILD_CARD_VRS:
        values = tuple(re.sub(r"\*+", "*", v) for v in values)
        if "*" in values or not values:
            return Match(Kind.UNIVERSAL, vr)
        if any(v.count("*") + v.count("?") > limits.wild_cards for v in values):
            raise BadRequest(f"{tag_text(tag)}: more than {limits.wild_cards} wild cards")
        if any("*" in v or "?" in v for v in values):
            return Match(Kind.WILD_CARD, vr, values)
    if vr in _NUMBER_VRS:
        for number in values:
            try:
                float(number)
            except ValueError as error:
                raise BadRequest(f"{tag_text(tag)}: not a number") from error
    return Match(Kind.SINGLE, vr, values)


def parse_identifier(
    identifier: Mapping[str, Any], *, empty_value_matching: bool = True, limits: Limits = DEFAULT_LIMITS
) -> dict[str, Match]:
    """All keys of a C-FIND identifier given as DICOM JSON. Raises as :func:`parse_match`."""
    return _keys(identifier, empty_value_matching, limits, 0)


def _keys(identifier: Mapping[str, Any], empty: bool, limits: Limits, depth: int) -> dict[str, Match]:
    keys: dict[str, Match] = {}
    for key, element in identifier.items():
        values = element.get("Value") or [""]
        vr = element["vr"]
        if vr == "SQ":
            keys[key] = _sequence(values[0], empty, limits, depth + 1)
        else:
            text = "\\".join(json_text(value) for value in values)
            keys[key] = parse_match(int(key, 16), vr, text, empty_value_matching=empty, limits=limits)
    return keys


def _sequence(value: str | Mapping[str, Any], empty: bool, limits: Limits, depth: int) -> Match:
    if depth > limits.sequence_depth:
        raise LimitExceeded(f"key items nested deeper than {limits.sequence_depth}")
    items = _keys(value, empty, limits, depth) if isinstance(value, Mapping) else {}
    if all(match.kind is Kind.UNIVERSAL for match in items.values()):
        return Match(Kind.UNIVERSAL, "SQ", items=items)
    return Match(Kind.SEQUENCE, "SQ", items=items)


def json_text(value: Any) -> str:
    """One value of the JSON model as it stands in a data set; groups of a name joined by "="."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        groups = [value.get(name) or "" for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return str(value)


def matches(match: Match, element: Mapping[str, Any] | None) -> bool:
    """Whether ``element`` (DICOM JSON, ``None``: absent) matches. Several values: one that does is enough."""
    if match.kind is Kind.UNIVERSAL:
        return True
    values: Sequence[Any] = [v for v in (element or {}).get("Value", ()) if v is not None]
    if match.kind is Kind.EMPTY:
        return not values and not any(k in (element or {}) for k in ("InlineBinary", "BulkDataURI"))
    if match.kind is Kind.SEQUENCE:
        return any(all(matches(m, item.get(key)) for key, m in match.items.items()) for item in values)
    if match.kind is Kind.RANGE:
        return any(_in_range(match, str(value)) for value in values)
    return any(_is_one_of(match, value) for value in values)


def _is_one_of(match: Match, value: Any) -> bool:
    if match.vr == "PN":
        return any(_same_name(key, value) for key in match.values)
    if match.vr in _NUMBER_VRS and isinstance(value, int | float):
        return any(float(key) == value for key in match.values)
    text = str(value)
    if match.kind is Kind.WILD_CARD:
        return any(wild_card_matches(key, text) for key in match.values)
    return text in match.values


def _same_name(key: str, value: Any) -> bool:
    """A key of one component group may match any group; one of several must match group by group."""
    names = [fold(group).strip().rstrip("^ ") for group in json_text(value).split("=")]
    keys = [fold(group).strip().rstrip("^ ") for group in key.split("=")]
    if len(keys) == 1:
        return any(wild_card_matches(keys[0], name) for name in names)
    names += [""] * (len(keys) - len(names))
    return all(not key or wild_card_matches(key, name) for key, name in zip(keys, names, strict=False))


def wild_card_matches(pattern: str, text: str) -> bool:
    """``*`` is any run of characters, ``?`` any one, PS3.4 C.2.2.2.4. Linear: no pattern can be slow."""
    first, *rest = [re.compile(re.escape(p).replace(r"\?", "."), re.DOTALL) for p in pattern.split("*")]
    if not rest:
        return first.fullmatch(text) is not None
    head = first.match(text)
    if not head:
        return False
    position = head.end()
    *middle, last = rest
    for piece in middle:  # the leftmost place of each piece leaves most room to the next
        found = piece.search(text, position)
        if not found:
            return False
        position = found.end()
    # Pieces have a fixed length, so the last one can only stand at one place.
    length = len(pattern.rsplit("*", 1)[1])
    return len(text) - length >= position and last.fullmatch(text, len(text) - length) is not None


def like_pattern(value: str) -> str:
    r"""DICOM wild cards to those of SQL LIKE with ``ESCAPE '\'``: there ``%`` and ``_`` are letters."""
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


# Dates and times -----------------------------------------------------------------------------------

_DATE = re.compile(r"[0-9]{8}", re.ASCII)
_TIME = re.compile(r"[0-9]{2}(?:[0-9]{2}(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?", re.ASCII)
_MOMENT = r"[0-9]{4}(?:[0-9]{2}){0,5}(?:\.[0-9]{1,6})?(?:[+-](?:0[0-9]|1[0-4])[0-5][0-9])?"
_DATETIME = re.compile(_MOMENT, re.ASCII)
_DATETIME_RANGE = re.compile(f"({_MOMENT})?-({_MOMENT})?", re.ASCII)


def _range(tag: int, vr: str, text: str) -> Match:
    """A date, time or moment, or a range of them, PS3.4 C.2.2.2.5. One alone is the range of what it leaves open."""
    bad = BadRequest(f"{tag_text(tag)}: not a {vr} or a range of it")
    if vr == "DT":
        if _DATETIME.fullmatch(text):
            low = high = text  # a hyphen with four digits that can be an offset is one, not a range
        elif found := _DATETIME_RANGE.fullmatch(text):
            low, high = found[1] or "", found[2] or ""
        else:
            raise bad
    else:
        text = text.replace("." if vr == "DA" else ":", "")  # forms of ACR-NEMA
        low, dash, high = (part.strip() for part in text.partition("-"))
        high = high if dash else low
        form = _DATE if vr == "DA" else _TIME
        if not all(form.fullmatch(end) for end in (low, high) if end):
            raise bad
    if (not low and not high) or (low and _bounds(vr, low) is None) or (high and _bounds(vr, high) is None):
        raise bad
    if vr == "TM" and high:
        high = high.ljust(6, "x").replace("xxxx", "5959").replace("xx", "59") + ("" if "." in high else ".")
        high = high.ljust(13, "9")
    return Match(Kind.RANGE, vr, (), low, high)


def _in_range(match: Match, text: str) -> bool:
    """Whether what the value may mean and the range overlap."""
    value = _bounds(match.vr, text)
    if value is None:
        return False
    low = _bounds(match.vr, match.low) if match.low else None
    high = _bounds(match.vr, match.high) if match.high else None
    return (low is None or value[1] >= low[0]) and (high is None or value[0] <= high[1])


def _bounds(vr: str, text: str) -> tuple[datetime, datetime] | None:
    """First and last moment that ``text`` can mean; ``None`` if it is no DA, TM or DT."""
    offset = UTC  # where none is given both sides are taken to mean the same clock
    if vr == "DA":
        digits = text.strip().replace(".", "")
        if not _DATE.fullmatch(digits):
            return None
        fraction = ""
    elif vr == "TM":
        text = text.strip().replace(":", "")
        if not _TIME.fullmatch(text):
            return None
        digits, _, fraction = ("20000101" + text).partition(".")
    else:
        text = text.strip()
        if not _DATETIME.fullmatch(text):
            return None
        if len(text) > 5 and text[-5] in "+-":
            minutes = int(text[-4:-2]) * 60 + int(text[-2:])
            offset = timezone(timedelta(minutes=minutes if text[-5] == "+" else -minutes))
            text = text[:-5]
        digits, _, fraction = text.partition(".")
    try:
        return _first(digits, fraction, offset), _last(digits, fraction, offset)
    except ValueError:
        return None  # the 31st of June


def _first(digits: str, fraction: str, offset: timezone) -> datetime:
    return _moment(digits + "00000101000000"[len(digits) :], fraction.ljust(6, "0"), offset)


def _last(digits: str, fraction: str, offset: timezone) -> datetime:
    if len(digits) == 4:
        digits += "12"
    if len(digits) == 6:
        digits += f"{monthrange(int(digits[:4]), int(digits[4:]))[1]:02}"  # the last day of the month
    return _moment(digits + "00000000235959"[len(digits) :], fraction.ljust(6, "9"), offset)


def _moment(digits: str, fraction: str, offset: timezone) -> datetime:
    second = min(int(digits[12:14]), 59)  # 60: a leap second
    return datetime(
        int(digits[:4]),
        int(digits[4:6]),
        int(digits[6:8]),
        int(digits[8:10]),
        int(digits[10:12]),
        second,
        int(fraction),
        tzinfo=offset,
    )

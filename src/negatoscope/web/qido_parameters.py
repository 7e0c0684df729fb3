"""The query parameters of a search, PS3.18 8.3.4."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from negatoscope.archive.query_rows import ALL, Include
from negatoscope.dicom.dictionary import TAG_OF_KEYWORD
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.matching import Match, parse_match
from negatoscope.dicom.tags import vr_of
from negatoscope.errors import BadRequest

MAX_DEPTH = 8  # attributes of one dotted path
MAX_OFFSET = 10_000_000
MAX_VALUE = 8_192  # characters of one value; a list of a hundred UIDs fits
_HEX = re.compile(r"[0-9A-Fa-f]{8}")
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_ELSEWHERE = frozenset({"accept", "charset"})  # negotiated, not searched for
_ONE_TEXT = frozenset({"LT", "ST", "UT", "UR"})  # a comma or backslash is a character of theirs

Path = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the query parameters ask for."""

    matches: dict[str, Match]  # by DICOM JSON key
    include: Include
    fuzzy: bool
    limit: int
    offset: int

    def include_with(self, besides: frozenset[int]) -> Include:
        """What is to be added to an answer: fields asked for, the keys themselves, and ``besides``."""
        if self.include is ALL:
            return ALL
        return frozenset(self.include) | {int(key, 16) for key in self.matches} | besides


def parse_search(parameters: Iterable[tuple[str, str]], limits: Limits = DEFAULT_LIMITS) -> Asked:
    """Read the parameters, in any order. A limit over ours is lowered to it.

    Raises:
        BadRequest: an attribute that PS3.6 does not have, a key twice, or a value not of its kind.
    """
    options: dict[str, str] = {}
    fields: list[str] = []
    wanted: list[tuple[Path, str]] = []
    for name, value in parameters:
        if len(value) > MAX_VALUE:
            raise BadRequest(f"a query parameter has at most {MAX_VALUE} characters")
        if name == "includefield":
            fields += value.split(",")
        elif name in ("fuzzymatching", "limit", "offset", "emptyvaluematching", "multiplevaluematching"):
            if name in options:
                raise BadRequest(f"{name} is given twice")
            options[name] = value
        elif name not in _ELSEWHERE:
            wanted.append((attribute_path(name), value))
    several = _flag(options, "multiplevaluematching")
    return Asked(
        matches=_matches(wanted, several, _flag(options, "emptyvaluematching"), limits),
        include=_included(fields),
        fuzzy=_flag(options, "fuzzymatching"),
        limit=min(_number(options, "limit", limits.query_limit, 999_999_999), limits.query_limit),
        offset=_number(options, "offset", 0, MAX_OFFSET),
    )


def attribute_path(name: str) -> Path:
    """``StudyDate``, ``00080020`` or a path of them through sequences, separated by dots, as tags.

    Raises:
        BadRequest: not an attribute, not a sequence where one must be, or too deep.
    """
    parts = name.split(".")
    if len(parts) > MAX_DEPTH:
        raise BadRequest(f"a path has at most {MAX_DEPTH} attributes")
    path = tuple(_attribute(part) for part in parts)
    if any(vr_of(tag) not in ("SQ", "UN") for tag in path[:-1]):
        raise BadRequest("only sequences hold attributes")
    return path


def _attribute(name: str) -> int:
    if _HEX.fullmatch(name):
        tag = int(name, 16)
        known = vr_of(tag) != "UN" or tag & 0x10000
    else:
        tag = TAG_OF_KEYWORD.get(name) or 0
        known = bool(tag)
    if not known:
        raise BadRequest("a query parameter names no attribute of PS3.6")
    return tag


def _matches(wanted: list[tuple[Path, str]], several: bool, empty: bool, limits: Limits) -> dict[str, Match]:
    identifier: dict[str, Any] = {}
    for path, value in wanted:
        _put(identifier, path, value, several)
    return {
        key: parse_match(
            int(key, 16),
            element["vr"],
            element["Value"][0],
            empty_value_matching=empty,
            limits=limits,
        )
        for key, element in identifier.items()
    }


def _put(item: dict[str, Any], path: Path, value: str, several: bool) -> None:
    """Enter one key into an identifier in the DICOM JSON model, within the items of its sequences."""
    *sequences, last = path
    for tag in sequences:
        element = item.setdefault(f"{tag:08X}", {"vr": "SQ", "Value": [{}]})
        item = element["Value"][0]
        if not isinstance(item, dict):
            raise BadRequest("a sequence is a key and a path at once")
    vr, key = vr_of(last), f"{last:08X}"
    if vr == "UN":
        vr = "LO"  # private: compared as text
    if several and vr not in _ONE_TEXT and vr != "UI":
        value = value.replace(",", "\\")
    if key not in item:
        item[key] = {"vr": vr, "Value": [{} if vr == "SQ" else value]}
    elif vr == "UI":  # a list of UIDs may also be written as several parameters
        item[key]["Value"][0] += f",{value}"
    else:
        raise BadRequest("an attribute is given twice")


def _included(fields: list[str]) -> Include:
    names = [name.strip() for name in fields if name.strip()]
    if "all" in names:
        return ALL
    return frozenset(attribute_path(name)[0] for name in names)


def _flag(options: dict[str, str], name: str) -> bool:
    value = options.get(name, "false").lower()
    if value not in ("true", "false"):
        raise BadRequest(f"{name} is true or false")
    return value == "true"


def _number(options: dict[str, str], name: str, default: int, largest: int) -> int:
    value = options.get(name)
    if value is None:
        return default
    if not _NUMBER.fullmatch(value) or int(value) > largest:
        raise BadRequest(f"{name} is a number from 0 to {largest}")
    return int(value)

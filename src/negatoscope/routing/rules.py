"""Rules on arrival: which series go where, read from a file that people can read. Pure: no file, clock or database.

The file is TOML, one table ``[[rule]]`` a rule::

    [[rule]]
    name = "thorax-to-expert"
    establishment = "HX"                  # whose series
    to = ["EXPERT"]                       # names of its nodes
    priority = "urgent"                   # urgent, normal, bulk; normal when left out
    between = "20:00-06:00"               # local time in which it may leave; always when left out
    hold = true                           # somebody releases it first; false when left out
    syntax = "1.2.840.10008.1.2.4.80"     # compress: sent in this lossless syntax where the node takes it

    [rule.match]                          # all must hold; left out: every series
    Modality = ["CT", "MR"]               # any of
    StudyDescription = "*thorax*"         # * and ? as in a query; case and accents do not count

Keywords are those of PS3.6 for the attributes of study and series that the index keeps.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from negatoscope.dicom.charset import fold
from negatoscope.dicom.dictionary import TAG_OF_KEYWORD
from negatoscope.dicom.levels import SERIES_LEVEL, STUDY_LEVEL
from negatoscope.dicom.matching import json_text
from negatoscope.dicom.uid import TRANSFER_SYNTAXES
from negatoscope.errors import BadRequest
from negatoscope.routing.queue import Priority

LARGEST_FILE = 1 << 20  # bytes
MOST_RULES = 500
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BETWEEN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_KEPT = frozenset(STUDY_LEVEL) | frozenset(SERIES_LEVEL)
_KEYS = {"name", "establishment", "to", "priority", "between", "hold", "syntax", "match"}
Attributes = Mapping[str, Any]  # DICOM JSON


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Patterns are folded: no case, no accents."""

    name: str
    establishment: str  # code
    to: tuple[str, ...]  # names of nodes
    priority: Priority = Priority.NORMAL
    between: tuple[time, time] | None = None
    hold: bool = False
    syntax: str = ""
    match: tuple[tuple[str, tuple[re.Pattern[str], ...]], ...] = ()  # (tag as in DICOM JSON, any of these)

    def covers(self, establishment: str, study: Attributes, series: Attributes) -> bool:
        """Whether a series, described by what the index keeps of it, is this rule's."""
        if establishment != self.establishment:
            return False
        for tag, patterns in self.match:
            values = (series.get(tag) or study.get(tag) or {}).get("Value") or []
            texts = [fold(text) for value in values if (text := json_text(value))]
            if not any(pattern.fullmatch(text) for pattern in patterns for text in texts):
                return False
        return True

    def delay_s(self, now: datetime) -> float:
        """Seconds until it may leave, ``now`` being local time; 0 within its hours."""
        if self.between is None:
            return 0.0
        begin, end = self.between
        moment = now.time()
        inside = begin <= moment < end if begin < end else moment >= begin or moment < end
        if inside or begin == end:
            return 0.0
        start = now.replace(hour=begin.hour, minute=begin.minute, second=0, microsecond=0)
        return ((start if start > now else start + timedelta(days=1)) - now).total_seconds()


def read_rules(text: str) -> list[Rule]:
    """The rules of a file.

    Raises:
        BadRequest: the first thing that is wrong, with the rule it is in.
    """
    if len(text.encode()) > LARGEST_FILE:
        raise BadRequest(f"a file of rules has {LARGEST_FILE} bytes at most")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"not TOML: {error}") from error
    tables = document.pop("rule", [])
    if document or not isinstance(tables, list):
        raise BadRequest(f"only tables [[rule]] are known here, not {', '.join(sorted(document)) or 'rule'}")
    if len(tables) > MOST_RULES:
        raise BadRequest(f"{MOST_RULES} rules at most")
    rules = [_rule(number, table) for number, table in enumerate(tables, 1)]
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise BadRequest(f"rule {name}: the name stands twice")
    return rules


def _rule(number: int, table: object) -> Rule:
    if not isinstance(table, dict):
        raise BadRequest(f"rule {number}: not a table")
    name = table.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadRequest(f"rule {number}: a name has 1 to 64 letters, digits, dots, hyphens or underscores")
    try:
        return _read(name, table)
    except BadRequest as error:
        raise BadRequest(f"rule {name}: {error}") from error


def _read(name: str, table: Mapping[str, object]) -> Rule:
    if unknown := sorted(set(table) - _KEYS):
        raise BadRequest(f"unknown key {unknown[0]}")
    establishment = table.get("establishment")
    if not isinstance(establishment, str) or not establishment:
        raise BadRequest("establishment is a code")
    hold, match = table.get("hold", False), table.get("match", {})
    if not isinstance(hold, bool):
        raise BadRequest("hold is true or false")
    if not isinstance(match, dict):
        raise BadRequest("match is a table")
    return Rule(
        name,
        establishment,
        tuple(_texts("to", table.get("to"))),
        _priority(table.get("priority", "normal")),
        _hours(table.get("between")),
        hold,
        _syntax(table.get("syntax", "")),
        tuple((_tag(keyword), tuple(map(_pattern, _texts(keyword, wanted)))) for keyword, wanted in match.items()),
    )


def _texts(key: str, value: object) -> Sequence[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(one, str) and one for one in values):
        raise BadRequest(f"{key} is a text or a list of texts")
    return values


def _priority(value: object) -> Priority:
    try:
        return Priority[str(value).upper()]
    except KeyError:
        raise BadRequest("priority is urgent, normal or bulk") from None


def _hours(value: object) -> tuple[time, time] | None:
    if value is None:
        return None
    found = _BETWEEN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadRequest("between is two times, as 20:00-06:00")
    hours = [int(part) for part in found.groups()]
    return time(hours[0], hours[1]), time(hours[2], hours[3])


def _syntax(value: object) -> str:
    known = TRANSFER_SYNTAXES.get(value) if isinstance(value, str) else None
    if value and (known is None or known.lossy):
        raise BadRequest("syntax is a lossless transfer syntax")
    return str(value)


def _tag(keyword: str) -> str:
    tag = TAG_OF_KEYWORD.get(keyword)
    if tag is None or tag not in _KEPT:
        raise BadRequest(f"{keyword} is no attribute of study or series that the index keeps")
    return f"{tag:08X}"


def _pattern(wanted: str) -> re.Pattern[str]:
    """Wild cards as PS3.4 C.2.2.2.4; runs of ``*`` are one, so that none takes long."""
    folded = re.sub(r"\*+", "*", fold(wanted))
    return re.compile("".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in folded), re.DOTALL)

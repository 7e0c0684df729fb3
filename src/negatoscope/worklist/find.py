"""What the worklist of a modality holds: PS3.4 K.6.1.2, all keys, SQL where it says exactly what the standard says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from negatoscope.dicom.charset import fold
from negatoscope.dicom.matching import Kind, Match, like_pattern, matches
from negatoscope.model.actor import Scope
from negatoscope.queries import load_queries
from negatoscope.worklist.entries import (
    KEYS,
    RETURN_ONLY,
    STATION_TITLE,
    STEP_DATE,
    STEP_KEYS,
    STEP_SEQUENCE,
    STEP_STATUS,
    STEP_TIME,
    entry,
)
from negatoscope.worklist.orders import Dataset
from negatoscope.worklist.ports import Transactions
from negatoscope.worklist.states import OPEN

QUERIES = load_queries("negatoscope.worklist")
Keys = Mapping[str, Match]
_ROWS_AT_ONCE = 500

# Keys that are a column, and compare as it stands.
_TEXT: dict[str, str] = {
    "00080050": "r.accession_number",
    "00100020": "r.patient_identifier",
    "00100040": "r.sex",
    "0020000D": "p.study_uid",
    "00401001": "p.requested_procedure_id",
    "00401003": "p.priority",
}
_STEP_TEXT: dict[str, str] = {
    "00080060": "s.modality",
    "00400009": "s.scheduled_step_id",
    STEP_STATUS: "s.status",
}
_BIRTH_DATE, _PATIENT_NAME = "00100030", "00100010"
_EXACT = (Kind.SINGLE, Kind.UID_LIST)
_IS_OPEN = f"s.status IN ({', '.join(repr(status.value) for status in OPEN)})"  # as the index on open steps has it


@dataclass(slots=True)
class _Plan:
    """Conditions of our own texts; what a peer wrote is in the parameters alone."""

    conditions: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def add(self, condition: str, value: Any = None) -> None:
        """``condition``, where ``{}`` stands for ``value``."""
        if value is not None:
            name = f"key_{len(self.parameters)}"
            self.parameters[name] = value
            condition = condition.replace("{}", f"%({name})s")
        self.conditions.append(f"AND {condition}")

    def text(self, column: str, match: Match, also: str = "") -> bool:
        """A column as the key says; False: it is none that SQL judges alone."""
        if match.kind in _EXACT:
            self.add(f"({also}{column} = ANY({{}}::text[]))", list(match.values))
        elif match.kind is Kind.WILD_CARD:
            self.add(f"({also}{column} LIKE ANY({{}}::text[]))", [like_pattern(value) for value in match.values])
        else:
            return False
        return True

    def range(self, column: str, low: str, high: str) -> None:
        if low:
            self.add(f"{column} >= {{}}", low)
        if high:
            self.add(f"{column} <= {{}} AND {column} <> ''", high)


@dataclass(frozen=True, slots=True)
class Found:
    """``entries`` are built when they are taken; nothing of the database is held meanwhile."""

    entries: Iterator[Dataset]
    count: int
    more: bool  # than the limit


def find_entries(
    transactions: Transactions, scope: Scope, keys: Keys, *, station: str, own: str = "", limit: int
) -> Found:
    """Scheduled steps of the scope's establishment that match, by their start.

    Args:
        keys: as ``dicom.matching.parse_identifier`` gives them.
        station: AE title that is shown for steps of any station.
        own: steps of this title and of any station alone, whatever the keys ask for; "" for all.
        limit: most entries.

    Keys that the index does not know match everything (PS3.4 K.4.1.1.3). Unless the keys name states, only what is
    open is found. A step of any station matches every Scheduled
    Station AE Title. Start date and time that are both ranges are one range from moment to moment.

    Raises:
        Unavailable: the index cannot be reached.
    """
    plan, recheck = _Plan(), dict(keys)
    items = recheck.pop(STEP_SEQUENCE, None)
    step = dict(items.items) if items else {}
    if own:
        plan.add("s.station_title IN ('', {})", own)
    _narrow_step(plan, step)
    for key, column in _TEXT.items():
        if key in recheck and plan.text(column, recheck[key]):
            del recheck[key]
    birth = recheck.get(_BIRTH_DATE)
    if birth and birth.kind is Kind.RANGE:
        plan.range("r.birth_date", birth.low, birth.high)
    name = recheck.get(_PATIENT_NAME)
    if name and name.kind in (Kind.SINGLE, Kind.WILD_CARD):
        parts = [group for value in name.values for group in value.split("=") if group]
        patterns = ["%" + like_pattern(fold(part).strip().rstrip("^ ")) + "%" for part in parts]
        plan.add("r.patient_name_folded LIKE ANY({}::text[])", patterns)
    known = KEYS - RETURN_ONLY
    recheck = {key: match for key, match in recheck.items() if match.kind is not Kind.UNIVERSAL and key in known}
    step = {key: match for key, match in step.items() if match.kind is not Kind.UNIVERSAL and key in STEP_KEYS}
    if step:
        recheck[STEP_SEQUENCE] = Match(Kind.SEQUENCE, "SQ", items=step)
    rows = _rows(transactions, scope, plan, recheck, station, limit + 1)
    page = rows[:limit]
    return Found((entry(row, station) for row in page), len(page), len(rows) > limit)


def _narrow_step(plan: _Plan, step: dict[str, Match]) -> None:
    """Take out of ``step`` what SQL judges alone."""
    status = step.get(STEP_STATUS)
    if status is None or status.kind is Kind.UNIVERSAL:
        plan.add(_IS_OPEN)
    for key, column in _STEP_TEXT.items():
        if key in step and plan.text(column, step[key]):
            del step[key]
    title = step.get(STATION_TITLE)
    if title and plan.text("s.station_title", title, also="s.station_title = '' OR "):
        del step[STATION_TITLE]
    day, time = step.get(STEP_DATE), step.get(STEP_TIME)
    both = day and time and day.kind is Kind.RANGE and time.kind is Kind.RANGE
    if day and time and both:
        plan.range("(s.start_date || s.start_time)", day.low and day.low + time.low, _end(day.high, time.high))
        # The day alone too: that one has an index. A time without its day's end bounds every day.
        plan.range("s.start_date", day.low, day.high)
        if not day.low and time.low:
            plan.range("s.start_time", time.low, "")
        if not day.high and time.high:
            plan.range("s.start_time", "", time.high)
        del step[STEP_DATE], step[STEP_TIME]
    elif day and day.kind is Kind.RANGE:
        plan.range("s.start_date", day.low, day.high)
        del step[STEP_DATE]
    elif time and time.kind is Kind.RANGE:
        plan.range("s.start_time", time.low, time.high)
        del step[STEP_TIME]


def _end(day: str, time: str) -> str:
    """The last moment: of that day, or up to its time. "" is open."""
    return day and day + (time or "~")  # after every digit


def _rows(
    transactions: Transactions, scope: Scope, plan: _Plan, recheck: Keys, station: str, most: int
) -> list[Mapping[str, Any]]:
    statement = QUERIES["entries"].replace("/*:conditions*/", "\n".join(plan.conditions)).encode()
    parameters = scope.parameters() | plan.parameters
    with (
        transactions.reading(scope) as unit,
        unit.transaction(),
        unit.cursor(name="worklist") as cursor,  # no more rows than are looked at
    ):
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(statement, parameters)
        if not recheck:
            return list(islice(cursor, most))
        return list(islice((row for row in cursor if _fits(recheck, entry(row, station))), most))


def _fits(recheck: Keys, found: Dataset) -> bool:
    return all(matches(match, found.get(key)) for key, match in recheck.items())

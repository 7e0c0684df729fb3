"""The study list of the pages: newest first, search as you type, keyset pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from negatoscope.archive.ports import Unit
from negatoscope.archive.query_names import MAX_TEXT, end_of_prefix, prefix_query
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.errors import BadRequest
from negatoscope.model.actor import Scope
from negatoscope.queries import load_queries

QUERIES = load_queries("negatoscope.archive", "query_worklist.sql")
MAX_TOKENS = 8  # words of one search text that are looked at
ENOUGH = 1_000  # people a word may mean before the list is read in its own order instead

# Modality (0008,0060) codes of PS3.16 CID 29 and 33 that people type; others are searched as names.
_CODES = (
    "AR AU BI BMD CR CT DG DOC DX ECG EPS ES GM HC HD IO IVOCT IVUS KO LS MG MR NM OAM OCT OP OPM OPT OPV OT"
    " PR PT PX REG RF RG RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT RWV SEG SM SR TG US VA XA XC"
)
MODALITIES = frozenset(_CODES.split())
_FRENCH_DATE = re.compile(r"([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]([0-9]{4})")
_DICOM_DATE = re.compile(r"([0-9]{4})[-/]?([0-9]{2})[-/]?([0-9]{2})")
_CURSOR = re.compile(r"([0-9]{0,8})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class StudyKey:
    """Where a page ended. ``str()`` gives the form for a link, :meth:`parse` reads it back."""

    study_date: str  # YYYYMMDD or ""
    study_id: int

    def __str__(self) -> str:
        return f"{self.study_date}-{self.study_id}"

    @classmethod
    def parse(cls, text: str) -> StudyKey:
        """Raises ``BadRequest`` on anything that ``str()`` does not write."""
        found = _CURSOR.fullmatch(text)
        if not found:
            raise BadRequest("the page is not one of this list")
        return cls(found[1], int(found[2]))


@dataclass(frozen=True, slots=True)
class WorklistRow:
    study_id: int
    study_uid: str
    patient_name: str  # PN, components with ^ and groups with =
    patient_identifier: str
    birth_date: str  # YYYYMMDD or ""
    sex: str
    study_date: str  # YYYYMMDD or ""
    study_time: str
    description: str
    accession_number: str
    modalities: tuple[str, ...]
    number_of_series: int
    number_of_instances: int
    changed_at: datetime
    establishment_code: str


@dataclass(frozen=True, slots=True)
class WorklistPage:
    rows: list[WorklistRow]
    next: StudyKey | None  # None: this was the last page


def worklist(
    unit: Unit,
    scope: Scope,
    *,
    text: str = "",
    date_from: str = "",
    date_to: str = "",
    modality: str = "",
    after: StudyKey | None = None,
    limit: int = 50,
) -> WorklistPage:
    """Studies that ``scope`` may read, newest study date first.

    Args:
        unit: From ``Transactions.reading(scope)``.
        scope: Who asks.
        text: Words, all of which must be found: each begins a word of the patient's name (accents and case
            aside), an identifier or an accession number, or is a modality code, or a date (dd/mm/yyyy,
            yyyy-mm-dd or yyyymmdd: of the study or of birth).
        date_from: First study date, yyyymmdd; "" without bound.
        date_to: Last study date, yyyymmdd; "" without bound.
        modality: Code; "" for all.
        after: ``next`` of the page before.
        limit: Rows, 1 to ``Limits.query_limit``.

    Raises:
        BadRequest: text too long, or a bound that is no date.
    """
    limit = max(1, min(limit, DEFAULT_LIMITS.query_limit))
    parameters: dict[str, Any] = scope.parameters() | {"limit": limit + 1}
    conditions = _search(unit, text, parameters)
    if date_from or date_to:
        conditions.append(QUERIES["dates"])
        parameters["date_from"] = _bound(date_from) or "00000101"
        parameters["date_to"] = _bound(date_to) or "99991231"
    if modality:
        conditions.append(QUERIES["modality"])
        parameters["modality"] = modality.upper()[:16]
    if after is not None:
        conditions.append(QUERIES["after"])
        parameters |= {"after_date": after.study_date, "after_id": after.study_id}
    # The parts come from our own file; only parameters hold what was typed.
    statement = QUERIES["worklist"].replace("/*:conditions*/", "\n".join(conditions))
    rows = [_row(row) for row in unit.execute(statement, parameters).fetchall()]
    more = len(rows) > limit
    rows = rows[:limit]
    return WorklistPage(rows, StudyKey(rows[-1].study_date, rows[-1].study_id) if more else None)


def read_date(text: str) -> str | None:
    """``dd/mm/yyyy``, ``yyyy-mm-dd`` or ``yyyymmdd`` as YYYYMMDD; None when it is no day of the calendar."""
    if found := _FRENCH_DATE.fullmatch(text):
        day, month, year = found.groups()
    elif found := _DICOM_DATE.fullmatch(text):
        year, month, day = found.groups()
    else:
        return None
    try:
        return date(int(year), int(month), int(day)).strftime("%Y%m%d").zfill(8)
    except ValueError:
        return None


def _search(unit: Unit, text: str, parameters: dict[str, Any]) -> list[str]:
    if len(text) > MAX_TEXT:
        raise BadRequest(f"a text to search for has at most {MAX_TEXT} characters")
    conditions: list[str] = []
    tokens = "".join(character if character.isprintable() else " " for character in text).split()
    for number, token in enumerate(tokens[:MAX_TOKENS]):
        wanted: dict[str, Any] = {
            "words": prefix_query(token) or "",
            "text": token,
            "end": end_of_prefix(token),
            "date": read_date(token),  # None is equal to no date
            "upper": token.upper(),
        }
        found = unit.execute(QUERIES["people"], wanted | {"enough": ENOUGH + 1}).fetchall()
        if len(found) > ENOUGH:
            kind = "many"
        else:
            kind = "few_or_modality" if token.upper() in MODALITIES else "few"
        wanted["people"] = [row["patient_id"] for row in found]
        conditions.append(QUERIES[kind].replace("{n}", str(number)))
        parameters |= {f"{name}_{number}": value for name, value in wanted.items()}
    return conditions


def _bound(text: str) -> str:
    if not text:
        return ""
    day = read_date(text)
    if day is None:
        raise BadRequest("a date bound is yyyymmdd, yyyy-mm-dd or dd/mm/yyyy")
    return day


def _row(row: dict[str, Any]) -> WorklistRow:
    return WorklistRow(
        study_id=row["study_id"],
        study_uid=row["study_uid"],
        patient_name=row["name"],
        patient_identifier=row["identifier"],
        birth_date=row["birth_date"],
        sex=row["sex"],
        study_date=row["study_date"],
        study_time=row["study_time"],
        description=row["description"],
        accession_number=row["accession_number"],
        modalities=tuple(row["modalities"]),
        number_of_series=row["number_of_series"],
        number_of_instances=row["number_of_instances"],
        changed_at=row["changed_at"],
        establishment_code=row["establishment_code"],
    )

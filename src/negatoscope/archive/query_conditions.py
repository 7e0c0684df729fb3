"""Matching keys as SQL conditions, and what is left for Python to judge.

A key is judged wholly in SQL where that says exactly what :func:`dicom.matching.matches` says; else SQL
narrows if it can and the key is judged again on the answer. Keys of which the index knows nothing match
everything, as PS3.4 C.4.1.1.3.1 wants of optional keys that are not supported, and are reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from negatoscope.archive.query_names import BREAKS, MAX_TEXT, end_of_prefix, prefix_query, words
from negatoscope.dicom.charset import fold
from negatoscope.dicom.levels import INSTANCE_LEVEL, SERIES_LEVEL, STUDY_LEVEL
from negatoscope.dicom.matching import WILD_CARD_VRS, Kind, Match, like_pattern
from negatoscope.queries import load_queries

FRAGMENTS = load_queries("negatoscope.archive", "query_conditions.sql")
Keys = Mapping[str, Match]  # by DICOM JSON key: what dicom.matching.parse_identifier gives


class Level(StrEnum):
    """Query/Retrieve Level (0008,0052)."""

    PATIENT = "PATIENT"
    STUDY = "STUDY"
    SERIES = "SERIES"
    INSTANCE = "IMAGE"


PATIENT_NAME = "00100010"
STUDY_TIME = "00080030"
STUDY_UID = "0020000D"
SERIES_UID = "0020000E"
SOP_INSTANCE_UID = "00080018"
MODALITY = "00080060"
MODALITIES_IN_STUDY = "00080061"

# Character set, level, AE titles, time zone and URL are no matching keys (PS3.4 C.4.1.1.3).
_NO_KEYS = frozenset({"00080005", "00080052", "00080053", "00080054", "00080201", "00081190"})
_STUDY_TEXT = {
    STUDY_UID: "study.study_uid",
    "00080050": "study.accession_number",
    "00100020": "patient.identifier",
    "00100040": "patient.sex",
}
_SERIES_TEXT = {SERIES_UID: "series.series_uid", MODALITY: "series.modality"}
_DATES = {"00080020": "study.study_date", "00100030": "patient.birth_date"}
_PATIENT_KNOWN = frozenset({"00201200", "00201202", "00201204"})
_STUDY_COMPUTED = frozenset({"00080056", "00201206", "00201208"})
_SERIES_COMPUTED = frozenset({"00200011", "00201209"})
_COMPUTED = _STUDY_COMPUTED | _SERIES_COMPUTED  # columns, not in the row's document
_STUDY_KNOWN = frozenset({*(f"{tag:08X}" for tag in STUDY_LEVEL), MODALITIES_IN_STUDY, *_STUDY_COMPUTED})
_SERIES_KNOWN = frozenset({*(f"{tag:08X}" for tag in SERIES_LEVEL), *_SERIES_COMPUTED})
# What the catalogue knows of an instance, and what only its metadata tell.
CATALOGUED = frozenset({"00080016", SOP_INSTANCE_UID, "00083002", "00200013", "00280008", "00280010", "00280011"})
DETAILED = frozenset(f"{tag:08X}" for tag in INSTANCE_LEVEL) - CATALOGUED - {"00080005"}


def known_at(level: Level, *, detailed: bool = False) -> frozenset[str]:
    """Keys whose values an answer at ``level`` can show. ``detailed``: all attributes of instances are at hand."""
    if level is Level.PATIENT:
        return _PATIENT_KNOWN | {key for key in _STUDY_KNOWN if key.startswith("0010")}
    if level is Level.STUDY:
        return _STUDY_KNOWN
    known = _STUDY_KNOWN | _SERIES_KNOWN
    if level is Level.SERIES:
        return known
    return known | CATALOGUED | (DETAILED if detailed else frozenset())


@dataclass(slots=True)
class Plan:
    """How the keys of one query are judged. Filled by :func:`plan_of`."""

    conditions: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    recheck: dict[str, Match] = field(default_factory=dict)  # on all that is known of the row
    instance: dict[str, Match] = field(default_factory=dict)  # on each instance of the series found
    ignored: set[int] = field(default_factory=set)

    @property
    def where(self) -> str:
        return "\n".join(self.conditions)

    @property
    def sop_instance_uids(self) -> list[str]:
        match = self.instance.get(SOP_INSTANCE_UID)
        return list(match.values) if match and match.kind is Kind.UID_LIST else []

    def only_series(self, series_ids: list[int]) -> None:
        self.add("only_series")
        self.parameters["series_ids"] = series_ids

    def add(self, fragment: str, *, column: str = "", document: str = "", **values: Any) -> None:
        """One more condition; ``values`` become its parameters, numbered."""
        number = str(len(self.conditions))
        text = FRAGMENTS[fragment].replace("{n}", number).replace("{column}", column).replace("{document}", document)
        self.conditions.append(text)
        self.parameters |= {f"{name}_{number}": value for name, value in values.items()}


def plan_of(
    level: Level,
    keys: Keys,
    *,
    fuzzy: bool = False,
    study_uid: str | None = None,
    series_uid: str | None = None,
    detailed: bool = False,
) -> Plan:
    """Plan ``keys`` at ``level``. ``detailed``: all attributes of each instance will be at hand."""
    plan = Plan()
    if study_uid is not None:
        plan.add("study")
        plan.parameters["study_uid"] = study_uid
    if series_uid is not None and level in (Level.SERIES, Level.INSTANCE):
        plan.add("series")
        plan.parameters["series_uid"] = series_uid
    below = level in (Level.SERIES, Level.INSTANCE)
    for key, match in keys.items():
        if match.kind is Kind.UNIVERSAL or key in _NO_KEYS:
            continue
        if level is Level.INSTANCE and key in CATALOGUED:
            plan.instance[key] = match
        elif key in _STUDY_KNOWN or (key == MODALITY and not below):
            before = len(plan.conditions)
            _study_key(plan, key, match, fuzzy=fuzzy)
            if level is Level.PATIENT and key in plan.recheck and not key.startswith("0010"):
                # A patient's answer shows nothing of the study, so nothing of it can be judged again.
                del plan.conditions[before:], plan.recheck[key]
                plan.ignored.add(int(key, 16))
        elif key == SERIES_UID and not below:
            plan.add("has_series", values=list(match.values))
        elif below and key in _SERIES_TEXT:
            _text(plan, _SERIES_TEXT[key], key, match)
        elif below and key in _SERIES_KNOWN:
            _document(plan, "series.attributes", key, match, fuzzy=fuzzy)
        elif level is Level.PATIENT and key in _PATIENT_KNOWN:
            plan.recheck[key] = match
        elif level is Level.INSTANCE and detailed:
            plan.instance[key] = match
        else:
            plan.ignored.add(int(key, 16))
    return plan


def _study_key(plan: Plan, key: str, match: Match, *, fuzzy: bool) -> None:
    if key == PATIENT_NAME:
        _patient_name(plan, match, fuzzy=fuzzy)
    elif key in (MODALITIES_IN_STUDY, MODALITY):
        _modalities(plan, match)
    elif key in _DATES and match.kind is Kind.RANGE:
        _dates(plan, _DATES[key], match)
    elif key == STUDY_TIME and match.kind is Kind.RANGE:
        plan.add("hours", column="study.study_time", low=match.low[:2] or "00", high=match.high[:2] or "99")
        plan.recheck[key] = match
    elif key in _STUDY_TEXT:
        _text(plan, _STUDY_TEXT[key], key, match)
    else:
        _document(plan, "study.attributes", key, match, fuzzy=fuzzy)


def _text(plan: Plan, column: str, key: str, match: Match) -> None:
    """A column of text, "" for none. UIDs, identifiers and codes compare as they are."""
    if match.kind in (Kind.SINGLE, Kind.UID_LIST):
        plan.add("any_of", column=column, values=list(match.values))
        if column == "study.accession_number":
            plan.add("given", column=column)  # what the index is limited to
    elif match.kind is Kind.WILD_CARD:
        plan.add("like_any", column=column, patterns=[like_pattern(value) for value in match.values])
        if prefix := _common_prefix(match):
            plan.add("begins", column=column, low=prefix, end=end_of_prefix(prefix))
        plan.add("given", column=column)
    elif match.kind is Kind.EMPTY:
        plan.add("absent", column=column)
    else:
        plan.recheck[key] = match


def _common_prefix(match: Match) -> str:
    """What everything that matches begins with; "" when there are several patterns."""
    return re.split(r"[*?]", match.values[0], maxsplit=1)[0] if len(match.values) == 1 else ""


def _dates(plan: Plan, column: str, match: Match) -> None:
    """Dates are kept as YYYYMMDD, so text order is theirs."""
    plan.add("given", column=column)
    if match.low:
        plan.add("from", column=column, low=match.low)
    if match.high:
        plan.add("to", column=column, high=match.high)


def _modalities(plan: Plan, match: Match) -> None:
    if match.kind is Kind.SINGLE:
        plan.add("modality_any", values=list(match.values))
    elif match.kind is Kind.WILD_CARD:
        plan.add("modality_like", patterns=[like_pattern(value) for value in match.values])
    else:
        plan.add("modality_absent")  # Empty: the only kind left for a CS


def _patient_name(plan: Plan, match: Match, *, fuzzy: bool) -> None:
    if match.kind is Kind.EMPTY:
        plan.add("absent", column="patient.name")
        return
    if fuzzy and _fuzzy(plan, PATIENT_NAME, match, ""):
        return
    patterns = _name_patterns(match)
    if patterns is None:  # written group by group
        plan.recheck[PATIENT_NAME] = match
        return
    plan.add("name_like", patterns=patterns)
    # Any group that begins with these words holds them: the index of words finds a superset.
    known = words(_common_prefix(match)[:MAX_TEXT])
    if known and all(word.isalnum() for word in known):
        plan.add("name_words", words=prefix_query(" ".join(known)))


def _fuzzy(plan: Plan, key: str, match: Match, document: str) -> bool:
    """Each word of the key begins a word of the name, whatever wild cards stand around it. Whether it applies."""
    query = prefix_query(" ".join(match.values)) if match.kind in (Kind.SINGLE, Kind.WILD_CARD) else None
    if query is None:
        return False
    if key == PATIENT_NAME:
        plan.add("name_words", words=query)
    else:
        plan.add("json_name_words", document=document, key=key, breaks=BREAKS, words=query)
    return True


def _name_patterns(match: Match) -> list[str] | None:
    """LIKE patterns of folded component groups; None where a value has several groups."""
    if any("=" in value for value in match.values):
        return None
    return [like_pattern(fold(value).rstrip("^ ")) for value in match.values]


def _document(plan: Plan, document: str, key: str, match: Match, *, fuzzy: bool) -> None:
    """An attribute that stands only in the row's DICOM JSON."""
    patterns = _name_patterns(match)
    wild = match.kind is Kind.WILD_CARD
    if match.vr == "PN" and fuzzy and _fuzzy(plan, key, match, document):
        return
    if match.vr == "PN" and patterns is not None and (wild or match.kind is Kind.SINGLE):
        plan.add("json_name_like", document=document, key=key, patterns=patterns)
    elif match.vr == "PN" or key in _COMPUTED or match.kind is Kind.EMPTY:
        plan.recheck[key] = match
    elif match.kind is Kind.UID_LIST or (match.kind is Kind.SINGLE and match.vr in WILD_CARD_VRS):
        plan.add("json_any", document=document, key=key, values=list(match.values))
    elif wild:
        plan.add("json_like", document=document, key=key, patterns=[like_pattern(value) for value in match.values])
    else:
        plan.add("json_given", document=document, key=key)
        plan.recheck[key] = match

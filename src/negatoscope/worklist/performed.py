"""What a modality reports of its work: the Modality Performed Procedure Step (PS3.4 F.7, PS3.3 C.4.13 to C.4.16). Pure.

The data set is kept as it was sent, as DICOM JSON: dose and performed series are read from it. Of the attributes
that table F.7.2-1 asks of an N-CREATE those of type 1 must be there; absent ones of type 2 are taken as empty.
An N-SET that ends a step is taken as it is: refusing it would leave the step in progress for ever, and the
modality sends it once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from negatoscope.dicom.tags import tag_text
from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import InvalidAttributeValue, MissingAttribute, MissingAttributeValue, StepEnded
from negatoscope.worklist.orders import Dataset
from negatoscope.worklist.states import PerformedStatus

STATUS = "00400252"
STEP_ATTRIBUTES = "00400270"  # Scheduled Step Attributes Sequence
SERIES = "00400340"  # Performed Series Sequence
END_DATE, END_TIME = "00400250", "00400251"
_STUDY, _ACCESSION, _STEP_ID = "0020000D", "00080050", "00400009"
_STATION, _MODALITY, _START_DATE, _START_TIME, _PPS_ID = "00400241", "00080060", "00400244", "00400245", "00400253"
_REASON = "00400281"  # Procedure Step Discontinuation Reason Code Sequence
_WRONG_ENTRY = ("110514", "DCM")  # CID 9300: incorrect worklist entry selected
_DATE, _TIME = re.compile(r"[0-9]{8}", re.ASCII), re.compile(r"[0-9]{2,6}(\.[0-9]{1,6})?", re.ASCII)

# Type 1 of an N-CREATE, in the order of table F.7.2-1.
_NEEDED = (STEP_ATTRIBUTES, _PPS_ID, _STATION, _START_DATE, _START_TIME, STATUS, _MODALITY)
# What an N-SET may not change (table F.7.2-1, "Not allowed"): the patient, what was scheduled, who began when.
_FIXED = frozenset(
    {"00080005", "00080016", "00080018", "00081120", "00100010", "00100020", "00100021", "00100030", "00100040"}
    | {STEP_ATTRIBUTES, _PPS_ID, _STATION, _START_DATE, _START_TIME, _MODALITY, "00200010", "00400242", "00400243"}
)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One item of the Scheduled Step Attributes Sequence: what the step was done for."""

    study_uid: str
    accession_number: str  # "": unscheduled
    scheduled_step_id: str  # "": unscheduled


@dataclass(frozen=True, slots=True)
class NewPerformed:
    """An N-CREATE that may be kept."""

    station_title: str
    modality: str
    start_date: str  # YYYYMMDD
    start_time: str
    patient_identifier: str
    scheduled: tuple[Scheduled, ...]
    attributes: Dataset


@dataclass(frozen=True, slots=True)
class Changed:
    """An N-SET that may be kept."""

    status: PerformedStatus
    wrong_entry: bool
    attributes: Dataset  # all of them, with the changes in
    ignored: tuple[int, ...]  # tags that an N-SET may not change, and that differ


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """An item of the Performed Series Sequence."""

    series_uid: str
    description: str
    protocol: str
    retrieve_title: str
    operators: str
    instances: int


@dataclass(frozen=True, slots=True)
class PerformedRow:
    """A performed step as pages and the API show it."""

    performed_id: int
    sop_instance_uid: str
    status: PerformedStatus
    wrong_entry: bool
    station_title: str
    modality: str
    study_uids: tuple[str, ...]
    start_date: str
    start_time: str
    end_date: str  # "" while in progress
    end_time: str
    description: str
    patient_identifier: str
    request_ids: tuple[int, ...]  # none: it was not scheduled
    series: tuple[SeriesRow, ...]
    dose: Mapping[str, float]  # by name of DOSE; what was reported


# Numbers of the Radiation Dose module (PS3.3 C.4.16) and their units.
DOSE = {
    "dose_area_product_dgy_cm2": "0018115E",
    "entrance_dose_mgy": "00408302",
    "entrance_dose_dgy": "00400302",
    "fluoroscopy_time_s": "00400300",
    "exposures": "00400301",
}


def read_create(data: Dataset) -> NewPerformed:
    """Judge the attribute list of an N-CREATE.

    Raises:
        MissingAttribute, MissingAttributeValue: one of type 1 is not there, or empty.
        InvalidAttributeValue: the status is not IN PROGRESS, or a date, time or UID is none.
    """
    if absent := [key for key in _NEEDED if key not in data]:
        raise MissingAttribute(f"{_named(absent)}: needed to begin a step", *map(_tag, absent))
    if empty := [key for key in _NEEDED if not data[key].get("Value")]:
        raise MissingAttributeValue(f"{_named(empty)}: a value is needed to begin a step", *map(_tag, empty))
    if value(data, STATUS) != PerformedStatus.IN_PROGRESS:
        raise InvalidAttributeValue("a step begins IN PROGRESS", _tag(STATUS))
    _check_moments(data, (_START_DATE, _START_TIME))
    scheduled = tuple(_scheduled(item) for item in data[STEP_ATTRIBUTES]["Value"])
    return NewPerformed(
        station_title=value(data, _STATION)[:16],
        modality=value(data, _MODALITY)[:16],
        start_date=value(data, _START_DATE),
        start_time=value(data, _START_TIME),
        patient_identifier=value(data, "00100020"),
        scheduled=scheduled,
        attributes=data,
    )


def read_set(current: PerformedStatus, held: Dataset, changes: Dataset) -> Changed:
    """Judge the modification list of an N-SET against what is held.

    Attributes that may not be changed keep their values and are reported.

    Raises:
        StepEnded: the step has ended (PS3.4 F.7.2.2.3).
        InvalidAttributeValue: a status that there is none of, or an end that is no date or time.
    """
    if current is not PerformedStatus.IN_PROGRESS:
        raise StepEnded("performed procedure step may no longer be updated")
    ignored = tuple(_tag(key) for key in sorted(changes) if key in _FIXED and changes[key] != held.get(key))
    wanted = value(changes, STATUS) if STATUS in changes else current.value
    try:
        status = PerformedStatus(wanted)
    except ValueError:
        raise InvalidAttributeValue("no state of a performed step", _tag(STATUS)) from None
    _check_moments(changes, (END_DATE, END_TIME))
    merged = held | {key: element for key, element in changes.items() if key not in _FIXED}
    merged = dict(sorted(merged.items()))
    codes = [(value(item, "00080100"), value(item, "00080102")) for item in _items(merged, _REASON)]
    wrong = status is PerformedStatus.DISCONTINUED and _WRONG_ENTRY in codes
    return Changed(status, wrong, merged, tuple(tag for tag in ignored if tag != 0x00080005))


def performed_row(row: Mapping[str, Any]) -> PerformedRow:
    """A row of the index as it is shown."""
    data: Dataset = row["attributes"]
    return PerformedRow(
        performed_id=row["performed_id"],
        sop_instance_uid=row["sop_instance_uid"],
        status=PerformedStatus(row["status"]),
        wrong_entry=row["wrong_entry"],
        station_title=row["station_title"],
        modality=row["modality"],
        study_uids=tuple(row["study_uids"]),
        start_date=row["start_date"],
        start_time=row["start_time"],
        end_date=value(data, END_DATE),
        end_time=value(data, END_TIME),
        description=value(data, "00400254"),
        patient_identifier=value(data, "00100020"),
        request_ids=tuple(row["request_ids"]),
        series=tuple(_series(item) for item in _items(data, SERIES)),
        dose=dose_of(data),
    )


def dose_of(data: Dataset) -> dict[str, float]:
    """The dose that was reported: of the step, and of its exposures where those alone tell it."""
    found = {name: number for name, key in DOSE.items() if (number := _number(data, key)) is not None}
    exposures = _items(data, "0040030E")
    volumes = [number for item in exposures if (number := _number(item, "00189345")) is not None]
    if volumes:
        found["ctdi_vol_mgy_highest"] = max(volumes)
    return found


# Inside ------------------------------------------------------------------------------------------


def value(data: Mapping[str, Any], key: str) -> str:
    """The first value of an element as text, "" for none."""
    values = data.get(key, {}).get("Value") or [""]
    first = values[0]
    if isinstance(first, Mapping):
        return str(first.get("Alphabetic") or "")
    return "" if first is None else str(first).strip()


def _items(data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    element = data.get(key, {})
    return [item for item in element.get("Value") or [] if item] if element.get("vr") == "SQ" else []


def _number(data: Mapping[str, Any], key: str) -> float | None:
    try:
        return float(value(data, key))
    except ValueError:
        return None


def _scheduled(item: Mapping[str, Any] | None) -> Scheduled:
    study_uid = value(item or {}, _STUDY)
    if not study_uid:
        raise MissingAttribute(f"{_named([_STUDY])}: needed for each step that was scheduled", _tag(_STUDY))
    if not is_valid_uid(study_uid):
        raise InvalidAttributeValue(f"{_named([_STUDY])}: no UID", _tag(_STUDY))
    return Scheduled(study_uid, value(item or {}, _ACCESSION), value(item or {}, _STEP_ID))


def _series(item: Mapping[str, Any]) -> SeriesRow:
    images = _items(item, "00081140")  # Referenced Image Sequence
    others = _items(item, "00400220")  # Referenced Non-Image Composite SOP Instance Sequence
    return SeriesRow(
        series_uid=value(item, "0020000E"),
        description=value(item, "0008103E"),
        protocol=value(item, "00181030"),
        retrieve_title=value(item, "00080054"),
        operators=value(item, "00081070"),
        instances=len(images) + len(others),
    )


def _check_moments(data: Dataset, keys: tuple[str, str]) -> None:
    for key, form in zip(keys, (_DATE, _TIME), strict=True):
        given = value(data, key)
        if given and not form.fullmatch(given):
            raise InvalidAttributeValue(f"{_named([key])}: not well formed", _tag(key))


def _tag(key: str) -> int:
    return int(key, 16)


def _named(keys: list[str]) -> str:
    return ", ".join(tag_text(_tag(key)) for key in keys)

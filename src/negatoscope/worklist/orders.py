"""What an order is, and how one is read from what a person or a program gave. Pure.

An order is an imaging service request of one patient, with its requested procedures (one study each) and their
scheduled steps (one line of a modality's worklist each): PS3.3 C.4.10 to C.4.12. What matching and states
need has a field of its own; the rest is kept as DICOM JSON and answered as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from negatoscope.errors import BadRequest
from negatoscope.worklist import fields

Dataset = dict[str, dict[str, Any]]

MOST_PROCEDURES = 16  # of one order
MOST_STEPS = 16  # of one procedure
SEXES = ("F", "M", "O")
PRIORITIES = ("STAT", "HIGH", "ROUTINE", "MEDIUM", "LOW")  # Requested Procedure Priority (0040,1003)
PREGNANCIES = {"not pregnant": 1, "possibly pregnant": 2, "definitely pregnant": 3, "unknown": 4}  # (0010,21C0)

# Further fields: name of ours -> DICOM JSON key, VR.
PATIENT_MORE = {
    "weight_kg": ("00101030", "DS"),
    "size_m": ("00101020", "DS"),
    "medical_alerts": ("00102000", "LO"),
    "allergies": ("00102110", "LO"),
    "special_needs": ("00380050", "LO"),
    "state": ("00380500", "LO"),
    "confidentiality": ("00403001", "LO"),
    "comments": ("00104000", "LT"),
}
REQUEST_MORE = {
    "referring_physician": ("00080090", "PN"),
    "requesting_physician": ("00321032", "PN"),
    "requesting_service": ("00321033", "LO"),
    "placer_order_number": ("00402016", "LO"),
    "filler_order_number": ("00402017", "LO"),
    "comments": ("00402400", "LT"),
    "admission_id": ("00380010", "LO"),
    "patient_location": ("00380300", "LO"),
}
PROCEDURE_MORE = {
    "reason": ("00401002", "LO"),
    "comments": ("00401400", "LT"),
    "transport": ("00401004", "LO"),
    "location": ("00401005", "LO"),
}
STEP_MORE = {
    "station_name": ("00400010", "SH"),
    "location": ("00400011", "SH"),
    "pre_medication": ("00400012", "LO"),
    "contrast_agent": ("00321070", "LO"),
    "comments": ("00400400", "LT"),
}


@dataclass(frozen=True, slots=True)
class OrderedPatient:
    """The patient as the one who ordered knows them; the identifier is the establishment's own."""

    identifier: str
    name: str  # PN
    birth_date: str = ""  # YYYYMMDD or ""
    sex: str = ""
    more: Dataset = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewStep:
    modality: str
    start_date: str  # YYYYMMDD
    start_time: str  # HHMMSS
    station_title: str = ""  # "": any station of the establishment
    scheduled_step_id: str = ""  # "": one is made
    performing_physician: str = ""
    description: str = ""
    more: Dataset = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewProcedure:
    steps: tuple[NewStep, ...]
    requested_procedure_id: str = ""  # "": one is made
    study_uid: str = ""  # "": one is made
    description: str = ""
    priority: str = ""
    more: Dataset = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewOrder:
    patient: OrderedPatient
    procedures: tuple[NewProcedure, ...]
    accession_number: str = ""  # "": one is made
    more: Dataset = field(default_factory=dict)


# Reading -----------------------------------------------------------------------------------------


def read_order(given: Any) -> NewOrder:
    """An order as the JSON API and the page give it.

    Raises:
        BadRequest: a field is unknown, needed and absent, or not of its kind.
    """
    whole = _object(given, "the order", {"accession_number", "patient", "procedures", *REQUEST_MORE})
    return NewOrder(
        patient=_patient(whole.get("patient")),
        procedures=_several(whole.get("procedures"), "procedures", MOST_PROCEDURES, _procedure),
        accession_number=fields.text(whole.get("accession_number"), "SH", "accession_number"),
        more=_more(whole, REQUEST_MORE, ""),
    )


def _patient(given: Any) -> OrderedPatient:
    known = {"identifier", "name", "birth_date", "sex", "pregnancy", *PATIENT_MORE}
    values = _object(given, "patient", known)
    sex = fields.text(values.get("sex"), "CS", "patient.sex")
    if sex and sex not in SEXES:
        raise BadRequest(f"patient.sex is one of {', '.join(SEXES)}")
    more = _more(values, PATIENT_MORE, "patient.")
    pregnancy = values.get("pregnancy")
    if pregnancy:
        if pregnancy not in PREGNANCIES:
            raise BadRequest(f"patient.pregnancy is one of {', '.join(PREGNANCIES)}")
        more["001021C0"] = {"vr": "US", "Value": [PREGNANCIES[pregnancy]]}
    return OrderedPatient(
        identifier=fields.needed(values.get("identifier"), "LO", "patient.identifier"),
        name=fields.needed(values.get("name"), "PN", "patient.name"),
        birth_date=fields.day(values.get("birth_date"), "patient.birth_date"),
        sex=sex,
        more=more,
    )


def _procedure(given: Any, name: str) -> NewProcedure:
    known = {"id", "study_uid", "description", "priority", "code", "steps", *PROCEDURE_MORE}
    values = _object(given, name, known)
    priority = fields.text(values.get("priority"), "CS", f"{name}.priority")
    if priority and priority not in PRIORITIES:
        raise BadRequest(f"{name}.priority is one of {', '.join(PRIORITIES)}")
    return NewProcedure(
        steps=_several(values.get("steps"), f"{name}.steps", MOST_STEPS, _step),
        requested_procedure_id=fields.text(values.get("id"), "SH", f"{name}.id"),
        study_uid=fields.uid(values.get("study_uid"), f"{name}.study_uid"),
        description=fields.text(values.get("description"), "LO", f"{name}.description"),
        priority=priority,
        more=_more(values, PROCEDURE_MORE, f"{name}.") | _code(values.get("code"), "00321064", f"{name}.code"),
    )


def _step(given: Any, name: str) -> NewStep:
    known = {"id", "modality", "station_ae", "scheduled", "performing_physician", "description", "code", *STEP_MORE}
    values = _object(given, name, known)
    start_date, start_time = fields.moment(values.get("scheduled"), f"{name}.scheduled")
    return NewStep(
        modality=fields.needed(values.get("modality"), "CS", f"{name}.modality"),
        start_date=start_date,
        start_time=start_time,
        station_title=fields.text(values.get("station_ae"), "AE", f"{name}.station_ae"),
        scheduled_step_id=fields.text(values.get("id"), "SH", f"{name}.id"),
        performing_physician=fields.text(values.get("performing_physician"), "PN", f"{name}.performing_physician"),
        description=fields.text(values.get("description"), "LO", f"{name}.description"),
        more=_more(values, STEP_MORE, f"{name}.") | _code(values.get("code"), "00400008", f"{name}.code"),
    )


def _object(given: Any, name: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise BadRequest(f"{name} is an object")
    if unknown := sorted(set(given) - known):
        raise BadRequest(f"{name} has no field {str(unknown[0])[:32]!r}")
    return given


def _several(given: Any, name: str, most: int, read: Callable[[Any, str], Any]) -> tuple[Any, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not 1 <= len(given) <= most:
        raise BadRequest(f"{name} is a list of 1 to {most}")
    return tuple(read(one, f"{name}[{number}]") for number, one in enumerate(given))


def _more(values: Mapping[str, Any], table: Mapping[str, tuple[str, str]], prefix: str) -> Dataset:
    """The further fields that were given, as DICOM JSON."""
    found: Dataset = {}
    for name, (key, vr) in table.items():
        value: Any
        if vr == "DS":
            value = fields.decimal(values.get(name), prefix + name)
        else:
            value = fields.text(values.get(name), vr, prefix + name)
        if value not in (None, ""):
            found[key] = person(value) if vr == "PN" else {"vr": vr, "Value": [value]}
    return found


def _code(given: Any, key: str, name: str) -> Dataset:
    """A coded entry (PS3.3 table 8.8-1) as the only item of sequence ``key``."""
    if given is None:
        return {}
    values = _object(given, name, {"value", "scheme", "meaning"})
    item = {
        "00080100": {"vr": "SH", "Value": [fields.needed(values.get("value"), "SH", f"{name}.value")]},
        "00080102": {"vr": "SH", "Value": [fields.needed(values.get("scheme"), "SH", f"{name}.scheme")]},
        "00080104": {"vr": "LO", "Value": [fields.needed(values.get("meaning"), "LO", f"{name}.meaning")]},
    }
    return {key: {"vr": "SQ", "Value": [item]}}


def person(name: str) -> dict[str, Any]:
    """A PN element of the JSON model; component groups are parted by ``=`` (PS3.18 F.2.2)."""
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False)
    found = {key: group for key, group in groups if group}
    return {"vr": "PN", "Value": [found]} if found else {"vr": "PN"}

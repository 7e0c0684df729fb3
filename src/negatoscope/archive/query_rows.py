"""Rows of the index as answers in the DICOM JSON model (PS3.18 annex F), at each level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from negatoscope.dicom.tags import vr_of
from negatoscope.model.stored import InstanceRecord

Dataset = dict[str, dict[str, Any]]


class All(Enum):
    """``includefield=all``: everything the index holds at the level asked for and above."""

    ALL = "all"


ALL = All.ALL
Include = frozenset[int] | All

# What is answered without being asked for. PS3.18 tables 10.6.3-3, -4 and -5; Study Description besides,
# which every list shows. Those of ONLY_IF_KNOWN stay away when they have no value; the others are sent empty.
PATIENT_RETURN = frozenset({0x00080005, 0x00100010, 0x00100020, 0x00100030, 0x00100040, 0x00201200})
STUDY_RETURN = frozenset(
    {
        *(0x00080005, 0x00080020, 0x00080030, 0x00080050, 0x00080056, 0x00080061, 0x00080090, 0x00080201),
        *(0x00081030, 0x00081190, 0x00100010, 0x00100020, 0x00100030, 0x00100040, 0x0020000D, 0x00200010),
        *(0x00201206, 0x00201208),
    }
)
SERIES_RETURN = frozenset(
    {
        *(0x00080005, 0x00080056, 0x00080060, 0x00080201, 0x0008103E, 0x00081190, 0x0020000D, 0x0020000E),
        *(0x00200011, 0x00201209, 0x00400244, 0x00400245, 0x00400275),
    }
)
INSTANCE_RETURN = frozenset(
    {
        *(0x00080005, 0x00080016, 0x00080018, 0x00080056, 0x00080201, 0x00081190, 0x0020000D, 0x0020000E),
        *(0x00200013, 0x00280008, 0x00280010, 0x00280011, 0x00280100),
    }
)
ONLY_IF_KNOWN = frozenset(
    {0x00080201, 0x00081190, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00400244, 0x00400245, 0x00400275}
)

_UTF8: dict[str, Any] = {"vr": "CS", "Value": ["ISO_IR 192"]}
_ONLINE: dict[str, Any] = {"vr": "CS", "Value": ["ONLINE"]}
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


@dataclass(frozen=True, slots=True)
class Shape:
    """Which attributes an answer has, in the order of their tags."""

    wanted: tuple[tuple[str, dict[str, str] | None], ...]  # key, and what stands for no value (None: nothing)
    everything: bool
    retrieve_prefix: str | None  # before /studies/...; None: no Retrieve URL

    @classmethod
    def of(cls, always: frozenset[int], include: Include, retrieve_prefix: str | None) -> Shape:
        asked: frozenset[int] = frozenset() if isinstance(include, All) else include
        wanted = [
            (f"{tag:08X}", None if tag in ONLY_IF_KNOWN or tag not in always else {"vr": vr_of(tag)})
            for tag in sorted(always | asked)
        ]
        return cls(tuple(wanted), include is ALL, retrieve_prefix)

    def pick(self, full: Dataset) -> Dataset:
        """The attributes of ``full`` that are wanted, in order."""
        if self.everything:
            empty = {key: nothing for key, nothing in self.wanted if nothing is not None}
            return dict(sorted((empty | full).items()))
        answer: Dataset = {}
        for key, nothing in self.wanted:
            element = full.get(key, nothing)
            if element is not None:
                answer[key] = element
        return answer

    def retrieve_url(self, *path: str) -> Dataset:
        if self.retrieve_prefix is None:
            return {}
        return {"00081190": {"vr": "UR", "Value": ["/".join((self.retrieve_prefix, *path))]}}


def full_patient(row: Mapping[str, Any]) -> Dataset:
    """One patient: patient attributes of the newest study, the values of the patient row, and counts."""
    stored: Dataset = orjson.loads(row["attributes"])
    full = {key: element for key, element in stored.items() if key.startswith("0010")}
    full.update(patient_values(row))
    full["00080005"] = _UTF8
    full["00201200"] = _number(row["patient_studies"])
    full["00201202"] = _number(row["patient_series"])
    full["00201204"] = _number(row["patient_instances"])
    return full


def full_study(row: Mapping[str, Any]) -> Dataset:
    """All that the index knows of a study and its patient."""
    full: Dataset = orjson.loads(row["attributes"])
    full.update(patient_values(row))
    modalities = row["modalities"]
    full["00080005"] = _UTF8
    full["00080056"] = _ONLINE
    full["00080061"] = {"vr": "CS", "Value": modalities} if modalities else {"vr": "CS"}
    full["0020000D"] = _text("UI", row["study_uid"])
    full["00201206"] = _number(row["number_of_series"])
    full["00201208"] = _number(row["number_of_instances"])
    return full


def full_series(row: Mapping[str, Any]) -> Dataset:
    """All that the index knows of a series, its study and its patient."""
    full = full_study(row)
    full.update(orjson.loads(row["series_attributes"]))
    full["00080005"] = _UTF8
    full["0020000E"] = _text("UI", row["series_uid"])
    full["00080060"] = _text("CS", row["modality"])
    full["00200011"] = {"vr": "IS"} if row["series_number"] is None else _number(row["series_number"])
    full["00201209"] = _number(row["series_instances"])
    return full


def instance_values(record: InstanceRecord) -> Dataset:
    """What the catalogue knows of an instance."""
    values: Dataset = {
        "00080016": _text("UI", record.sop_class_uid),
        "00080018": _text("UI", record.sop_instance_uid),
        "00083002": _text("UI", record.transfer_syntax_uid),  # Available Transfer Syntax UID
    }
    for key, vr, number in (
        ("00200013", "IS", record.instance_number),
        ("00280008", "IS", record.number_of_frames),
        ("00280010", "US", record.rows),
        ("00280011", "US", record.columns),
    ):
        if number is not None:
            values[key] = {"vr": vr, "Value": [number]}
    return values


def study_url(shape: Shape, row: Mapping[str, Any]) -> Dataset:
    return shape.retrieve_url("studies", row["study_uid"])


def series_url(shape: Shape, row: Mapping[str, Any]) -> Dataset:
    return shape.retrieve_url("studies", row["study_uid"], "series", row["series_uid"])


def instance_url(shape: Shape, row: Mapping[str, Any], full: Dataset) -> Dataset:
    uid = full["00080018"]["Value"][0]
    return shape.retrieve_url("studies", row["study_uid"], "series", row["series_uid"], "instances", uid)


def patient_values(row: Mapping[str, Any]) -> Dataset:
    """The patient as the index knows them now: it stands before what the object said when it came."""
    return {
        "00100010": person_name(row["name"]),
        "00100020": _text("LO", row["identifier"]),
        "00100030": _text("DA", row["birth_date"]),
        "00100040": _text("CS", row["sex"]),
    }


def person_name(name: str) -> dict[str, Any]:
    """A PN element; component groups of ``name`` are split by ``=`` (PS3.18 F.2.2)."""
    if name and "=" not in name:
        return {"vr": "PN", "Value": [{"Alphabetic": name}]}
    groups = {key: group for key, group in zip(_GROUPS, name.split("="), strict=False) if group}
    return {"vr": "PN", "Value": [groups]} if groups else {"vr": "PN"}


def _text(vr: str, value: str) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value else {"vr": vr}


def _number(value: int) -> dict[str, Any]:
    return {"vr": "IS", "Value": [value]}

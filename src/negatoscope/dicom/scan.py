"""One pass over a received data set: who it belongs to, what the index keeps of it, whether it is whole.

The usual encodings take a loop of their own that makes no object per element; at the first surprise
it gives up and the general walk decides, so the two never disagree on what is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from negatoscope.dicom.fast_walk import Found, Unusual, find_fast, swapped
from negatoscope.dicom.json_model import inflated, walked_json
from negatoscope.dicom.levels import INSTANCE_LEVEL, SERIES_LEVEL, STUDY_LEVEL
from negatoscope.dicom.limits import DEFAULT_LIMITS, KIB, Limits
from negatoscope.dicom.tags import PIXEL_DATA, SPECIFIC_CHARACTER_SET, known_vr
from negatoscope.dicom.uid import TransferSyntax, is_valid_uid
from negatoscope.dicom.values import JSONValue, character_sets, element_json, integer, text
from negatoscope.dicom.walk import Buffer, walk
from negatoscope.errors import MismatchedObject

__all__ = ["INSTANCE_LEVEL", "SERIES_LEVEL", "STUDY_LEVEL", "Parents", "Scanned", "scan"]

_PATIENT_ID, _SERIES_NUMBER = 0x00100020, 0x00200011
INDEXED_VALUE = 64 * KIB  # bytes; a longer attribute is not copied to the index


@dataclass(frozen=True, slots=True)
class Parents:
    """What an instance tells of its patient, study and series. Text is "" and numbers ``None`` where absent."""

    issuer: str  # Issuer of Patient ID
    patient_name: str  # decoded, component groups joined by "="
    birth_date: str  # YYYYMMDD as sent
    sex: str
    study_date: str
    study_time: str
    accession_number: str
    modality: str
    series_number: int | None
    study_attributes: dict[str, Any]  # DICOM JSON of STUDY_LEVEL
    series_attributes: dict[str, Any]  # DICOM JSON of SERIES_LEVEL


@dataclass(frozen=True, slots=True)
class Scanned:
    """What the archive needs to know of an instance. Text is "" and numbers ``None`` where absent."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    patient_identifier: str  # Patient ID
    instance_number: int | None
    rows: int | None
    columns: int | None
    number_of_frames: int | None
    higher: HigherLevels = field(repr=False, compare=False)

    def parents(self) -> Parents:
        """Read at need: of a thousand slices, one makes the rows of its study and series."""
        return self.higher.parents()


_OTHERS = (0x00080016, 0x00080018, 0x00200013, 0x00280008, 0x00280010, 0x00280011)
_HIGHER = STUDY_LEVEL + SERIES_LEVEL
_WANTED = frozenset(_HIGHER + _OTHERS)
_KEYS = {tag: f"{tag:08X}" for tag in _WANTED}
_FAST_WANTED = {swapped(tag): tag for tag in _WANTED}


def scan(data: Buffer, transfer_syntax_uid: str, limits: Limits = DEFAULT_LIMITS) -> Scanned:
    """Walk the whole of one data set and read what the index keeps. Pixel bytes are not touched.

    Args:
        data: the data set as received, without preamble and file meta.

    Raises:
        MismatchedObject: a UID of study, series, SOP class or instance is missing or malformed.
        InvalidObject and its other kinds: as ``walk``.
    """
    data, syntax = inflated(data, transfer_syntax_uid, limits)
    return _Reader(data, syntax, find(data, syntax, limits), limits).scanned()


def find(data: Buffer, syntax: TransferSyntax, limits: Limits) -> Found:
    """Where the top-level elements that a scan reads lie. Raises as ``walk``."""
    if syntax.little_endian:
        try:
            return find_fast(data, syntax.explicit, _FAST_WANTED, limits)
        except Unusual:
            pass
    return find_by_walk(data, syntax, _WANTED, limits)


def find_by_walk(data: Buffer, syntax: TransferSyntax, wanted: frozenset[int], limits: Limits) -> Found:
    """The same as ``find_fast``, of any data set that is not deflated."""
    found: Found = {}
    sequence: tuple[int, int] | None = None  # tag and start of a wanted sequence whose end is not known yet
    for tag, vr, offset, length, depth, end, _explicit, little_endian, start in walk(data, syntax, limits):
        if depth:
            continue
        if sequence:
            found.setdefault(sequence[0], ("SQ", sequence[1], start - sequence[1], True))
            sequence = None
        if tag not in wanted:
            continue
        if vr == "SQ":
            sequence = (tag, start)
        else:
            value_length = length if tag == PIXEL_DATA else end - offset
            found.setdefault(tag, (vr, offset, value_length, little_endian))
    if sequence:
        found.setdefault(sequence[0], ("SQ", sequence[1], len(data) - sequence[1], True))
    return found


class _Reader:
    """Reads values of the elements that were found."""

    __slots__ = ("_data", "_found", "_limits", "_sets", "_syntax")

    def __init__(self, data: Buffer, syntax: TransferSyntax, found: Found, limits: Limits) -> None:
        self._data, self._syntax, self._found, self._limits = data, syntax, found, limits
        self._sets = character_sets(self._raw(SPECIFIC_CHARACTER_SET))

    def scanned(self) -> Scanned:
        return Scanned(
            sop_class_uid=self._uid(0x00080016, "SOP Class UID"),
            sop_instance_uid=self._uid(0x00080018, "SOP Instance UID"),
            study_uid=self._uid(0x0020000D, "Study Instance UID"),
            series_uid=self._uid(0x0020000E, "Series Instance UID"),
            patient_identifier=self._patient_identifier(),
            instance_number=integer(self._raw(0x00200013)),
            rows=self._short(0x00280010),
            columns=self._short(0x00280011),
            number_of_frames=integer(self._raw(0x00280008)),
            higher=self._higher(),
        )

    def _patient_identifier(self) -> str:
        place = self._found.get(_PATIENT_ID)
        if place is None or place[2] > INDEXED_VALUE:
            return ""
        vr = "LO" if place[0] == "UN" else place[0]
        if vr == "SQ":
            return ""
        return _first(element_json(vr, self._raw(_PATIENT_ID), self._sets, place[3]))

    def _raw(self, tag: int) -> bytes:
        """The value; empty where absent, a sequence, or too long to be indexed."""
        place = self._found.get(tag)
        if place is None:
            return b""
        vr, offset, length, _ = place
        if length > INDEXED_VALUE or vr == "SQ":
            return b""
        return bytes(self._data[offset : offset + length])

    def _uid(self, tag: int, name: str) -> str:
        uid = text(self._raw(tag))
        if not is_valid_uid(uid):
            raise MismatchedObject(f"{name} is malformed" if uid else f"{name} is missing")
        return uid

    def _short(self, tag: int) -> int | None:
        raw = self._raw(tag)
        if len(raw) < 2:
            return None
        vr, _, _, little_endian = self._found[tag]
        return int.from_bytes(raw[:2], "little" if little_endian or vr == "UN" else "big")

    def _higher(self) -> HigherLevels:
        """Copies: the data set is a view that is gone when they are read."""
        found, data = self._found, self._data
        elements = {
            tag: (place[0], bytes(data[place[1] : place[1] + place[2]]), place[3])
            for tag in _HIGHER
            if (place := found.get(tag)) is not None and place[2] <= INDEXED_VALUE
        }
        return HigherLevels(elements, self._sets, self._syntax, self._limits)


@dataclass(frozen=True, slots=True)
class HigherLevels:
    """Elements of patient, study and series as received: tag to VR, value (a sequence whole), little endian."""

    elements: dict[int, tuple[str, bytes, bool]]
    sets: tuple[str, ...]
    syntax: TransferSyntax
    limits: Limits

    def parents(self) -> Parents:
        study, series = self._attributes(STUDY_LEVEL), self._attributes(SERIES_LEVEL)
        number = self.elements.get(_SERIES_NUMBER)
        return Parents(
            issuer=_first(study.get("00100021")),
            patient_name=_first_name(study.get("00100010")),
            birth_date=_first(study.get("00100030")),
            sex=_first(study.get("00100040")),
            study_date=_first(study.get("00080020")),
            study_time=_first(study.get("00080030")),
            accession_number=_first(study.get("00080050")),
            modality=_first(series.get("00080060")),
            series_number=integer(number[1]) if number and number[0] != "SQ" else None,
            study_attributes=study,
            series_attributes=series,
        )

    def _attributes(self, tags: tuple[int, ...]) -> dict[str, JSONValue]:
        attributes: dict[str, JSONValue] = {}
        for tag in tags:
            element = self.elements.get(tag)
            if element is None:
                continue
            vr, raw, little_endian = element
            if vr == "UN":  # written by who did not know better
                vr, little_endian = known_vr(tag), True
            key = _KEYS[tag]
            if vr == "SQ":
                attributes |= walked_json(memoryview(raw), self.syntax, None, limits=self.limits, sets=self.sets)
            elif tag == SPECIFIC_CHARACTER_SET:
                attributes[key] = {"vr": "CS", "Value": ["ISO_IR 192"]}
            else:
                attributes[key] = element_json(vr, raw, self.sets, little_endian)
        return attributes


def _first(attribute: JSONValue) -> str:
    """The first value as text, "" if there is none."""
    values = attribute.get("Value") if attribute else None
    return str(values[0]) if values and values[0] is not None else ""


def _first_name(attribute: JSONValue) -> str:
    values = attribute.get("Value") if attribute else None
    if not values or not isinstance(values[0], dict):
        return ""
    groups = [values[0].get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
    return "=".join(groups).rstrip("=")

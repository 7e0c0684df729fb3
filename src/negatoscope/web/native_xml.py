"""Native DICOM Model XML (PS3.19 A.1) to the DICOM JSON model, for STOW-RS.

Read with expat, event by event. A document type declaration is refused, so there are no entities of its own
and nothing outside the document is ever opened.
"""

from __future__ import annotations

from typing import Any, NoReturn
from xml.parsers import expat

from negatoscope.dicom.limits import Limits
from negatoscope.errors import BadRequest, LimitExceeded, SequenceTooDeep

_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_INTEGERS = frozenset(("SL", "SS", "SV", "UL", "US", "UV"))
_FLOATS = frozenset(("FL", "FD"))


def from_xml(text: bytes, limits: Limits) -> dict[str, Any]:
    """One data set as a DICOM JSON object.

    Raises:
        BadRequest: not well formed, not this model, or with a document type declaration.
        SequenceTooDeep, LimitExceeded: over ``limits``.
    """
    reader = _Reader(limits)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise BadRequest("the metadata are not well-formed XML") from error
    if reader.root is None:
        raise BadRequest("the metadata are no NativeDicomModel")
    return reader.root


def _refuse_doctype(*_: object) -> NoReturn:
    raise BadRequest("XML with a document type declaration is not taken")


class _Reader:
    """Keeps the open data sets and the open element of each."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.root: dict[str, Any] | None = None
        self._datasets: list[dict[str, Any]] = []
        self._elements: list[dict[str, Any]] = []
        self._text: list[str] = []
        self._group: dict[str, str] | None = None  # name parts of the person name group that is open
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._text = []
        if name == "NativeDicomModel" and self.root is None:
            self.root = {}
            self._datasets.append(self.root)
        elif not self._datasets:
            raise BadRequest("the metadata are no NativeDicomModel")
        elif name == "DicomAttribute":
            self._count += 1
            if self._count > self._limits.elements:
                raise LimitExceeded(f"more than {self._limits.elements} elements")
            element: dict[str, Any] = {"vr": attributes.get("vr", "UN")}
            self._datasets[-1][attributes.get("tag", "").upper()] = element
            self._elements.append(element)
        elif name == "Item":
            if len(self._datasets) > self._limits.sequence_depth:
                raise SequenceTooDeep(f"sequences nested deeper than {self._limits.sequence_depth}")
            item: dict[str, Any] = {}
            self._values().append(item)
            self._datasets.append(item)
        elif name == "PersonName":
            self._values().append({})
        elif name in _GROUPS:
            self._group = {}
        elif name == "BulkData":
            self._element()["BulkDataURI"] = attributes.get("uri", "")

    def end(self, name: str) -> None:
        text = "".join(self._text)
        self._text = []
        if name == "DicomAttribute":
            self._elements.pop()
        elif name in ("Item", "NativeDicomModel"):
            self._datasets.pop()
        elif name == "Value":
            self._values().append(_value(self._element()["vr"], text))
        elif name == "InlineBinary":
            self._element()["InlineBinary"] = "".join(text.split())
        elif name in _NAME_PARTS and self._group is not None:
            self._group[name] = text
        elif name in _GROUPS and self._group is not None:
            names = self._values()
            if not names or not isinstance(names[-1], dict):
                raise BadRequest("a person's name outside of PersonName")
            names[-1][name] = "^".join(self._group.get(part, "") for part in _NAME_PARTS).rstrip("^")
            self._group = None

    def characters(self, text: str) -> None:
        self._text.append(text)

    def _element(self) -> dict[str, Any]:
        if not self._elements:
            raise BadRequest("a value outside of a DicomAttribute")
        return self._elements[-1]

    def _values(self) -> list[Any]:
        values: list[Any] = self._element().setdefault("Value", [])
        return values


def _value(vr: str, text: str) -> Any:
    if not text:
        return None
    try:
        if vr in _INTEGERS:
            return int(text)
        if vr in _FLOATS:
            return float(text)
    except ValueError as error:
        raise BadRequest(f"a value that {vr} cannot have") from error
    return text

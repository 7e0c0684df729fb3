"""The Native DICOM Model, PS3.19 A.1, made of the JSON model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from negatoscope.dicom.tags import keyword_of

_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
# Characters that XML 1.0 has no way to write.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def to_xml(dataset: Mapping[str, Any]) -> bytes:
    """A ``NativeDicomModel`` document in UTF-8 of a DICOM JSON object. Nesting is as deep as in it."""
    parts = ['<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xml:space="preserve">\n']
    _dataset(dataset, parts)
    parts.append("</NativeDicomModel>\n")
    return "".join(parts).encode()


def _dataset(dataset: Mapping[str, Any], parts: list[str]) -> None:
    for key, element in dataset.items():
        vr = element["vr"]
        parts.append(f'<DicomAttribute tag="{_shown(key)}" vr="{vr}"{_names(key, dataset)}>\n')
        if "InlineBinary" in element:
            parts.append(f"<InlineBinary>{element['InlineBinary']}</InlineBinary>\n")
        elif "BulkDataURI" in element:
            parts.append(f"<BulkData uri={_attribute(element['BulkDataURI'])}/>\n")
        for number, value in enumerate(element.get("Value", ()), 1):
            if vr == "SQ":
                parts.append(f'<Item number="{number}">\n')
                _dataset(value, parts)
                parts.append("</Item>\n")
            elif vr == "PN":
                _person_name(number, value or {}, parts)
            else:
                parts.append(f'<Value number="{number}">{"" if value is None else _text(str(value))}</Value>\n')
        parts.append("</DicomAttribute>\n")


def _is_private(key: str) -> bool:
    return int(key[3], 16) % 2 == 1


def _shown(key: str) -> str:
    """Of a private attribute the block is not shown: its creator is named instead."""
    return f"{key[:4]}00{key[6:]}" if _is_private(key) and int(key[4:], 16) >= 0x1000 else key


def _names(key: str, dataset: Mapping[str, Any]) -> str:
    if _is_private(key):
        creator = dataset.get(f"{key[:4]}00{key[4:6]}", {}).get("Value", [None])[0]
        return f" privateCreator={_attribute(str(creator))}" if creator is not None else ""
    keyword = keyword_of(int(key, 16))
    return f' keyword="{keyword}"' if keyword else ""


def _person_name(number: int, name: Mapping[str, str], parts: list[str]) -> None:
    parts.append(f'<PersonName number="{number}">\n')
    for group in _GROUPS:
        if group in name:
            parts.append(f"<{group}>\n")
            parts += [
                f"<{component}>{_text(value)}</{component}>\n"
                for component, value in zip(_COMPONENTS, name[group].split("^"), strict=False)
                if value
            ]
            parts.append(f"</{group}>\n")
    parts.append("</PersonName>\n")


def _text(value: str) -> str:
    return escape(_FORBIDDEN.sub("", value), {"\r": "&#13;"})  # a bare one would be read back as a line feed


def _attribute(value: str) -> str:
    return quoteattr(_FORBIDDEN.sub("", value))

"""Structured reports as people read them: the content tree of PS3.3 C.17.3 as nested names and values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from negatoscope.dicom.json_model import to_json

LONGEST = 16 << 20  # bytes of a report that are read
MOST_ITEMS = 5000  # content items shown
DEEPEST = 40  # levels shown; recursion below the walker's own limit

ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."  # all SR storage classes, key object selection (59) among them


@dataclass(frozen=True, slots=True)
class Item:
    """One content item: its concept, a short value on the same line, a long text below, what it contains."""

    name: str
    value: str = ""
    text: str = ""
    children: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    title: str
    date: str
    time: str
    completion: str  # COMPLETE, PARTIAL or ""
    verification: str  # VERIFIED, UNVERIFIED or ""
    items: tuple[Item, ...]
    truncated: bool  # there is more than MOST_ITEMS


def is_report(sop_class_uid: str) -> bool:
    return sop_class_uid.startswith(_REPORTS)


def is_pdf(sop_class_uid: str) -> bool:
    return sop_class_uid == ENCAPSULATED_PDF


def read_report(data: bytes, transfer_syntax_uid: str) -> Report:
    """A data set of an SR class. Raises ``InvalidObject`` and its kinds."""
    return report_of(to_json(data, transfer_syntax_uid, lambda path: ""))


def report_of(dataset: Mapping[str, Any]) -> Report:
    """The same from the DICOM JSON model."""
    budget = [MOST_ITEMS]
    items = _items(dataset.get("0040A730", {}).get("Value") or [], budget, 0)
    return Report(
        title=_meaning(dataset, "0040A043"),
        date=_text(dataset, "00080023") or _text(dataset, "00080020"),
        time=_text(dataset, "00080033"),
        completion=_text(dataset, "0040A491"),
        verification=_text(dataset, "0040A493"),
        items=items,
        truncated=budget[0] <= 0,
    )


def _items(sequence: list[Mapping[str, Any]], budget: list[int], depth: int) -> tuple[Item, ...]:
    items: list[Item] = []
    for item in sequence:
        if budget[0] <= 0:
            break
        budget[0] -= 1
        deeper = item.get("0040A730", {}).get("Value") or []
        value = _value(item)
        items.append(
            Item(
                name=_meaning(item, "0040A043"),
                value=value if len(value) <= 80 and "\n" not in value else "",
                text=value if len(value) > 80 or "\n" in value else "",
                children=_items(deeper, budget, depth + 1) if depth < DEEPEST else (),
            )
        )
    return tuple(items)


def _value(item: Mapping[str, Any]) -> str:
    """The value of a content item by its Value Type (0040,A040), PS3.3 table C.17.3-7."""
    kind = _text(item, "0040A040")
    if kind == "NUM":
        measured = (item.get("0040A300", {}).get("Value") or [{}])[0]
        unit = _text((measured.get("004008EA", {}).get("Value") or [{}])[0], "00080100")
        return " ".join(part for part in (_text(measured, "0040A30A"), "" if unit == "1" else unit) if part)
    if kind in ("IMAGE", "COMPOSITE", "WAVEFORM"):
        referenced = (item.get("00081199", {}).get("Value") or [{}])[0]
        return _text(referenced, "00081155")
    simple = {
        "CODE": lambda: _meaning(item, "0040A168"),
        "TEXT": lambda: _text(item, "0040A160"),
        "PNAME": lambda: _text(item, "0040A123").replace("^", " ").strip(),
        "DATE": lambda: _text(item, "0040A121"),
        "TIME": lambda: _text(item, "0040A122"),
        "DATETIME": lambda: _text(item, "0040A120"),
        "UIDREF": lambda: _text(item, "0040A124"),
    }
    return simple[kind]() if kind in simple else ""


def _meaning(dataset: Mapping[str, Any], key: str) -> str:
    """Code Meaning of a code sequence, or the code itself."""
    code = (dataset.get(key, {}).get("Value") or [{}])[0]
    return _text(code, "00080104") or _text(code, "00080100")


def _text(dataset: Mapping[str, Any], key: str) -> str:
    value = (dataset.get(key, {}).get("Value") or [""])[0]
    if isinstance(value, dict):
        return str(value.get("Alphabetic", ""))
    return "" if value is None else str(value)

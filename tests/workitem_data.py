"""Workitems of an invented day, for whoever tests them."""

from __future__ import annotations

from typing import Any

from negatoscope.worklist.ups import element

CODE = {"00080100": element("00080100", "121"), "00080102": element("00080102", "99X"),
        "00080104": element("00080104", "Segment")}  # fmt: skip


def a_workitem(**more: Any) -> dict[str, Any]:
    """What an N-CREATE needs, as DICOM JSON; keys of ``more`` begin with an underscore, None leaves one out."""
    made = {
        "00404005": element("00404005", "20261123083000"),
        "00404041": element("00404041", "READY"),
        "00741200": element("00741200", "MEDIUM"),
        "00741204": element("00741204", "Segment the liver"),
        "00741202": element("00741202", "AI"),
        "00100010": element("00100010", {"Alphabetic": "DURAND^EMILIE"}),
        "00100020": element("00100020", "P1"),
        "0020000D": element("0020000D", "2.25.9001"),
    }
    for name, value in more.items():
        key = name.removeprefix("_")
        made.pop(key, None)
        if value is not None:
            made[key] = (
                value if isinstance(value, dict) else element(key, *(value if isinstance(value, list) else [value]))
            )
    return made


def state(wanted: str, transaction: str = "") -> dict[str, Any]:
    """The body of a state change."""
    body = {"00741000": element("00741000", wanted)}
    return body | ({"00081195": element("00081195", transaction)} if transaction else {})


def performed(*left_out: str) -> dict[str, Any]:
    """What a completed workitem says of what was done."""
    item = {
        "00404028": element("00404028", CODE),
        "00404019": element("00404019", CODE),
        "00404050": element("00404050", "20261123090000"),
        "00404051": element("00404051", "20261123091500"),
        "00404033": element("00404033"),
    }
    return {"00741216": element("00741216", {key: value for key, value in item.items() if key not in left_out})}


def progress(percent: str = "50", *, canceled: bool = False) -> dict[str, Any]:
    item = {"00741004": element("00741004", percent)}
    if canceled:
        item["0074100E"] = element("0074100E", CODE)
    return {"00741002": element("00741002", dict(sorted(item.items())))}

"""One value of an order, checked against its value representation (PS3.5 table 6.2-1). Pure.

Errors name the field, never its value: it may be a patient's.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import BadRequest

LENGTHS = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "DS": 16, "PN": 64, "LT": 10_240, "ST": 1_024}  # characters
_CODE = re.compile(r"[A-Z0-9_ ]+", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)", re.ASCII)
_WHEN = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?", re.ASCII)
_LINES = ("LT", "ST")  # may hold line ends and backslashes
_NAME_GROUPS = 3  # alphabetic, ideographic, phonetic


def text(value: Any, vr: str, name: str) -> str:
    """``value`` without the spaces around it, "" for none.

    Raises:
        BadRequest: not text, too long, or with characters that ``vr`` does not hold.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"{name} is text")
    found = value.strip()
    if not found:
        return ""
    allowed = "\r\n\t\f" if vr in _LINES else ""
    if any(not letter.isprintable() and letter not in allowed for letter in found):
        raise BadRequest(f"{name} holds a character that cannot be printed")
    if vr not in _LINES and "\\" in found:
        raise BadRequest(f"{name} holds a backslash, which parts values in DICOM")
    groups = found.split("=") if vr == "PN" else [found]
    if len(groups) > _NAME_GROUPS or any(group.count("^") > 4 for group in groups if vr == "PN"):
        raise BadRequest(f"{name} has more groups or components than a person's name")
    if any(len(group) > LENGTHS[vr] for group in groups):
        raise BadRequest(f"{name} has at most {LENGTHS[vr]} characters")
    if vr == "CS" and not _CODE.fullmatch(found):
        raise BadRequest(f"{name} is a code: capitals, digits, underscore")
    if vr == "AE" and not found.isascii():
        raise BadRequest(f"{name} has ASCII characters alone")
    return found


def needed(value: Any, vr: str, name: str) -> str:
    """As :func:`text`, but there must be one."""
    found = text(value, vr, name)
    if not found:
        raise BadRequest(f"{name} is needed")
    return found


def day(value: Any, name: str) -> str:
    """A date as YYYYMMDD or YYYY-MM-DD; "" for none. Raises BadRequest."""
    if value is None or value == "":
        return ""
    try:
        return date.fromisoformat(str(value)).strftime("%Y%m%d").zfill(8)
    except ValueError:
        raise BadRequest(f"{name} is a date, YYYY-MM-DD") from None


def moment(value: Any, name: str) -> tuple[str, str]:
    """``YYYY-MM-DDTHH:MM[:SS]`` as date YYYYMMDD and time HHMMSS, on the establishment's clock. Raises BadRequest."""
    found = _WHEN.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None:
            raise ValueError
        parts = [int(part or 0) for part in found.groups()]
        when = datetime(*parts)  # type: ignore[arg-type]  # six numbers; local by definition
    except ValueError:
        raise BadRequest(f"{name} is a date and time, YYYY-MM-DDTHH:MM") from None
    return when.strftime("%Y%m%d").zfill(8), when.strftime("%H%M%S")


def uid(value: Any, name: str) -> str:
    """A UID, "" for none. Raises BadRequest."""
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not is_valid_uid(value):
        raise BadRequest(f"{name} is no UID")
    return value


def decimal(value: Any, name: str) -> float | None:
    """A number, None for none. Raises BadRequest."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not _DECIMAL.fullmatch(str(value)) or len(str(value)) > LENGTHS["DS"]:
        raise BadRequest(f"{name} is a number")
    return float(value)

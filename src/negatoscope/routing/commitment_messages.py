"""The data sets of storage commitment: N-ACTION and N-EVENT-REPORT, PS3.4 tables J.3-1 and J.3-2. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from negatoscope.dicom.answers import AnswerWriter
from negatoscope.dicom.json_model import to_json
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.uid import is_valid_uid, transfer_syntax
from negatoscope.errors import MismatchedObject

Reference = tuple[str, str]  # SOP class UID, SOP instance UID
SUCCESSFUL, FAILURES_EXIST = 1, 2  # event types
REQUEST = 1  # action type
_TRANSACTION, _TITLE, _FAILED, _REFERENCED = "00081195", "00080054", "00081198", "00081199"
_CLASS, _INSTANCE, _REASON = "00081150", "00081155", "00081197"


@dataclass(frozen=True, slots=True)
class Report:
    """What a provider says: SOP Instance UIDs that it will keep, and those that it will not with the reason."""

    transaction_uid: str
    committed: list[str]
    failed: dict[str, int]


def read_request(data: bytes, syntax: str, limits: Limits) -> tuple[str, list[Reference]]:
    """Transaction UID and objects of an N-ACTION.

    Raises:
        MismatchedObject: no transaction, no object, or a UID that is none.
        InvalidObject and its kinds: not a data set.
    """
    found = to_json(data, syntax, None, limits)
    transaction_uid = _text(found, _TRANSACTION)
    objects = [(_text(item, _CLASS), _text(item, _INSTANCE)) for item in _items(found, _REFERENCED)]
    if not is_valid_uid(transaction_uid):
        raise MismatchedObject("Transaction UID is missing or malformed")
    if not objects or not all(is_valid_uid(uid) for pair in objects for uid in pair):
        raise MismatchedObject("Referenced SOP Sequence is missing, or names something that is no UID")
    return transaction_uid, objects


def write_request(transaction_uid: str, objects: Sequence[Reference], syntax: str) -> bytes:
    """The data set of an N-ACTION of ours."""
    return _write({_TRANSACTION: _uid(transaction_uid), _REFERENCED: _sequence(map(_reference, objects))}, syntax)


def read_report(data: bytes, syntax: str, limits: Limits) -> Report:
    """The data set of an N-EVENT-REPORT. Raises as :func:`read_request`."""
    found = to_json(data, syntax, None, limits)
    transaction_uid = _text(found, _TRANSACTION)
    if not is_valid_uid(transaction_uid):
        raise MismatchedObject("Transaction UID is missing or malformed")
    failed = {_text(item, _INSTANCE): _number(item, _REASON) for item in _items(found, _FAILED)}
    committed = [uid for item in _items(found, _REFERENCED) if (uid := _text(item, _INSTANCE)) not in failed]
    return Report(transaction_uid, committed, failed)


def write_report(
    transaction_uid: str, objects: Sequence[Reference], verdicts: Sequence[int], title: str, syntax: str
) -> tuple[int, bytes]:
    """Event type and data set of an N-EVENT-REPORT of ours. ``title``: from where the objects can be had."""
    judged = list(zip(objects, verdicts, strict=True))
    failed = [_reference(one) | {_REASON: {"vr": "US", "Value": [reason]}} for one, reason in judged if reason]
    good = [_reference(one) for one, reason in judged if not reason]
    found: dict[str, Any] = {_TITLE: {"vr": "AE", "Value": [title]}} if good else {}
    found[_TRANSACTION] = _uid(transaction_uid)
    if failed:
        found[_FAILED] = _sequence(failed)
    if good:
        found[_REFERENCED] = _sequence(good)
    return FAILURES_EXIST if failed else SUCCESSFUL, _write(found, syntax)


def _write(dataset: Mapping[str, Any], syntax: str) -> bytes:
    return AnswerWriter(transfer_syntax(syntax).explicit).encode(dataset)


def _uid(value: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [value]}


def _reference(one: Reference) -> dict[str, Any]:
    return {_CLASS: _uid(one[0]), _INSTANCE: _uid(one[1])}


def _sequence(items: Any) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}


def _items(dataset: Mapping[str, Any], tag: str) -> list[Mapping[str, Any]]:
    return [item for item in dataset.get(tag, {}).get("Value") or [] if isinstance(item, Mapping)]


def _text(dataset: Mapping[str, Any], tag: str) -> str:
    values = dataset.get(tag, {}).get("Value") or [""]
    return values[0] if isinstance(values[0], str) else ""


def _number(dataset: Mapping[str, Any], tag: str) -> int:
    """A reason that is missing is still a refusal."""
    values = dataset.get(tag, {}).get("Value") or [0x0110]
    return values[0] if isinstance(values[0], int) and values[0] else 0x0110

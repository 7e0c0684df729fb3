"""Workitems: what may be written into a unified procedure step, and how its state moves. Pure.

PS3.4 annex CC: requirements in table CC.2.5-3, states in tables CC.1.1-1 and CC.1.1-2. Absent attributes of type 2
are entered empty, which the answer says. Two written rules: all transitions are in this file, and the Transaction
UID never is in the attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.matching import json_text, parse_match
from negatoscope.dicom.tags import tag_text, vr_of
from negatoscope.dicom.uid import is_valid_uid
from negatoscope.dicom.writer import encode
from negatoscope.errors import (
    BadRequest,
    InvalidAttributeValue,
    InvalidObject,
    MissingAttribute,
    MissingAttributeValue,
    WorkitemEnded,
    WorkitemNotClaimed,
    WorkitemState,
)

Dataset = dict[str, Any]  # the DICOM JSON model

PUSH = "1.2.840.10008.5.1.4.34.6.1"  # UPS Push: the SOP class of every workitem, PS3.4 CC.3.1
SOP_CLASS, SOP_INSTANCE, TRANSACTION = "00080016", "00080018", "00081195"
STATE, PRIORITY, LABEL, WORKLIST = "00741000", "00741200", "00741204", "00741202"
START, MODIFIED, READINESS = "00404005", "00404010", "00404041"
PROGRESS, PERFORMED = "00741002", "00741216"
CANCELED_AT, DISCONTINUATION, CANCEL_REASON = "00404052", "0074100E", "00741238"
CONTACT_URI, CONTACT_NAME = "0074100A", "0074100C"
OUTPUT = "00404033"
PATIENT_NAME, PATIENT_ID, STUDY = "00100010", "00100020", "0020000D"
STATIONS = ("00404025", "00404026", "00404027")  # scheduled station name, class, location
PERFORMERS = "00404034"  # Scheduled Human Performers Sequence

_NEEDED = (PRIORITY, LABEL, START, READINESS)  # type 1 of an N-CREATE that the maker gives
_EMPTY = (  # type 2: entered empty
    PATIENT_NAME, PATIENT_ID, "00100021", "00100030", "00100040", "00101002", "00380010", "00380014", "00081080",
    "00081084", STUDY, "0040A370", "00741210", *STATIONS, "00404018", "00400400", "00404021", PROGRESS, PERFORMED,
)  # fmt: skip
_CODES = {
    PRIORITY: ("HIGH", "MEDIUM", "LOW"),
    READINESS: ("INCOMPLETE", "UNAVAILABLE", "READY"),
}
_MOMENTS = (START, "00404011", "00404008")
_IDENTITY = (PATIENT_NAME, PATIENT_ID, "00100021", "00100030", "00100040", "00380010", "0040A370", STUDY)
_OURS = (STATE, SOP_CLASS, SOP_INSTANCE, MODIFIED)
# What a completed step says of what was done; values are needed, but for the output, which may be none.
_PERFORMED_NEEDED = ("00404028", "00404019", "00404050", "00404051")
# What a search answers without being asked (return key types 1 and 2).
RETURNED = frozenset(
    int(key, 16) for key in (*_NEEDED, *_EMPTY, *_OURS, WORKLIST, PERFORMERS, "00080005", "00404011", "00741224")
)
_UNSPECIFIED = ("110513", "DCM", "Discontinued for unspecified reason")  # CID 9300
_DATETIME = re.compile(r"[0-9]{4,14}(?:\.[0-9]{1,6})?(?:[+-](?:0[0-9]|1[0-4])[0-5][0-9])?", re.ASCII)
_WORKLIST_LABEL = "Négatoscope"


class State(StrEnum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"


ENDED = (State.COMPLETED, State.CANCELED)
_MAY_NOT, _IN_PROGRESS_ALREADY, _NOT_YET, _ALREADY = "C300", "C302", "C310", "B300"
_OK = "0000"
# Table CC.1.1-2, with the right Transaction UID: from, to. B300 stands for B304 and B306.
_MOVES: dict[tuple[State, State], str] = {
    (State.SCHEDULED, State.IN_PROGRESS): _OK,
    (State.SCHEDULED, State.COMPLETED): _NOT_YET,
    (State.SCHEDULED, State.CANCELED): _NOT_YET,
    (State.IN_PROGRESS, State.IN_PROGRESS): _IN_PROGRESS_ALREADY,
    (State.IN_PROGRESS, State.COMPLETED): _OK,
    (State.IN_PROGRESS, State.CANCELED): _OK,
    (State.COMPLETED, State.IN_PROGRESS): _MAY_NOT,
    (State.COMPLETED, State.COMPLETED): _ALREADY,
    (State.COMPLETED, State.CANCELED): _MAY_NOT,
    (State.CANCELED, State.IN_PROGRESS): _MAY_NOT,
    (State.CANCELED, State.COMPLETED): _MAY_NOT,
    (State.CANCELED, State.CANCELED): _ALREADY,
}
MISSING, INCORRECT = "The Transaction UID is missing", "The Transaction UID is incorrect"
INCONSISTENT = "The submitted request is inconsistent with the state of the UPS Instance"
NOT_CLAIMED = "The target URI did not reference a claimed Workitem"
UPDATE_INCONSISTENT = "The submitted request is inconsistent with the current state of the Workitem"


def may_move(current: State, held: str, wanted: State, given: str) -> bool:
    """Whether a state change is to be made; False: the workitem is there already.

    Args:
        held: Transaction UID of the claim, "" before it.
        given: the one that came with the request, "" for none.

    Raises:
        WorkitemNotClaimed: no Transaction UID, or another's.
        WorkitemState: one does not go there from here.
    """
    if not given:
        raise WorkitemNotClaimed(MISSING)
    verdict = _MOVES[current, wanted]
    if wanted is not State.IN_PROGRESS and held and given != held:
        raise WorkitemNotClaimed(INCORRECT)
    if verdict == _ALREADY:
        return False
    if verdict != _OK:
        raise WorkitemState(INCONSISTENT)
    return True


def may_update(current: State, held: str, given: str) -> None:
    """Judge an N-SET, table CC.1.1-2.

    Raises:
        WorkitemEnded: nothing of it changes any more.
        WorkitemNotClaimed: in progress, and no Transaction UID came, or another's.
        WorkitemState: a Transaction UID came, and nobody has claimed it.
    """
    if current in ENDED:
        raise WorkitemEnded(UPDATE_INCONSISTENT)
    if current is State.SCHEDULED:
        if given:
            raise WorkitemState(NOT_CLAIMED)
    elif not given:
        raise WorkitemNotClaimed(MISSING)
    elif given != held:
        raise WorkitemNotClaimed(INCORRECT)


# Reading -----------------------------------------------------------------------------------------


def read_dataset(given: Any, limits: Limits = DEFAULT_LIMITS) -> Dataset:
    """One data set in the DICOM JSON model, checked against its VRs, with keys in capitals and in order.

    Raises:
        BadRequest: no such data set, bulk data in it, or over the limits.
    """
    if isinstance(given, list):
        if len(given) != 1:
            raise BadRequest("the body holds one workitem")
        given = given[0]
    if not isinstance(given, dict):
        raise BadRequest("a data set must be an object")
    try:
        encode(given, _no_bulk, limits)
    except InvalidObject as error:
        raise BadRequest(str(error)) from None
    found = _normal(given)
    for key, element in found.items():
        known = vr_of(int(key, 16))
        if known != "UN" and (known == "SQ") != (element["vr"] == "SQ"):
            raise InvalidAttributeValue(f"{tag_text(int(key, 16))} is of another VR", int(key, 16))
    return found


def _no_bulk(uri: str) -> bytes:
    raise InvalidObject("workitems have no bulk data")


def _normal(dataset: Mapping[str, Any]) -> Dataset:
    return {key.upper(): _normal_element(dataset[key]) for key in sorted(dataset, key=str.upper)}


def _normal_element(element: Mapping[str, Any]) -> Dataset:
    found = {"vr": element["vr"]}
    if "InlineBinary" in element:
        return found | {"InlineBinary": element["InlineBinary"]}
    values = element.get("Value") or []
    if any("\0" in text for value in values for text in _texts(value)):
        raise BadRequest("a text holds a character that cannot be printed")
    if element["vr"] == "SQ":
        values = [_normal(item or {}) for item in values]
    return found | {"Value": values} if values else found


def _texts(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for text in value.values() if isinstance(text, str)]
    return [value] if isinstance(value, str) else []


def text_of(dataset: Mapping[str, Any], key: str) -> str:
    """The first value as text, "" for none."""
    values = dataset.get(key, {}).get("Value") or [""]
    return json_text(values[0]).strip()


def items_of(dataset: Mapping[str, Any], key: str) -> list[Dataset]:
    values = dataset.get(key, {}).get("Value") or []
    return [value for value in values if isinstance(value, dict)]


def element(key: str, *values: Any) -> Dataset:
    found: Dataset = {"vr": vr_of(int(key, 16))}
    return found | {"Value": list(values)} if values else found


def taken_transaction(dataset: Dataset, named: str = "") -> str:
    """The Transaction UID of a request, taken out of its data set. Raises BadRequest: no UID, or two of them."""
    inside = text_of({TRANSACTION: dataset.pop(TRANSACTION, {})}, TRANSACTION)
    if inside and named and inside != named:
        raise BadRequest("two Transaction UIDs")
    found = inside or named
    if found and not is_valid_uid(found):
        raise InvalidAttributeValue("Transaction UID is no UID", int(TRANSACTION, 16))
    return found


def named_uid(dataset: Dataset, named: str) -> str:
    """The SOP Instance UID for a new workitem, "" for none given. Raises BadRequest: no UID, or two of them."""
    inside = {text_of(dataset, key) for key in (SOP_INSTANCE, "00001000")} - {""}
    dataset.pop("00001000", None)
    found = inside | ({named} if named else set())
    if len(found) > 1:
        raise BadRequest("the workitem is named twice, differently")
    uid = next(iter(found), "")
    if uid and not is_valid_uid(uid):
        raise InvalidAttributeValue("SOP Instance UID is no UID", int(SOP_INSTANCE, 16))
    return uid


def new_workitem(given: Dataset, uid: str, moment: str) -> tuple[Dataset, bool]:
    """The attributes of a new workitem, and whether they are not what was given but for our own.

    Args:
        given: from :func:`read_dataset`, without Transaction UID.
        moment: now, as a DT.

    Raises:
        BadRequest and its kinds: what an N-CREATE needs is missing or is not what it may be.
    """
    if text_of(given, SOP_CLASS) not in ("", PUSH):
        raise InvalidAttributeValue("a workitem is of the SOP class UPS Push", int(SOP_CLASS, 16))
    if text_of(given, STATE) not in ("", State.SCHEDULED.value):
        raise InvalidAttributeValue("a new workitem is SCHEDULED", int(STATE, 16))
    for key in _NEEDED:
        _require(given, key)
    for key in (PROGRESS, PERFORMED):
        if items_of(given, key):
            raise InvalidAttributeValue(f"{tag_text(int(key, 16))} is empty in a new workitem", int(key, 16))
    _check_values(given)
    made = dict(given)
    missing = [key for key in _EMPTY if key not in made]
    made |= {key: element(key) for key in missing}
    unlabelled = not text_of(made, WORKLIST)
    if unlabelled:
        made[WORKLIST] = element(WORKLIST, _WORKLIST_LABEL)
    made |= {
        SOP_CLASS: element(SOP_CLASS, PUSH),
        SOP_INSTANCE: element(SOP_INSTANCE, uid),
        STATE: element(STATE, State.SCHEDULED.value),
        MODIFIED: element(MODIFIED, moment),
    }
    return dict(sorted(made.items())), bool(missing) or unlabelled


def updated(held: Dataset, given: Dataset, moment: str) -> Dataset:
    """``held`` with what an N-SET gives: whole attributes are replaced.

    Raises:
        BadRequest and its kinds: it would change what may not change, or empty what must have a value.
    """
    for key in (STATE, SOP_CLASS, SOP_INSTANCE, *_IDENTITY):
        if key in given and given[key].get("Value", []) != held.get(key, {}).get("Value", []):
            raise InvalidAttributeValue(f"{tag_text(int(key, 16))} may not be updated", int(key, 16))
    for key in (*_NEEDED, WORKLIST):
        if key in given:
            _require(given, key)
    _check_values(given)
    return dict(sorted({**held, **given, MODIFIED: element(MODIFIED, moment)}.items()))


def _require(given: Dataset, key: str) -> None:
    tag = int(key, 16)
    if key not in given:
        raise MissingAttribute(f"{tag_text(tag)} is needed", tag)
    if not text_of(given, key):
        raise MissingAttributeValue(f"{tag_text(tag)} needs a value", tag)


def _check_values(given: Dataset) -> None:
    for key, codes in _CODES.items():
        if key in given and text_of(given, key) not in codes:
            raise InvalidAttributeValue(f"{tag_text(int(key, 16))} is one of {', '.join(codes)}", int(key, 16))
    for key in _MOMENTS:
        text = text_of(given, key)
        if text:
            _check_moment(key, text)
    study = text_of(given, STUDY)
    if study and not is_valid_uid(study):
        raise InvalidAttributeValue("Study Instance UID is no UID", int(STUDY, 16))


def _check_moment(key: str, text: str) -> None:
    tag = int(key, 16)
    try:
        if not _DATETIME.fullmatch(text):
            raise BadRequest(key)
        parse_match(tag, "DT", text)
    except BadRequest:
        raise InvalidAttributeValue(f"{tag_text(tag)} is no date and time", tag) from None


# Ends --------------------------------------------------------------------------------------------


def unfinished(held: Dataset, wanted: State) -> list[str]:
    """Keys that a final state needs and that have no value, table CC.2.5-3, column Final State."""
    missing = [key for key in (*_NEEDED, MODIFIED) if not text_of(held, key)]
    if wanted is State.COMPLETED:
        performed = items_of(held, PERFORMED)
        if not performed:
            return [*missing, PERFORMED]
        for item in performed:
            missing += [key for key in _PERFORMED_NEEDED if not item.get(key, {}).get("Value")]
            missing += [OUTPUT] if OUTPUT not in item else []
    if wanted is State.CANCELED:
        progress = items_of(held, PROGRESS)
        if not progress:
            return [*missing, PROGRESS]
        missing += [key for key in (CANCELED_AT, DISCONTINUATION) if not progress[0].get(key, {}).get("Value")]
    return missing


def with_cancellation_time(held: Dataset, moment: str) -> Dataset:
    """``held`` with Procedure Step Cancellation DateTime, which we know, where its performer gave none."""
    progress = items_of(held, PROGRESS)
    if not progress or progress[0].get(CANCELED_AT, {}).get("Value"):
        return held
    first = {**progress[0], CANCELED_AT: element(CANCELED_AT, moment)}
    return {**held, PROGRESS: element(PROGRESS, first, *progress[1:])}


def with_state(held: Dataset, state: State, moment: str) -> Dataset:
    return {**held, STATE: element(STATE, state.value), MODIFIED: element(MODIFIED, moment)}


def canceled_by_us(held: Dataset, reason: Dataset, moment: str) -> Dataset:
    """A workitem that nobody had claimed, canceled when it was asked for (CC.2.2.3): with all that this needs."""
    value, scheme, meaning = _UNSPECIFIED
    code = {"00080100": element("00080100", value), "00080102": element("00080102", scheme),
            "00080104": element("00080104", meaning)}  # fmt: skip
    item: Dataset = {CANCELED_AT: element(CANCELED_AT, moment)}
    item |= {key: reason[key] for key in (CANCEL_REASON, CONTACT_URI, CONTACT_NAME) if reason.get(key, {}).get("Value")}
    given = items_of(reason, DISCONTINUATION)
    item[DISCONTINUATION] = element(DISCONTINUATION, *(given or [code]))
    found = with_state(held, State.CANCELED, moment)
    return {**found, PROGRESS: element(PROGRESS, dict(sorted(item.items())))}

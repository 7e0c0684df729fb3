"""Workitems without a server: the table of states, what may be written, what an end needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.errors import (
    BadRequest,
    InvalidAttributeValue,
    MissingAttribute,
    MissingAttributeValue,
    NegatoscopeError,
    WorkitemEnded,
    WorkitemNotClaimed,
    WorkitemState,
)
from negatoscope.worklist import ups
from negatoscope.worklist.ups import State, element
from workitem_data import a_workitem, performed, progress

NOW = "20261123080000.000000+0000"
S, P, C, X = State.SCHEDULED, State.IN_PROGRESS, State.COMPLETED, State.CANCELED
# PS3.4 table CC.1.1-2, columns by state: with the right Transaction UID, True changes, False is so already.
TABLE: dict[State, dict[State, bool | type[NegatoscopeError]]] = {
    P: {S: True, P: WorkitemState, C: WorkitemState, X: WorkitemState},
    C: {S: WorkitemState, P: True, C: False, X: WorkitemState},
    X: {S: WorkitemState, P: True, C: WorkitemState, X: False},
}


def held_key(current: State) -> str:
    return "" if current is S else "1.2.3"


@pytest.mark.parametrize("wanted", TABLE)
@pytest.mark.parametrize("current", State)
def test_a_state_moves_as_the_table_of_the_standard_says(current: State, wanted: State) -> None:
    expected = TABLE[wanted][current]
    if isinstance(expected, bool):
        assert ups.may_move(current, held_key(current), wanted, "1.2.3") is expected
    else:
        with pytest.raises(expected):
            ups.may_move(current, held_key(current), wanted, "1.2.3")


@pytest.mark.parametrize("wanted", TABLE)
@pytest.mark.parametrize("current", State)
def test_no_state_moves_without_a_transaction_uid(current: State, wanted: State) -> None:
    with pytest.raises(WorkitemNotClaimed, match="missing"):
        ups.may_move(current, held_key(current), wanted, "")


@pytest.mark.parametrize("wanted", [C, X])
@pytest.mark.parametrize("current", [P, C, X])
def test_nobody_ends_what_somebody_else_has_claimed(current: State, wanted: State) -> None:
    with pytest.raises(WorkitemNotClaimed, match="incorrect"):
        ups.may_move(current, "1.2.3", wanted, "1.2.4")


@pytest.mark.parametrize(
    ("current", "given", "refusal"),
    [
        (S, "", None), (S, "1.2.3", WorkitemState), (P, "1.2.3", None), (P, "", WorkitemNotClaimed),
        (P, "1.2.4", WorkitemNotClaimed), (C, "1.2.3", WorkitemEnded), (X, "1.2.3", WorkitemEnded),
    ],
)  # fmt: skip
def test_an_update_is_judged_by_state_and_claim(
    current: State, given: str, refusal: type[NegatoscopeError] | None
) -> None:
    if refusal is None:
        ups.may_update(current, held_key(current), given)
    else:
        with pytest.raises(refusal):
            ups.may_update(current, held_key(current), given)


def new(**more: Any) -> tuple[dict[str, Any], bool]:
    return ups.new_workitem(ups.read_dataset([a_workitem(**more)]), "2.25.1", NOW)


def test_a_new_workitem_is_scheduled_and_has_every_attribute_of_type_two() -> None:
    made, modified = new()
    assert modified
    assert ups.text_of(made, ups.STATE) == "SCHEDULED"
    assert (ups.text_of(made, ups.SOP_CLASS), ups.text_of(made, ups.SOP_INSTANCE)) == (ups.PUSH, "2.25.1")
    assert made[ups.MODIFIED]["Value"] == [NOW]
    assert made["00404021"] == {"vr": "SQ"}
    assert list(made) == sorted(made)
    again = {key: value for key, value in made.items() if key not in (ups.STATE, ups.SOP_CLASS, ups.SOP_INSTANCE)}
    assert ups.new_workitem(again, "2.25.1", NOW) == (made, False)


@pytest.mark.parametrize("key", ["00741200", "00741204", "00404005", "00404041"])
def test_what_is_needed_is_asked_for_by_its_tag(key: str) -> None:
    with pytest.raises(MissingAttribute, match=f"{key[:4]},{key[4:]}"):
        new(**{f"_{key}": None})
    with pytest.raises(MissingAttributeValue):
        new(**{f"_{key}": []})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("00741200", "URGENT"), ("00404041", "SOON"), ("00404005", "tomorrow"), ("00404005", "20261340"),
        ("00404005", "2026-2027"), ("00741000", "COMPLETED"), ("00080016", "1.2.3"), ("0020000D", "1.2.x"),
        ("00741216", {"vr": "SQ", "Value": [{}, {"00404050": element("00404050", "2026")}]}),
    ],
)  # fmt: skip
def test_a_value_that_may_not_be_is_refused(key: str, value: Any) -> None:
    with pytest.raises(InvalidAttributeValue):
        new(**{f"_{key}": value})


@pytest.mark.parametrize(
    "given",
    [
        None, 5, [], [{}, {}], {"x": {"vr": "LO"}}, {"00741204": "text"}, {"00741204": {"vr": "ZZ"}},
        {"00741204": {"vr": "LO", "Value": "text"}}, {"00741204": {"vr": "LO", "Value": ["a\0b"]}},
        {"7FE00010": {"vr": "OW", "BulkDataURI": "x"}}, {"00404021": {"vr": "LO", "Value": ["x"]}},
    ],
)  # fmt: skip
def test_what_is_no_data_set_is_refused(given: Any) -> None:
    with pytest.raises(BadRequest):
        ups.read_dataset(given)


@pytest.mark.parametrize(("depth", "fits"), [(63, True), (64, True), (65, False)])
def test_sequences_are_nested_up_to_the_limit(depth: int, fits: bool) -> None:
    assert replace(DEFAULT_LIMITS).sequence_depth == 64
    inner: dict[str, Any] = {"00404021": element("00404021")}
    for _ in range(depth - 1):
        inner = {"00404021": {"vr": "SQ", "Value": [inner]}}
    if fits:
        assert ups.read_dataset(inner) == inner
    else:
        with pytest.raises(BadRequest):
            ups.read_dataset(inner)


def test_a_name_and_a_key_come_once() -> None:
    named = {"00080018": element("00080018", "2.25.1")}
    assert ups.named_uid(dict(named), "2.25.1") == "2.25.1"
    with pytest.raises(BadRequest, match="twice"):
        ups.named_uid(dict(named), "2.25.2")
    key = {"00081195": element("00081195", "2.25.1")}
    assert ups.taken_transaction(dict(key), "") == "2.25.1"
    with pytest.raises(BadRequest, match="two"):
        ups.taken_transaction(dict(key), "2.25.2")


@pytest.mark.parametrize("key", ["00741000", "00100010", "00100020", "0020000D"])
def test_an_update_does_not_change_whose_it_is_nor_its_state(key: str) -> None:
    held, _ = new()
    with pytest.raises(InvalidAttributeValue):
        ups.updated(held, {key: element(key, "OTHER")}, NOW)
    assert ups.updated(held, {key: held[key]}, NOW)[key] == held[key]


def test_an_update_empties_nothing_that_is_needed() -> None:
    held, _ = new()
    with pytest.raises(MissingAttributeValue):
        ups.updated(held, {"00741204": element("00741204")}, NOW)


@pytest.mark.parametrize("key", ["00404028", "00404019", "00404050", "00404051", "00404033"])
def test_a_completed_workitem_says_what_was_done(key: str) -> None:
    held, _ = new()
    assert ups.unfinished(held, C) == ["00741216"]
    assert ups.unfinished(held | performed(), C) == []
    assert ups.unfinished(held | performed(key), C) == [key]


def test_a_canceled_workitem_says_why_and_we_say_when() -> None:
    held, _ = new()
    assert ups.unfinished(held, X) == ["00741002"]
    assert ups.unfinished(ups.with_cancellation_time(held | progress(), NOW), X) == ["0074100E"]
    assert ups.unfinished(held | progress(canceled=True), X) == ["00404052"]
    assert ups.unfinished(ups.with_cancellation_time(held | progress(canceled=True), NOW), X) == []


def test_what_we_cancel_ourselves_meets_its_final_state() -> None:
    held, _ = new()
    ended = ups.canceled_by_us(held, {"00741238": element("00741238", "double")}, NOW)
    assert (ups.text_of(ended, ups.STATE), ups.unfinished(ended, X)) == ("CANCELED", [])
    [item] = ended[ups.PROGRESS]["Value"]
    assert ups.text_of(item, ups.CANCEL_REASON) == "double"

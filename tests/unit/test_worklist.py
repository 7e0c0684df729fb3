"""Orders and performed steps without a database: what is taken, what is refused, where states go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.errors import BadRequest, InvalidAttributeValue, MissingAttribute, MissingAttributeValue, StepEnded
from negatoscope.worklist import BY_HAND, OPEN, PerformedStatus, StepStatus, read_order
from negatoscope.worklist import fields as field_rules
from negatoscope.worklist.orders import MOST_PROCEDURES, MOST_STEPS
from negatoscope.worklist.performed import dose_of, read_create, read_set
from negatoscope.worklist.states import Performed, moved_by_performance, order_status
from worklist_data import DAY, order_of

S, P = StepStatus, PerformedStatus


def order(**changes: Any) -> dict[str, Any]:
    """An order with fields changed by path: ``patient__name``; procedures and steps are the first ones."""
    made = copy.deepcopy(order_of(DAY[0]))
    places = {"patient": made["patient"], "procedure": made["procedures"][0], "step": made["procedures"][0]["steps"][0]}
    for path, value in changes.items():
        where, _, name = path.partition("__")
        target, name = (places[where], name) if name else (made, where)
        target[name] = value
    return made


# Orders ------------------------------------------------------------------------------------------


def test_an_order_is_read_as_it_was_given() -> None:
    read = read_order(order())
    [procedure] = read.procedures
    [step] = procedure.steps
    assert (read.accession_number, read.patient.identifier, read.patient.birth_date) == ("A1", "P1", "19700101")
    assert (procedure.study_uid, procedure.requested_procedure_id) == ("2.25.9001", "RP1")
    assert (step.start_date, step.start_time, step.station_title) == ("20261123", "083000", "CT_1")
    assert read.more["00080090"] == {"vr": "PN", "Value": [{"Alphabetic": "REFERRING^DOCTOR"}]}


def test_what_is_not_given_is_left_to_be_made() -> None:
    bare = order(procedure__id="", procedure__study_uid=None, step__id=None, step__station_ae=None)
    del bare["accession_number"]
    read = read_order(bare)
    assert read.accession_number == read.procedures[0].study_uid == read.procedures[0].requested_procedure_id == ""
    assert read.procedures[0].steps[0].station_title == read.procedures[0].steps[0].scheduled_step_id == ""


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("accession_number", 16),
        ("patient__identifier", 64),
        ("patient__name", 64),
        ("procedure__id", 16),
        ("procedure__description", 64),
        ("step__modality", 16),
        ("step__station_ae", 16),
        ("step__id", 16),
        ("step__performing_physician", 64),
    ],
)
def test_text_is_as_long_as_its_representation_allows_and_no_longer(path: str, most: int) -> None:
    for length in (most - 1, most):
        read_order(order(**{path: "X" * length}))
    with pytest.raises(BadRequest, match=f"at most {most}"):
        read_order(order(**{path: "X" * (most + 1)}))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("accession_number", "A\\B", "backslash"),
        ("accession_number", "A\nB", "printed"),
        ("accession_number", 7, "is text"),
        ("patient__identifier", "", "is needed"),
        ("patient__identifier", "  ", "is needed"),
        ("patient__name", None, "is needed"),
        ("patient__name", "A=B=C=D", "groups"),
        ("patient__name", "A^B^C^D^E^F", "components"),
        ("patient__birth_date", "1970-02-30", "is a date"),
        ("patient__birth_date", "yesterday", "is a date"),
        ("patient__sex", "X", "one of F, M, O"),
        ("patient__pregnancy", "yes", "one of"),
        ("patient__weight_kg", "heavy", "is a number"),
        ("patient__shoe_size", "44", "no field"),
        ("procedure__study_uid", "1.02", "no UID"),
        ("procedure__priority", "SOON", "one of STAT"),
        ("procedure__steps", [], "1 to 16"),
        ("procedure__steps", "x", "1 to 16"),
        ("procedure__code", {"value": "1", "scheme": "L"}, "meaning is needed"),
        ("step__modality", "", "is needed"),
        ("step__modality", "ct", "capitals"),
        ("step__station_ae", "CT_é", "ASCII"),
        ("step__scheduled", "2026-11-23", "date and time"),
        ("step__scheduled", "2026-11-31T10:00", "date and time"),
        ("step__scheduled", "2026-11-23T24:00", "date and time"),
        ("step__scheduled", None, "date and time"),
        ("patient", "x", "patient is an object"),
    ],
)
def test_what_is_wrong_is_named_without_its_value(path: str, value: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as refused:
        read_order(order(**{path: value}))
    assert "DURAND" not in str(refused.value)
    if isinstance(value, str) and len(value) > 3:
        assert value not in str(refused.value)


@pytest.mark.parametrize(("name", "most"), [("procedures", MOST_PROCEDURES), ("steps", MOST_STEPS)])
def test_an_order_has_so_many_parts_and_no_more(name: str, most: int) -> None:
    def of(count: int) -> dict[str, Any]:
        made = order()
        holder = made if name == "procedures" else made["procedures"][0]
        holder[name] = holder[name] * count
        return made

    for count in (most - 1, most):
        read_order(of(count))
    with pytest.raises(BadRequest, match=f"1 to {most}"):
        read_order(of(most + 1))


@given(st.text(max_size=70), st.sampled_from(["SH", "LO", "PN", "CS", "AE", "LT"]))
def test_whatever_is_typed_is_taken_or_refused_and_never_fails(value: str, vr: str) -> None:
    try:
        found = field_rules.text(value, vr, "it")
    except BadRequest:
        return
    assert len(max(found.split("="), key=len)) <= field_rules.LENGTHS[vr]
    assert "\\" not in found or vr == "LT"


# States ------------------------------------------------------------------------------------------


def test_every_state_has_its_row_and_what_is_over_is_not_open() -> None:
    assert set(BY_HAND) == set(S)
    assert set(S) - set(OPEN) == {S.COMPLETED, S.DISCONTINUED, S.CANCELLED}
    assert BY_HAND[S.COMPLETED] == frozenset()


@pytest.mark.parametrize(
    ("current", "performed", "expected"),
    [
        (S.SCHEDULED, [], S.SCHEDULED),
        (S.ARRIVED, [Performed(P.IN_PROGRESS)], S.STARTED),
        (S.STARTED, [Performed(P.COMPLETED)], S.COMPLETED),
        (S.STARTED, [Performed(P.COMPLETED), Performed(P.IN_PROGRESS)], S.STARTED),
        (S.STARTED, [Performed(P.COMPLETED), Performed(P.DISCONTINUED)], S.COMPLETED),
        (S.STARTED, [Performed(P.DISCONTINUED)], S.DISCONTINUED),
        (S.COMPLETED, [Performed(P.COMPLETED), Performed(P.IN_PROGRESS)], S.STARTED),
        (S.CANCELLED, [Performed(P.IN_PROGRESS)], S.STARTED),
        (S.STARTED, [Performed(P.DISCONTINUED, wrong_entry=True)], S.SCHEDULED),
        (S.STARTED, [Performed(P.DISCONTINUED, wrong_entry=True), Performed(P.IN_PROGRESS)], S.STARTED),
        (S.ARRIVED, [Performed(P.DISCONTINUED, wrong_entry=True)], S.ARRIVED),
    ],
)
def test_a_step_follows_what_was_reported_of_it(
    current: StepStatus, performed: list[Performed], expected: StepStatus
) -> None:
    assert moved_by_performance(current, performed) is expected


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], S.SCHEDULED),
        ([S.SCHEDULED, S.ARRIVED], S.ARRIVED),
        ([S.CANCELLED, S.SCHEDULED], S.SCHEDULED),
        ([S.COMPLETED, S.SCHEDULED], S.STARTED),
        ([S.COMPLETED, S.CANCELLED], S.COMPLETED),
        ([S.DISCONTINUED, S.CANCELLED], S.DISCONTINUED),
        ([S.CANCELLED], S.CANCELLED),
    ],
)
def test_an_order_is_said_in_one_word(steps: list[StepStatus], expected: StepStatus) -> None:
    assert order_status(steps) is expected


# Performed steps ---------------------------------------------------------------------------------


def created(**changes: Any) -> dict[str, Any]:
    """A complete N-CREATE as DICOM JSON; ``None`` takes an attribute away, [] its value."""
    data: dict[str, Any] = {
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100020": {"vr": "LO", "Value": ["P1"]},
        "00400241": {"vr": "AE", "Value": ["CT_1"]},
        "00400244": {"vr": "DA", "Value": ["20261123"]},
        "00400245": {"vr": "TM", "Value": ["0831"]},
        "00400252": {"vr": "CS", "Value": ["IN PROGRESS"]},
        "00400253": {"vr": "SH", "Value": ["PPS1"]},
        "00400270": {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": ["2.25.9001"]}}]},
    }
    for key, value in changes.items():
        name = key.removeprefix("k")
        if value is None:
            del data[name]
        else:
            data[name] = {**data[name], "Value": value}
    return data


NEEDED = ("00080060", "00400241", "00400244", "00400245", "00400252", "00400253", "00400270")


@pytest.mark.parametrize("key", NEEDED)
def test_what_a_step_needs_to_begin_is_asked_for(key: str) -> None:
    with pytest.raises(MissingAttribute) as absent:
        read_create(created(**{f"k{key}": None}))
    with pytest.raises(MissingAttributeValue) as empty:
        read_create(created(**{f"k{key}": []}))
    assert absent.value.tags == empty.value.tags == (int(key, 16),)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("00400252", ["COMPLETED"]),
        ("00400252", ["in progress"]),
        ("00400244", ["23/11/2026"]),
        ("00400245", ["late"]),
        ("00400270", [{"0020000D": {"vr": "UI", "Value": ["1.02"]}}]),
    ],
)
def test_a_value_that_it_may_not_have_is_refused(key: str, value: list[Any]) -> None:
    with pytest.raises(InvalidAttributeValue):
        read_create(created(**{f"k{key}": value}))


def test_a_step_without_a_study_is_refused() -> None:
    with pytest.raises(MissingAttribute) as refused:
        read_create(created(k00400270=[{}]))
    assert refused.value.tags == (0x0020000D,)


def test_a_step_without_an_order_is_taken() -> None:
    assert read_create(created()).scheduled[0].scheduled_step_id == ""


def test_an_end_is_taken_and_nothing_after_it() -> None:
    changed = read_set(P.IN_PROGRESS, created(), {"00400252": {"vr": "CS", "Value": ["COMPLETED"]}})
    assert changed.status is P.COMPLETED
    assert changed.attributes["00400252"]["Value"] == ["COMPLETED"]
    for ended in (P.COMPLETED, P.DISCONTINUED):
        for wanted in P:
            with pytest.raises(StepEnded):
                read_set(ended, created(), {"00400252": {"vr": "CS", "Value": [wanted.value]}})


def test_a_state_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(InvalidAttributeValue):
        read_set(P.IN_PROGRESS, created(), {"00400252": {"vr": "CS", "Value": ["PAUSED"]}})


def test_the_patient_of_a_step_is_never_changed() -> None:
    changes = {"00100020": {"vr": "LO", "Value": ["P2"]}, "00400254": {"vr": "LO", "Value": ["Chest"]}}
    changed = read_set(P.IN_PROGRESS, created(), changes)
    assert changed.attributes["00100020"]["Value"] == ["P1"]
    assert changed.attributes["00400254"]["Value"] == ["Chest"]
    assert changed.ignored == (0x00100020,)
    same = {"00100020": {"vr": "LO", "Value": ["P1"]}}
    assert read_set(P.IN_PROGRESS, created(), same).ignored == ()


@pytest.mark.parametrize(("code", "wrong"), [("110514", True), ("110513", False)])
def test_a_step_of_the_wrong_entry_is_known_by_its_reason(code: str, wrong: bool) -> None:
    item = {"00080100": {"vr": "SH", "Value": [code]}, "00080102": {"vr": "SH", "Value": ["DCM"]}}
    changes: dict[str, Any] = {
        "00400252": {"vr": "CS", "Value": ["DISCONTINUED"]},
        "00400281": {"vr": "SQ", "Value": [item]},
    }
    assert read_set(P.IN_PROGRESS, created(), changes).wrong_entry is wrong


def test_the_dose_that_was_reported_is_read() -> None:
    data: dict[str, Any] = {
        "0018115E": {"vr": "DS", "Value": [12.5]},
        "00400300": {"vr": "US", "Value": [90]},
        "0040030E": {"vr": "SQ", "Value": [{"00189345": {"vr": "FD", "Value": [7.0]}}, {}, None]},
    }
    assert dose_of(data) == {"dose_area_product_dgy_cm2": 12.5, "fluoroscopy_time_s": 90.0, "ctdi_vol_mgy_highest": 7.0}
    assert dose_of({"0018115E": {"vr": "DS", "Value": ["much"]}}) == {}

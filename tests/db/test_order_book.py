"""Orders and performed steps on a real database: states, isolation, images, audit."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import orjson
import psycopg
import pytest
from harness import ArchiveBench, World, synthetic

from negatoscope.dicom.matching import parse_identifier
from negatoscope.errors import Conflict, NotFound, PreconditionFailed, StepEnded
from negatoscope.model.actor import Purpose, Right, Scope
from negatoscope.worklist import (
    Asking,
    OrderRow,
    Orders,
    PerformedStatus,
    PerformedSteps,
    StepStatus,
    Wanted,
    find_entries,
    read_order,
)
from worklist_data import DAY, Line, enter, order_of

TABLES = (
    "imaging_service_request",
    "requested_procedure",
    "scheduled_procedure_step",
    "performed_procedure_step",
    "performed_of_scheduled",
)
EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass(frozen=True)
class Desk:
    archive: ArchiveBench
    orders: Orders
    steps: PerformedSteps
    scopes: dict[str, Scope]

    def by(self, code: str = "A") -> Asking:
        return Asking(self.scopes[code], "api", "192.0.2.9")

    def enter(self, *lines: Line, code: str = "A") -> list[int]:
        return enter(self.orders, self.scopes[code], *lines)

    def status(self, request_id: int, code: str = "A") -> StepStatus:
        return self.orders.get(request_id, self.by(code)).status

    def begin(self, uid: str, *lines: Line, code: str = "A", **item: str) -> None:
        self.steps.create(uid, performed(*lines, **item), self.by(code))

    def end(self, uid: str, status: str = "COMPLETED", code: str = "A", more: dict[str, Any] | None = None) -> None:
        self.steps.set(uid, {"00400252": {"vr": "CS", "Value": [status]}, **(more or {})}, self.by(code))

    def seen(self, code: str = "A", *, own: str = "", **keys: str) -> list[str]:
        """Accession numbers on the worklist; keys by JSON key, those of the step with ``s`` before them."""
        identifier: dict[str, Any] = {}
        item: dict[str, Any] = {}
        for name, value in keys.items():
            into, key = (item, name[1:]) if name.startswith("s") else (identifier, name[1:])
            vr = {"00400002": "DA", "00400003": "TM", "00100010": "PN"}.get(key, "CS")
            into[key] = {"vr": vr, "Value": [{"Alphabetic": value} if vr == "PN" else value]}
        if item:
            identifier["00400100"] = {"vr": "SQ", "Value": [item]}
        found = find_entries(
            self.archive.world.database, self.scopes[code], parse_identifier(identifier),
            station="CT_1", own=own, limit=100,
        )  # fmt: skip
        return [entry["00080050"]["Value"][0] for entry in found.entries]

    def events(self, kind: str) -> list[dict[str, Any]]:
        with self.archive.world.database.unit(None) as unit:
            rows = unit.execute("SELECT event FROM audit_event ORDER BY sequence").fetchall()
        return [event for row in rows if (event := orjson.loads(row["event"]))["kind"] == kind]


def performed(*lines: Line, **item: str) -> dict[str, Any]:
    """An N-CREATE for these steps; ``item`` changes what is said of each of them."""
    items = []
    for line in lines:
        named = {"0020000D": line.study, "00080050": line.accession, "00400009": line.step}
        named |= {name.removeprefix("k"): value for name, value in item.items()}
        items.append({key: {"vr": "LO", "Value": [value] if value else []} for key, value in named.items()})
    return {
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100020": {"vr": "LO", "Value": ["P1"]},
        "00400241": {"vr": "AE", "Value": ["CT_1"]},
        "00400244": {"vr": "DA", "Value": ["20261123"]},
        "00400245": {"vr": "TM", "Value": ["083100"]},
        "00400252": {"vr": "CS", "Value": ["IN PROGRESS"]},
        "00400253": {"vr": "SH", "Value": ["PPS1"]},
        "00400270": {"vr": "SQ", "Value": items},
    }


@pytest.fixture
def desk(world: World, archive: ArchiveBench) -> Desk:
    with world.database.unit(None) as unit:
        unit.execute("UPDATE actor SET rights = rights || '{worklist}' WHERE kind = 'user'")
    rights = world.radiologist["A"].rights | {Right.WORKLIST}
    scopes = {code: Scope(replace(actor, rights=rights)) for code, actor in world.radiologist.items()}
    return Desk(archive, Orders(world.database, archive.trail), PerformedSteps(world.database, archive.trail), scopes)


# Orders ------------------------------------------------------------------------------------------


def test_an_order_comes_back_as_it_was_entered(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0])
    order = desk.orders.get(request_id, desk.by())
    assert (order.accession_number, order.patient.name, order.status) == ("A1", "DURAND^EMILIE", StepStatus.SCHEDULED)
    assert order.procedures[0].study_uid == "2.25.9001"
    assert order.steps[0].station_title == "CT_1"


def test_what_was_left_out_is_made_and_differs_each_time(desk: Desk) -> None:
    bare = order_of(DAY[0])
    del bare["accession_number"]
    del bare["procedures"][0]["id"], bare["procedures"][0]["study_uid"], bare["procedures"][0]["steps"][0]["id"]
    made = [desk.orders.get(desk.orders.add(read_order(bare), desk.by()), desk.by()) for _ in range(2)]
    for one, other in zip(*map(numbers_of, made), strict=True):
        assert one != other
        assert 0 < len(one) <= 64


def numbers_of(order: OrderRow) -> list[str]:
    procedure = order.procedures[0]
    step_id = order.steps[0].scheduled_step_id
    return [order.accession_number, procedure.study_uid, procedure.requested_procedure_id, step_id]


@pytest.mark.parametrize("field", ["accession", "procedure", "step", "study"])
def test_no_two_orders_of_an_establishment_share_a_number(desk: Desk, field: str) -> None:
    desk.enter(DAY[0])
    other = replace(DAY[1], **{field: getattr(DAY[0], field)})
    with pytest.raises(Conflict):
        desk.enter(other)
    desk.enter(other, code="B")


def test_a_refused_order_leaves_nothing(desk: Desk) -> None:
    desk.enter(DAY[0])
    with pytest.raises(Conflict):
        desk.enter(replace(DAY[1], step=DAY[0].step))
    assert desk.seen() == ["A1"]
    assert len(desk.events("110109")) == 1


def test_orders_are_listed_by_day_and_state_and_page_by_page(desk: Desk) -> None:
    ids = desk.enter(*DAY)
    desk.orders.cancel(ids[1], desk.by(), "double")
    listed = desk.orders.listed(Wanted(first="2026-11-23", last="20261124"), desk.by())
    assert [order.accession_number for order in listed.orders] == ["A1", "A2", "A3", "A4"]
    still = desk.orders.listed(Wanted(first="20261123", last="20261124", only_open=True), desk.by())
    assert [order.accession_number for order in still.orders] == ["A1", "A3", "A4"]
    assert [o.accession_number for o in desk.orders.listed(Wanted(modality="MR"), desk.by()).orders] == [
        "A3",
        "A4",
        "B6",
    ]
    found, after = [], ""
    while True:
        page = desk.orders.listed(Wanted(after=after, limit=2), desk.by())
        found += [order.accession_number for order in page.orders]
        after = page.next
        if not after:
            break
    assert found == [line.accession for line in DAY]


def test_a_state_moves_by_hand_where_its_row_says_so(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0])
    for wanted in (StepStatus.ARRIVED, StepStatus.READY, StepStatus.STARTED, StepStatus.COMPLETED):
        desk.orders.move(request_id, wanted, desk.by())
        assert desk.status(request_id) is wanted
    for wanted in StepStatus:
        with pytest.raises(PreconditionFailed):
            desk.orders.move(request_id, wanted, desk.by())


def test_cancelling_leaves_alone_what_has_begun(desk: Desk) -> None:
    made = order_of(DAY[0])
    second = copy.deepcopy(made["procedures"][0]["steps"][0]) | {"id": "S1b"}
    made["procedures"][0]["steps"].append(second)
    request_id = desk.orders.add(read_order(made), desk.by())
    desk.begin("2.25.1", DAY[0])
    desk.orders.cancel(request_id, desk.by(), "patient left")
    steps = {step.scheduled_step_id: step for step in desk.orders.get(request_id, desk.by()).steps}
    assert (steps["S1"].status, steps["S1b"].status) == (StepStatus.STARTED, StepStatus.CANCELLED)
    assert steps["S1b"].status_reason == "patient left"


def test_each_change_leaves_its_event_with_what_it_was_and_is(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0])
    desk.orders.move(request_id, StepStatus.ARRIVED, desk.by())
    entered, moved = desk.events("110109")
    assert (entered["action"], moved["action"]) == ("C", "U")
    assert (moved["detail"]["was"], moved["detail"]["is"]) == ("SCHEDULED", "ARRIVED")
    assert moved["study_uid"] == "2.25.9001"
    assert moved["patient"] == "2.25.1001|P1"
    assert "DURAND" not in str([entered, moved])


def test_reading_orders_leaves_an_event_of_a_query(desk: Desk) -> None:
    desk.enter(*DAY)
    desk.orders.listed(Wanted(first="20261123"), desk.by())
    event = desk.events("110112")[-1]
    assert (event["detail"]["level"], event["detail"]["keys"], event["detail"]["answers"]) == ("ORDER", "first", 6)


# Images ------------------------------------------------------------------------------------------


def test_images_belong_to_an_order_by_their_study_or_their_accession_number(desk: Desk) -> None:
    by_study, by_accession = desk.enter(
        DAY[1], replace(DAY[0], accession="ACC1", step="x", procedure="x", study="2.25.8")
    )
    desk.archive.keep(synthetic(study=DAY[1].study, series="2.25.1.1", sop="2.25.1.1.1", patient="P2"), EXPLICIT)
    desk.archive.keep(synthetic(study="2.25.77", series="2.25.77.1", sop="2.25.77.1.1"), EXPLICIT)
    first, second = (desk.orders.get(one, desk.by()) for one in (by_study, by_accession))
    assert [study.study_uid for study in first.images] == [DAY[1].study]
    assert sorted(study.study_uid for study in second.images) == ["2.25.77", DAY[1].study]  # both say ACC1


def test_images_of_another_establishment_belong_to_no_order(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0])
    desk.archive.keep(synthetic(study=DAY[0].study), EXPLICIT, "B")
    assert desk.orders.get(request_id, desk.by()).images == ()


# Performed steps ---------------------------------------------------------------------------------


def test_an_order_goes_where_its_performed_steps_go(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0])
    desk.begin("2.25.1", DAY[0])
    assert desk.status(request_id) is StepStatus.STARTED
    desk.begin("2.25.2", DAY[0])
    desk.end("2.25.1")
    assert desk.status(request_id) is StepStatus.STARTED
    desk.end("2.25.2", "DISCONTINUED")
    assert desk.status(request_id) is StepStatus.COMPLETED
    order = desk.orders.get(request_id, desk.by())
    assert [step.sop_instance_uid for step in order.performed] == ["2.25.1", "2.25.2"]
    assert desk.seen() == []


def test_the_wrong_entry_goes_back_to_the_worklist(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0])
    desk.begin("2.25.1", DAY[0])
    item = {"00080100": {"vr": "SH", "Value": ["110514"]}, "00080102": {"vr": "SH", "Value": ["DCM"]}}
    desk.end("2.25.1", "DISCONTINUED", more={"00400281": {"vr": "SQ", "Value": [item]}})
    assert desk.status(request_id) is StepStatus.SCHEDULED
    assert desk.seen() == ["A1"]


def test_one_performed_step_may_be_of_several_orders(desk: Desk) -> None:
    ids = desk.enter(DAY[0], DAY[1])
    desk.begin("2.25.1", DAY[0], DAY[1])
    desk.end("2.25.1")
    assert [desk.status(one) for one in ids] == [StepStatus.COMPLETED] * 2


def test_what_was_not_scheduled_is_kept_and_listed(desk: Desk) -> None:
    desk.enter(DAY[0])
    desk.begin("2.25.1", DAY[0])
    desk.begin("2.25.2", DAY[1], k00400009="", k00080050="")
    desk.begin("2.25.3", DAY[1])  # names a step that there is none of
    everything = desk.steps.listed(desk.by()).steps
    assert [step.sop_instance_uid for step in everything] == ["2.25.1", "2.25.2", "2.25.3"]
    unscheduled = desk.steps.listed(desk.by(), unscheduled=True).steps
    assert [step.sop_instance_uid for step in unscheduled] == ["2.25.2", "2.25.3"]
    page = desk.steps.listed(desk.by(), limit=2)
    assert [step.sop_instance_uid for step in desk.steps.listed(desk.by(), after=page.next).steps] == ["2.25.3"]


def test_a_step_is_found_by_its_accession_number_when_the_study_is_the_modality_s_own(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0])
    desk.begin("2.25.1", DAY[0], k0020000D="1.2.3.4")
    assert desk.status(request_id) is StepStatus.STARTED


def test_a_step_without_its_id_is_the_only_one_of_its_study(desk: Desk) -> None:
    several = order_of(DAY[1])
    steps = several["procedures"][0]["steps"]
    steps.append(copy.deepcopy(steps[0]) | {"id": "S2b"})
    [alone] = desk.enter(DAY[0])
    of_two = desk.orders.add(read_order(several), desk.by())
    desk.begin("2.25.1", DAY[0], k00400009="")
    desk.begin("2.25.2", DAY[1], k00400009="")
    assert desk.status(alone) is StepStatus.STARTED
    assert desk.status(of_two) is StepStatus.SCHEDULED


def test_a_performed_step_is_created_once_and_never_touched_after_its_end(desk: Desk) -> None:
    desk.begin("2.25.1", DAY[0])
    with pytest.raises(Conflict):
        desk.begin("2.25.1", DAY[1])
    desk.end("2.25.1")
    for status in PerformedStatus:
        with pytest.raises(StepEnded):
            desk.end("2.25.1", status.value)
    assert desk.steps.get("2.25.1", desk.by())["00400252"]["Value"] == ["COMPLETED"]


def test_a_performed_step_of_another_establishment_is_not_there(desk: Desk) -> None:
    [own] = desk.enter(DAY[0])
    desk.begin("2.25.1", DAY[0], code="B")
    assert desk.status(own) is StepStatus.SCHEDULED
    for use in (
        lambda: desk.end("2.25.1"),
        lambda: desk.steps.get("2.25.1", desk.by()),
    ):
        with pytest.raises(NotFound):
            use()
    desk.begin("2.25.1", DAY[0])  # the same UID tells nothing
    assert desk.status(own) is StepStatus.STARTED


def test_what_a_modality_reports_leaves_its_events(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0])
    desk.begin("2.25.1", DAY[0])
    desk.end("2.25.1")
    created, ended = desk.events("110111")
    assert (created["action"], ended["action"]) == ("C", "U")
    assert (created["detail"]["status"], ended["detail"]["status"]) == ("IN PROGRESS", "COMPLETED")
    assert created["detail"]["orders"] == str(request_id)


# Worklist ----------------------------------------------------------------------------------------


def test_a_step_of_any_station_is_on_every_worklist_of_its_establishment(desk: Desk) -> None:
    desk.enter(DAY[0], replace(DAY[1], station=""), DAY[2])
    assert desk.seen(s00400001="CT_1") == ["A1", "A2"]
    assert desk.seen(s00400001="CT_9") == ["A2"]
    assert desk.seen(s00400001="MR_*") == ["A2", "A3"]
    assert desk.seen("B") == []


def test_where_settings_say_so_a_modality_sees_its_own_steps_whatever_it_asks(desk: Desk) -> None:
    desk.enter(DAY[0], replace(DAY[1], station=""), DAY[2])
    assert desk.seen(own="CT_1") == ["A1", "A2"]
    assert desk.seen(own="CT_1", s00400001="MR_1") == ["A2"]


def test_what_is_over_is_found_by_asking_for_it(desk: Desk) -> None:
    ids = desk.enter(*DAY[:3])
    desk.orders.cancel(ids[0], desk.by())
    desk.orders.move(ids[1], StepStatus.ARRIVED, desk.by())
    assert desk.seen() == ["A2", "A3"]
    assert desk.seen(s00400020="CANCELLED") == ["A1"]
    assert desk.seen(s00400020="ARRIVED") == ["A2"]
    assert desk.seen(s00400020="C*") == ["A1"]


@pytest.mark.parametrize("value", ["100%", "_1", "\\_"])
def test_what_means_something_to_sql_means_itself_here(desk: Desk, value: str) -> None:
    desk.enter(DAY[0])
    assert desk.seen(k00100020=value) == []
    assert desk.seen(k00100010=f"D{value}*") == []


def test_a_limit_ends_the_answers_and_says_so(desk: Desk) -> None:
    desk.enter(*DAY)
    for limit, more in ((5, True), (6, False), (7, False)):
        found = find_entries(desk.archive.world.database, desk.scopes["A"], {}, station="X", limit=limit)
        assert (found.count, found.more) == (min(limit, 6), more)


# The wall ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_a_connection_of_one_establishment_sees_nothing_of_another(desk: Desk, table: str) -> None:
    for code in ("A", "B"):
        desk.enter(DAY[0], code=code)
        desk.begin("2.25.1", DAY[0], code=code)
    database = desk.archive.world.database
    for code in ("A", "B"):
        establishment_id = desk.scopes[code].actor.establishment_id
        with database.unit([establishment_id]) as unit:
            rows = unit.execute(f"SELECT establishment_id FROM {table}".encode()).fetchall()
        assert {row["establishment_id"] for row in rows} == {establishment_id}


@pytest.mark.parametrize("table", TABLES)
def test_a_connection_of_one_establishment_changes_nothing_of_another(desk: Desk, table: str) -> None:
    desk.enter(DAY[0], code="B")
    desk.begin("2.25.1", DAY[0], code="B")
    own, foreign = (desk.scopes[code].actor.establishment_id for code in ("A", "B"))
    database = desk.archive.world.database
    with database.unit([own]) as unit:
        assert unit.execute(f"UPDATE {table} SET establishment_id = %s".encode(), (own,)).rowcount == 0
    with database.unit(None) as unit:
        rows = unit.execute(f"SELECT establishment_id FROM {table}".encode()).fetchall()
    assert {row["establishment_id"] for row in rows} == {foreign}


@pytest.mark.parametrize("table", TABLES)
def test_no_server_deletes_what_was_ordered_or_done(desk: Desk, table: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), desk.archive.world.database.unit(None) as unit:
        unit.execute(f"DELETE FROM {table}".encode())


@pytest.mark.parametrize(
    "change",
    ["UPDATE actor SET rights = '{store,query}'", "UPDATE actor SET disabled_at = now()"],
)
def test_who_has_lost_the_right_sees_no_order_whatever_the_code_claims(desk: Desk, change: str) -> None:
    [request_id] = desk.enter(DAY[0])
    with desk.archive.world.database.unit(None) as unit:
        unit.execute(change.encode())
    assert desk.seen() == []
    with pytest.raises(NotFound):
        desk.orders.get(request_id, desk.by())


def test_another_purpose_opens_no_order(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0])
    by = Asking(Scope(desk.scopes["A"].actor, Purpose.RESEARCH), "api")
    with pytest.raises(NotFound):
        desk.orders.get(request_id, by)


def test_what_is_not_yours_and_what_is_not_there_are_one_answer(desk: Desk) -> None:
    [request_id] = desk.enter(DAY[0], code="B")
    said = []
    for number in (request_id, 999_999):
        with pytest.raises(NotFound) as refused:
            desk.orders.get(number, desk.by())
        with pytest.raises(NotFound):
            desk.orders.cancel(number, desk.by())
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert desk.status(request_id, "B") is StepStatus.SCHEDULED

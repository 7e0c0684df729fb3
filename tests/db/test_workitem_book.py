"""Workitems on a real database: one performer, the wall between establishments, pages of a long list."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import psycopg
import pytest
from harness import ArchiveBench, World

from negatoscope.dicom.matching import parse_identifier
from negatoscope.errors import Conflict, NotFound, WorkitemState
from negatoscope.model.actor import Right, Scope
from negatoscope.worklist import Asking
from negatoscope.worklist.ups_book import _ROWS, Search, Workitems
from workitem_data import a_workitem, state


@dataclass(frozen=True)
class Desk:
    world: World
    workitems: Workitems
    askers: dict[str, Asking]


@pytest.fixture
def desk(world: World, archive: ArchiveBench) -> Desk:
    with world.database.unit(None) as unit:
        unit.execute("UPDATE actor SET rights = rights || '{worklist}' WHERE kind = 'user'")
    rights = world.radiologist["A"].rights | {Right.WORKLIST}
    askers = {code: Asking(Scope(replace(one, rights=rights)), "api") for code, one in world.radiologist.items()}
    return Desk(world, Workitems(world.database, archive.trail), askers)


def test_of_many_who_claim_a_workitem_at_once_one_gets_it(desk: Desk) -> None:
    by = desk.askers["A"]
    uid = desk.workitems.create(a_workitem(), by).uid

    def claim(number: int) -> bool:
        try:
            return desk.workitems.move(uid, state("IN PROGRESS", f"2.25.{number}"), by)
        except WorkitemState:
            return False

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(claim, range(1, 17)))
    assert won.count(True) == 1


def test_of_many_who_make_a_workitem_of_one_uid_one_does(desk: Desk) -> None:
    def make(_: int) -> bool:
        try:
            return desk.workitems.create(a_workitem(), desk.askers["A"], "2.25.1").uid == "2.25.1"
        except Conflict:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(make, range(16))).count(True) == 1


def test_the_wall_holds_without_any_policy_code(desk: Desk) -> None:
    a, b = (desk.world.radiologist[code].establishment_id for code in "AB")
    desk.workitems.create(a_workitem(), desk.askers["A"], "2.25.1")
    with desk.world.database.unit([b]) as unit:
        assert unit.execute("SELECT * FROM workitem").fetchall() == []
        unit.execute("UPDATE workitem SET state = 'CANCELED'")
    with desk.world.database.unit([a]) as unit:
        assert [row["state"] for row in unit.execute("SELECT state FROM workitem").fetchall()] == ["SCHEDULED"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege), desk.world.database.unit([b]) as unit:
        unit.execute(
            "INSERT INTO workitem (establishment_id, sop_instance_uid, start_at, attributes, created_by)"
            " SELECT %s, '2.25.2', '', '{}', min(actor_id) FROM actor",
            (a,),
        )


def test_the_right_is_asked_of_the_database_at_each_request(desk: Desk) -> None:
    by = desk.askers["A"]
    uid = desk.workitems.create(a_workitem(), by).uid
    with desk.world.database.unit(None) as unit:
        unit.execute("UPDATE actor SET rights = array_remove(rights, 'worklist')")
    with pytest.raises(NotFound):
        desk.workitems.get(uid, by)
    assert desk.workitems.find(Search({}), by).rows == []


@pytest.mark.parametrize("count", [_ROWS - 1, _ROWS, _ROWS + 1])
def test_a_list_of_any_length_is_searched_to_its_end(desk: Desk, count: int) -> None:
    by = desk.askers["A"]
    first = desk.workitems.create(a_workitem(), by).uid
    with desk.world.database.unit(None) as unit:  # copies, all starting at the same moment
        unit.execute(
            "INSERT INTO workitem (establishment_id, sop_instance_uid, start_at, attributes, created_by)"
            " SELECT establishment_id, '2.25.9' || n, start_at, attributes, created_by"
            " FROM workitem, generate_series(1, %s) AS n",
            (count - 1,),
        )
    found = desk.workitems.find(Search({}, limit=count), by)
    assert (len(found.rows), found.more) == (count, False)
    fewer = desk.workitems.find(Search({}, limit=count - 1), by)
    assert (len(fewer.rows), fewer.more) == (count - 1, True)
    keys = parse_identifier({"00080018": {"vr": "UI", "Value": [first]}})
    assert len(desk.workitems.find(Search(keys), by).rows) == 1

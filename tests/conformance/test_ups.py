"""UPS-RS over HTTP: PS3.18 11.4 to 11.9, states of PS3.4 CC.1.1; whose workitems are, what is recorded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.model.actor import Role
from negatoscope.sharing import COMMAND_LINE, Accounts
from negatoscope.web.app import build_app
from negatoscope.web.ups import ups_routes
from negatoscope.worklist.ups import element
from web_harness import WebBench, web_bench
from workitem_data import a_workitem, performed, progress, state

JSON_TYPE = "application/dicom+json"
ADDRESS = "/dicom-web/workitems"
KEY = "2.25.777"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def bench(postgresql: EmbeddedPostgreSQL) -> Iterator[WebBench]:
    with web_bench(postgresql) as made:
        app = build_app(made.services, ups_routes(made.services))
        with TestClient(app) as client:
            yield replace(made, app=app, client=client)


def send(bench: WebBench, method: str, path: str, body: Any = None, code: str = "A", **headers: str) -> Any:
    sent = bench.bearer(code) | {name.replace("_", "-"): value for name, value in headers.items()}
    content = None if body is None else json.dumps(body)
    if content is not None:
        sent.setdefault("Content-Type", JSON_TYPE)
    return bench.client.request(method, ADDRESS + path, content=content, headers=sent)


def enter(bench: WebBench, code: str = "A", **more: Any) -> str:
    uid = f"2.25.5000{next(_numbers)}"
    answer = send(bench, "POST", f"?{uid}", [a_workitem(**more)], code)
    assert answer.status_code == 201, answer.text
    return uid


def read(bench: WebBench, uid: str, code: str = "A") -> Any:
    answer = send(bench, "GET", f"/{uid}", code=code)
    assert answer.status_code == 200, answer.text
    [found] = answer.json()
    return found


def value(dataset: dict[str, Any], key: str) -> Any:
    return dataset[key]["Value"][0]


def move(bench: WebBench, uid: str, wanted: str, key: str = KEY) -> Any:
    return send(bench, "PUT", f"/{uid}/state", [state(wanted, key)])


# Made and read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["?{}", "?workitem={}", "?AffectedSOPInstanceUID={}", ""])
def test_a_workitem_is_made_under_the_uid_that_it_is_given(bench: WebBench, form: str) -> None:
    uid = f"2.25.6000{next(_numbers)}"
    more = {} if form else {"_00080018": uid}
    answer = send(bench, "POST", form.format(uid), [a_workitem(**more)])
    assert (answer.status_code, answer.content) == (201, b"")
    assert answer.headers["location"].endswith(f"{ADDRESS}/{uid}")
    assert answer.headers["warning"] == '299 negatoscope "The Workitem was created with modifications."'
    found = read(bench, uid)
    assert value(found, "00080018") == uid
    assert value(found, "00741000") == "SCHEDULED"
    assert value(found, "00741204") == "Segment the liver"


def test_a_workitem_without_a_uid_gets_one_of_ours(bench: WebBench) -> None:
    answer = send(bench, "POST", "", a_workitem())  # some send the object without an array around it
    uid = answer.headers["location"].rpartition("/")[2]
    assert (answer.status_code, uid[:5]) == (201, "2.25.")
    assert value(read(bench, uid), "00080018") == uid


def test_a_uid_is_taken_once_in_an_establishment_and_free_in_another(bench: WebBench) -> None:
    uid = enter(bench)
    again = send(bench, "POST", f"?{uid}", [a_workitem()])
    assert (again.status_code, again.headers["content-type"]) == (409, "application/problem+json")
    assert send(bench, "POST", f"?{uid}", [a_workitem()], "B").status_code == 201


def test_a_workitem_comes_as_json_or_xml_and_goes_in_as_either(bench: WebBench) -> None:
    uid = enter(bench)
    for accept, kind in ((JSON_TYPE, JSON_TYPE), ("application/json", "application/json"), (None, JSON_TYPE)):
        answer = send(bench, "GET", f"/{uid}", **({"Accept": accept} if accept else {}))
        assert answer.headers["content-type"] == kind
    xml = send(bench, "GET", f"/{uid}", Accept="application/dicom+xml")
    assert xml.headers["content-type"] == "application/dicom+xml"
    parts = send(bench, "GET", f"/{uid}", Accept='multipart/related; type="application/dicom+xml"')
    assert xml.content in parts.content
    assert send(bench, "GET", f"/{uid}", Accept="text/html").status_code == 406
    second = f"{uid}9"
    text = xml.content.replace(f">{uid}<".encode(), f">{second}<".encode())
    sent = bench.bearer() | {"Content-Type": "application/dicom+xml"}
    answer = bench.client.post(ADDRESS, content=text, headers=sent)
    assert answer.status_code == 201, answer.text
    made, first = read(bench, second), read(bench, uid)
    for found in (made, first):
        del found["00080018"], found["00404010"]
    assert made == first


@pytest.mark.parametrize(
    ("query", "body", "status"),
    [
        ("?x", [a_workitem()], 400), ("?2.25.1&2.25.2", [a_workitem()], 400), ("", [], 400), ("", "text", 400),
        ("", [a_workitem(_00741204=None)], 400), ("", [a_workitem(_00081195="2.25.1")], 400),
        ("?2.25.1", [a_workitem(_00080018="2.25.2")], 400),
    ],
)  # fmt: skip
def test_what_cannot_be_a_workitem_is_refused(bench: WebBench, query: str, body: Any, status: int) -> None:
    answer = send(bench, "POST", query, body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_another_media_type_is_refused(bench: WebBench) -> None:
    answer = bench.client.post(ADDRESS, content=b"{}", headers=bench.bearer() | {"Content-Type": "text/plain"})
    assert answer.status_code == 415


# Changed -------------------------------------------------------------------------------------------


def test_the_life_of_a_workitem(bench: WebBench) -> None:
    uid = enter(bench)
    assert send(bench, "POST", f"/{uid}", [{"00741204": element("00741204", "Liver")}]).status_code == 200
    assert move(bench, uid, "IN PROGRESS").status_code == 200
    assert value(read(bench, uid), "00741000") == "IN PROGRESS"
    assert send(bench, "POST", f"/{uid}?{KEY}", [progress("50")]).status_code == 200
    assert send(bench, "POST", f"/{uid}", [progress("60") | {"00081195": element("00081195", KEY)}]).status_code == 200
    early = move(bench, uid, "COMPLETED")
    assert (early.status_code, "00741216" in early.json()["detail"]) == (409, True)
    assert send(bench, "POST", f"/{uid}?transaction={KEY}", [performed()]).status_code == 200
    done = move(bench, uid, "COMPLETED")
    assert (done.status_code, done.content) == (200, b"")
    again = move(bench, uid, "COMPLETED")
    assert again.status_code == 200
    assert again.headers["warning"] == '299 negatoscope "The UPS is already in the requested state of COMPLETED."'
    found = read(bench, uid)
    assert (value(found, "00741000"), value(found, "00741204")) == ("COMPLETED", "Liver")
    late = send(bench, "POST", f"/{uid}?{KEY}", [progress()])
    assert (late.status_code, "current state of the Workitem" in late.headers["warning"]) == (400, True)


def test_the_key_of_the_performer_is_in_no_answer(bench: WebBench) -> None:
    uid = enter(bench)
    assert move(bench, uid, "IN PROGRESS").status_code == 200
    assert send(bench, "POST", f"/{uid}?{KEY}", [progress()]).status_code == 200
    everything = send(bench, "GET", "?includefield=all&ProcedureStepState=IN PROGRESS")
    assert uid in everything.text
    by_key = send(bench, "GET", f"?TransactionUID={KEY}&includefield=TransactionUID")
    for answer in (send(bench, "GET", f"/{uid}"), everything, by_key):
        assert answer.status_code == 200
        assert KEY not in answer.text
    assert by_key.json() == []


@pytest.mark.parametrize(
    ("key", "status", "text"),
    [("", 400, "The Transaction UID is missing"), ("2.25.778", 400, "The Transaction UID is incorrect")],
)
def test_what_is_claimed_changes_for_its_performer_alone(bench: WebBench, key: str, status: int, text: str) -> None:
    uid = enter(bench)
    assert move(bench, uid, "IN PROGRESS").status_code == 200
    for answer in (move(bench, uid, "COMPLETED", key), send(bench, "POST", f"/{uid}?{key}", [progress()])):
        assert (answer.status_code, answer.headers["warning"]) == (status, f'299 negatoscope "{text}."')
    second = move(bench, uid, "IN PROGRESS", "2.25.778")
    assert (second.status_code, "state of the UPS Instance" in second.headers["warning"]) == (409, True)
    assert value(read(bench, uid), "00741000") == "IN PROGRESS"


def test_what_nobody_claimed_is_neither_completed_nor_updated_with_a_key(bench: WebBench) -> None:
    uid = enter(bench)
    assert move(bench, uid, "COMPLETED").status_code == 409
    refused = send(bench, "POST", f"/{uid}?{KEY}", [progress()])
    assert (refused.status_code, "claimed Workitem" in refused.headers["warning"]) == (409, True)
    for wanted in ("SCHEDULED", "DONE", ""):
        assert move(bench, uid, wanted).status_code == 400
    assert move(bench, uid, "IN PROGRESS", "x").status_code == 400


def test_a_performer_cancels_with_a_reason(bench: WebBench) -> None:
    uid = enter(bench)
    assert move(bench, uid, "IN PROGRESS").status_code == 200
    assert move(bench, uid, "CANCELED").status_code == 409
    assert send(bench, "POST", f"/{uid}?{KEY}", [progress(canceled=True)]).status_code == 200
    assert move(bench, uid, "CANCELED").status_code == 200
    assert value(value(read(bench, uid), "00741002"), "00404052")
    assert move(bench, uid, "CANCELED").headers["warning"].endswith('state of CANCELED."')


def test_a_request_cancels_what_nobody_claimed_and_leaves_the_rest_to_its_performer(bench: WebBench) -> None:
    waiting, claimed, done = enter(bench), enter(bench), enter(bench)
    reason = [{"00741238": element("00741238", "asked twice")}]
    answer = send(bench, "POST", f"/{waiting}/cancelrequest", reason)
    assert (answer.status_code, "warning" in answer.headers) == (202, False)
    found = read(bench, waiting)
    assert value(found, "00741000") == "CANCELED"
    assert value(value(found, "00741002"), "00741238") == "asked twice"
    assert "warning" in send(bench, "POST", f"/{waiting}/cancelrequest").headers
    assert move(bench, claimed, "IN PROGRESS").status_code == 200
    assert send(bench, "POST", f"/{claimed}/cancelrequest").status_code == 202
    assert value(read(bench, claimed), "00741000") == "IN PROGRESS"
    assert move(bench, done, "IN PROGRESS").status_code == 200
    assert send(bench, "POST", f"/{done}?{KEY}", [performed()]).status_code == 200
    assert move(bench, done, "COMPLETED").status_code == 200
    assert send(bench, "POST", f"/{done}/cancelrequest").status_code == 409


# Searched ------------------------------------------------------------------------------------------


def test_a_search_matches_as_qido_does(bench: WebBench) -> None:
    label = "FIND"
    first = enter(bench, _00741202=label, _00404005="20270101080000", _00741200="HIGH")
    second = enter(
        bench,
        _00741202=label,
        _00404005="20270102080000",
        _00100010={"vr": "PN", "Value": [{"Alphabetic": "ÉLAN^Zoé"}]},
    )
    third = enter(
        bench,
        _00741202=label,
        _00404005="20270103080000",
        _00404018={"vr": "SQ", "Value": [{"00080100": element("00080100", "T7")}]},
    )
    assert move(bench, third, "IN PROGRESS").status_code == 200

    def uids(query: str) -> list[str]:
        answer = send(bench, "GET", f"?WorklistLabel={label}&{query}")
        assert answer.status_code == 200, answer.text
        return [value(row, "00080018") for row in answer.json()]

    assert uids("") == [first, second, third]
    assert uids("ProcedureStepState=IN PROGRESS") == [third]
    assert uids("ScheduledProcedureStepPriority=HIGH") == [first]
    assert uids("ScheduledProcedureStepStartDateTime=20270102-20270103") == [second, third]
    assert uids("PatientName=elan*") == [second]
    assert uids("PatientName=zoe ela&fuzzymatching=true") == [second]
    assert uids("PatientName=zoe ela") == []
    assert uids("ScheduledWorkitemCodeSequence.CodeValue=T7") == [third]
    assert uids(f"SOPInstanceUID={first},{third}") == [first, third]
    assert uids("limit=1&offset=1") == [second]


def test_an_answer_says_when_there_are_more(bench: WebBench) -> None:
    for _ in range(2):
        enter(bench, _00741202="PAGED")
    first = send(bench, "GET", "?WorklistLabel=PAGED&limit=1")
    assert "additional results" in first.headers["warning"]
    assert "warning" not in send(bench, "GET", "?WorklistLabel=PAGED&limit=2").headers
    assert send(bench, "GET", "?WorklistLabel=NONE").json() == []
    assert send(bench, "GET", "?Nothing=1").status_code == 400


def test_an_answer_has_more_than_its_usual_attributes_when_asked(bench: WebBench) -> None:
    enter(bench, _00741202="MORE", _00080090={"vr": "PN", "Value": [{"Alphabetic": "WHO"}]})
    [usual] = send(bench, "GET", "?WorklistLabel=MORE").json()
    [asked] = send(bench, "GET", "?WorklistLabel=MORE&includefield=ReferringPhysicianName").json()
    [everything] = send(bench, "GET", "?WorklistLabel=MORE&includefield=all").json()
    assert ("00080090" in usual, "00080090" in asked) == (False, True)
    assert asked == everything


# Whose ---------------------------------------------------------------------------------------------


def test_a_workitem_of_another_establishment_is_as_one_that_is_not_there(bench: WebBench) -> None:
    uid = enter(bench, _00741202="MINE")
    for method, path, body in (
        ("GET", "/{}", None), ("POST", "/{}", [progress()]), ("PUT", "/{}/state", [state("IN PROGRESS", KEY)]),
        ("POST", "/{}/cancelrequest", None), ("POST", "/{}", []), ("GET", "/x", None),
    ):  # fmt: skip
        foreign, absent = (send(bench, method, path.format(one), body, "B") for one in (uid, "2.25.404"))
        assert (foreign.status_code, foreign.text) == (404, absent.text)
    assert send(bench, "GET", "?WorklistLabel=MINE", code="B").json() == []
    assert value(read(bench, uid), "00741000") == "SCHEDULED"


@pytest.mark.parametrize(("role", "status"), [(Role.SECRETARY, 200), (Role.CLINICIAN, 403), (Role.DPO, 403)])
def test_workitems_are_for_those_who_have_a_worklist(bench: WebBench, role: Role, status: int) -> None:
    accounts = Accounts(bench.archive.world.database, bench.archive.trail, monotonic=lambda: 0.0)
    accounts.add_user(f"ups-{role}", role, "A", by=COMMAND_LINE)
    token = accounts.create_token(f"ups-{role}", 60, by=COMMAND_LINE)
    assert bench.client.get(ADDRESS, headers={"Authorization": f"Bearer {token}"}).status_code == status
    assert bench.client.get(ADDRESS).status_code == 401


def test_each_change_and_each_look_is_recorded(bench: WebBench) -> None:
    uid = enter(bench)
    assert move(bench, uid, "IN PROGRESS").status_code == 200
    read(bench, uid)
    with bench.archive.world.database.unit(None) as unit:
        rows = unit.execute("SELECT event FROM audit_event").fetchall()
    of_it = [row["event"] for row in rows if uid in row["event"]]
    assert len(of_it) == 2  # made, claimed; a look names no workitem
    assert any("WORKITEM" in row["event"] for row in rows)
    assert any("IN PROGRESS" in event for event in of_it)
    assert not any(KEY in row["event"] or "DURAND" in row["event"] for row in rows)

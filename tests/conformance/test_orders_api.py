"""Orders by JSON: entered, listed, moved, cancelled; whose they are; what is refused and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from harness import synthetic
from starlette.testclient import TestClient

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.model.actor import Role
from negatoscope.sharing import COMMAND_LINE, Accounts
from negatoscope.web.app import build_app
from negatoscope.web.orders import order_routes
from web_harness import WebBench, web_bench
from worklist_data import DAY, order_of


@pytest.fixture(scope="module")
def bench(postgresql: EmbeddedPostgreSQL) -> Iterator[WebBench]:
    with web_bench(postgresql) as made:
        app = build_app(made.services, order_routes(made.services))
        with TestClient(app) as client:
            yield replace(made, app=app, client=client)


def send(bench: WebBench, path: str, body: Any, code: str = "A", method: str = "POST") -> Any:
    return bench.client.request(method, path, json=body, headers=bench.bearer(code))


def fresh(number: int, **changes: Any) -> dict[str, Any]:
    line = replace(
        DAY[0], accession=f"J{number}", procedure=f"JR{number}", step=f"JS{number}", study=f"2.25.80{number}"
    )
    return order_of(line, **changes)


def enter(bench: WebBench, number: int) -> int:
    answer = send(bench, "/api/orders", fresh(number))
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def test_an_order_is_answered_in_the_form_that_it_was_entered_in(bench: WebBench) -> None:
    more = {
        "requesting_service": "Pneumologie",
        "comments": "à jeun",
        "patient": fresh(1)["patient"] | {"weight_kg": 62.5, "allergies": "iode", "pregnancy": "not pregnant"},
    }
    given = fresh(1, **more)
    given["procedures"][0] |= {"priority": "HIGH", "code": {"value": "ZBQK002", "scheme": "CCAM", "meaning": "Chest"}}
    answer = send(bench, "/api/orders", given)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert answer.headers["location"] == f"/api/orders/{made['id']}"
    assert made["status"] == "SCHEDULED"
    for name in ("accession_number", "requesting_service", "comments", "referring_physician", "patient"):
        assert made[name] == given[name] or name == "patient"
    assert made["patient"] == given["patient"] | {"birth_date": "1970-01-01"}
    procedure, expected = made["procedures"][0], given["procedures"][0]
    assert {name: procedure[name] for name in expected if name != "steps"} == {
        name: value for name, value in expected.items() if name != "steps"
    }
    step, wanted = procedure["steps"][0], expected["steps"][0]
    assert {name: step[name] for name in wanted} == wanted
    assert send(bench, f"/api/orders/{made['id']}", None, method="GET").json() == made


def test_lists_are_narrowed_by_day_state_and_number_and_followed_page_by_page(bench: WebBench) -> None:
    ids = [enter(bench, number) for number in (11, 12, 13)]
    assert send(bench, f"/api/orders/{ids[1]}/cancel", {"reason": "double"}).json()["status"] == "CANCELLED"
    path = "/api/orders?from=2026-11-23&to=2026-11-23"
    everything = send(bench, path, None, method="GET").json()
    assert {*ids} <= {order["id"] for order in everything["orders"]}
    still = send(bench, path + "&open=true", None, method="GET").json()
    assert ids[1] not in {order["id"] for order in still["orders"]}
    [one] = send(bench, "/api/orders?accession_number=J13", None, method="GET").json()["orders"]
    assert one["id"] == ids[2]
    first = send(bench, path + "&limit=1", None, method="GET").json()
    assert len(first["orders"]) == 1
    second = send(bench, path + f"&limit=1&after={first['next']}", None, method="GET").json()
    assert second["orders"][0]["id"] != first["orders"][0]["id"]


def test_a_state_is_changed_where_it_may_be(bench: WebBench) -> None:
    number = enter(bench, 20)
    moved = send(bench, f"/api/orders/{number}/status", {"status": "ARRIVED"})
    assert (moved.status_code, moved.json()["status"]) == (200, "ARRIVED")
    step = moved.json()["procedures"][0]["steps"][0]["step"]
    done = send(bench, f"/api/orders/{number}/status", {"status": "COMPLETED", "step": step})
    assert done.json()["status"] == "COMPLETED"
    refused = send(bench, f"/api/orders/{number}/status", {"status": "SCHEDULED"})
    assert (refused.status_code, refused.headers["content-type"]) == (412, "application/problem+json")


def test_an_accession_number_is_taken_once(bench: WebBench) -> None:
    enter(bench, 30)
    assert send(bench, "/api/orders", fresh(30)).status_code == 409
    assert send(bench, "/api/orders", fresh(30), "B").status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/orders", {"patient": {}}, 400),
        ("POST", "/api/orders", [], 400),
        ("GET", "/api/orders?patient_name=DURAND", None, 400),
        ("GET", "/api/orders?limit=x", None, 400),
        ("GET", "/api/orders?from=soon", None, 400),
        ("GET", "/api/orders?status=SOON", None, 400),
        ("GET", "/api/orders?after=1", None, 400),
        ("GET", "/api/performed-steps?after=1", None, 400),
        ("GET", "/api/orders/999999", None, 404),
        ("POST", "/api/orders/999999/cancel", {}, 404),
        ("POST", "/api/orders/999999/status", {"status": "ARRIVED"}, 404),
        ("POST", "/api/orders/999999/status", {"status": "SOON"}, 404),
    ],
)
def test_what_is_wrong_is_refused_in_one_form(bench: WebBench, method: str, path: str, body: Any, status: int) -> None:
    answer = send(bench, path, body, method=method)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.parametrize("body", [{"status": "SOON"}, {"step": 1}, {"status": "ARRIVED", "step": "1"}, {"x": 1}, 5])
def test_a_change_that_cannot_be_read_changes_nothing(bench: WebBench, body: Any) -> None:
    number = enter(bench, 100 + len(str(body)))
    assert send(bench, f"/api/orders/{number}/status", body).status_code == 400
    assert send(bench, f"/api/orders/{number}", None, method="GET").json()["status"] == "SCHEDULED"


def test_an_order_of_another_establishment_is_answered_as_one_that_is_not_there(bench: WebBench) -> None:
    number = enter(bench, 40)
    for path, body in ((f"/api/orders/{number}/cancel", {}), (f"/api/orders/{number}/status", {"status": "ARRIVED"})):
        assert send(bench, path, body, "B").status_code == 404
    foreign = send(bench, f"/api/orders/{number}", None, "B", "GET")
    absent = send(bench, "/api/orders/999999", None, "B", "GET")
    assert (foreign.status_code, foreign.text) == (absent.status_code, absent.text)
    assert send(bench, "/api/orders?accession_number=J40", None, "B", "GET").json()["orders"] == []


def test_images_show_up_in_their_order(bench: WebBench) -> None:
    number = enter(bench, 50)
    bench.archive.keep(synthetic(study="2.25.8050", series="2.25.8050.1", sop="2.25.8050.1.1"), "1.2.840.10008.1.2.1")
    [study] = send(bench, f"/api/orders/{number}", None, method="GET").json()["images"]
    assert study == {"study_uid": "2.25.8050", "modalities": ["CT"], "series": 1, "instances": 1}


@pytest.mark.parametrize(("role", "status"), [(Role.SECRETARY, 200), (Role.CLINICIAN, 403), (Role.DPO, 403)])
def test_orders_are_for_those_who_enter_and_follow_them(bench: WebBench, role: Role, status: int) -> None:
    accounts = Accounts(bench.archive.world.database, bench.archive.trail, monotonic=lambda: 0.0)
    accounts.add_user(f"api-{role}", role, "A", by=COMMAND_LINE)
    token = accounts.create_token(f"api-{role}", 60, by=COMMAND_LINE)
    for path in ("/api/orders", "/api/performed-steps"):
        answer = bench.client.get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status
    assert bench.client.get("/api/orders").status_code == 401

"""The audit trail is found again: by time, person, patient, study and event, page by page, within bounds."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import ArchiveBench, World, synthetic
from starlette.requests import Request

from negatoscope.audit import AuditSearch, Trail, search_trail
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from negatoscope.errors import BadRequest
from negatoscope.model.event import AuditEvent, EventAction, EventKind, EventOutcome
from negatoscope.web.pages.audit import LONGEST, asked_of, written

ALWAYS = AuditSearch(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def event(name: str = "ana", **more: Any) -> AuditEvent:
    values = {"establishment_code": "A", "door": "page", **more}
    kind = values.pop("kind", EventKind.QUERY)
    return AuditEvent(kind, EventAction.EXECUTE, EventOutcome.SUCCESS, None, name, **values)


def found(
    world: World, bounds: str | None = None, before: int | None = None, most: int = 100, **search: Any
) -> list[str]:
    lines = search_trail(world.database, bounds, dataclasses.replace(ALWAYS, **search), before=before, most=most)
    return [line.person for line in lines]


def test_each_part_of_a_search_narrows_it(world: World, trail: Trail) -> None:
    trail.record(
        [
            event("ana", study_uid="2.25.7"),
            event("bob", kind=EventKind.SECURITY_ALERT),
            event("cleo", patient="2.25.1001|P7"),
            event("dan", patient="2.25.9999|P7", establishment_code="B"),  # of an authority nobody here has
        ]
    )
    assert found(world) == ["dan", "cleo", "bob", "ana"], "newest first"
    assert found(world, person="bob") == ["bob"]
    assert found(world, person="BOB") == []
    assert found(world, study_uid="2.25.7") == ["ana"]
    assert found(world, kind=EventKind.SECURITY_ALERT) == ["bob"]
    assert found(world, kind=EventKind.SECURITY_ALERT, person="ana") == []
    assert found(world, "A") == ["cleo", "bob", "ana"]
    now = datetime.now(UTC)
    assert found(world, until=now - timedelta(hours=1)) == found(world, since=now + timedelta(hours=1)) == []


def test_what_a_peer_sends_can_neither_break_a_search_nor_pose_as_somebody(world: World, trail: Trail) -> None:
    odd = ['x","actor_name":"bob', "NUL\0", "lone \ud800", "%", "_", "\\"]
    trail.record([event(name) for name in odd])
    assert found(world, person="bob") == found(world, person="zz") == []
    for name in odd:
        assert found(world, person=name) == [name]


def test_a_patient_s_events_are_those_of_the_studies_too(archive: ArchiveBench) -> None:
    world = archive.world
    archive.keep(synthetic(study="2.25.100", patient="P1"), EXPLICIT)
    with world.database.unit(None) as unit:
        oid = unit.execute("SELECT authority_oid FROM establishment WHERE code = 'A'").fetchall()[0]["authority_oid"]
    archive.trail.record([
        event("saw", study_uid="2.25.100"), event("ordered", patient=f"{oid}|P1"), event("other", patient=f"{oid}|P11"),
    ])  # fmt: skip
    assert {"saw", "ordered"} <= set(found(world, patient="P1"))
    assert "other" not in found(world, patient="P1")
    assert "saw" not in found(world, "B", patient="P1")


def test_pages_follow_each_other_without_a_gap_while_events_come(world: World, trail: Trail) -> None:
    trail.record([event(f"n{number}") for number in range(5)])
    first = search_trail(world.database, None, ALWAYS, before=None, most=2)
    trail.record([event("late")])
    second = search_trail(world.database, None, ALWAYS, before=first[-1].sequence, most=2)
    assert [line.person for line in first + second] == ["n4", "n3", "n2", "n1"]


@pytest.mark.parametrize("start", list("=+-@\t\r"))
def test_no_cell_of_an_export_is_a_formula(start: str) -> None:
    assert written([start + "1+1", "a"]).startswith(("'" + start, "\"'" + start))


def request(query: str) -> Request:
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": query.encode(), "headers": []})


def test_days_are_whole_and_the_last_month_is_the_default() -> None:
    asked = asked_of(request("until=2026-03-05"), datetime(2026, 3, 9, tzinfo=UTC).date())
    assert asked.search.since == datetime(2026, 2, 7, tzinfo=UTC)
    assert asked.search.until == datetime(2026, 3, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    ["since=x", "until=9999-12-31", "event=1", "before=x", "before=-1", f"before={1 << 63}", "study=a",
     f"person={'x' * (LONGEST + 1)}"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        asked_of(request(query), datetime(2026, 3, 9, tzinfo=UTC).date())


@pytest.mark.parametrize("length", [LONGEST - 1, LONGEST])
def test_a_field_of_the_search_may_be_as_long_as_a_patient_id(length: int) -> None:
    assert asked_of(request(f"patient={'x' * length}"), datetime(2026, 3, 9, tzinfo=UTC).date()).search.patient

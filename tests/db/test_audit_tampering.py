"""What the owner of the database can do to the trail, and how it is found (five kinds, 10,000 records)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from negatoscope.audit import HEADS_FILE, Finding, Flaw, Head, Trail, events, export_head, read_heads, verify_trail
from negatoscope.db import Database

COUNT = 10_000


@pytest.fixture
def trail(database: Database) -> Iterator[Trail]:
    with Trail(database, window_s=1.0, monotonic=time.monotonic, on_death=lambda _: None) as trail:
        yield trail


@pytest.fixture
def filled(database: Database, trail: Trail) -> Database:
    for first in range(0, COUNT, 2_000):
        trail.record(
            [events.integrity_alert("altered", "pack", n, 0, f"2.25.{n}") for n in range(first, first + 2_000)]
        )
    return database


def change(owner: psycopg.Connection) -> Finding:
    owner.execute("UPDATE audit_event SET event = replace(event, 'altered', 'missing') WHERE sequence = 5000")
    return Finding(5_000, Flaw.BROKEN)


def delete(owner: psycopg.Connection) -> Finding:
    owner.execute("DELETE FROM audit_event WHERE sequence = 7777")
    return Finding(7_777, Flaw.MISSING)


def insert(owner: psycopg.Connection) -> Finding:
    owner.execute("UPDATE audit_event SET sequence = -sequence WHERE sequence > 4000")
    owner.execute("UPDATE audit_event SET sequence = 1 - sequence WHERE sequence < 0")
    owner.execute(
        "INSERT INTO audit_event (sequence, at, actor_id, establishment_code, study_uid, event, hash)"
        " SELECT 4001, at, actor_id, establishment_code, study_uid,"
        " replace(event, '\"sequence\":4000', '\"sequence\":4001'), hash FROM audit_event WHERE sequence = 4000"
    )
    owner.execute("UPDATE audit_head SET sequence = sequence + 1")
    return Finding(4_001, Flaw.BROKEN)


def reorder(owner: psycopg.Connection) -> Finding:
    owner.execute("UPDATE audit_event SET sequence = -300 WHERE sequence = 300")
    owner.execute("UPDATE audit_event SET sequence = 300 WHERE sequence = 9000")
    owner.execute("UPDATE audit_event SET sequence = 9000 WHERE sequence = -300")
    return Finding(300, Flaw.ALTERED)


def cut_tail(owner: psycopg.Connection) -> Finding:
    owner.execute("DELETE FROM audit_event WHERE sequence > 9990")
    return Finding(9_991, Flaw.CUT)


def cut_tail_and_head(owner: psycopg.Connection) -> Finding:
    owner.execute("DELETE FROM audit_event WHERE sequence > 9990")
    owner.execute(
        "UPDATE audit_head SET (sequence, hash) = (SELECT sequence, hash FROM audit_event WHERE sequence = 9990)"
    )
    return Finding(9_991, Flaw.CUT)


def drop_head(owner: psycopg.Connection) -> Finding:
    owner.execute("DELETE FROM audit_head")
    return Finding(1, Flaw.SURPLUS)


@pytest.mark.parametrize("tamper", [change, delete, insert, reorder, cut_tail, cut_tail_and_head, drop_head])
def test_tampering_by_the_owner_of_the_database_is_found_and_named(
    filled: Database, database_url: str, tmp_path: Path, tamper: Callable[[psycopg.Connection], Finding]
) -> None:
    assert export_head(filled, tmp_path).sequence == COUNT
    assert verify_trail(filled, tmp_path).finding is None
    with psycopg.connect(database_url) as owner:
        expected = tamper(owner)
    assert verify_trail(filled, tmp_path).finding == expected


def test_the_head_is_exported_when_it_moves(database: Database, trail: Trail, tmp_path: Path) -> None:
    assert export_head(database, tmp_path) == Head(0, bytes(32))
    assert read_heads(tmp_path) == []
    trail.record([events.application_activity("start")])
    first = export_head(database, tmp_path)
    assert export_head(database, tmp_path) == first
    trail.record([events.application_activity("stop")])
    second = export_head(database, tmp_path)
    assert read_heads(tmp_path) == [first, second]
    assert (tmp_path / HEADS_FILE).read_text() == f"1 {first.hash.hex()}\n2 {second.hash.hex()}\n"


def test_a_line_that_a_crash_cut_short_is_passed_over(database: Database, trail: Trail, tmp_path: Path) -> None:
    (tmp_path / HEADS_FILE).write_text("1 abcd")
    trail.record([events.application_activity("start")])
    head = export_head(database, tmp_path)
    assert read_heads(tmp_path) == [head]
    assert verify_trail(database, tmp_path).finding is None


def test_events_may_be_appended_while_the_trail_is_verified(database: Database, trail: Trail, tmp_path: Path) -> None:
    trail.record([events.application_activity("start")])
    with database.unit(None) as unit:
        unit.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        unit.execute("SELECT 1")
        trail.record([events.application_activity("stop")])
    export_head(database, tmp_path)
    verification = verify_trail(database, tmp_path)
    assert (verification.head.sequence, verification.finding) == (2, None)

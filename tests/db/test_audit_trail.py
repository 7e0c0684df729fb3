"""The audit trail on a real PostgreSQL: committed first, in one chain, and never a silent hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from harness import World

from negatoscope.audit import Disclosure, Trail, events, verify_trail
from negatoscope.audit import trail as trail_module
from negatoscope.audit.ports import Unit
from negatoscope.db import Database
from negatoscope.errors import Unavailable
from negatoscope.model.actor import Purpose, Scope
from negatoscope.model.event import AuditEvent


class Clock:
    """A monotonic clock that a test moves."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Deaths(list[BaseException]):
    """What ``on_death`` was called with."""

    def __call__(self, error: BaseException) -> None:
        self.append(error)


class Faulty:
    """The database, with a fault that a test switches on."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.fault: Callable[[], None] = lambda: None

    @contextmanager
    def unit(self, establishments: Sequence[int] | None) -> Iterator[Unit]:
        self.fault()
        with self._database.unit(establishments) as unit:
            yield unit


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trail(database: Database, clock: Clock) -> Iterator[Trail]:
    deaths = Deaths()
    with Trail(database, window_s=300.0, monotonic=clock, on_death=deaths) as trail:
        yield trail
    assert not deaths


def an_event(study_uid: str = "2.25.1") -> AuditEvent:
    return events.integrity_alert("altered", "pack", 1, 0, study_uid)


def recorded(database: Database) -> list[str]:
    with database.unit(None) as unit:
        return [row["study_uid"] for row in unit.execute("SELECT study_uid FROM audit_event ORDER BY sequence")]


def test_what_record_returned_for_is_committed_in_order(database: Database, trail: Trail) -> None:
    trail.record([an_event("2.25.1"), an_event("2.25.2")])
    assert recorded(database) == ["2.25.1", "2.25.2"]
    trail.record([])
    trail.record([an_event("2.25.3")])
    assert recorded(database) == ["2.25.1", "2.25.2", "2.25.3"]
    assert verify_trail(database).finding is None


def test_times_are_those_of_postgresql(database: Database, trail: Trail) -> None:
    with database.unit(None) as unit:
        before = unit.execute("SELECT clock_timestamp() AS at").fetchone()
    trail.record([an_event()])
    with database.unit(None) as unit:
        row = unit.execute(
            "SELECT at, at >= %s AND at <= clock_timestamp() AS between FROM audit_event",
            [before["at"] if before else None],
        ).fetchone()
    assert row is not None
    assert row["between"]


def test_an_appended_event_shares_the_fate_of_its_transaction(database: Database, trail: Trail) -> None:
    with database.unit(None) as unit:
        trail.append(unit, [an_event("2.25.1")])
    with pytest.raises(RuntimeError), database.unit(None) as unit:
        trail.append(unit, [an_event("2.25.2")])
        raise RuntimeError("the action failed")
    with database.unit(None) as unit:
        trail.append(unit, [])
        trail.append(unit, [an_event("2.25.3")])
        trail.append(unit, [an_event("2.25.4")])
    assert recorded(database) == ["2.25.1", "2.25.3", "2.25.4"]
    assert verify_trail(database).finding is None


def test_two_processes_and_an_appender_write_one_chain(database: Database, trail: Trail, clock: Clock) -> None:
    with Trail(database, window_s=300.0, monotonic=clock, on_death=Deaths()) as other:

        def write(into: Trail) -> None:
            for _ in range(20):
                into.record([an_event()])

        def append() -> None:
            for _ in range(20):
                with database.unit(None) as unit:
                    trail.append(unit, [an_event()])

        threads = [threading.Thread(target=write, args=(t,)) for t in (trail, trail, other, other)]
        threads.append(threading.Thread(target=append))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    verification = verify_trail(database)
    assert verification.finding is None
    assert verification.head.sequence == 100


def test_more_events_than_one_batch_holds_are_all_committed(
    database: Database, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_module, "BATCH_LIMIT", 3)
    gate = threading.Event()

    def hold() -> None:
        with database.unit(None) as unit:
            unit.execute("SELECT 1 FROM audit_head FOR UPDATE")
            held.set()
            gate.wait(5)

    held = threading.Event()
    threads = [threading.Thread(target=hold)]
    threads[0].start()
    held.wait(5)
    threads += [threading.Thread(target=trail.record, args=([an_event()] * size,)) for size in (1, 2, 2, 4)]
    for thread in threads[1:]:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert len(recorded(database)) == 9


def test_a_disclosure_is_committed_before_it_returns_and_covers_the_window(
    world: World, trail: Trail, clock: Clock
) -> None:
    scope = world.scope("A")
    for study_uids in (["2.25.1"], ["2.25.1"], ["2.25.1", "2.25.2"], ["2.25.2", "2.25.2"]):
        trail.disclose(scope, Disclosure.VIEW, study_uids, "dicomweb", "192.0.2.1")
    assert recorded(world.database) == ["2.25.1", "2.25.2"]
    clock.now += 299.9
    trail.disclose(scope, Disclosure.VIEW, ["2.25.1"], "dicomweb", "192.0.2.1")
    assert len(recorded(world.database)) == 2
    clock.now += 0.1
    trail.disclose(scope, Disclosure.VIEW, ["2.25.1"], "dicomweb", "192.0.2.1")
    assert len(recorded(world.database)) == 3


def test_only_a_committed_event_within_its_window_covers(database: Database, world: World, clock: Clock) -> None:
    faulty = Faulty(database)
    scope = world.scope("A")
    asked = (scope, Disclosure.VIEW, ["2.25.7"])

    def fail() -> None:
        raise Unavailable("no database")

    with Trail(faulty, window_s=300.0, monotonic=clock, on_death=Deaths()) as trail:
        assert not trail.is_covered(*asked)
        faulty.fault = fail
        with pytest.raises(Unavailable):
            trail.disclose(*asked, "dicomweb", "192.0.2.1")
        assert not trail.is_covered(*asked)
        faulty.fault = lambda: None
        trail.disclose(*asked, "dicomweb", "192.0.2.1")
        assert trail.is_covered(*asked)
        assert not trail.is_covered(scope, Disclosure.VIEW, ["2.25.7", "2.25.8"])
        assert not trail.is_covered(scope, Disclosure.TRANSFER, ["2.25.7"])
        assert not trail.is_covered(replace(scope, actor=replace(scope.actor, session="other")), *asked[1:])
        clock.now += 299.9
        assert trail.is_covered(*asked)
        clock.now += 0.1
        assert not trail.is_covered(*asked)


def test_another_actor_session_action_purpose_or_study_has_an_event_of_its_own(world: World, trail: Trail) -> None:
    scope = world.scope("A")
    trail.disclose(scope, Disclosure.VIEW, ["2.25.1"], "page", "")
    trail.disclose(scope, Disclosure.TRANSFER, ["2.25.1"], "page", "")
    trail.disclose(scope, Disclosure.VIEW, ["2.25.2"], "page", "")
    trail.disclose(Scope(replace(scope.actor, session="other")), Disclosure.VIEW, ["2.25.1"], "page", "")
    trail.disclose(Scope(scope.actor, Purpose.CENTRE_15), Disclosure.VIEW, ["2.25.1"], "page", "")
    trail.disclose(world.scope("B"), Disclosure.VIEW, ["2.25.1"], "page", "")
    assert len(recorded(world.database)) == 6


def test_those_who_ask_for_the_same_at_once_share_one_event_and_all_wait_for_it(world: World, trail: Trail) -> None:
    seen: list[int] = []

    def ask() -> None:
        trail.disclose(world.scope("A"), Disclosure.VIEW, ["2.25.1"], "dicomweb", "")
        seen.append(len(recorded(world.database)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 8


@pytest.mark.parametrize(("asked", "remembered"), [(2, True), (3, True), (4, False)])
def test_the_oldest_disclosure_is_recorded_again_once_the_memory_is_full(
    world: World, trail: Trail, monkeypatch: pytest.MonkeyPatch, asked: int, remembered: bool
) -> None:
    monkeypatch.setattr(trail_module, "COVERED_LIMIT", 3)
    for number in range(asked):
        trail.disclose(world.scope("A"), Disclosure.VIEW, [f"2.25.{number}"], "page", "")
    trail.disclose(world.scope("A"), Disclosure.VIEW, ["2.25.0"], "page", "")
    assert len(recorded(world.database)) == (asked if remembered else asked + 1)


def test_nothing_is_disclosed_while_the_trail_cannot_be_written_and_it_is_again_afterwards(
    world: World, clock: Clock
) -> None:
    def down() -> None:
        raise Unavailable("the index cannot be reached")

    faulty, deaths = Faulty(world.database), Deaths()
    with Trail(faulty, window_s=300.0, monotonic=clock, on_death=deaths) as trail:
        faulty.fault = down
        with pytest.raises(Unavailable):
            trail.disclose(world.scope("A"), Disclosure.VIEW, ["2.25.1"], "page", "")
        with pytest.raises(Unavailable):
            trail.record([an_event()])
        faulty.fault = lambda: None
        trail.disclose(world.scope("A"), Disclosure.VIEW, ["2.25.1"], "page", "")
    assert recorded(world.database) == ["2.25.1"]
    assert not deaths


def test_the_death_of_the_writer_refuses_those_who_wait_and_is_told_to_the_process(
    database: Database, clock: Clock
) -> None:
    def die() -> None:
        raise MemoryError

    faulty, deaths = Faulty(database), Deaths()
    trail = Trail(faulty, window_s=300.0, monotonic=clock, on_death=deaths)
    faulty.fault = die
    with pytest.raises(Unavailable):
        trail.record([an_event()])
    trail.close()
    assert [type(death) for death in deaths] == [MemoryError]
    with pytest.raises(Unavailable, match="closed"):
        trail.record([an_event()])


def test_a_writer_that_is_gone_without_a_word_is_noticed(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_module, "_LIVENESS_S", 0.02)
    monkeypatch.setattr(Trail, "_run", lambda self: None)
    with pytest.raises(Unavailable, match="dead"):
        Trail(database, window_s=1.0, monotonic=clock, on_death=Deaths()).record([an_event()])


def test_an_event_that_cannot_be_stored_is_refused_alone(
    database: Database, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = replace(an_event(), actor_id=1 << 70)
    outcomes: list[str] = []

    def write(event: AuditEvent) -> None:
        try:
            trail.record([event])
        except Unavailable:
            outcomes.append("refused")
        else:
            outcomes.append("committed")

    with database.unit(None) as unit:
        unit.execute("SELECT 1 FROM audit_head FOR UPDATE")  # so that all of them share a batch
        threads = [threading.Thread(target=write, args=(e,)) for e in (an_event(), bad, an_event(), an_event())]
        for thread in threads:
            thread.start()
            thread.join(0.05)
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["committed", "committed", "committed", "refused"]
    trail.record([an_event()])
    assert verify_trail(database).finding is None


def test_a_head_held_too_long_is_refused_not_waited_for(
    database: Database, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail_module, "LOCK_TIMEOUT_S", 0.1)
    with database.unit(None) as holder:
        trail.append(holder, [an_event()])
        with pytest.raises(Unavailable):  # what would be a deadlock of this thread with itself
            trail.record([an_event()])
        with pytest.raises(Unavailable), database.unit(None) as unit:
            trail.append(unit, [an_event()])
    assert len(recorded(database)) == 1


def test_a_closed_trail_has_committed_what_waited_and_refuses_more(database: Database, clock: Clock) -> None:
    trail = Trail(database, window_s=1.0, monotonic=clock, on_death=Deaths())
    trail.record([an_event()])
    trail.close()
    assert len(recorded(database)) == 1
    with pytest.raises(Unavailable, match="closed"):
        trail.record([an_event()])
    Trail(database, window_s=1.0, monotonic=clock, on_death=Deaths()).close()


def test_a_child_process_does_not_wait_for_its_parents_writer(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    with pytest.raises(Unavailable, match="parent"):
        trail.record([an_event()])


def test_without_its_head_row_the_trail_takes_nothing(database: Database, database_url: str, trail: Trail) -> None:
    with psycopg.connect(database_url) as owner:
        owner.execute("DELETE FROM audit_head")
    with pytest.raises(Unavailable):
        trail.record([an_event()])


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_event SET event = ''", "DELETE FROM audit_event", "TRUNCATE audit_event", "DELETE FROM audit_head"],
)
def test_the_role_of_the_server_can_only_add(database: Database, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), database.unit(None) as unit:
        unit.execute(statement.encode())


@pytest.mark.bench
def test_three_thousand_events_a_second_with_eight_threads(database: Database, trail: Trail) -> None:
    def write() -> None:
        for _ in range(1_000):
            trail.record([an_event()])

    threads = [threading.Thread(target=write) for _ in range(8)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = 8_000 / (time.perf_counter() - started)
    print(f"{rate:.0f} events/s")
    assert rate >= 3_000

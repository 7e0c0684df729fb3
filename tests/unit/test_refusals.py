"""Refusals are written, and a flood of them does not fill the trail."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from negatoscope.audit import Refusals
from negatoscope.audit.message import to_xml
from negatoscope.errors import Unavailable
from negatoscope.model.event import AuditEvent


class Recorder:
    """A trail in memory that can be down."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.down = False
        self.written = threading.Event()

    def record(self, events: Sequence[AuditEvent]) -> None:
        if self.down:
            raise Unavailable("down")
        self.events += events
        if events:
            self.written.set()

    def counts(self) -> list[int | str]:
        return [event.detail["count"] for event in self.events]


class Bench:
    """Refusals whose thread never runs: what is due is written when a test says so."""

    def __init__(self, peers: int = 512) -> None:
        self.now, self.trail = 100.0, Recorder()
        self.refusals = Refusals(self.trail, lambda: self.now, peers=peers)
        self.refusals._closing = True  # no thread

    def note(self, address: str = "192.0.2.1", times: int = 1) -> None:
        for _ in range(times):
            self.refusals.note("STRANGER", "title-or-address", "dimse", address)


def test_a_flood_of_one_peer_is_an_event_a_minute_with_its_count() -> None:
    bench = Bench()
    bench.note()
    bench.refusals.write_due()
    bench.note(times=1000)
    for bench.now in (100.0, 159.0):
        bench.refusals.write_due()
    assert bench.trail.counts() == [1], "the first at once, the others not yet"
    bench.now = 160.0
    bench.refusals.write_due()
    assert bench.trail.counts() == [1, 1000]
    bench.now = 220.0
    bench.refusals.write_due()
    assert bench.trail.counts() == [1, 1000], "a quiet minute says nothing"
    bench.note()
    bench.refusals.write_due()
    assert bench.trail.counts() == [1, 1000, 1], "and whoever comes back is written at once"


@pytest.mark.parametrize(("peers", "events"), [(9, 9), (10, 10), (11, 11), (5000, 11)])
def test_a_flood_from_everywhere_is_bounded_too(peers: int, events: int) -> None:
    """Ten are told apart; the eleventh and later are one entry without an address."""
    bench = Bench(peers=10)
    for number in range(peers):
        bench.note(f"198.51.100.{number}")
    bench.refusals.write_due()
    assert len(bench.trail.events) == events
    assert sum(int(count) for count in bench.trail.counts()) == peers


def test_what_could_not_be_written_is_written_later() -> None:
    bench = Bench()
    bench.trail.down = True
    bench.note(times=2)
    bench.refusals.write_due()
    bench.trail.down = False
    bench.note()
    bench.now = 160.0
    bench.refusals.write_due()
    assert bench.trail.counts() == [3]


def test_noting_never_waits_for_the_trail_and_closing_writes_the_rest() -> None:
    trail = Recorder()
    with Refusals(trail, lambda: 100.0) as refusals:
        refusals.note("A", "title-or-address", "dimse", "192.0.2.1")
        assert trail.written.wait(10)
        refusals.note("B", "title-or-address", "dimse", "192.0.2.1")
    assert [(event.actor_name, event.detail["count"]) for event in trail.events] == [("A", 1), ("B", 1)]


def test_a_refusal_is_a_security_alert_of_node_authentication() -> None:
    bench = Bench()
    bench.note()
    bench.refusals.write_due()
    xml = to_xml(bench.trail.events[0], datetime(2026, 1, 1, tzinfo=UTC), "NEGATOSCOPE")
    assert b'csd-code="110113"' in xml
    assert b'csd-code="110126"' in xml
    assert b'NetworkAccessPointID="192.0.2.1"' in xml

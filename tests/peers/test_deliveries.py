"""Deliveries to nodes that we did not write: each object arrives once, or is named."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.model.actor import Right
from negatoscope.routing import Priority, State
from negatoscope.servers.sender import MOST_ATTEMPTS, Timing
from negatoscope.sharing import COMMAND_LINE
from sending_bench import QUICK, Bench, bench, free_port, shelf, wait


@pytest.fixture
def made(postgresql: EmbeddedPostgreSQL) -> Iterator[Bench]:
    with bench(postgresql) as built:
        yield built


def test_every_object_of_a_study_arrives_once(made: Bench) -> None:
    uids = made.fill(12)
    with shelf() as receiver:
        delivery = made.ask(made.node(receiver.port))
        made.deliverer()
        row = made.until(delivery, State.DONE, State.DEAD)
    assert (row.state, row.objects, row.delivered) == (State.DONE, 12, 12)
    assert receiver.counts == dict.fromkeys(uids, 1)
    assert made.sql("SELECT count(*) AS left FROM delivery_object")[0]["left"] == 0


def test_what_leaves_is_audited_before_its_first_byte(made: Bench) -> None:
    made.fill(1)
    seen: list[int] = []

    def status(uid: str) -> int:
        seen.append(len([event for event in made.archive.events("110104") if event["door"] == "job"]))
        return 0

    with shelf(status=status) as receiver:
        made.until(made.ask(made.node(receiver.port)), State.WAITING)
        made.deliverer()
        wait(lambda: bool(seen))
    assert seen == [1]
    (begun,) = [event for event in made.archive.events("110102") if event["door"] == "job"]
    assert begun["detail"]["destination"] == "SHELF"
    assert begun["study_uid"] == "2.25.500"


def test_a_node_that_is_down_the_whole_time_is_tried_less_and_less_and_nothing_is_lost(made: Bench) -> None:
    made.fill(3)
    node = made.node(free_port())
    delivery = made.ask(node)
    made.deliverer()
    wait(lambda: made.parts.nodes.of_id(node).failures >= 2)
    row = made.row(delivery)
    assert row.state in (State.WAITING, State.SENDING)
    assert (row.delivered, row.objects) == (0, 3)
    assert made.parts.nodes.of_id(node).failure == "no-connection"
    assert made.parts.nodes.of_id(node).health == "silent"


def test_a_node_that_comes_back_gets_everything_once(made: Bench) -> None:
    uids = made.fill(5)
    port = free_port()
    node = made.node(port)
    delivery = made.ask(node)
    made.deliverer()
    wait(lambda: made.parts.nodes.of_id(node).failures >= 1)
    with shelf(port=port) as receiver:
        made.until(delivery, State.DONE)
    assert receiver.counts == dict.fromkeys(uids, 1)
    assert made.parts.nodes.of_id(node).health == "answers"


def test_a_node_that_stops_in_the_middle_is_not_sent_again_what_it_acknowledged(made: Bench) -> None:
    uids = made.fill(30)
    port = free_port()
    delivery = made.ask(made.node(port))
    with shelf(port=port, delay_s=0.02) as first:
        made.deliverer()
        wait(lambda: len(first.arrived) >= 5)
    with shelf(port=port) as second:
        row = made.until(delivery, State.DONE)
    both = first.counts + second.counts
    assert set(both) == set(uids)
    assert row.delivered == 30
    assert sum(both.values()) <= 31  # the object whose answer was lost may have come twice
    assert len(second.arrived) < 30


def test_objects_that_are_refused_are_named_and_the_others_arrive(made: Bench) -> None:
    uids = made.fill(4)
    with shelf(status=lambda uid: 0xC123 if uid == uids[1] else 0) as receiver:
        delivery = made.ask(made.node(receiver.port))
        made.deliverer()
        row = made.until(delivery, State.DEAD)
        assert receiver.counts == dict.fromkeys([uids[0], *uids[2:]], 1)
        assert (row.reason, row.attempts, row.delivered) == ("refused", MOST_ATTEMPTS, 3)
        assert made.parts.queue.missing(delivery, by=COMMAND_LINE) == [(uids[1], "C123")]
        receiver.status = lambda uid: 0
        made.parts.queue.retry(delivery, by=COMMAND_LINE)
        made.until(delivery, State.DONE)
    assert receiver.counts == dict.fromkeys(uids, 1)


def test_a_node_without_room_is_left_in_peace_and_loses_nothing(made: Bench) -> None:
    uids = made.fill(3)
    full = [True]
    with shelf(status=lambda uid: 0xA700 if full[0] else 0) as receiver:
        node = made.node(receiver.port)
        delivery = made.ask(node)
        made.deliverer()
        wait(lambda: made.parts.nodes.of_id(node).failure == "no-room")
        full[0] = False
        made.until(delivery, State.DONE)
    assert receiver.counts == dict.fromkeys(uids, 1)


def test_urgent_work_overtakes_bulk_that_has_begun(made: Bench) -> None:
    bulk, urgent = made.fill(60, "2.25.501"), made.fill(3, "2.25.502")
    with shelf(delay_s=0.03) as receiver:
        node = made.node(receiver.port, concurrency=1)
        first = made.ask(node, "2.25.501", priority=Priority.BULK)
        made.deliverer()
        wait(lambda: len(receiver.arrived) >= 3)
        second = made.ask(node, "2.25.502", priority=Priority.URGENT)
        made.until(second, State.DONE)
        sent_before = len([uid for uid in receiver.arrived if uid in bulk])
        assert sent_before < 40, "bulk went on while urgent work waited"
        made.until(first, State.DONE)
    assert receiver.counts == dict.fromkeys([*bulk, *urgent], 1)


def test_a_paused_node_gets_nothing_until_it_is_resumed(made: Bench) -> None:
    made.fill(40)
    with shelf(delay_s=0.02) as receiver:
        node = made.node(receiver.port)
        delivery = made.ask(node)
        made.deliverer()
        wait(lambda: len(receiver.arrived) >= 2)
        made.parts.nodes.pause(node, True, by=COMMAND_LINE)
        made.until(delivery, State.WAITING)
        so_far = len(receiver.arrived)
        time.sleep(0.3)
        assert len(receiver.arrived) == so_far < 40
        made.parts.nodes.pause(node, False, by=COMMAND_LINE)
        made.until(delivery, State.DONE)
    assert set(receiver.counts.values()) == {1}


def test_a_study_of_another_establishment_never_leaves(made: Bench) -> None:
    made.fill(2, code="B")
    with shelf() as receiver:
        delivery = made.ask(made.node(receiver.port))  # asked in the name of A
        made.deliverer()
        row = made.until(delivery, State.DEAD)
    assert (row.reason, receiver.arrived) == ("not-found", [])


def test_what_somebody_asked_for_does_not_leave_once_they_are_disabled(made: Bench) -> None:
    made.fill(2)
    accounts = made.archive.built.accounts
    asker = accounts.add_entity("ASKER", "A", [Right.RETRIEVE, Right.QUERY], by=COMMAND_LINE)
    with shelf() as receiver:
        node = made.parts.nodes.of_id(made.node(receiver.port))
        delivery = made.parts.queue.ask(node, "2.25.500", by=asker)
        accounts.remove_entity(asker.actor_id, by=COMMAND_LINE)
        made.deliverer()
        row = made.until(delivery, State.DEAD)
    assert (row.reason, receiver.arrived) == ("not-found", [])


def test_a_sender_that_dies_loses_its_lease_and_the_next_goes_on(made: Bench) -> None:
    uids = made.fill(10)
    with shelf() as receiver:
        delivery = made.ask(made.node(receiver.port))
        (claimed,) = made.parts.queue.claim("a sender that is gone", 0.3, most=1)
        assert claimed.delivery_id == delivery
        assert made.parts.queue.claim("another", 1.0, most=1) == []
        made.deliverer()
        made.until(delivery, State.DONE)
    assert receiver.counts == dict.fromkeys(uids, 1)


def test_a_delivery_that_waits_too_long_is_given_up_with_its_objects_named(made: Bench) -> None:
    uids = made.fill(2)
    node = made.node(free_port())
    delivery = made.ask(node)
    made.deliverer(Timing(**{name: getattr(QUICK, name) for name in QUICK.__slots__} | {"give_up_s": 0.5}))
    row = made.until(delivery, State.DEAD)
    assert row.reason == "gave-up"
    assert [uid for uid, _ in made.parts.queue.missing(delivery, by=COMMAND_LINE)] == uids

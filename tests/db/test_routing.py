"""Rules on arrival and the queue's rows, on a real database: nothing is missed, nothing is sent twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime

import pytest
from harness import synthetic

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.errors import BadRequest, Conflict, Forbidden, NotFound, PreconditionFailed
from negatoscope.model.actor import Actor, Role
from negatoscope.routing import NewNode, NodeKind, Priority, State
from negatoscope.routing.nodes import LARGEST_CONCURRENCY, LONGEST_SECRET
from negatoscope.sharing import COMMAND_LINE
from sending_bench import EXPLICIT, Bench, bench, shelf

NOON = datetime(2026, 3, 1, 12)
RULE = '[[rule]]\nname = "all"\nestablishment = "A"\nto = "SHELF"\n'


@pytest.fixture
def made(postgresql: EmbeddedPostgreSQL) -> Iterator[Bench]:
    with bench(postgresql) as built:
        yield built


def pack(made: Bench) -> None:
    packer = made.archive.built.packer(lambda *_: b"")
    for series_id in packer.quiet_series(0.0):
        assert packer.pack(series_id)


def user(made: Bench, role: Role, code: str = "A") -> Actor:
    return made.archive.built.accounts.add_user(f"{role.value}-{code}".lower(), role, code, by=COMMAND_LINE)


def test_a_series_is_routed_once_it_has_closed_and_once_only(made: Bench) -> None:
    made.node(9)
    assert made.parts.arrivals.route(RULE, NOON) == 0
    made.fill(3)
    assert made.parts.arrivals.route(RULE, NOON) == 0, "it is still open"
    pack(made)
    assert made.parts.arrivals.route(RULE, NOON) == 1
    assert made.parts.arrivals.route(RULE, NOON) == 0
    assert made.parts.arrivals.route(RULE, NOON, settle_s=0.0) == 0
    (row,) = made.parts.queue.listed(by=COMMAND_LINE)
    assert (row.study_uid, row.series_uid, row.rule, row.state) == ("2.25.500", "2.25.500.1", "all", State.WAITING)


def test_what_is_added_to_a_series_later_is_sent_alone(made: Bench) -> None:
    with shelf() as receiver:
        made.node(receiver.port)
        uids = made.fill(3)
        pack(made)
        made.parts.arrivals.route(RULE, NOON)
        made.deliverer()
        (first,) = made.parts.queue.listed(by=COMMAND_LINE)
        made.until(first.delivery_id, State.DONE)
        late = "2.25.500.1.99"
        made.archive.keep(synthetic(sop=late, study="2.25.500", series="2.25.500.1", number=99), EXPLICIT)
        pack(made)
        assert made.parts.arrivals.route(RULE, NOON) == 1
        newest = max(row.delivery_id for row in made.parts.queue.listed(by=COMMAND_LINE))
        row = made.until(newest, State.DONE)
    assert receiver.counts == dict.fromkeys([*uids, late], 1)
    assert row.objects == 1


def test_a_file_that_is_wrong_routes_nothing_and_misses_nothing(made: Bench) -> None:
    made.node(9)
    made.fill(1)
    pack(made)
    for text in ("not TOML", RULE.replace("SHELF", "NOWHERE"), RULE.replace('"A"', '"Z"')):
        assert made.parts.arrivals.route(text, NOON, settle_s=0.0) == 0
        assert made.sql("SELECT problem FROM routing_state")[0]["problem"]
        assert made.parts.arrivals.file(text).problem
    assert made.parts.arrivals.route(RULE, NOON) == 1
    assert made.sql("SELECT problem FROM routing_state")[0]["problem"] == ""


def test_what_was_there_before_the_first_rule_is_not_sent(made: Bench) -> None:
    made.node(9)
    made.fill(1)
    pack(made)
    assert made.parts.arrivals.route("", NOON) == 0
    assert made.parts.arrivals.route(RULE, NOON) == 0


def test_a_held_delivery_waits_for_somebody_and_a_scheduled_one_for_its_hours(made: Bench) -> None:
    made.node(9)
    made.fill(1)
    pack(made)
    rules = RULE + "hold = true\n" + RULE.replace('"all"', '"night"') + 'between = "20:00-06:00"\n'
    assert made.parts.arrivals.route(rules, NOON) == 2
    assert made.parts.queue.claim("x", 5.0, most=9) == []
    held = next(row for row in made.parts.queue.listed(by=COMMAND_LINE) if row.state is State.HELD)
    made.parts.queue.release(held.delivery_id, by=user(made, Role.RADIOGRAPHER))
    assert [one.delivery_id for one in made.parts.queue.claim("x", 5.0, most=9)] == [held.delivery_id]


def test_no_delivery_is_claimed_by_two_and_places_are_kept(made: Bench) -> None:
    node = made.node(9, concurrency=3)
    asked = [made.ask(node, priority=Priority.NORMAL) for _ in range(8)]
    claims: list[list[int]] = []
    lock = threading.Lock()

    def claim(name: str) -> None:
        for _ in range(4):
            found = [one.delivery_id for one in made.parts.queue.claim(name, 30.0, most=2)]
            with lock:
                claims.append(found)

    threads = [threading.Thread(target=claim, args=(f"sender {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = [delivery for found in claims for delivery in found]
    assert len(taken) == len(set(taken)) == 3
    assert set(taken) <= set(asked)
    urgent = [made.ask(node, priority=Priority.URGENT) for _ in range(2)]
    claimed = made.parts.queue.claim("urgent", 30.0, most=9)
    assert [one.delivery_id for one in claimed] == urgent[:1], "one place besides, for urgent work"
    stop = made.parts.queue.beat("sender 0", taken, 30.0) | made.parts.queue.beat("sender 1", taken, 30.0)
    assert set(stop.values()) <= {"overtaken", "lost"}


def test_what_is_less_urgent_is_not_taken_up_while_urgent_work_is_sent(made: Bench) -> None:
    node = made.node(9, concurrency=3)
    made.ask(node)
    urgent = made.ask(node, priority=Priority.URGENT)
    assert [one.delivery_id for one in made.parts.queue.claim("x", 30.0, most=9)] == [urgent]
    assert made.parts.queue.claim("x", 30.0, most=9) == []


def test_a_lease_that_is_gone_gives_no_say(made: Bench) -> None:
    made.fill(1)
    delivery = made.ask(made.node(9))
    (old,) = made.parts.queue.claim("old", 0.0, most=1)
    (new,) = made.parts.queue.claim("new", 30.0, most=1)
    assert old.delivery_id == new.delivery_id == delivery
    assert made.parts.queue.beat("old", [delivery], 30.0) == {delivery: "lost"}
    made.parts.queue.finish(old, "old", State.DONE)
    made.parts.queue.give_back(old, "old", "x")
    assert made.row(delivery).state is State.SENDING
    with pytest.raises(PreconditionFailed):
        made.parts.queue.plan(old, "old", [])
    assert made.parts.queue.beat("new", [delivery], 30.0) == {delivery: ""}


def test_who_may_see_and_change_deliveries(made: Bench) -> None:
    made.fill(1)
    delivery = made.ask(made.node(9), hold=True)
    for role in (Role.DPO, Role.SECRETARY):
        with pytest.raises(Forbidden):
            made.parts.queue.listed(by=user(made, role))
    clinician, stranger = user(made, Role.CLINICIAN), user(made, Role.RADIOLOGIST, "B")
    assert len(made.parts.queue.listed(by=clinician)) == 1
    with pytest.raises(Forbidden):
        made.parts.queue.cancel(delivery, by=clinician)
    assert made.parts.queue.listed(by=stranger) == []
    with pytest.raises(NotFound):
        made.parts.queue.cancel(delivery, by=stranger)
    made.parts.queue.cancel(delivery, by=user(made, Role.REFERENT))
    with pytest.raises(PreconditionFailed):
        made.parts.queue.retry(delivery, by=COMMAND_LINE)


def test_nobody_sends_by_another_establishment_s_node(made: Bench) -> None:
    node = made.parts.nodes.of_id(made.node(9, code="B"))
    with pytest.raises(NotFound):
        made.parts.queue.ask(node, "2.25.500", by=user(made, Role.RADIOLOGIST))
    with pytest.raises(NotFound):
        made.parts.nodes.named("SHELF", by=user(made, Role.CLINICIAN))
    assert made.parts.nodes.listed(by=user(made, Role.REFERENT)) == []


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({"concurrency": 0}, False),
        ({"concurrency": 1}, True),
        ({"concurrency": LARGEST_CONCURRENCY}, True),
        ({"concurrency": LARGEST_CONCURRENCY + 1}, False),
        ({"title": "X" * 16}, True),
        ({"title": "X" * 17}, False),
        ({"port": 65_535}, True),
        ({"port": 65_536}, False),
        ({"port": None}, False),
        ({"host": "a b"}, False),
        ({"name": "é"}, False),
        ({"kind": NodeKind.DICOMWEB, "url": "https://pacs.example:8443/dicom-web/"}, True),
        ({"kind": NodeKind.DICOMWEB, "url": "file:///etc/passwd"}, False),
        ({"kind": NodeKind.DICOMWEB, "url": "http://user:word@pacs.example/"}, False),
        ({"kind": NodeKind.DICOMWEB, "url": "http://pacs.example/?a=b"}, False),
        ({"kind": NodeKind.DICOMWEB, "url": "http://pacs.example/a\r\nX: y"}, False),
        ({"kind": NodeKind.DICOMWEB, "url": "http://pacs.example/", "secret": "x" * LONGEST_SECRET}, True),
        ({"kind": NodeKind.DICOMWEB, "url": "http://pacs.example/", "secret": "x" * (LONGEST_SECRET + 1)}, False),
        ({"kind": NodeKind.DICOMWEB, "url": "http://pacs.example/", "secret": "a\nb"}, False),
        ({"kind": NodeKind.DICOMWEB, "url": "http://pacs.example/", "commitment": True}, False),
    ],
)
def test_a_node_is_well_formed_or_refused(made: Bench, change: dict[str, object], fine: bool) -> None:
    fields = {"establishment": "A", "name": "N", "title": "N", "host": "127.0.0.1", "port": 104} | change
    if not fine:
        with pytest.raises(BadRequest):
            made.parts.nodes.add(NewNode(**fields), by=COMMAND_LINE)  # type: ignore[arg-type]  # wrong on purpose
        return
    node = made.parts.nodes.add(NewNode(**fields), by=COMMAND_LINE)  # type: ignore[arg-type]  # of many kinds
    assert "xxx" not in repr(made.parts.nodes.of_id(node)), "a secret is never shown"
    with pytest.raises(Conflict):
        made.parts.nodes.add(NewNode(**fields), by=COMMAND_LINE)  # type: ignore[arg-type]  # as above
    made.parts.nodes.remove(node, by=COMMAND_LINE)

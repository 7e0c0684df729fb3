"""web.locating: many requests, few statements; and none is answered by a statement that began before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from negatoscope.errors import Unavailable
from negatoscope.model.actor import Actor, ActorKind, Right, Role, Scope
from negatoscope.web.locating import Locator

READER = Actor(1, ActorKind.USER, "reader", Role.RADIOLOGIST, 1, "A", "2.25.1", frozenset({Right.RETRIEVE}))


class Index:
    """Statements wait until they are let go; instances of ``there`` are readable when a statement begins."""

    def __init__(self) -> None:
        self.there = {"1.1", "1.2", "1.3"}
        self.statements: list[tuple[str, list[str]]] = []
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.error: Exception | None = None

    def locate_instances(self, scope: Scope, study_uid: str, series_uid: str, uids: Sequence[str]) -> dict[str, Any]:
        readable = {uid: f"holding of {uid}" for uid in uids if uid in self.there}
        self.statements.append((series_uid, sorted(uids)))
        self.begun.release()
        assert self.gate.acquire(timeout=5)
        if self.error is not None:
            raise self.error
        return readable


class Bench:
    def __init__(self, executor: ThreadPoolExecutor, actor: Actor | None = READER) -> None:
        self.index = Index()
        authentication = SimpleNamespace(known_actor_of=lambda request: actor)
        services: Any = SimpleNamespace(executor=executor, retrieval=self.index, authentication=authentication)
        self.locator = Locator(services)

    def ask(self, uid: str, series_uid: str = "2.1") -> asyncio.Task[str | None]:
        path = {"study_uid": "3.1", "series_uid": series_uid, "sop_instance_uid": uid}
        request: Any = SimpleNamespace(path_params=path)

        async def found() -> str | None:
            answer = await self.locator.instance_of(request)
            return None if answer is None else str(answer.holdings[0])

        return asyncio.get_running_loop().create_task(found())

    async def until_begun(self) -> None:
        assert await asyncio.to_thread(self.index.begun.acquire, timeout=5)


def test_requests_that_come_while_a_statement_runs_share_the_next() -> None:
    async def run(executor: ThreadPoolExecutor) -> None:
        bench = Bench(executor)
        first = bench.ask("1.1")
        await bench.until_begun()
        later = [bench.ask(uid) for uid in ("1.2", "1.1", "1.3", "1.9")]
        await asyncio.sleep(0)
        bench.index.gate.release(2)
        assert await first == "holding of 1.1"
        answers = [await one for one in later]
        assert answers == ["holding of 1.2", "holding of 1.1", "holding of 1.3", None]
        assert bench.index.statements == [("2.1", ["1.1"]), ("2.1", ["1.1", "1.2", "1.3", "1.9"])]

    with ThreadPoolExecutor(4) as executor:
        asyncio.run(run(executor))


def test_who_asks_after_a_right_was_taken_away_is_not_served_by_a_statement_from_before() -> None:
    async def run(executor: ThreadPoolExecutor) -> None:
        bench = Bench(executor)
        before = bench.ask("1.1")
        await bench.until_begun()
        bench.index.there.clear()
        after = bench.ask("1.1")
        await asyncio.sleep(0)
        bench.index.gate.release(2)
        assert await before == "holding of 1.1"
        assert await after is None

    with ThreadPoolExecutor(4) as executor:
        asyncio.run(run(executor))


def test_another_series_does_not_wait() -> None:
    async def run(executor: ThreadPoolExecutor) -> None:
        bench = Bench(executor)
        one, other = bench.ask("1.1", "2.1"), bench.ask("1.2", "2.2")
        await bench.until_begun()
        await bench.until_begun()
        bench.index.gate.release(2)
        assert await one == "holding of 1.1"
        assert await other == "holding of 1.2"

    with ThreadPoolExecutor(4) as executor:
        asyncio.run(run(executor))


def test_when_the_index_fails_each_asks_alone_and_later_ones_are_answered() -> None:
    async def run(executor: ThreadPoolExecutor) -> None:
        bench = Bench(executor)
        bench.index.error = Unavailable("the index cannot be reached")
        bench.index.gate.release(1)
        assert await bench.ask("1.1") is None
        bench.index.error = None
        bench.index.gate.release(1)
        assert await bench.ask("1.1") == "holding of 1.1"

    with ThreadPoolExecutor(4) as executor:
        asyncio.run(run(executor))


def test_an_error_that_nobody_foresaw_leaves_nobody_waiting() -> None:
    async def run(executor: ThreadPoolExecutor) -> None:
        bench = Bench(executor)
        bench.index.error = ZeroDivisionError()
        bench.index.gate.release(1)
        assert await asyncio.wait_for(bench.ask("1.1"), 5) is None
        bench.index.error = None
        bench.index.gate.release(1)
        assert await bench.ask("1.1") == "holding of 1.1"

    with ThreadPoolExecutor(4) as executor:
        asyncio.run(run(executor))


@pytest.mark.parametrize(
    ("actor", "uid"),
    [
        (None, "1.1"),
        (Actor(1, ActorKind.USER, "x", Role.SECRETARY, 1, "A", "2.25.1", frozenset()), "1.1"),
        (READER, "1.1'"),
    ],
)
def test_who_is_not_known_or_may_not_is_left_to_the_ordinary_way(actor: Actor | None, uid: str) -> None:
    async def run(executor: ThreadPoolExecutor) -> None:
        bench = Bench(executor, actor)
        assert await bench.ask(uid) is None
        assert bench.index.statements == []

    with ThreadPoolExecutor(4) as executor:
        asyncio.run(run(executor))

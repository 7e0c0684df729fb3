"""Accounts on a fresh database, for the tests of this folder."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from accounts_world import QUICK, Clock
from negatoscope.audit import Trail
from negatoscope.db import Database
from negatoscope.sharing import COMMAND_LINE, Accounts, Logins, Passwords


@pytest.fixture
def trail(database: Database) -> Iterator[Trail]:
    with Trail(database, window_s=1.0, monotonic=time.monotonic, on_death=lambda _: None) as trail:
        yield trail


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(database: Database, trail: Trail, clock: Clock) -> Accounts:
    made = Accounts(
        database,
        trail,
        monotonic=clock,
        passwords=Passwords(QUICK),
        resolve=lambda name: frozenset({"192.0.2.77"} if name == "ct1.example" else ()),
    )
    for code, oid in (("A", "2.25.1"), ("B", "2.25.2")):
        made.add_establishment(code, f"Establishment {code}", oid, by=COMMAND_LINE)
    return made


@pytest.fixture
def logins(database: Database, trail: Trail) -> Logins:
    return Logins(database, trail, Passwords(QUICK))

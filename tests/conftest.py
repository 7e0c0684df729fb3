"""Fixtures that need a real PostgreSQL. Nothing here is a mock."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import psycopg
import pytest
from harness import ArchiveBench, World, new_archive

from negatoscope.audit.trail import Trail
from negatoscope.db import Database, EmbeddedPostgreSQL, migrate
from negatoscope.model.actor import Actor, ActorKind, Right, Role

_numbers = itertools.count(1)

# The same examples at every run of `make test`, so that main is never red by chance; `make soak` searches on.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None, max_examples=2_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[EmbeddedPostgreSQL]:
    """One cluster for the whole run, with a migrated template database."""
    folder = Path(tempfile.mkdtemp(prefix="negatoscope-pg-"))
    # No sync: a database is made for each test. What depends on durability starts a server of its own.
    server = EmbeddedPostgreSQL(folder, {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})
    assert server.own()
    server.start()
    migrate(server.url)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(postgresql: EmbeddedPostgreSQL) -> Iterator[str]:
    """A migrated, empty database; dropped afterwards."""
    name = f"test_{next(_numbers)}"
    admin = postgresql.url.replace("/negatoscope?", "/postgres?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE negatoscope STRATEGY file_copy".encode())
    yield postgresql.url.replace("/negatoscope?", f"/{name}?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def database_url(postgresql: EmbeddedPostgreSQL) -> Iterator[str]:
    with fresh_database(postgresql) as url:
        yield url


@pytest.fixture
def another_database_url(postgresql: EmbeddedPostgreSQL) -> Iterator[str]:
    with fresh_database(postgresql) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url, size=12)
    yield database
    database.close()


@pytest.fixture
def world(database: Database) -> World:
    radiologists: dict[str, Actor] = {}
    modalities: dict[str, Actor] = {}
    reading = frozenset({Right.STORE, Right.QUERY, Right.RETRIEVE})
    with database.unit(None) as unit:
        for code, oid in (("A", "2.25.1001"), ("B", "2.25.1002")):
            row = unit.execute(
                "INSERT INTO establishment (code, name, authority_oid) VALUES (%s, %s, %s) RETURNING establishment_id",
                (code, f"Establishment {code}", oid),
            ).fetchone()
            assert row is not None
            establishment_id = row["establishment_id"]
            for kind, name, role, into in (
                (ActorKind.USER, f"radiologist-{code.lower()}", Role.RADIOLOGIST, radiologists),
                (ActorKind.APPLICATION_ENTITY, f"CT_{code}", None, modalities),
            ):
                row = unit.execute(
                    "INSERT INTO actor (kind, name, role, establishment_id, rights, reads_images)"
                    " VALUES (%s, %s, %s, %s, %s, true) RETURNING actor_id",
                    (kind, name, role, establishment_id, sorted(reading)),
                ).fetchone()
                assert row is not None
                into[code] = Actor(row["actor_id"], kind, name, role, establishment_id, code, oid, reading)
                if kind is ActorKind.APPLICATION_ENTITY:
                    unit.execute(
                        "INSERT INTO application_entity (actor_id, title) VALUES (%s, %s)", (row["actor_id"], name)
                    )
                else:
                    unit.execute(
                        "INSERT INTO user_account (actor_id, display_name) VALUES (%s, %s)", (row["actor_id"], name)
                    )
    return World(database, radiologists, modalities)


@pytest.fixture
def trail(database: Database) -> Iterator[Trail]:
    def died(error: BaseException) -> None:
        raise error

    with Trail(database, window_s=300.0, monotonic=time.monotonic, on_death=died) as trail:
        yield trail


@pytest.fixture
def archive(world: World, trail: Trail, tmp_path: Path) -> Iterator[ArchiveBench]:
    bench = new_archive(world, tmp_path, trail)
    yield bench
    bench.segments.close()


# What is quick comes first. The browser comes last: its driver leaves an event loop running behind it.
ORDER = ("unit", "protocol", "conformance", "db", "security", "peers", "reliability", "benchmarks", "browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(root).parts[0]))

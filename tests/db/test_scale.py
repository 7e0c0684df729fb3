"""Queries stay fast and the index small with many studies: generated rows, real statements, real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest
from harness import World

from benchmarks.generated import MEAN_INSTANCES, generate, identifier, size_of_lookup
from benchmarks.measure import percentile
from benchmarks.storage import INDEX_TABLES
from negatoscope.archive.query import Query, find_studies
from negatoscope.archive.query_worklist import worklist
from negatoscope.dicom.matching import parse_match

MOST_BYTES = 10_000  # of index a closed study, see the bars in docs/performance.md


def filled(world: World, url: str, studies: int) -> World:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE establishment SET authority_oid = '2.25.5001' WHERE code = 'A'")
        generate(connection, world.radiologist["A"].establishment_id, studies, lambda line: None)
    return world


def milliseconds(work: Callable[[int], object], times: int) -> float:
    """95th percentile, after a few that warm up."""
    for number in range(10):
        work(number)
    taken = []
    for number in range(times):
        began = time.perf_counter()
        work(number)
        taken.append((time.perf_counter() - began) * 1e3)
    return percentile(taken, 0.95)


def by_identifier(world: World, number: int) -> int:
    match = parse_match(0x00100020, "LO", identifier(number))
    return len(find_studies(world.database, world.scope("A"), Query(matches={"00100020": match})).rows)


def page(world: World, text: str) -> int:
    scope = world.scope("A")
    with world.database.reading(scope) as unit:
        return len(worklist(unit, scope, text=text).rows)


def check(world: World, url: str, studies: int) -> None:
    assert by_identifier(world, 7) == 3
    assert milliseconds(lambda n: by_identifier(world, n * 31 % (studies // 3)), 100) < 5
    assert page(world, "generated") == 50
    for text in ("", "generated", identifier(42), "patient generated17", "nobody"):
        assert milliseconds(lambda n, text=text: page(world, text), 20) < 100, text  # type: ignore[misc]  # the default
    with psycopg.connect(url, autocommit=True) as connection:
        total = 0
        for table in INDEX_TABLES:
            row = connection.execute("SELECT pg_total_relation_size(%s)", (table,)).fetchone()
            total += row[0] if row else 0
    assert total / studies + size_of_lookup() < MOST_BYTES, f"{MEAN_INSTANCES} instances in the mean"


def test_storing_reads_no_table_from_end_to_end_however_little_the_planner_knows(database_url: str) -> None:
    """A plan made while the tables were empty is kept by each connection while they grow."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT prosrc FROM pg_proc WHERE proname = 'store_instances'").fetchone()
        assert row is not None
        body = row[0].partition("RETURN QUERY")[2].partition(";")[0]
        statement = body.replace("(receipts,", "($1::text,").replace("WHERE known_new", "WHERE $2::boolean")
        plan = connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}".encode()).fetchall()
    scans = [line for (line,) in plan if "Scan" in line]
    assert any("Index Scan using series_pkey" in line for line in scans)
    assert not [line for line in scans if "Seq Scan" in line]


@pytest.mark.slow
def test_queries_are_fast_and_the_index_small_with_30_000_studies(world: World, database_url: str) -> None:
    check(filled(world, database_url, 30_000), database_url, 30_000)


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_queries_are_fast_and_the_index_small_with_a_million_studies(world: World, database_url: str) -> None:
    check(filled(world, database_url, 999_999), database_url, 999_999)

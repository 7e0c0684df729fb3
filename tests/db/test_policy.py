"""Which studies somebody may read: the relation, and the wall behind it, which holds without the relation."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from harness import World

from negatoscope.db import Database
from negatoscope.model.actor import Actor, Purpose, Right, Scope
from negatoscope.sharing import policy

TABLES = ("study", "series", "instance", "quarantine")
SHARED = "2.25.99"  # a study that both establishments hold


@pytest.fixture
def filled(world: World) -> World:
    """A and B each hold one study of their own and a copy of one that both have, down to the instances."""
    with world.database.unit(None) as unit:
        unit.execute("INSERT INTO segment (name) VALUES ('s')")
        for number, code in enumerate(("A", "B"), 1):
            establishment_id = world.radiologist[code].establishment_id
            for study_uid in (f"2.25.{number}", SHARED):
                unit.execute(
                    """
                    WITH made_patient AS (
                        INSERT INTO patient (authority_oid, identifier) VALUES (%(oid)s, %(uid)s) RETURNING patient_id
                    ), made_study AS (
                        INSERT INTO study (establishment_id, patient_id, study_uid, attributes)
                        SELECT %(e)s, patient_id, %(uid)s, '{}' FROM made_patient RETURNING study_id
                    ), made_series AS (
                        INSERT INTO series (study_id, establishment_id, series_uid, attributes)
                        SELECT study_id, %(e)s, %(uid)s || '.1', '{}' FROM made_study RETURNING series_id
                    ), aside AS (
                        INSERT INTO quarantine (establishment_id, reason, sop_instance_uid, transfer_syntax_uid, sha256,
                            segment_id, segment_offset, length, crcs, actor_id)
                        SELECT %(e)s, 'r', %(uid)s || '.1.2', '1', '', segment_id, 0, 1, '', 1 FROM segment
                    )
                    INSERT INTO instance (establishment_id, sop_instance_uid, series_id, sop_class_uid,
                        transfer_syntax_uid, sha256, segment_id, segment_offset, length, crcs, actor_id)
                    SELECT %(e)s, %(uid)s || '.1.1', series_id, '1', '1', '', segment_id, 0, 1, '', 1
                    FROM made_series, segment
                    """,
                    {"e": establishment_id, "uid": study_uid, "oid": f"{world.radiologist[code].authority_oid}"},
                )
    return world


def readable(database: Database, scope: Scope) -> list[tuple[int, str]]:
    """(establishment, study UID) of what the relation gives, with the wall taken away."""
    with database.unit(None) as unit:
        rows = unit.execute(
            "SELECT establishment_id, study_uid"
            " FROM readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) ORDER BY study_uid",
            scope.parameters(),
        ).fetchall()
    return [(row["establishment_id"], row["study_uid"]) for row in rows]


def set_actor(database: Database, actor: Actor, change: str) -> None:
    with database.unit(None) as unit:
        unit.execute(f"UPDATE actor SET {change} WHERE actor_id = %s".encode(), (actor.actor_id,))


def test_an_actor_reads_the_studies_of_the_establishment_and_its_copy_of_a_shared_one(filled: World) -> None:
    for number, code in enumerate(("A", "B"), 1):
        mine = filled.radiologist[code].establishment_id
        expected = [(mine, f"2.25.{number}"), (mine, SHARED)]
        assert readable(filled.database, filled.scope(code)) == expected
        assert readable(filled.database, Scope(filled.modality[code])) == expected


def test_a_study_scoped_token_reads_that_study_and_nothing_else(filled: World) -> None:
    actor = filled.radiologist["A"]
    own = replace(actor, only_study_uid="2.25.1")
    assert readable(filled.database, Scope(own)) == [(actor.establishment_id, "2.25.1")]
    for foreign in ("2.25.2", "2.25.3", ""):
        assert readable(filled.database, Scope(replace(actor, only_study_uid=foreign))) == []


@pytest.mark.parametrize("change", ["reads_images = false", "disabled_at = now()"])
def test_who_reads_no_images_or_is_disabled_reads_nothing(filled: World, change: str) -> None:
    set_actor(filled.database, filled.radiologist["A"], change)
    assert readable(filled.database, filled.scope("A")) == []
    assert len(readable(filled.database, filled.scope("B"))) == 2


def test_nobody_reads_nothing(filled: World) -> None:
    for actor_id in (0, -1, 999_999):
        assert readable(filled.database, Scope(replace(filled.radiologist["A"], actor_id=actor_id))) == []


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.NORMAL])
def test_a_purpose_that_is_not_open_reads_nothing_in_sql_either(filled: World, purpose: Purpose) -> None:
    assert readable(filled.database, Scope(filled.radiologist["A"], purpose)) == []


def test_the_rights_of_the_claimed_establishment_do_not_count(filled: World) -> None:
    """The relation asks the database who the actor is; what the process believes changes nothing."""
    forged = replace(filled.radiologist["A"], establishment_id=filled.radiologist["B"].establishment_id)
    assert [uid for _, uid in readable(filled.database, policy.scope(forged, Right.QUERY))] == ["2.25.1", SHARED]


# The second wall: every query below has no policy in it at all ------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_without_any_policy_code_a_unit_of_b_sees_nothing_of_a(filled: World, table: str) -> None:
    a, b = (filled.radiologist[code].establishment_id for code in ("A", "B"))
    query = f"SELECT DISTINCT establishment_id FROM {table}".encode()
    with filled.database.unit([b]) as unit:
        assert [row["establishment_id"] for row in unit.execute(query)] == [b]
    with filled.database.reading(filled.scope("B")) as unit:
        assert [row["establishment_id"] for row in unit.execute(query)] == [b]
    with filled.database.unit([a, b]) as unit:
        assert {row["establishment_id"] for row in unit.execute(query)} == {a, b}
    with filled.database.unit([]) as unit:
        assert unit.execute(query).fetchall() == []
    with filled.database.unit(None) as unit:
        assert {row["establishment_id"] for row in unit.execute(query)} == {a, b}


@pytest.mark.parametrize("table", TABLES)
def test_a_connection_that_names_no_establishment_sees_nothing(filled: World, database_url: str, table: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE negatoscope_app")
        assert connection.execute(f"SELECT 1 FROM {table}".encode()).fetchall() == []


@pytest.mark.parametrize("table", TABLES)
def test_a_unit_of_b_changes_and_deletes_nothing_of_a(filled: World, table: str) -> None:
    a, b = (filled.radiologist[code].establishment_id for code in ("A", "B"))
    with filled.database.unit([b]) as unit:
        moved = unit.execute(f"UPDATE {table} SET establishment_id = %s WHERE establishment_id = %s".encode(), (b, a))
        assert moved.rowcount == 0
        if table in ("instance", "quarantine"):
            deleted = unit.execute(f"DELETE FROM {table} WHERE establishment_id = %s".encode(), (a,))
            assert deleted.rowcount == 0


@pytest.mark.parametrize("table", TABLES)
def test_a_unit_of_b_writes_nothing_into_a(filled: World, table: str) -> None:
    a, b = (filled.radiologist[code].establishment_id for code in ("A", "B"))
    with pytest.raises(psycopg.errors.InsufficientPrivilege), filled.database.unit([b]) as unit:
        unit.execute(f"UPDATE {table} SET establishment_id = %s".encode(), (a,))


def test_the_relation_stands_behind_the_wall_too(filled: World) -> None:
    """Scope of A in a unit of B: the relation would allow, the wall does not."""
    b = filled.radiologist["B"].establishment_id
    with filled.database.unit([b]) as unit:
        rows = unit.execute(
            "SELECT 1 FROM readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s)",
            filled.scope("A").parameters(),
        ).fetchall()
    assert rows == []


def test_the_wall_is_computed_once_a_statement_and_not_once_a_row(filled: World) -> None:
    with filled.database.unit([filled.radiologist["A"].establishment_id]) as unit:
        plan = "\n".join(row["QUERY PLAN"] for row in unit.execute("EXPLAIN SELECT * FROM study"))
    filters = [line for line in plan.splitlines() if "Filter" in line]
    assert filters
    assert not any("current_setting" in line for line in filters)


def test_the_role_of_the_server_owns_no_table_and_cannot_lift_the_wall(filled: World) -> None:
    for statement in (
        "ALTER TABLE study DISABLE ROW LEVEL SECURITY",
        "DROP POLICY establishment_wall ON study",
        "CREATE TABLE mine (n int)",
        "ALTER ROLE negatoscope_app BYPASSRLS",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), filled.database.unit(None) as unit:
            unit.execute(statement.encode())

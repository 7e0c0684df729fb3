"""The embedded PostgreSQL and the units of work on it."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from harness import World

from negatoscope.db import Database, EmbeddedPostgreSQL
from negatoscope.db.migrate import migrations
from negatoscope.dicom.charset import fold
from negatoscope.errors import Unavailable


def test_data_checksums_and_synchronous_commit_are_on(tmp_path: Path) -> None:
    server = EmbeddedPostgreSQL(tmp_path)
    assert server.own()
    server.start()
    with closing(psycopg.connect(server.url)) as connection:
        for name, wanted in (("data_checksums", "on"), ("synchronous_commit", "on"), ("fsync", "on")):
            assert connection.execute("SELECT current_setting(%s)", (name,)).fetchone() == (wanted,)
    server.stop()


def test_a_unit_rolls_back_on_an_exception(database: Database) -> None:
    with pytest.raises(RuntimeError), database.unit(None) as unit:
        unit.execute("INSERT INTO installation VALUES ('k', 'v')")
        raise RuntimeError
    with database.unit(None) as unit:
        assert unit.execute("SELECT * FROM installation").fetchall() == []


def test_row_security_hides_another_establishment_without_any_policy_code(world: World) -> None:
    a, b = (world.radiologist[code].establishment_id for code in "AB")
    with world.database.unit([a]) as unit:
        patient = unit.execute(
            "INSERT INTO patient (authority_oid, identifier, name) VALUES ('2.25.1001', '1', 'X') RETURNING patient_id"
        ).fetchone()
        assert patient is not None
        unit.execute(
            "INSERT INTO study (establishment_id, patient_id, study_uid, attributes) VALUES (%s, %s, '1.2.3', '{}')",
            (a, patient["patient_id"]),
        )
        assert len(unit.execute("SELECT * FROM study").fetchall()) == 1
    with world.database.reading(world.scope("B")) as unit:
        assert unit.execute("SELECT * FROM study").fetchall() == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege), world.database.unit([b]) as unit:
        unit.execute(
            "INSERT INTO study (establishment_id, patient_id, study_uid, attributes) VALUES (%s, %s, '1.2.4', '{}')",
            (a, patient["patient_id"]),
        )


def test_the_servers_role_can_only_add_to_the_audit_trail(database: Database) -> None:
    for statement in ("UPDATE audit_event SET event = ''", "DELETE FROM audit_event", "TRUNCATE audit_event"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), database.unit(None) as unit:
            unit.execute(statement)


def test_fold_removes_accents_and_case_as_python_does(database: Database) -> None:
    names = ("Müller^Zoë", "ÉLÉONORE", "Ångström", "Nguyễn", "Œuvre", "Ωμέγα", "ΔΙΟΝΎΣΗΣ", "Διονύσης", "Жук", "Йолкина")
    with database.unit(None) as unit:
        for text in (*names, "山田", "がぎ", "ﾔﾏﾀﾞ", "홍^길동", "สมชาย^น้ำ", "שָׁרוֹן", "قَبَّاني"):
            row = unit.execute("SELECT fold(%s) AS folded", (text,)).fetchone()
            assert row == {"folded": fold(text)}


def test_names_that_were_folded_otherwise_are_folded_again(database_url: str) -> None:
    [again] = [statements for _, name, statements in migrations() if name == "0007_fold.sql"]
    [first] = [statements for version, _, statements in migrations() if version == 1]
    old = first[first.index("CREATE FUNCTION fold") : first.index("COMMENT ON FUNCTION fold")]
    folded = [("홍^길동",), ("διονυσησ",), ("x",)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(old.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION").encode())
        connection.execute(
            "INSERT INTO patient (authority_oid, identifier, name)"
            " VALUES ('2.25.1', '1', '홍^길동'), ('2.25.1', '2', 'Διονύσης'), ('2.25.1', '3', 'X')"
        )
        assert connection.execute("SELECT name_folded FROM patient ORDER BY identifier").fetchall() != folded
        connection.execute(again.encode())
        assert connection.execute("SELECT name_folded FROM patient ORDER BY identifier").fetchall() == folded
        words = "SELECT identifier FROM patient WHERE name_words @@ to_tsquery('simple', %s)"
        assert connection.execute(words, ("'길동':*",)).fetchall() == [("1",)]
        assert connection.execute(words, ("'διονυσησ':*",)).fetchall() == [("2",)]


def test_a_database_that_is_gone_is_said_to_be_unavailable(database_url: str) -> None:
    database = Database(database_url.replace("test_", "absent_"), wait_s=0.3)
    with pytest.raises(Unavailable), database.unit(None):
        pass
    database.close()


def test_who_waits_for_a_connection_gets_the_first_that_comes_back(database_url: str) -> None:
    """Connections are kept warm beside the pool, but never while somebody waits."""
    database = Database(database_url, size=2, wait_s=5.0)
    took: list[float] = []

    def wait() -> None:
        began = time.monotonic()
        with database.statements(None) as unit:
            unit.execute("SELECT 1")
        took.append(time.monotonic() - began)

    try:
        with database.statements(None):  # one that lasts
            with database.statements(None):
                waiting = threading.Thread(target=wait)
                waiting.start()
                time.sleep(0.3)
                assert not took
            waiting.join()
        assert took[0] < 2.0
    finally:
        database.close()

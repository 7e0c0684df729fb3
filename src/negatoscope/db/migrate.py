"""Plain SQL migrations, in order, each in one transaction, by one process at a time."""

from __future__ import annotations

import re
from importlib import resources

import psycopg

APP_ROLE = "negatoscope_app"
_LOCK = 0x4E454741  # "NEGA": one migrator at a time
_FILE = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")


def migrations() -> list[tuple[int, str, str]]:
    """(version, file name, statements) of every migration we ship, in order."""
    folder = resources.files("negatoscope.db").joinpath("migrations")
    found = []
    for file in folder.iterdir():
        if match := _FILE.match(file.name):
            found.append((int(match[1]), file.name, file.read_text(encoding="utf-8")))
    return sorted(found)


def migrate(url: str) -> list[str]:
    """Bring the database at ``url`` up to date; returns the names of what was applied.

    The user of ``url`` needs CREATEROLE the first time, unless a DBA has made the role
    ``negatoscope_app`` and granted it to that user.
    """
    applied: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration"
            " (version int PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {row[0] for row in connection.execute("SELECT version FROM schema_migration")}
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (APP_ROLE,)).fetchone():
            connection.execute("CREATE ROLE negatoscope_app NOLOGIN")
            connection.execute("GRANT negatoscope_app TO CURRENT_USER")
        for version, name, statements in migrations():
            if version in done:
                continue
            with connection.transaction():
                connection.execute(statements.encode())  # bytes: psycopg sends a file of ours as it is
                connection.execute("INSERT INTO schema_migration (version, name) VALUES (%s, %s)", (version, name))
            applied.append(name)
    return applied

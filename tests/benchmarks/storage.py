"""Rows of what is kept: index bytes a study, disk bytes of packed objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

INDEX_TABLES = ("patient", "study", "series", "pack", "instance", "closed_instance", "closed_instance_run",
                "closed_instance_block", "change_feed", "segment")  # fmt: skip


def index_bytes(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Of each table with its indexes and long values, after what is dead was taken out."""
    connection.execute("VACUUM (FULL, ANALYZE)")
    return {
        table: int((connection.execute("SELECT pg_total_relation_size(%s)", (table,)).fetchone() or (0,))[0])
        for table in INDEX_TABLES
    }


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

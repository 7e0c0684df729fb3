"""Heads that leave the database, and the verification that uses them.

Whoever owns the database can cut the tail of the trail and its head row together, or chain it anew from any
point. Neither survives a comparison with a head that was written elsewhere, so the worker appends the head
to ``DATA/audit-heads.log`` each minute; copy that file to another machine as it grows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from negatoscope.audit.chain import Head, Record, Verification, verify
from negatoscope.audit.ports import Unit, Units
from negatoscope.queries import load_queries

QUERIES = load_queries("negatoscope.audit")
HEADS_FILE = "audit-heads.log"
PAGE = 5_000  # events read at once
_LINE = re.compile(r"([0-9]{1,18}) ([0-9a-f]{64})")


def export_head(units: Units, folder: Path) -> Head:
    """Append the head to ``folder/audit-heads.log`` as ``<sequence> <hash, hexadecimal>``, synced.

    Nothing is written when it has not moved since the last line. Times are not in the file: the event of
    that sequence number has one.

    Raises:
        Unavailable: the database cannot be reached.
    """
    with units.unit(None) as unit:
        head = read_head(unit)
    known = read_heads(folder)
    if head.sequence and (not known or known[-1] != head):
        file = os.open(folder / HEADS_FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"  # a line that a crash cut short
            os.write(file, (b"\n" if torn else b"") + f"{head.sequence} {head.hash.hex()}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
    return head


def read_heads(folder: Path) -> list[Head]:
    """The heads exported so far, in order of the file; lines cut short by a crash are passed over."""
    file = folder / HEADS_FILE
    if not file.exists():
        return []
    matches = (_LINE.fullmatch(line) for line in file.read_text(encoding="ascii", errors="replace").split("\n"))
    return [Head(int(match[1]), bytes.fromhex(match[2])) for match in matches if match]


def verify_trail(units: Units, folder: Path | None = None) -> Verification:
    """Verify the whole trail against its head row and against the heads exported to ``folder``.

    It reads one snapshot, so it may run while events are appended.

    Raises:
        Unavailable: the database cannot be reached.
    """
    witnesses = read_heads(folder) if folder else []  # before the snapshot: never ahead of it
    with units.unit(None) as unit:
        unit.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return verify(_records(unit), read_head(unit), witnesses)


def read_head(unit: Unit) -> Head:
    """The head row; an empty head when somebody deleted it, which the verification then shows."""
    row = unit.execute(QUERIES["read_head"]).fetchone()
    return Head(row["sequence"], bytes(row["hash"])) if row else Head(0, bytes(32))


def _records(unit: Unit) -> Iterator[Record]:
    after: int | None = None
    while rows := unit.execute(QUERIES["read_events"], {"after": after, "limit": PAGE}).fetchall():
        for row in rows:
            yield Record(**(row | {"hash": bytes(row["hash"])}))
        after = rows[-1]["sequence"]

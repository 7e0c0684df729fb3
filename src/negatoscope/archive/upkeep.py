"""What keeps the store small: segments and packs that nothing refers to, lookups folded into blocks."""

from __future__ import annotations

import gzip
import heapq
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import orjson

from negatoscope.archive import lookup, manifest
from negatoscope.archive.ports import PackStore, Transactions, Unit
from negatoscope.errors import CorruptObject
from negatoscope.queries import load_queries

log = logging.getLogger(__name__)
SQL = load_queries("negatoscope.archive", "upkeep.sql")

FOLD_FROM = 50_000  # closed instances of an establishment that are still rows
BLOCK_ENTRIES = 512  # of one closed_instance_block: 6 kB


def reclaim_segments(transactions: Transactions, delete: Callable[[int], None], grace_s: float) -> int:
    """Delete sealed segments whose every object is in a pack. Row first, bytes after: a crash leaves an orphan."""
    with transactions.unit(None) as unit:
        rows = unit.execute(SQL["reclaim_segments"], {"grace_s": grace_s}).fetchall()
    for row in rows:
        delete(row["segment_id"])
    return len(rows)


def reclaim_packs(transactions: Transactions, packs: PackStore, grace_s: float) -> int:
    """Delete packs that a newer one has replaced, once nobody can still be reading them."""
    with transactions.unit(None) as unit:
        rows = unit.execute(SQL["reclaim_packs"], {"grace_s": grace_s}).fetchall()
    for row in rows:
        packs.delete(row["name"])
    return len(rows)


def sweep_packs(transactions: Transactions, packs: PackStore, old_enough: Callable[[str], bool]) -> int:
    """Delete packs that never came into the index: their writer died between the file and the commit.

    Only those whose every object the index holds elsewhere. An index that was lost, or came from a backup, knows
    less than the store does: then a pack that it does not know may be the only copy, and it stays.
    ``old_enough`` keeps the hands off packs that are just being written. Returns how many were deleted.
    """
    swept = kept = 0
    names = (name for name in packs.names() if old_enough(name))
    while page := list(islice(names, 1000)):
        with transactions.unit(None) as unit:
            known = {row["name"] for row in unit.execute(SQL["known_packs"], {"names": page})}
        for name in page:
            if name in known:
                continue
            if _held_elsewhere(transactions, packs, name):
                packs.delete(name)
                swept += 1
            else:
                kept += 1
    if swept:
        log.warning("orphan_packs_swept packs=%d", swept)
    if kept:
        log.error("packs_not_in_the_index packs=%d kept: rebuild-index takes them back", kept)
    return swept


def _held_elsewhere(transactions: Transactions, packs: PackStore, name: str) -> bool:
    """Whether each object of the pack is in the index with the same bytes, so in another place."""
    try:
        footer = orjson.loads(gzip.decompress(packs.footer(name)))
    except (CorruptObject, OSError, EOFError, zlib.error, orjson.JSONDecodeError):
        return False  # nobody can say what is in it
    with transactions.unit(None) as unit:
        row = unit.execute(SQL["establishment_of"], {"code": footer["establishment"]}).fetchone()
        return row is not None and all(
            _holds(unit, row["establishment_id"], entry["sop_instance_uid"], bytes.fromhex(entry["received_sha256"]))
            for entry in footer["instances"]
        )


def _holds(unit: Unit, establishment_id: int, sop_instance_uid: str, sha256: bytes) -> bool:
    key = {"establishment_id": establishment_id, "sop_instance_uid": sop_instance_uid}
    row = unit.execute(SQL["open_copy"], key).fetchone()
    if row:
        return bytes(row["sha256"]) == sha256
    for series_id in lookup.candidate_series(unit, establishment_id, sop_instance_uid):
        series = unit.execute(SQL["closed_copies"], {"series_id": series_id}).fetchone()
        for record in manifest.decode(series["manifest"], series["pack_id"]) if series else ():
            if record.sop_instance_uid == sop_instance_uid:
                return sha256.startswith(record.sha256)
    return False


def fold_lookups(transactions: Transactions, fold_from: int = FOLD_FROM) -> int:
    """Turn closed-instance rows into blocks, and small runs into larger ones. Returns entries folded.

    A run is merged with every run not larger than twice its size, so an establishment has a number of
    runs that grows with the logarithm of its instances, and each entry is rewritten as often.
    """
    folded = 0
    with transactions.unit(None) as unit:
        due = unit.execute(SQL["establishments_to_fold"], {"fold_from": fold_from}).fetchall()
    for row in due:
        with transactions.unit([row["establishment_id"]]) as unit:
            folded += _fold(unit, row["establishment_id"])
    return folded


def _fold(unit: Unit, establishment_id: int) -> int:
    key = {"establishment_id": establishment_id}
    fresh = [(row["uid_hash"], row["series_id"]) for row in unit.execute(SQL["take_rows"], key)]
    fresh.sort()
    runs = unit.execute(SQL["runs"], key).fetchall()
    merged, size = [], -(-len(fresh) // BLOCK_ENTRIES)
    for run in sorted(runs, key=lambda run: run["blocks"]):
        if run["blocks"] > 2 * size:
            break
        merged.append(run["run"])
        size += run["blocks"]
    sources: list[Iterable[tuple[int, int]]] = [fresh, *(_entries(unit, establishment_id, run) for run in merged)]
    entries = heapq.merge(*sources)
    number = max((run["run"] for run in runs), default=0) + 1
    while chunk := list(islice(entries, BLOCK_ENTRIES)):
        block = {"run": number, "first_hash": chunk[0][0], "entries": lookup.block(chunk)}
        unit.execute(SQL["insert_block"], key | block)
    unit.execute(SQL["insert_run"], key | {"run": number})
    unit.execute(SQL["delete_runs"], key | {"runs": merged})
    return len(fresh)


def _entries(unit: Unit, establishment_id: int, run: int) -> Iterator[tuple[int, int]]:
    after = -1
    key = {"establishment_id": establishment_id, "run": run}
    while rows := unit.execute(SQL["blocks_of_run"], key | {"after": after}).fetchall():
        for row in rows:
            yield from lookup.entries(row["entries"])
        after = rows[-1]["first_hash"]

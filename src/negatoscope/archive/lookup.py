"""From a SOP Instance UID alone to its closed series: 48 bits of its SHA-256, looked up in rows and blocks.

Sized on paper: 12 bytes an instance, so 160 instances (the mean French study) cost 1.9 kB.
A hash may lie: two UIDs share one with odds of 1 in 2.8e14 a pair, so candidates are always checked
against the manifest of the series.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from negatoscope.archive.ports import Unit
from negatoscope.queries import load_queries

SQL = load_queries("negatoscope.archive", "lookup.sql")
HASH_BYTES = 6
ENTRY_BYTES = 12  # 6 of hash, 6 of series_id, big endian


def uid_hash(sop_instance_uid: str) -> int:
    """The first 48 bits of SHA-256: fits a bigint, sorts as its bytes do."""
    return int.from_bytes(hashlib.sha256(sop_instance_uid.encode()).digest()[:HASH_BYTES], "big")


def candidate_series(unit: Unit, establishment_id: int, sop_instance_uid: str) -> list[int]:
    """Closed series that may hold the UID; to be checked against their manifests."""
    wanted = uid_hash(sop_instance_uid)
    parameters = {"establishment_id": establishment_id, "uid_hash": wanted}
    found = {row["series_id"] for row in unit.execute(SQL["recent"], parameters)}
    for row in unit.execute(SQL["blocks"], parameters):
        found.update(series for hash_, series in entries(row["entries"]) if hash_ == wanted)
    return sorted(found)


def entries(block: bytes) -> Iterator[tuple[int, int]]:
    """(hash, series_id) pairs of a block, in order."""
    for at in range(0, len(block), ENTRY_BYTES):
        yield (
            int.from_bytes(block[at : at + HASH_BYTES], "big"),
            int.from_bytes(block[at + HASH_BYTES : at + ENTRY_BYTES], "big"),
        )


def block(pairs: Sequence[tuple[int, int]]) -> bytes:
    """The form of ``closed_instance_block.entries``; ``pairs`` sorted."""
    return b"".join(hash_.to_bytes(HASH_BYTES, "big") + series.to_bytes(HASH_BYTES, "big") for hash_, series in pairs)

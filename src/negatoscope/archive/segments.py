"""The rows of segments and packs that storage asks for by id."""

from __future__ import annotations

from negatoscope.archive.commit import SQL
from negatoscope.archive.ports import Transactions
from negatoscope.errors import CorruptObject


def create_segment(transactions: Transactions) -> int:
    """A new segment's id. Committed before its file exists, so no two files ever share a number."""
    with transactions.unit(None) as unit:
        row = unit.execute(SQL["create_segment"]).fetchone()
    assert row is not None
    return int(row["segment_id"])


def advance_segment(transactions: Transactions, segment_id: int, end: int) -> None:
    """Whatever was acknowledged before ``end`` is in the index: recovery starts there."""
    with transactions.unit(None) as unit:
        unit.execute(SQL["advance_segment"], {"segment_id": segment_id, "end": end})


def seal_segment(transactions: Transactions, segment_id: int, end: int) -> None:
    """No writer will come back; all records before ``end`` are in the index."""
    with transactions.unit(None) as unit:
        unit.execute(SQL["seal_segment"], {"segment_id": segment_id, "end": end})


def pack_name(transactions: Transactions, pack_id: int) -> str:
    """The object name of a pack. Raises CorruptObject when the index does not know it."""
    with transactions.unit(None) as unit:
        row = unit.execute(SQL["pack_name"], {"pack_id": pack_id}).fetchone()
    if row is None:
        raise CorruptObject(f"pack {pack_id} is not in the index")
    return str(row["name"])

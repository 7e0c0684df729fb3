"""After a crash: what lies past the last indexed offset of a segment is read again.

Whole records are indexed (an object already there changes nothing), a torn tail is dropped. The log,
not the database, is the commit point.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from negatoscope.archive.commit import SQL, Committer, Receipt
from negatoscope.archive.ports import RecordHeader, Transactions
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.scan import scan
from negatoscope.errors import InvalidObject
from negatoscope.model.source import Door, Source
from negatoscope.model.stored import Outcome

log = logging.getLogger(__name__)


class FoundRecord(Protocol):
    """A whole record of a segment, its checksums verified."""

    @property
    def header(self) -> RecordHeader: ...
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def crcs(self) -> bytes: ...

    def view(self) -> AbstractContextManager[memoryview]: ...


class ClaimedSegment(Protocol):
    """A segment that no writer holds, held by us."""

    @property
    def segment_id(self) -> int: ...

    @property
    def passed_over(self) -> Sequence[int]:
        """Offsets of data sets, met so far, that were damaged since they were written, or torn if last."""
        ...

    def records(self, start: int) -> Iterator[FoundRecord]: ...

    def cut(self, end: int) -> None:
        """Drop what follows ``end``: a torn tail."""
        ...


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery did, for the log and for tests."""

    segments: int
    indexed: int  # records that had been synced and not committed
    known: int


def recover(
    transactions: Transactions,
    committer: Committer,
    claim: Callable[[int], AbstractContextManager[ClaimedSegment | None]],
    limits: Limits = DEFAULT_LIMITS,
) -> Recovered:
    """Index and seal every unsealed segment that no living process writes to. Safe to run at any time."""
    with transactions.unit(None) as unit:
        unsealed = unit.execute(SQL["unsealed_segments"]).fetchall()
    segments = indexed = known = 0
    for row in unsealed:
        with claim(row["segment_id"]) as segment:
            if segment is None:
                continue
            segments += 1
            end = row["indexed_to"]
            left = 0
            referred = referred_to(transactions, segment.segment_id)
            for record in segment.records(end):
                if record.offset in referred:
                    known += 1
                else:
                    was_new = put_back(transactions, committer, segment.segment_id, record, limits)
                    indexed += was_new is True
                    known += was_new is False
                    left += was_new is None
                end = record.offset + record.length + len(record.crcs)
            left += sum(offset < end and offset not in referred for offset in segment.passed_over)
            if any(offset >= end for offset in referred):
                # Not a torn tail: what the index refers to was synced, so a record before it has been damaged since.
                log.error("segment_damaged segment_id=%d offset=%d", segment.segment_id, end)
            else:
                segment.cut(end)
            if left:
                # Sealed, it would be reclaimed once nothing refers to it: these bytes may be the only ones.
                log.error("segment_left_unsealed segment_id=%d records=%d", segment.segment_id, left)
                continue
            with transactions.unit(None) as unit:
                unit.execute(SQL["seal_segment"], {"segment_id": segment.segment_id, "end": end})
    if segments:
        log.info("segments_recovered segments=%d indexed=%d known=%d", segments, indexed, known)
    return Recovered(segments, indexed, known)


def referred_to(transactions: Transactions, segment_id: int) -> set[int]:
    """Offsets in the segment that the index refers to."""
    with transactions.unit(None) as unit:
        rows = unit.execute(SQL["referred_to"], {"segment_id": segment_id}).fetchall()
    return {row["segment_offset"] for row in rows}


def put_back(
    transactions: Transactions, committer: Committer, segment_id: int, record: FoundRecord, limits: Limits
) -> bool | None:
    """Put one record back into the index. False: it, or its first copy, was there already.

    None: it cannot be indexed now, and its bytes must stay.
    """
    header = record.header
    with transactions.unit(None) as unit:
        source = _source(unit.execute(SQL["establishment"], {"code": header.establishment_code}).fetchall(), header)
    if source is None:
        log.error("recovery_without_establishment segment_id=%d offset=%d", segment_id, record.offset)
        return None
    try:
        with record.view() as view:
            scanned = scan(view, header.transfer_syntax_uid, limits)
    except InvalidObject:  # it was whole when it was synced: a limit has been lowered since
        log.error("recovery_refused segment_id=%d offset=%d", segment_id, record.offset)
        return None
    result = committer.submit(
        Receipt(
            source,
            scanned,
            header.transfer_syntax_uid,
            bytes.fromhex(header.sha256),
            segment_id,
            record.offset,
            record.length,
            record.crcs,
        ),
        lambda: None,  # whoever claimed the segment has synced it
    )
    return result.outcome is not Outcome.ALREADY_STORED


def _source(rows: Iterable[dict[str, object]], header: RecordHeader) -> Source | None:
    for row in rows:
        establishment_id = row["establishment_id"]
        assert isinstance(establishment_id, int)
        return Source(
            header.actor_id,
            establishment_id,
            header.establishment_code,
            header.authority_oid,
            header.actor_name,
            header.address,
            Door(header.door),
        )
    return None

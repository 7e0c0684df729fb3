"""Receive, keep, acknowledge: the one way in for every door.

The order is the promise: bytes synced in the segment, rows committed, only then success. Before that
an object that cannot be kept is cut off; after the rows were asked for, bytes are never taken away
unless the index has answered that it does not refer to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from negatoscope.archive.commit import Committer, Receipt, series_key
from negatoscope.archive.ports import Buffer, Count, Record, RecordHeader, SegmentEnds, uncounted
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.scan import Scanned, scan
from negatoscope.dicom.uid import is_storage_class, is_valid_uid
from negatoscope.errors import MismatchedObject, NegatoscopeError, UnsupportedSOPClass, wire_form
from negatoscope.model.source import Announced, Source
from negatoscope.model.stored import Outcome, StoreResult


class Store:
    """Implements ``ports.Receiver``. Thread-safe; a reception belongs to one thread."""

    def __init__(
        self,
        segments: SegmentEnds,
        committer: Committer,
        clock: Callable[[], float],
        limits: Limits = DEFAULT_LIMITS,
        count: Count = uncounted,
    ) -> None:
        self._segments, self.committer, self.clock, self.limits = segments, committer, clock, limits
        self._count = count

    def begin(self, source: Source, announced: Announced) -> StoreReception:
        """Start one object.

        Raises:
            MismatchedObject: the transfer syntax announced is not a UID.
            OutOfResources: the reserve is reached; nothing was taken.
            Unavailable: no segment can be opened.
        """
        return self.reception(source, announced, None)

    def batch(self) -> StoreBatch:
        return StoreBatch(self)

    def reception(self, source: Source, announced: Announced, behind: Record | None) -> StoreReception:
        """As :meth:`begin`, in the segment of ``behind`` if that is given."""
        if not is_valid_uid(announced.transfer_syntax_uid):
            raise MismatchedObject("the transfer syntax is not a UID")
        longest = self.limits.data_set
        record = behind.behind(longest) if behind is not None else self._segments.begin(longest)
        return StoreReception(self, source, announced, record)

    def settled(self, source: Source, length: int, outcome: StoreResult | NegatoscopeError) -> None:
        """Count an answer."""
        door = source.door.value
        if isinstance(outcome, NegatoscopeError):
            self._count("refused_total", door=door, reason=wire_form(outcome).slug)
        else:
            self._count("acknowledged_total", door=door)
            self._count("received_bytes_total", length, door=door)


class StoreReception:
    """Implements ``ports.Reception``."""

    def __init__(self, store: Store, source: Source, announced: Announced, record: Record) -> None:
        self._store, self.source, self._announced, self.record = store, source, announced, record
        self._ended = False

    def write(self, fragments: Sequence[Buffer]) -> None:
        self.record.write(fragments)

    def abort(self) -> None:
        if self.cut():
            self.record.release()

    def cut(self) -> bool:
        """Take away what was written; the record is not released. False: it has ended before."""
        if self._ended:
            return False
        self._ended = True
        self.record.abort()
        return True

    def keep(self) -> None:
        """From now on nothing can be taken away."""
        self._ended = True

    def commit(self) -> StoreResult:
        """See ``ports.Reception.commit``."""
        try:
            result = self._commit()
        except NegatoscopeError as error:
            self._store.settled(self.source, 0, error)
            raise
        self._store.settled(self.source, self.record.length, result)
        return result

    def _commit(self) -> StoreResult:
        try:
            receipt = self.judge()
        except BaseException:
            self.abort()
            raise
        try:
            result = self._store.committer.submit(receipt, self.record.sync)
            if result.outcome is Outcome.ALREADY_STORED:
                self.record.abort()  # the index answered that it keeps the first copy
        finally:
            self.keep()
            self.record.release()
        return result

    def judge(self) -> Receipt:
        """Judge the object and write what is left of it."""
        announced, source, record, store = self._announced, self.source, self.record, self._store
        with record.view() as view:
            scanned = scan(view, announced.transfer_syntax_uid, store.limits)
        _check(announced, scanned)
        known = store.committer.knows(series_key(source, scanned))
        parents = None if known else scanned.parents()  # now: what they refuse must be refused before the sync
        sha256, crcs = record.digest()
        record.finish(
            RecordHeader(
                source.establishment_code,
                source.authority_oid,
                source.actor_id,
                source.name,
                source.address,
                source.door.value,
                store.clock(),
                announced.transfer_syntax_uid,
                scanned.sop_class_uid,
                scanned.sop_instance_uid,
                scanned.series_uid,
                scanned.study_uid,
                sha256.hex(),
            )
        )
        return Receipt(
            source,
            scanned,
            announced.transfer_syntax_uid,
            sha256,
            record.segment_id,
            record.offset,
            record.length,
            crcs,
            parents,
        )


class BatchedStoreReception:
    """Implements ``ports.BatchedReception``."""

    def __init__(self, batch: StoreBatch, reception: StoreReception) -> None:
        self._batch, self._reception = batch, reception

    def write(self, fragments: Sequence[Buffer]) -> None:
        self._reception.write(fragments)

    def abort(self) -> None:
        self._reception.cut()

    def finish(self) -> None:
        try:
            receipt = self._reception.judge()
        except BaseException as error:
            self.abort()
            if isinstance(error, NegatoscopeError):
                self._batch.store.settled(self._reception.source, 0, error)
            raise
        self._reception.keep()
        self._batch.finished.append((receipt, self._reception.record))
        self._batch.bytes += receipt.length


class StoreBatch:
    """Implements ``ports.Batch``: records one behind the other in one segment, one sync and few transactions."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.bytes = 0
        self.finished: list[tuple[Receipt, Record]] = []
        self._last: Record | None = None  # begun; to be released

    def begin(self, source: Source, announced: Announced) -> BatchedStoreReception:
        reception = self.store.reception(source, announced, self._last)
        self._last = reception.record
        return BatchedStoreReception(self, reception)

    def commit(self) -> list[StoreResult | NegatoscopeError]:
        try:
            outcomes = self._commit()
        finally:
            if self._last is not None:
                self._last.release()
        for (receipt, _), outcome in zip(self.finished, outcomes, strict=True):
            self.store.settled(receipt.source, receipt.length, outcome)
        return outcomes

    def _commit(self) -> list[StoreResult | NegatoscopeError]:
        if not self.finished:
            return []
        receipts = [receipt for receipt, _ in self.finished]
        try:
            self.finished[-1][1].sync()
        except NegatoscopeError as error:
            return [error for _ in receipts]
        outcomes = self.store.committer.submit_all(receipts)
        for (_, record), outcome in zip(reversed(self.finished), reversed(outcomes), strict=True):
            if not isinstance(outcome, StoreResult) or outcome.outcome is not Outcome.ALREADY_STORED:
                break  # what lies before it in the segment stays
            record.abort()  # the index answered that it keeps the first copy
        return outcomes


def _check(announced: Announced, scanned: Scanned) -> None:
    """What was announced and what came must be the same object (PS3.4 B.2.3, status A900)."""
    for what, said, found in (
        ("SOP Instance UID", announced.sop_instance_uid, scanned.sop_instance_uid),
        ("SOP Class UID", announced.sop_class_uid, scanned.sop_class_uid),
        ("Study Instance UID", announced.study_uid, scanned.study_uid),
    ):
        if said is not None and said != found:
            raise MismatchedObject(f"{what} is not the one announced")
    if not is_storage_class(scanned.sop_class_uid):
        raise UnsupportedSOPClass("not a storage SOP class")

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
        self._segments, self._committer, self._clock, self._limits = segments, committer, clock, limits
        self._count = count

    def begin(self, source: Source, announced: Announced) -> StoreReception:
        """Start one object.

        Raises:
            MismatchedObject: the transfer syntax announced is not a UID.
            OutOfResources: the reserve is reached; nothing was taken.
            Unavailable: no segment can be opened.
        """
        if not is_valid_uid(announced.transfer_syntax_uid):
            raise MismatchedObject("the transfer syntax is not a UID")
        record = self._segments.begin(self._limits.data_set)
        return StoreReception(source, announced, record, self._committer, self._clock, self._limits, self._count)


class StoreReception:
    """Implements ``ports.Reception``."""

    def __init__(
        self,
        source: Source,
        announced: Announced,
        record: Record,
        committer: Committer,
        clock: Callable[[], float],
        limits: Limits,
        count: Count,
    ) -> None:
        self._count = count
        self._source, self._announced, self._record = source, announced, record
        self._committer, self._clock, self._limits = committer, clock, limits
        self._ended = False

    def write(self, fragments: Sequence[Buffer]) -> None:
        self._record.write(fragments)

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            self._record.abort()
            self._record.release()

    def commit(self) -> StoreResult:
        """See ``ports.Reception.commit``."""
        door = self._source.door.value
        try:
            result = self._commit()
        except NegatoscopeError as error:
            self._count("refused_total", door=door, reason=wire_form(error).slug)
            raise
        self._count("acknowledged_total", door=door)
        self._count("received_bytes_total", self._record.length, door=door)
        return result

    def _commit(self) -> StoreResult:
        try:
            receipt = self._receive()
        except BaseException:
            self.abort()
            raise
        try:
            result = self._committer.submit(receipt, self._record.sync)
            if result.outcome is Outcome.ALREADY_STORED:
                self._record.abort()  # the index answered that it keeps the first copy
        finally:
            self._ended = True
            self._record.release()
        return result

    def _receive(self) -> Receipt:
        """Judge the object and write what is left of it."""
        announced, source, record = self._announced, self._source, self._record
        with record.view() as view:
            scanned = scan(view, announced.transfer_syntax_uid, self._limits)
        _check(announced, scanned)
        known = self._committer.knows(series_key(source, scanned))
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
                self._clock(),
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

"""Receipts to rows: group commit, and the decision what a receipt is to what is already held.

Whoever finds no commit under way leads: it takes all waiting receipts through one transaction and wakes
their owners. A single sender so pays no hand-over; many senders share each sync of the database.

A receipt that nobody else waits beside has its statement run while its bytes are being synced; the commit
is asked for when they are. So an index never refers to bytes that a power cut could take away.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb, set_json_dumps

from negatoscope.archive import manifest
from negatoscope.archive.lookup import candidate_series, uid_hash
from negatoscope.archive.ports import AuditTrail, Count, Transactions, Unit, uncounted
from negatoscope.dicom.scan import Parents, Scanned
from negatoscope.errors import InvalidObject, NegatoscopeError, Unavailable
from negatoscope.model.event import AuditEvent, EventAction, EventKind, EventOutcome
from negatoscope.model.source import Source
from negatoscope.model.stored import Outcome, StoreResult
from negatoscope.queries import load_queries

log = logging.getLogger(__name__)
SQL = load_queries("negatoscope.archive", "store.sql")
set_json_dumps(orjson.dumps)

LARGEST_BATCH = 64  # receipts in one transaction
ATTEMPTS = 3  # of one batch, when the database chose it as the victim of a deadlock
_KNOWN_SERIES = 4096  # remembered a process

# Why an object is in quarantine.
OTHER_BYTES = "same-uid-other-bytes"
OTHER_SERIES = "same-uid-other-series"
OTHER_PATIENT = "study-of-another-patient"
OTHER_STUDY = "series-of-another-study"
FIRST_DAMAGED = "first-copy-damaged"


SeriesKey = tuple[int, str, str, str]


def series_key(source: Source, scanned: Scanned) -> SeriesKey:
    """What must agree for two objects to share a series row without a second look."""
    return (source.establishment_id, scanned.patient_identifier, scanned.study_uid, scanned.series_uid)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A complete object in a segment: scanned, not yet in the index."""

    source: Source
    scanned: Scanned
    transfer_syntax_uid: str
    sha256: bytes
    segment_id: int
    offset: int
    length: int
    crcs: bytes
    parents: Parents | None = None  # unless the committer knows the series

    @property
    def series_key(self) -> SeriesKey:
        return series_key(self.source, self.scanned)

    def result(self, outcome: Outcome, reason: str = "") -> StoreResult:
        scanned = self.scanned
        return StoreResult(
            outcome,
            self.source.establishment_id,
            scanned.study_uid,
            scanned.series_uid,
            scanned.sop_class_uid,
            scanned.sop_instance_uid,
            reason,
        )


@dataclass(slots=True)
class _Ticket:
    receipt: Receipt
    result: StoreResult | None = None
    error: NegatoscopeError | None = None

    @property
    def waits(self) -> bool:
        return self.result is None and self.error is None


@dataclass(slots=True)
class _Batch:
    """What one transaction did; published (cache, hooks) only once it is committed."""

    results: dict[int, StoreResult] = field(default_factory=dict)  # by position in the batch
    series: dict[SeriesKey, int] = field(default_factory=dict)
    events: list[AuditEvent] = field(default_factory=list)


class Committer:
    """Thread-safe; one a process."""

    def __init__(
        self,
        transactions: Transactions,
        audit: AuditTrail,
        count: Count = uncounted,
    ) -> None:
        self._transactions, self._audit, self._count = transactions, audit, count
        self._waiting: list[_Ticket] = []
        self._mutex, self._leading = threading.Lock(), threading.Lock()
        self._known: OrderedDict[SeriesKey, int] = OrderedDict()
        self._last = 0  # thread that submitted

    def knows(self, key: SeriesKey) -> bool:
        """Whether the parents of a receipt are not needed: an object of this series has been committed."""
        return key in self._known

    def submit(self, receipt: Receipt, sync: Callable[[], None]) -> StoreResult:
        """Block until the receipt's bytes are synced and its rows committed.

        Args:
            sync: makes the bytes durable; called once.

        Raises:
            Unavailable: the index cannot commit now. Whether it did in the end is unknown, so the bytes
                must stay: a second try finds them, and start-up indexes them.
            InvalidObject: the index refuses this very object.
        """
        ticket = _Ticket(receipt)
        if not self._settle_alone(ticket, sync) and ticket.waits:  # else it has failed: never sync twice
            sync()
        self._wait([ticket])
        if ticket.error is not None:
            raise ticket.error
        assert ticket.result is not None
        return ticket.result

    def submit_all(self, receipts: Sequence[Receipt]) -> list[StoreResult | NegatoscopeError]:
        """Block until the rows of receipts whose bytes are synced are committed; of each its result, or why not."""
        tickets = [_Ticket(receipt) for receipt in receipts]
        self._wait(tickets)
        return [ticket.result or ticket.error or Unavailable("the index failed") for ticket in tickets]

    def _wait(self, tickets: list[_Ticket]) -> None:
        with self._mutex:
            self._waiting += [ticket for ticket in tickets if ticket.waits]
        while any(ticket.waits for ticket in tickets):
            with self._leading:
                if any(ticket.waits for ticket in tickets):
                    self._lead()

    def _settle_alone(self, ticket: _Ticket, sync: Callable[[], None]) -> bool:
        """A receipt of a known series, if no other is under way or waits. Returns whether its bytes are synced.

        They may be without a result: the longer way finds out what is wrong.
        """
        receipt = ticket.receipt
        series_id = self._known.get(receipt.series_key)
        # Beside others it would only make them wait: a batch of theirs costs less.
        last, self._last = self._last, threading.get_ident()
        if series_id is None or last != self._last or not self._leading.acquire(blocking=False):
            return False
        synced = False
        try:
            if self._waiting:
                return False
            with self._transactions.statements([receipt.source.establishment_id]) as unit:
                with unit.pipeline():  # what is executed in it commits when it ends
                    cursor = _store(unit, [receipt], {0: series_id})
                    try:
                        sync()
                        synced = True
                    finally:
                        if not synced:
                            unit.close()  # else leaving the pipeline would commit
                if (receipt.segment_id, receipt.offset) in _places(cursor):
                    ticket.result = receipt.result(Outcome.CREATED)
        except Unavailable as error:
            ticket.error = error
        except psycopg.Error:
            pass  # nothing is committed
        finally:
            self._leading.release()
        return synced

    def _lead(self) -> None:
        with self._mutex:
            tickets, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
        try:
            self._settle(tickets)
        except BaseException:
            for ticket in tickets:  # nobody may wait for a leader that is gone
                ticket.error = ticket.error or Unavailable("the index failed")
            raise

    def _settle(self, tickets: list[_Ticket]) -> None:
        tickets = self._settle_at_once(tickets)
        if not tickets:
            return
        receipts = [ticket.receipt for ticket in tickets]
        try:
            results = self._commit(receipts)
        except NegatoscopeError as error:
            for ticket in tickets:
                ticket.error = error
        except psycopg.Error as error:
            log.warning("commit_refused sqlstate=%s receipts=%d", error.sqlstate, len(receipts))
            if len(tickets) == 1:
                tickets[0].error = InvalidObject("the index cannot hold this object")
                return
            for ticket in tickets:  # one of them is the cause: the others must not suffer for it
                self._settle([ticket])
        else:
            for ticket, result in zip(tickets, results, strict=True):
                ticket.result = result

    def _settle_at_once(self, tickets: list[_Ticket]) -> list[_Ticket]:
        """New instances of known series: one round trip, which commits by itself. Returns the tickets that it left.

        Whoever was inserted here is committed and must not be asked about again: it would look like its own copy.
        """
        receipts = [ticket.receipt for ticket in tickets]
        if not all(receipt.series_key in self._known for receipt in receipts):
            return tickets
        series_ids = {i: self._known[receipt.series_key] for i, receipt in enumerate(receipts)}
        establishments = sorted({receipt.source.establishment_id for receipt in receipts})
        try:
            with self._transactions.statements(establishments) as unit:
                places = _insert(unit, receipts, series_ids)
        except Unavailable as error:
            for ticket in tickets:
                ticket.error = error
            return []
        except psycopg.Error:
            return tickets  # nothing is committed; the longer way finds out what is wrong, and with whom
        left = []
        for ticket in tickets:
            if (ticket.receipt.segment_id, ticket.receipt.offset) in places:
                ticket.result = ticket.receipt.result(Outcome.CREATED)
            else:
                left.append(ticket)
        return left

    def _commit(self, receipts: list[Receipt]) -> list[StoreResult]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                batch = self._transaction(receipts)
                break
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if attempt == ATTEMPTS:
                    raise Unavailable("the index is contended") from None
            except psycopg.errors.ForeignKeyViolation:
                if attempt == ATTEMPTS:
                    raise
                self._known.clear()  # a series we knew is gone: look again
        self._known.update(batch.series)
        while len(self._known) > _KNOWN_SERIES:
            self._known.popitem(last=False)
        for result in batch.results.values():
            if result.outcome is Outcome.QUARANTINED:
                self._count("quarantined_total")
        return [batch.results[position] for position in range(len(receipts))]

    def _transaction(self, receipts: list[Receipt]) -> _Batch:
        establishments = sorted({receipt.source.establishment_id for receipt in receipts})
        batch = _Batch()
        with self._transactions.unit(establishments) as unit:
            unit.execute(SQL["lock_establishments"], {"establishment_ids": establishments})
            series_ids = self._resolve(unit, receipts, batch)
            places = _insert(unit, receipts, series_ids)
            for i, receipt in enumerate(receipts):
                if i in batch.results:
                    continue
                if (receipt.segment_id, receipt.offset) in places:
                    batch.results[i] = receipt.result(Outcome.CREATED)
                else:
                    batch.results[i] = self._second_look(unit, receipt, series_ids[i], batch)
            if batch.events:
                self._audit.append(unit, batch.events)
        return batch

    def _resolve(self, unit: Unit, receipts: Sequence[Receipt], batch: _Batch) -> dict[int, int]:
        """Series row of each receipt, made if need be; receipts with conflicting parents go to quarantine."""
        series_ids: dict[int, int] = {}
        for i, receipt in enumerate(receipts):
            key = receipt.series_key
            known: int | str | None = batch.series.get(key) or self._known.get(key)
            if known is None:
                known = _series_of(unit, receipt, batch)
            if isinstance(known, str):
                batch.results[i] = self._set_aside(unit, receipt, known, batch)
            else:
                batch.series[key] = series_ids[i] = known
        return series_ids

    def _second_look(self, unit: Unit, receipt: Receipt, series_id: int, batch: _Batch) -> StoreResult:
        """The UID is held already, or its hash collides with a closed one."""
        held = _held(unit, receipt)
        if held is None:  # only the hash was known: insert without that question
            if _insert(unit, [receipt], {0: series_id}, known_new=True):
                return receipt.result(Outcome.CREATED)
            held = _held(unit, receipt)
            assert held is not None
        held_series, held_digest = held
        if not receipt.sha256.startswith(held_digest):
            return self._set_aside(unit, receipt, OTHER_BYTES, batch)
        if held_series != series_id:
            return self._set_aside(unit, receipt, OTHER_SERIES, batch)
        if unit.execute(
            SQL["damaged"], {"series_id": series_id, "sop_instance_uid": receipt.scanned.sop_instance_uid}
        ).fetchone():
            return self._set_aside(unit, receipt, FIRST_DAMAGED, batch)  # these bytes may be the only good ones
        return receipt.result(Outcome.ALREADY_STORED)

    def _set_aside(self, unit: Unit, receipt: Receipt, reason: str, batch: _Batch) -> StoreResult:
        scanned, source = receipt.scanned, receipt.source
        unit.execute(
            SQL["quarantine"],
            {
                "establishment_id": source.establishment_id,
                "reason": reason,
                "sop_class_uid": scanned.sop_class_uid,
                "sop_instance_uid": scanned.sop_instance_uid,
                "series_uid": scanned.series_uid,
                "study_uid": scanned.study_uid,
                "patient_identifier": scanned.patient_identifier,
                "transfer_syntax_uid": receipt.transfer_syntax_uid,
                "sha256": receipt.sha256,
                "segment_id": receipt.segment_id,
                "segment_offset": receipt.offset,
                "length": receipt.length,
                "crcs": receipt.crcs,
                "actor_id": source.actor_id,
            },
        )
        batch.events.append(
            _event(receipt, EventKind.SECURITY_ALERT, EventAction.EXECUTE, EventOutcome.MINOR_FAILURE, reason)
        )
        log.warning("object_quarantined reason=%s sop_instance_uid=%s", reason, scanned.sop_instance_uid)
        return receipt.result(Outcome.QUARANTINED, reason)


def _series_of(unit: Unit, receipt: Receipt, batch: _Batch) -> int | str:
    """The series_id, or the reason why the receipt cannot belong to the series it names."""
    scanned, source = receipt.scanned, receipt.source
    parents = receipt.parents or scanned.parents()
    study = {
        "establishment_id": source.establishment_id,
        "study_uid": scanned.study_uid,
        "study_date": parents.study_date,
        "study_time": parents.study_time,
        "accession_number": parents.accession_number,
        "attributes": Jsonb(parents.study_attributes),
        "authority_oid": source.authority_oid,
        "identifier": scanned.patient_identifier,
        "nameless_study_uid": "" if scanned.patient_identifier else scanned.study_uid,
        "name": parents.patient_name,
        "birth_date": parents.birth_date,
        "sex": parents.sex,
    }
    held_study = unit.execute(SQL["study"], study).fetchone()
    if held_study is None:
        unit.execute(SQL["insert_patient"], study)
        if unit.execute(SQL["insert_study"], study).fetchone():
            unit.execute(SQL["change"], study | {"kind": "study-created"})
        held_study = _one(unit, "study", study)
    if (held_study["authority_oid"], held_study["identifier"]) != (study["authority_oid"], study["identifier"]):
        return OTHER_PATIENT
    series = {
        "study_id": held_study["study_id"],
        "establishment_id": source.establishment_id,
        "series_uid": scanned.series_uid,
        "modality": parents.modality,
        "series_number": parents.series_number,
        "attributes": Jsonb(parents.series_attributes),
    }
    if unit.execute(SQL["insert_series"], series).fetchone():
        unit.execute(SQL["count_series"], series)
        unit.execute(SQL["change"], study | {"kind": "series-created"})
    held_series = _one(unit, "series", series)
    if held_series["study_id"] != held_study["study_id"]:
        return OTHER_STUDY
    batch.events.append(
        _event(receipt, EventKind.INSTANCES_TRANSFERRED, EventAction.CREATE, EventOutcome.SUCCESS, "series-received")
    )
    return int(held_series["series_id"])


def _insert(
    unit: Unit, receipts: Sequence[Receipt], series_ids: dict[int, int], *, known_new: bool = False
) -> set[tuple[int, int]]:
    """Insert what is new and count it. Returns the places (segment, offset) of what was inserted."""
    return _places(_store(unit, receipts, series_ids, known_new=known_new))


def _store(
    unit: Unit, receipts: Sequence[Receipt], series_ids: dict[int, int], *, known_new: bool = False
) -> psycopg.Cursor[DictRow]:
    chosen = [(receipts[i], series_id) for i, series_id in series_ids.items()]
    return unit.execute(
        SQL["store_instances"],
        {
            "establishments": ",".join(sorted({str(receipt.source.establishment_id) for receipt, _ in chosen})),
            # One text: dumping an array takes psycopg longer than all the rest here.
            "receipts": b"\n".join(orjson.dumps(_row(receipt, series_id)) for receipt, series_id in chosen).decode(),
            "known_new": known_new,
        },
    )


def _places(cursor: psycopg.Cursor[DictRow]) -> set[tuple[int, int]]:
    return {(row["segment_id"], row["segment_offset"]) for row in cursor}


def _row(receipt: Receipt, series_id: int) -> dict[str, object]:
    scanned = receipt.scanned
    return {
        "establishment_id": receipt.source.establishment_id,
        "sop_instance_uid": scanned.sop_instance_uid,
        "uid_hash": uid_hash(scanned.sop_instance_uid),
        "series_id": series_id,
        "sop_class_uid": scanned.sop_class_uid,
        "transfer_syntax_uid": receipt.transfer_syntax_uid,
        "instance_number": scanned.instance_number,
        "rows": scanned.rows,
        "columns": scanned.columns,
        "number_of_frames": scanned.number_of_frames,
        "sha256": receipt.sha256.hex(),
        "segment_id": receipt.segment_id,
        "segment_offset": receipt.offset,
        "length": receipt.length,
        "crcs": receipt.crcs.hex(),
        "actor_id": receipt.source.actor_id,
    }


def _held(unit: Unit, receipt: Receipt) -> tuple[int, bytes] | None:
    """(series_id, digest or its first bytes) of the instance that already has this UID."""
    establishment_id, uid = receipt.source.establishment_id, receipt.scanned.sop_instance_uid
    row = unit.execute(SQL["held_open"], {"establishment_id": establishment_id, "sop_instance_uid": uid}).fetchone()
    if row:
        return row["series_id"], row["sha256"]
    for series_id in candidate_series(unit, establishment_id, uid):
        series = unit.execute(SQL["manifest"], {"series_id": series_id}).fetchone()
        for record in manifest.decode(series["manifest"], series["pack_id"]) if series else ():
            if record.sop_instance_uid == uid:
                return series_id, record.sha256
    return None


def _one(unit: Unit, query: str, parameters: dict[str, Any]) -> DictRow:
    row = unit.execute(SQL[query], parameters).fetchone()
    assert row is not None, query
    return row


def _event(receipt: Receipt, kind: EventKind, action: EventAction, outcome: EventOutcome, reason: str) -> AuditEvent:
    source, scanned = receipt.source, receipt.scanned
    return AuditEvent(
        kind,
        action,
        outcome,
        source.actor_id,
        source.name,
        source.establishment_code,
        source.address,
        source.door.value,
        study_uid=scanned.study_uid,
        patient=f"{source.authority_oid}|{scanned.patient_identifier}",
        detail={"reason": reason, "series_uid": scanned.series_uid, "sop_class_uid": scanned.sop_class_uid},
    )

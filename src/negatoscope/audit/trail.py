"""The audit trail: events are chained and committed before whoever caused them is answered.

One writer thread a process takes everything that waits, locks the head, chains, inserts, commits and
releases the waiters: many events, one commit. The head row serialises processes. Times come from PostgreSQL.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

import orjson
import psycopg

from negatoscope.audit.chain import Head, Record, extend
from negatoscope.audit.events import Disclosure, disclosed
from negatoscope.audit.ports import Unit, Units
from negatoscope.errors import Unavailable
from negatoscope.model.actor import Scope
from negatoscope.model.event import AuditEvent
from negatoscope.queries import load_queries

QUERIES = load_queries("negatoscope.audit")
BATCH_LIMIT = 2_000  # events of one commit
COVERED_LIMIT = 100_000  # disclosures remembered; over it the oldest is forgotten and would be recorded again
LOCK_TIMEOUT_S = 20  # whoever holds the head longer is in error: see :meth:`Trail.append`
_LIVENESS_S = 1.0  # a waiter looks this often whether the writer still lives


@dataclass(slots=True, eq=False)
class _Pending:
    """Events on their way to a commit."""

    events: Sequence[AuditEvent]
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class _Key:
    """What one disclosure event covers."""

    actor_id: int
    session: str
    study_uid: str
    action: Disclosure
    purpose: str


class Trail:
    """Implements ``archive.ports.AuditTrail``. Thread-safe. The writer starts with the first event."""

    def __init__(
        self,
        units: Units,
        *,
        window_s: float,
        monotonic: Callable[[], float],
        on_death: Callable[[BaseException], None],
    ) -> None:
        """
        Args:
            units: The database.
            window_s: How long one event covers a session's reads of a study, seconds.
            monotonic: A clock that never goes back, seconds. It only bounds the window; times of events
                are PostgreSQL's.
            on_death: Called from the writer when it ends for a reason other than the database. The process
                must then end: nothing can be disclosed any more.
        """
        self._units, self._window_s, self._monotonic, self._on_death = units, window_s, monotonic, on_death
        self._condition = threading.Condition()
        self._waiting: list[_Pending] = []
        self._writer: threading.Thread | None = None
        self._process = os.getpid()
        self._closing = False
        self._death: BaseException | None = None
        self._covered: OrderedDict[_Key, tuple[float, _Pending]] = OrderedDict()
        self._covered_lock = threading.Lock()

    def __enter__(self) -> Trail:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def record(self, events: Sequence[AuditEvent]) -> None:
        """Return once ``events`` are committed, in their order, next to each other.

        Raises:
            Unavailable: they are not (or it is not known): disclose nothing, acknowledge nothing.
        """
        if events:
            self._wait(self._submit(events))

    def append(self, unit: Unit, events: Sequence[AuditEvent]) -> None:
        """Chain ``events`` within an open transaction, so that row and action share one commit.

        The head stays locked until that transaction ends, so call it last, keep the transaction short, and
        never wait for :meth:`record` or :meth:`disclose` inside it (they would wait for this lock).

        Raises:
            Unavailable: the head stayed locked for ``LOCK_TIMEOUT_S``.
        """
        if not events:
            return
        try:
            _append(unit, events)
        except psycopg.errors.LockNotAvailable as error:
            raise Unavailable("the audit trail is held by another transaction") from error

    def disclose(
        self,
        scope: Scope,
        action: Disclosure,
        study_uids: Iterable[str],
        door: str,
        address: str,
        detail: Mapping[str, str | int] | None = None,
    ) -> None:
        """Return once a committed event covers this session's reads of each study.

        One event covers an (actor, session, study, action, purpose) for the window; another session, study,
        action or purpose gets an event of its own. Whoever asks while that event is still on its way waits for it.

        Raises:
            Unavailable: not committed: send no byte.
        """
        actor, purpose = scope.actor, scope.purpose.value
        wanted = {
            _Key(actor.actor_id, actor.session, study_uid, action, purpose): study_uid for study_uid in study_uids
        }
        pendings: dict[int, _Pending] = {}
        with self._covered_lock:
            now = self._monotonic()
            fresh = []
            for key in wanted:
                until, pending = self._covered.get(key, (0.0, None))
                if pending is not None and now < until and pending.error is None:
                    pendings[id(pending)] = pending
                else:
                    fresh.append(key)
            if fresh:
                events = [disclosed(scope, action, wanted[key], door, address, detail) for key in fresh]
                mine = self._submit(events)
                pendings[id(mine)] = mine
                for key in fresh:
                    self._covered[key] = (now + self._window_s, mine)
                    self._covered.move_to_end(key)
                while len(self._covered) > COVERED_LIMIT:
                    self._covered.popitem(last=False)
        for pending in pendings.values():
            self._wait(pending)

    def is_covered(self, scope: Scope, action: Disclosure, study_uids: Iterable[str]) -> bool:
        """Whether :meth:`disclose` would return at once: committed events cover all of it. Never blocks."""
        actor, now = scope.actor, self._monotonic()
        for study_uid in study_uids:
            key = _Key(actor.actor_id, actor.session, study_uid, action, scope.purpose.value)
            until, pending = self._covered.get(key, (0.0, None))
            if pending is None or now >= until or not pending.done.is_set() or pending.error is not None:
                return False
        return True

    def close(self) -> None:
        """Commit what waits, end the writer. Later events are refused."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
            writer = self._writer
        if writer is not None and self._process == os.getpid():
            writer.join()

    def _submit(self, events: Sequence[AuditEvent]) -> _Pending:
        pending = _Pending(events)
        with self._condition:
            if self._process != os.getpid():
                raise Unavailable("the audit trail belongs to the parent process")
            if self._death is not None or self._closing:
                raise Unavailable("the audit trail is closed")
            if self._writer is None:
                self._writer = threading.Thread(target=self._run, name="audit-writer", daemon=True)
                self._writer.start()
            self._waiting.append(pending)
            self._condition.notify_all()
        return pending

    def _wait(self, pending: _Pending) -> None:
        while not pending.done.wait(_LIVENESS_S):
            writer = self._writer
            if (writer is None or not writer.is_alive()) and not pending.done.is_set():
                raise Unavailable("the audit writer is dead")
        if pending.error is not None:
            raise Unavailable("the audit trail cannot be written") from pending.error

    def _run(self) -> None:
        batch: list[_Pending] = []
        try:
            while batch := self._take():
                self._commit(batch)
        except BaseException as error:  # noqa: BLE001 - a writer that died silently would hang every door
            with self._condition:
                self._death = error
                batch += self._waiting
                self._waiting = []
            _release(batch, error)
            self._on_death(error)

    def _take(self) -> list[_Pending]:
        """Everything that waits, up to the limit of a batch; empty when it is time to end."""
        with self._condition:
            while not self._waiting and not self._closing:
                self._condition.wait()
            count = events = 0
            for pending in self._waiting:
                if count and events + len(pending.events) > BATCH_LIMIT:
                    break
                count, events = count + 1, events + len(pending.events)
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    def _commit(self, batch: Sequence[_Pending]) -> None:
        try:
            with self._units.unit(None) as unit:
                _append(unit, [event for pending in batch for event in pending.events])
        except (Unavailable, psycopg.OperationalError) as error:
            _release(batch, error)  # the database may come back; these callers are refused
        except (psycopg.Error, TypeError, ValueError) as error:
            if len(batch) == 1:
                _release(batch, error)
            for pending in batch if len(batch) > 1 else ():
                self._commit([pending])  # one event that cannot be stored must not take the others with it
        else:
            _release(batch, None)


def _release(batch: Iterable[_Pending], error: BaseException | None) -> None:
    for pending in batch:
        if not pending.done.is_set():
            pending.error = error
            pending.done.set()


def _append(unit: Unit, events: Sequence[AuditEvent]) -> None:
    # Two statements in one round trip; LOCAL: the setting ends with the transaction.
    cursor = unit.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'; " + QUERIES["lock_head"])
    cursor.nextset()
    row = cursor.fetchone()
    if row is None:
        raise Unavailable("the head of the audit trail is gone; run verify-audit")
    records = extend(Head(row["sequence"], bytes(row["hash"])), row["at"], events)
    unit.execute(QUERIES["append_events"], _parameters(records))


def _parameters(records: Sequence[Record]) -> dict[str, object]:
    # One JSON parameter for all rows: dumping seven lists takes six times as long.
    rows = [
        {
            "sequence": record.sequence,
            "actor_id": record.actor_id,
            "establishment_code": record.establishment_code,
            "study_uid": record.study_uid,
            "event": record.event,
            "hash": record.hash.hex(),
        }
        for record in records
    ]
    last = records[-1]
    return {"at": last.at, "records": orjson.dumps(rows).decode(), "sequence": last.sequence, "hash": last.hash}

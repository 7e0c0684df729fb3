"""The process that sends: claims deliveries, carries them, writes down what arrived. ADR 12.

Nothing here is the truth: killed at any point, the next one goes on from the rows.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from negatoscope.archive.ports import Count
from negatoscope.audit.events import Disclosure, disclosed, transfer_begun
from negatoscope.errors import Forbidden, NegatoscopeError, NotFound, PreconditionFailed
from negatoscope.model.actor import Actor, Right, Scope
from negatoscope.model.event import AuditEvent
from negatoscope.model.stored import SeriesHolding
from negatoscope.routing import Became, Claimed, Node, NodeKind, Nodes, Note, Priority, Queue, State, Wanted
from negatoscope.servers.dicom_store import where
from negatoscope.servers.sender_run import Carrier, NodeSilent, Parcel, Progress, Run, Stopped
from negatoscope.sharing import policy

log = logging.getLogger(__name__)

DOOR = "job"  # in audit events
MOST_AT_ONCE = 8  # deliveries of one process; two more are for urgent ones alone
URGENT_BESIDES = 2
MOST_ATTEMPTS = 3  # that end with objects refused
SETTLE_S = 10.0  # for acknowledgements to be written down


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    lease_s: float = 15.0  # a sender that has died is noticed after this
    beat_s: float = 1.0  # how soon urgent work, a pause or a lost lease is noticed
    look_s: float = 0.5  # between two looks at an idle queue
    retry_s: float = 5.0  # first wait after a failure; twice as long each time
    longest_retry_s: float = 900.0
    give_up_s: float = 3 * 86_400.0  # a delivery that waits longer is dead


class Locate(Protocol):
    def __call__(self, scope: Scope, study_uid: str, series_uid: str | None = None) -> list[SeriesHolding]: ...


class Record(Protocol):
    def __call__(self, events: Sequence[AuditEvent]) -> None: ...


class Deliverer:
    """One per process. ``start`` returns; ``stop`` ends what is under way between two objects."""

    def __init__(
        self,
        queue: Queue,
        nodes: Nodes,
        carriers: Mapping[NodeKind, Carrier],
        locate: Locate,
        record: Record,
        count: Count,
        timing: Timing | None = None,
    ) -> None:
        """``record``: returns once audit events are committed; raises before anything is disclosed."""
        self._queue, self._nodes, self._carriers = queue, nodes, carriers
        self._locate, self._record, self._count = locate, record, count
        self._timing = timing or Timing()
        self._owner = uuid.uuid4().hex
        self._runs: dict[int, Run] = {}
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._progress = Progress(queue)
        self._loops = [
            threading.Thread(target=self._loop, args=(work, every), name=name, daemon=True)
            for name, work, every in (
                ("claim", self.round, self._timing.look_s),
                ("beat", self.beat, self._timing.beat_s),
            )
        ]

    @property
    def alive(self) -> bool:
        """Whether deliveries are still claimed."""
        return all(loop.is_alive() for loop in self._loops)

    def start(self) -> None:
        for loop in self._loops:
            loop.start()

    def stop(self, grace_s: float = 4.0) -> None:
        """No more claims; what is under way ends with its object, or is left for its lease to end."""
        self._stopped.set()
        with self._lock:
            runs, threads = list(self._runs.values()), list(self._threads)
        for run in runs:
            run.stop = run.stop or "shutdown"
        for loop in self._loops:
            if loop.ident is not None:
                loop.join(grace_s)
        for thread in threads:
            thread.join(grace_s)
        self._progress.close()

    def round(self) -> int:
        """Claim what there is room for and begin to send it; how many deliveries."""
        with self._lock:
            urgent = sum(run.claimed.priority is Priority.URGENT for run in self._runs.values())
            room = MOST_AT_ONCE + URGENT_BESIDES - len(self._runs)
            others_room = MOST_AT_ONCE - (len(self._runs) - urgent)
        if room <= 0 or self._stopped.is_set():
            return 0
        claimed = self._queue.claim(
            self._owner,
            self._timing.lease_s,
            most=room,
            urgent_only=others_room <= 0,
            give_up_s=self._timing.give_up_s,
        )
        for one in claimed:
            run = Run(one, self._progress)
            thread = threading.Thread(target=self._thread, args=(run,), name="delivery", daemon=True)
            with self._lock:
                self._runs[one.delivery_id] = run
                self._threads.add(thread)
            thread.start()
        return len(claimed)

    def beat(self) -> None:
        """Prolong leases, and tell runs to stop."""
        with self._lock:
            runs = dict(self._runs)
        if runs:
            for delivery_id, stop in self._queue.beat(self._owner, list(runs), self._timing.lease_s).items():
                runs[delivery_id].stop = runs[delivery_id].stop or stop

    def wait_idle(self, within_s: float) -> bool:
        """Whether nothing is under way within this time. For tests and for a clean stop."""
        for thread in list(self._threads):
            thread.join(within_s)
        return not self._runs

    # ---- threads ------------------------------------------------------------------------------

    def _loop(self, work: Callable[[], object], every_s: float) -> None:
        while not self._stopped.is_set():
            try:
                if work():
                    continue
            except NegatoscopeError as error:
                log.warning("sending_postponed error=%s", type(error).__name__)
            except Exception as error:  # noqa: BLE001  # the queue goes on, whatever one round met
                log.error("sending_failed: %s", where(error))
            self._stopped.wait(every_s)

    def _thread(self, run: Run) -> None:
        try:
            self.deliver(run)
        except NegatoscopeError as error:
            log.warning("delivery_postponed id=%d error=%s", run.claimed.delivery_id, type(error).__name__)
        except Exception as error:  # noqa: BLE001  # its lease ends, and it comes again
            log.error("delivery_failed id=%d: %s", run.claimed.delivery_id, where(error))
        finally:
            with self._lock:
                self._runs.pop(run.claimed.delivery_id, None)
                self._threads.discard(threading.current_thread())

    # ---- one delivery -------------------------------------------------------------------------

    def deliver(self, run: Run) -> None:
        """Send what is left of a delivery, and settle what becomes of it."""
        claimed = run.claimed
        node = self._nodes.of_id(claimed.node_id)
        try:
            scope = policy.scope(self._queue.actor(claimed.actor_id), Right.RETRIEVE)
            holdings = self._locate(scope, claimed.study_uid, claimed.series_uid)
            parcels = self._parcels(run, holdings)
        except (NotFound, Forbidden) as error:  # gone, or not for whoever asked any more
            reason = "forbidden" if isinstance(error, Forbidden) else "not-found"
            self._queue.finish(claimed, self._owner, State.DEAD, reason)
            return
        except PreconditionFailed:  # the lease is gone
            return
        if claimed.old and parcels:
            self._queue.finish(claimed, self._owner, State.DEAD, "gave-up")
            return
        why = self._carry(node, scope, parcels, run) if parcels else None
        self._count("sent_total", run.acknowledged_objects, kind=node.kind.value)
        self._count("sent_bytes_total", run.sent_bytes, kind=node.kind.value)
        if not self._progress.settled(SETTLE_S):
            log.error("acknowledgements_unwritten id=%d", claimed.delivery_id)
            return  # the lease ends; what was not written down is sent again
        self._settle(node, run, why)

    def _parcels(self, run: Run, holdings: Sequence[SeriesHolding]) -> list[Parcel]:
        """What is to be sent and is there. Raises NotFound, PreconditionFailed."""
        claimed = run.claimed
        records = {
            (holding.series_uid, record.sop_instance_uid): record
            for holding in holdings
            for record in holding.instances
        }
        if claimed.planned:
            wanted = self._queue.to_send(claimed)
        else:
            everything = [
                Wanted(position, series_uid, record.sop_class_uid, uid, record.location.length)
                for position, ((series_uid, uid), record) in enumerate(records.items())
            ]
            wanted = self._queue.plan(claimed, self._owner, everything)
        parcels = []
        for one in wanted:
            record = records.get((one.series_uid, one.sop_instance_uid))
            if record is None:
                self._progress.put(Note(claimed.delivery_id, one.position, Became.REFUSED, "not-found"))
            else:
                parcels.append(Parcel(one, record, claimed.study_uid))
        return parcels

    def _carry(self, node: Node, scope: Scope, parcels: Sequence[Parcel], run: Run) -> Stopped | NodeSilent | None:
        """Audit, then send. What ended it early, if anything."""
        study_uid = run.claimed.study_uid
        self._record(
            [
                transfer_begun(scope, study_uid, node.name, len(parcels), DOOR, node.address),
                disclosed(scope, Disclosure.TRANSFER, study_uid, DOOR, node.address, _detail(run.claimed, node)),
            ]
        )
        try:
            self._carriers[node.kind].deliver(node, parcels, run)
        except (Stopped, NodeSilent) as early:
            return early
        return None

    def _settle(self, node: Node, run: Run, why: Stopped | NodeSilent | None) -> None:
        claimed, timing = run.claimed, self._timing
        if run.connected.is_set() and (run.acknowledged_objects or not isinstance(why, NodeSilent)):
            self._nodes.answered(node.node_id)  # a node that only connects is waited for longer and longer
        if isinstance(why, NodeSilent):
            log.warning("node_silent node_id=%d reason=%s", node.node_id, why)
            self._count("send_failures_total", 1, kind=node.kind.value)
            self._nodes.silent(node.node_id, str(why), timing.retry_s, timing.longest_retry_s)
            self._queue.give_back(claimed, self._owner, str(why))
            return
        if isinstance(why, Stopped):
            self._queue.give_back(claimed, self._owner, str(why))
            return
        unsent, refused, acknowledged = self._queue.left(claimed)
        if unsent:  # lost on the way: once more, behind the others
            self._queue.give_back(claimed, self._owner, "connection-lost", timing.retry_s)
        elif not refused:
            asks = node.commitment and acknowledged > 0
            self._queue.finish(claimed, self._owner, State.COMMITTING if asks else State.DONE)
        elif claimed.attempts + 1 >= MOST_ATTEMPTS:
            self._queue.finish(claimed, self._owner, State.DEAD, "refused")
        else:
            pause_s = min(timing.retry_s * 2**claimed.attempts, timing.longest_retry_s)
            self._queue.give_back(claimed, self._owner, "refused", pause_s, failed=True)


def _detail(claimed: Claimed, node: Node) -> dict[str, str | int]:
    detail: dict[str, str | int] = {"destination": node.name, "delivery_id": claimed.delivery_id}
    return detail | ({"rule": claimed.rule} if claimed.rule else {})


def hand_of(system_actor: Callable[[str], Actor]) -> Callable[[str], Actor]:
    """``system_actor`` by establishment code, remembered: it is the same for ever."""
    known: dict[str, Actor] = {}

    def hand(code: str) -> Actor:
        if code not in known:
            known[code] = system_actor(code)
        return known[code]

    return hand

"""The durable queue of deliveries: one row is one study or series on its way to one node. ADR 12.

All that is true is in rows. A sender claims a row for the length of a lease, prolongs it while it works, and
writes down each object that the peer has acknowledged; a sender that dies leaves a lease that ends, and
whoever claims the row next goes on behind the last object. Leases and waits are measured by the database's
clock; their lengths are passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from hashlib import sha256

import orjson
from psycopg.rows import DictRow

from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import BadRequest, Forbidden, NotFound, PreconditionFailed
from negatoscope.model.actor import Actor, ActorKind, Right, Role
from negatoscope.model.event import AuditEvent, EventAction, EventKind, EventOutcome
from negatoscope.queries import load_queries
from negatoscope.routing.nodes import Node
from negatoscope.routing.ports import Journal, Unit, Units
from negatoscope.sharing import policy

QUERIES = load_queries("negatoscope.routing", "queue.sql")
HASH_BYTES = 6  # of SHA-256 of a SOP Instance UID: enough within one series
NODES_A_LOOK = 50
LISTED = 200


class Priority(IntEnum):
    URGENT = 0  # has a place of its own at each node; what is less urgent makes room
    NORMAL = 1
    BULK = 2


class State(StrEnum):
    HELD = "held"  # somebody must release it
    WAITING = "waiting"
    SENDING = "sending"
    COMMITTING = "committing"  # all is sent; the node's promise to keep it is awaited
    DONE = "done"
    DEAD = "dead"  # given up; the objects that are missing are named
    CANCELLED = "cancelled"


class Became(IntEnum):
    """What became of an object; the values of ``delivery_object.state``."""

    TO_SEND = 0
    ACKNOWLEDGED = 1
    REFUSED = 2


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this process may send, until its lease ends."""

    delivery_id: int
    establishment_id: int
    node_id: int
    study_uid: str
    series_uid: str | None
    series_id: int | None  # of a delivery that a rule made
    rule: str | None
    actor_id: int
    priority: Priority
    syntax: str  # transfer syntax preferred, "" as stored
    planned: bool
    attempts: int
    old: bool  # waits for longer than anybody would


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object of a delivery."""

    position: int
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    bytes: int
    losses: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one object. ``lost``: the association ended while it was on its way."""

    delivery_id: int
    position: int
    became: Became
    reason: str = ""
    lost: bool = False


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery as people see it. No patient's data."""

    delivery_id: int
    establishment_id: int
    code: str
    node_id: int
    node: str
    study_uid: str
    series_uid: str | None
    rule: str | None
    actor: str
    priority: Priority
    state: State
    reason: str
    attempts: int
    objects: int
    delivered: int
    bytes: int
    bytes_delivered: int
    created_at: datetime
    not_before: datetime
    finished_at: datetime | None


class Queue:
    """Thread-safe."""

    def __init__(self, units: Units, trail: Journal) -> None:
        self._units, self._trail = units, trail

    # Asking ----------------------------------------------------------------------------------------

    def ask(
        self,
        node: Node,
        study_uid: str,
        series_uid: str | None = None,
        *,
        by: Actor,
        priority: Priority = Priority.NORMAL,
        hold: bool = False,
        delay_s: float = 0.0,
        door: str = "api",
        address: str = "",
    ) -> int:
        """Send a study, or one series of it, to ``node`` on demand; the delivery's id.

        The caller has made sure that ``by`` may read the study; the sender asks again before the first byte.

        Raises:
            Forbidden: ``by`` may not retrieve, or holds a token for one study only: that is for looking.
            NotFound: the node is another establishment's.
            BadRequest: no UID.
        """
        scope = policy.scope(by, Right.RETRIEVE)
        if by.only_study_uid:
            raise Forbidden("a token for one study is for looking at it")
        if node.establishment_id != by.establishment_id:
            raise NotFound("no such node")
        if not is_valid_uid(study_uid) or (series_uid is not None and not is_valid_uid(series_uid)):
            raise BadRequest("studies and series are named by a UID")
        values = {
            "establishment_id": by.establishment_id,
            "node_id": node.node_id,
            "study_uid": study_uid,
            "series_uid": series_uid,
            "actor_id": by.actor_id,
            "priority": int(priority),
            "syntax": "",
            "hold": hold,
            "delay_s": delay_s,
        }
        event = AuditEvent(
            EventKind.BEGIN_TRANSFERRING,
            EventAction.EXECUTE,
            EventOutcome.SUCCESS,
            by.actor_id,
            by.name,
            by.establishment_code,
            address,
            door,
            scope.purpose.value,
            study_uid,
            detail={"what": "delivery-asked", "destination": node.name},
        )
        with self._units.unit([by.establishment_id]) as unit:
            row = unit.execute(QUERIES["ask"], values).fetchone()
            assert row is not None
            self._trail.append(unit, [event])
        return int(row["delivery_id"])

    # Sending ---------------------------------------------------------------------------------------

    def claim(
        self,
        owner: str,
        lease_s: float,
        *,
        most: int,
        urgent_only: bool = False,
        urgent_places: int = 1,
        give_up_s: float = 3 * 86_400.0,
    ) -> list[Claimed]:
        """Take up to ``most`` deliveries that are due, the most urgent of each node first.

        A node has as many places as it takes deliveries at once, and ``urgent_places`` besides for urgent ones.
        """
        taken: list[Claimed] = []
        values = {"owner": owner, "lease_s": lease_s, "give_up_s": give_up_s}
        with self._units.unit(None) as unit:
            for node in unit.execute(QUERIES["due_nodes"], {"most": NODES_A_LOOK}).fetchall():
                busy = unit.execute(QUERIES["busy"], node).fetchone()
                assert busy is not None
                while len(taken) < most:
                    total = busy["urgent"] + busy["others"]
                    # What is less urgent would only be stopped again at the next beat.
                    any_fits = total < node["concurrency"] and not urgent_only and not busy["urgent"]
                    least = int(Priority.BULK if any_fits else Priority.URGENT)
                    if total >= node["concurrency"] + urgent_places:
                        break
                    row = unit.execute(QUERIES["claim"], values | node | {"least": least}).fetchone()
                    if row is None:
                        break
                    taken.append(Claimed(**row | {"priority": Priority(row["priority"])}))
                    busy["urgent" if taken[-1].priority is Priority.URGENT else "others"] += 1
        return taken

    def actor(self, actor_id: int) -> Actor:
        """Under whose rights something leaves, as they are now. Raises ``NotFound``: disabled, or gone."""
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["actor"], {"actor_id": actor_id}).fetchone()
        if row is None or row["disabled"]:
            raise NotFound("nobody may ask for this any more")
        return Actor(
            row["actor_id"],
            ActorKind(row["kind"]),
            row["name"],
            Role(row["role"]) if row["role"] else None,
            row["establishment_id"],
            row["code"],
            row["authority_oid"],
            frozenset(map(Right, row["rights"])),
        )

    def plan(self, claimed: Claimed, owner: str, objects: Sequence[Wanted]) -> list[Wanted]:
        """Write down what is to be sent: ``objects`` without those that a rule has sent to this node already.

        Raises:
            PreconditionFailed: the lease is gone.
        """
        with self._units.unit(None) as unit:
            held = _remembered(unit, claimed.node_id, claimed.series_id) if claimed.rule is not None else set()
            wanted = [one for one in objects if _hash(one.sop_instance_uid) not in held]
            values = {"delivery_id": claimed.delivery_id, "owner": owner, "objects": len(wanted)}
            if (
                unit.execute(QUERIES["planned"], values | {"bytes": sum(one.bytes for one in wanted)}).fetchone()
                is None
            ):
                raise PreconditionFailed("the lease is gone")
            rows = [{name: getattr(one, name) for name in _OBJECT_COLUMNS} for one in wanted]
            unit.execute(QUERIES["plan"], values | {"objects": orjson.dumps(rows).decode()})
        return wanted

    def to_send(self, claimed: Claimed) -> list[Wanted]:
        """What is planned and neither acknowledged nor refused; what was lost before comes last."""
        with self._units.unit(None) as unit:
            rows = unit.execute(QUERIES["to_send"], {"delivery_id": claimed.delivery_id}).fetchall()
        return [Wanted(**row) for row in rows]

    def note(self, notes: Iterable[Note]) -> None:
        """Write down what became of objects: durable on return."""
        rows = [
            {
                "delivery_id": note.delivery_id,
                "position": note.position,
                "state": int(note.became),
                "reason": note.reason,
                "lost": int(note.lost),
            }
            for note in notes
        ]
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["note"], {"notes": orjson.dumps(rows).decode()})

    def beat(self, owner: str, delivery_ids: Sequence[int], lease_s: float) -> dict[int, str]:
        """Prolong leases. Why to stop each delivery: ``paused``, ``overtaken``, ``lost`` (not ours now), or ``""``."""
        values = {"owner": owner, "delivery_ids": list(delivery_ids), "lease_s": lease_s}
        with self._units.unit(None) as unit:
            found = {row["delivery_id"]: row["stop"] for row in unit.execute(QUERIES["beat"], values)}
        return {delivery_id: found.get(delivery_id, "lost") for delivery_id in delivery_ids}

    def give_back(
        self, claimed: Claimed, owner: str, reason: str, pause_s: float = 0.0, *, failed: bool = False
    ) -> None:
        """Stop sending it for now. ``failed``: this was an attempt, and what was refused is tried once more."""
        values = {"delivery_id": claimed.delivery_id, "owner": owner, "reason": reason, "pause_s": pause_s}
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["give_back"], values | {"failed": int(failed)})
            if failed:
                unit.execute(QUERIES["try_refused_again"], values)

    def left(self, claimed: Claimed) -> tuple[int, int, int]:
        """Objects neither acknowledged nor refused, objects refused, objects acknowledged."""
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["left"], {"delivery_id": claimed.delivery_id}).fetchone()
        assert row is not None
        return row["unsent"], row["refused"], row["acknowledged"]

    def finish(self, claimed: Claimed, owner: str, state: State, reason: str = "") -> None:
        """``done``, ``committing`` or ``dead``. A lease that is gone makes this nothing."""
        values = {"delivery_id": claimed.delivery_id, "owner": owner, "state": state.value, "reason": reason}
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["finish"], values | {"failed": int(state is State.DEAD)}).fetchone()
            if row is None:
                return
            if row["rule"] is not None:
                sent = unit.execute(QUERIES["sent_objects"], values).fetchall()
                _remember(unit, row, {_hash(one["sop_instance_uid"]) for one in sent})
            if state is State.DONE:
                unit.execute(QUERIES["forget_objects"], values)

    # Looking, changing -----------------------------------------------------------------------------

    def listed(self, *, by: Actor, states: Sequence[State] | None = None, limit: int = LISTED) -> list[DeliveryRow]:
        """Of all establishments to an administrator, of its own to a referent or a reader. Raises ``Forbidden``."""
        return self._read(_bounds(by), states=states, limit=limit)

    def get(self, delivery_id: int, *, by: Actor) -> DeliveryRow:
        """Raises ``Forbidden``, ``NotFound``."""
        rows = self._read(_bounds(by), delivery_id=delivery_id)
        if not rows:
            raise NotFound("no such delivery")
        return rows[0]

    def missing(self, delivery_id: int, *, by: Actor, limit: int = LISTED) -> list[tuple[str, str]]:
        """(SOP Instance UID, reason) of what the node has not acknowledged. Raises as :meth:`get`."""
        self.get(delivery_id, by=by)
        with self._units.unit(None) as unit:
            rows = unit.execute(QUERIES["unsent_objects"], {"delivery_id": delivery_id, "limit": limit}).fetchall()
        return [(row["sop_instance_uid"], row["reason"]) for row in rows]

    def retry(self, delivery_id: int, *, by: Actor) -> None:
        """Send what is missing of a dead delivery again. Raises as :meth:`get`, ``PreconditionFailed``."""
        with self._changing(delivery_id, by) as unit:
            _required(unit, "retry", delivery_id)
            unit.execute(QUERIES["try_refused_again"], {"delivery_id": delivery_id})
            self._trail.append(unit, [_changed(by, delivery_id, "retried")])

    def release(self, delivery_id: int, *, by: Actor) -> None:
        """Let a held delivery go. Raises as :meth:`get`, ``PreconditionFailed``."""
        with self._changing(delivery_id, by) as unit:
            _required(unit, "release", delivery_id)
            self._trail.append(unit, [_changed(by, delivery_id, "released")])

    def cancel(self, delivery_id: int, *, by: Actor) -> None:
        """Send no more of it. Raises as :meth:`get`, ``PreconditionFailed``: it has ended."""
        with self._changing(delivery_id, by) as unit:
            _required(unit, "cancel", delivery_id)
            unit.execute(QUERIES["forget_objects"], {"delivery_id": delivery_id})
            self._trail.append(unit, [_changed(by, delivery_id, "cancelled")])

    def set_priority(self, delivery_id: int, priority: Priority, *, by: Actor) -> None:
        """Raises as :meth:`get`, ``PreconditionFailed``: it has ended."""
        with self._changing(delivery_id, by) as unit:
            _required(unit, "set_priority", delivery_id, priority=int(priority))
            self._trail.append(unit, [_changed(by, delivery_id, f"priority-{priority.name.lower()}")])

    def forget_old(self, age_s: float) -> None:
        """Delete deliveries that ended well longer ago than this. The audit trail keeps what left."""
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["forget_old"], {"age_s": age_s})

    def _changing(self, delivery_id: int, by: Actor) -> AbstractContextManager[Unit]:
        """Whoever administers, or stores images: not everybody who may read."""
        if Right.ADMINISTER not in by.rights:
            policy.require(by, Right.STORE)
        row = self.get(delivery_id, by=by)
        return self._units.unit([row.establishment_id])

    def _read(
        self,
        establishment_id: int | None,
        *,
        states: Sequence[State] | None = None,
        delivery_id: int | None = None,
        limit: int = LISTED,
    ) -> list[DeliveryRow]:
        values = {
            "establishment_id": establishment_id,
            "states": [state.value for state in states] if states is not None else None,
            "delivery_id": delivery_id,
            "limit": limit,
        }
        with self._units.unit(None) as unit:
            return [_row(row) for row in unit.execute(QUERIES["deliveries"], values)]


_OBJECT_COLUMNS = ("position", "series_uid", "sop_class_uid", "sop_instance_uid", "bytes")


def _bounds(by: Actor) -> int | None:
    """Whose deliveries ``by`` may see and change. Raises ``Forbidden``."""
    if by.only_study_uid:
        raise Forbidden("a token for one study is for looking at it")
    if Right.ADMINISTER in by.rights:
        return policy.administered(by)
    policy.require(by, Right.RETRIEVE)
    return by.establishment_id


def _row(row: DictRow) -> DeliveryRow:
    return DeliveryRow(**row | {"priority": Priority(row["priority"]), "state": State(row["state"])})


def _required(unit: Unit, query: str, delivery_id: int, **values: int) -> None:
    if unit.execute(QUERIES[query], {"delivery_id": delivery_id, **values}).fetchone() is None:
        raise PreconditionFailed("the delivery is not in a state for this")


def _hash(sop_instance_uid: str) -> bytes:
    return sha256(sop_instance_uid.encode()).digest()[:HASH_BYTES]


def _remembered(unit: Unit, node_id: int, series_id: int | None) -> set[bytes]:
    row = unit.execute(QUERIES["delivered_by_rules"], {"node_id": node_id, "series_id": series_id}).fetchone()
    hashes = bytes(row["hashes"]) if row else b""
    return {hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)}


def _remember(unit: Unit, row: DictRow, fresh: set[bytes]) -> None:
    hashes = b"".join(sorted(_remembered(unit, row["node_id"], row["series_id"]) | fresh))
    unit.execute(QUERIES["remember"], {"node_id": row["node_id"], "series_id": row["series_id"], "hashes": hashes})


def _changed(by: Actor, delivery_id: int, change: str) -> AuditEvent:
    return AuditEvent(
        EventKind.APPLICATION_ACTIVITY,
        EventAction.UPDATE,
        EventOutcome.SUCCESS,
        by.actor_id or None,
        by.name,
        by.establishment_code,
        door="page" if by.actor_id else "cli",
        detail={"what": "delivery", "delivery_id": delivery_id, "change": change},
    )

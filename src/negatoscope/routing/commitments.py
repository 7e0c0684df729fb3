"""Storage commitment, PS3.4 annex J, in both roles: what was asked of us and of others, durable until it is answered.

As provider we write the request down before we accept it; a sender judges it by reading back, and reports until
the report is taken. As user we ask a node after a delivery, and send again what it does not promise to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from negatoscope.model.actor import Actor
from negatoscope.queries import load_queries
from negatoscope.routing.ports import Units
from negatoscope.routing.queue import State

QUERIES = load_queries("negatoscope.routing", "commitments.sql")
MOST_ASKED = 5  # requests for one delivery before it is given up
Reference = tuple[str, str]  # SOP class UID, SOP instance UID


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of a peer."""

    commitment_id: int
    establishment_id: int
    actor_id: int
    title: str  # of the peer
    transaction_uid: str
    objects: list[Reference]
    verdicts: list[int] | None  # failure reason of each (PS3.3 C.14.1.1), 0: committed; None: not judged yet
    attempts: int
    old: bool


@dataclass(frozen=True, slots=True)
class ToAsk:
    """A delivery whose node is to be asked."""

    delivery_id: int
    node_id: int
    objects: list[Reference]


@dataclass(frozen=True, slots=True)
class CommitmentRow:
    """A request as people see it."""

    commitment_id: int
    title: str
    transaction_uid: str
    state: str
    attempts: int
    objects: int
    failed: int
    asked_at: datetime


class Commitments:
    """Thread-safe."""

    def __init__(self, units: Units) -> None:
        self._units = units

    # As provider -----------------------------------------------------------------------------------

    def asked(
        self, actor: Actor, title: str, transaction_uid: str, objects: Sequence[Reference], lease_s: float
    ) -> int:
        """Write a request down: durable on return. Whoever received it has ``lease_s`` to answer it at once."""
        values = {
            "establishment_id": actor.establishment_id,
            "actor_id": actor.actor_id,
            "title": title,
            "transaction_uid": transaction_uid,
            "objects": orjson.dumps(objects).decode(),
            "lease_s": lease_s,
        }
        with self._units.unit([actor.establishment_id]) as unit:
            row = unit.execute(QUERIES["ask"], values).fetchone()
        assert row is not None
        return int(row["commitment_id"])

    def claim(self, lease_s: float, give_up_s: float) -> Asked | None:
        """One request that is due and nobody holds."""
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["claim"], {"lease_s": lease_s, "give_up_s": give_up_s}).fetchone()
        if row is None:
            return None
        return Asked(**row | {"objects": [(one[0], one[1]) for one in row["objects"]]})

    def prolong(self, commitment_id: int, lease_s: float) -> None:
        """It takes longer."""
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["prolong"], {"commitment_id": commitment_id, "lease_s": lease_s})

    def judged(self, commitment_id: int, verdicts: Sequence[int]) -> None:
        values = {"commitment_id": commitment_id, "verdicts": orjson.dumps(verdicts).decode()}
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["judged"], values)

    def delivered(self, commitment_id: int) -> None:
        """The peer has taken the report."""
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["delivered"], {"commitment_id": commitment_id})

    def give_back(self, commitment_id: int) -> None:
        """Not answered on the association that asked; whoever claims it next may go on at once."""
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["now"], {"commitment_id": commitment_id})

    def later(self, asked: Asked, first_s: float, longest_s: float) -> bool:
        """The report was not taken: wait twice as long each time. True: it is given up."""
        values = {"commitment_id": asked.commitment_id, "first_s": first_s, "longest_s": longest_s, "dead": asked.old}
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["later"], values)
        return asked.old

    def listed(self, establishment_id: int | None, limit: int = 100) -> list[CommitmentRow]:
        """Newest first; of all establishments with ``None``."""
        with self._units.unit(None) as unit:
            rows = unit.execute(QUERIES["listed"], {"establishment_id": establishment_id, "limit": limit}).fetchall()
        return [
            CommitmentRow(**row, failed=sum(1 for verdict in verdicts or () if verdict))
            for row in rows
            for verdicts in [row.pop("verdicts")]
        ]

    def forget_old(self, age_s: float) -> None:
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["forget_old"], {"age_s": age_s})

    # As user ---------------------------------------------------------------------------------------

    def to_ask(self, transaction_uid: str, answer_s: float) -> ToAsk | None:
        """A delivery whose node is to be asked now, its request written down under ``transaction_uid``.

        Without an answer within ``answer_s`` it is asked again.
        """
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["due_to_ask"], {"answer_s": answer_s}).fetchone()
            if row is None:
                return None
            values = {"delivery_id": row["delivery_id"], "transaction_uid": transaction_uid}
            if row["attempts"] > MOST_ASKED:
                unit.execute(
                    QUERIES["settle"], values | {"state": State.DEAD.value, "reason": "not-committed", "pause_s": 0.0}
                )
                return None
            unit.execute(QUERIES["asked_of_node"], values)
            rows = unit.execute(QUERIES["objects_to_ask"], values).fetchall()
        return ToAsk(
            row["delivery_id"], row["node_id"], [(one["sop_class_uid"], one["sop_instance_uid"]) for one in rows]
        )

    def ask_again(self, delivery_id: int, pause_s: float) -> None:
        """The node did not take the request: this was no attempt."""
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["ask_again"], {"delivery_id": delivery_id, "pause_s": pause_s})

    def answered(
        self,
        transaction_uid: str,
        committed: Collection[str],
        establishment_id: int | None = None,
        pause_s: float = 5.0,
    ) -> bool:
        """A node's report: what it promises to keep is done, the rest is sent again. False: we asked no such thing.

        ``establishment_id``: of the application entity that reports, where it is not the one we asked.
        """
        values = {"transaction_uid": transaction_uid, "establishment_id": establishment_id}
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["answered"], values).fetchone()
            if row is None:
                return False
            found = {"delivery_id": row["delivery_id"], "committed": list(committed)}
            attempts = unit.execute(QUERIES["attempts"], found).fetchone()
            if attempts is None:  # cancelled, or an answer to an earlier request came first
                return True
            counted = unit.execute(QUERIES["promised"], found).fetchone()
            if counted is None or not counted["missing"]:
                unit.execute(QUERIES["settle"], found | {"state": State.DONE.value, "reason": "", "pause_s": 0.0})
                unit.execute(QUERIES["forget_objects"], found)
                return True
            given_up = attempts["attempts"] >= MOST_ASKED
            unit.execute(QUERIES["send_again"], found)
            unit.execute(QUERIES["count_again"], found)
            state = State.DEAD if given_up else State.WAITING
            unit.execute(
                QUERIES["settle"], found | {"state": state.value, "reason": "not-committed", "pause_s": pause_s}
            )
        return True

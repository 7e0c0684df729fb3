"""Rules applied to what has arrived: a query of the change feed now and then, away from those who receive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from negatoscope.errors import BadRequest, NotFound
from negatoscope.model.actor import Actor
from negatoscope.queries import load_queries
from negatoscope.routing.ports import Unit, Units
from negatoscope.routing.rules import Rule, read_rules

log = logging.getLogger(__name__)

QUERIES = load_queries("negatoscope.routing", "arrival.sql")
ENTRIES = 5_000  # of the change feed, a look
SETTLE_S = 300.0  # no transaction that writes the feed is open for so long


@dataclass(frozen=True, slots=True)
class RulesFile:
    """The file of rules as the page shows it."""

    rules: Sequence[Rule]
    problem: str  # "" when it could be read and names what is there


class Arrivals:
    """Thread-safe; two at once do nothing twice."""

    def __init__(self, units: Units, hand: Callable[[str], Actor]) -> None:
        """``hand``: the actor under whose rights what a rule sends leaves, by establishment code."""
        self._units, self._hand = units, hand

    def route(self, text: str, now: datetime, *, settle_s: float = SETTLE_S) -> int:
        """Make deliveries of the series that closed since last time; how many. ``now`` is local time.

        A file that cannot be read, or names what is not there, routes nothing and moves no mark, so nothing is
        missed: the problem is kept for people to see.

        Raises:
            Unavailable.
        """
        with self._units.unit(None) as unit:
            lock = unit.execute(QUERIES["lock"]).fetchone()
            if not (lock and lock["locked"]):
                return 0
            try:
                rules = read_rules(text)
                nodes = self._known(unit, rules)
            except (BadRequest, NotFound) as error:
                log.error("rules_refused: %s", error)
                unit.execute(QUERIES["problem"], {"problem": str(error)[:500]})
                return 0
            unit.execute(QUERIES["problem"], {"problem": ""})
            state = unit.execute(QUERIES["state"]).fetchone()
            assert state is not None
            if not rules:  # what arrives while there is no rule is not for the first one that is written
                newest = unit.execute(QUERIES["newest"]).fetchone()
                assert newest is not None
                unit.execute(QUERIES["advance"], newest)
                return 0
            return self._route(unit, rules, nodes, state["change_id"], now, settle_s)

    def file(self, text: str) -> RulesFile:
        """The file judged against the nodes that there are."""
        try:
            rules = read_rules(text)
            with self._units.unit(None) as unit:
                self._known(unit, rules)
        except (BadRequest, NotFound) as error:
            return RulesFile((), str(error))
        return RulesFile(rules, "")

    def _known(self, unit: Unit, rules: Sequence[Rule]) -> dict[tuple[str, str], tuple[int, int]]:
        """(establishment id, node id) by establishment code and node name. Raises NotFound."""
        codes = sorted({rule.establishment for rule in rules})
        places = {
            row["code"]: row["establishment_id"] for row in unit.execute(QUERIES["establishments"], {"codes": codes})
        }
        named = {(row["establishment_id"], row["name"]): row["node_id"] for row in unit.execute(QUERIES["nodes"])}
        found = {}
        for rule in rules:
            place = places.get(rule.establishment)
            if place is None:
                raise NotFound(f"rule {rule.name}: no establishment {rule.establishment}")
            for name in rule.to:
                if (place, name) not in named:
                    raise NotFound(f"rule {rule.name}: the establishment has no node {name}")
                found[rule.establishment, name] = place, named[place, name]
        return found

    def _route(
        self,
        unit: Unit,
        rules: Sequence[Rule],
        nodes: dict[tuple[str, str], tuple[int, int]],
        after: int,
        now: datetime,
        settle_s: float,
    ) -> int:
        establishments = sorted({place for place, _ in nodes.values()})
        window = {"after": after, "most": ENTRIES, "establishments": establishments, "settle_s": settle_s}
        made = 0
        for row in unit.execute(QUERIES["closed_series"], window).fetchall():
            for rule in rules:
                if rule.covers(row["code"], row["study_attributes"], row["series_attributes"]):
                    made += sum(self._deliver(unit, rule, nodes[row["code"], name][1], row, now) for name in rule.to)
        settled = unit.execute(QUERIES["settled"], window).fetchone()
        if settled and settled["change_id"] is not None:
            unit.execute(QUERIES["advance"], {"change_id": settled["change_id"]})
        return made

    def _deliver(self, unit: Unit, rule: Rule, node_id: int, row: dict[str, Any], now: datetime) -> bool:
        values = {
            "node_id": node_id,
            "rule": rule.name,
            "actor_id": self._hand(rule.establishment).actor_id,
            "priority": int(rule.priority),
            "syntax": rule.syntax,
            "hold": rule.hold,
            "delay_s": rule.delay_s(now),
        }
        return unit.execute(QUERIES["route"], row | values).fetchone() is not None

"""How the state of a scheduled step moves: by hand, and by what modalities report. Pure.

Two written rules. All transitions are in this file. What a modality reports is a fact: it overrules what was
clicked, so a cancelled step that was performed after all counts as performed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class StepStatus(StrEnum):
    """Scheduled Procedure Step Status (0040,0020): the terms of PS3.3 C.4.10, and how a step can end."""

    SCHEDULED = "SCHEDULED"
    ARRIVED = "ARRIVED"  # the patient is there
    READY = "READY"  # and prepared
    STARTED = "STARTED"  # a performed step exists
    DEPARTED = "DEPARTED"  # the patient is no longer there
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    CANCELLED = "CANCELLED"


class PerformedStatus(StrEnum):
    """Performed Procedure Step Status (0040,0252), PS3.4 table F.1-3."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


_S = StepStatus
OPEN = (_S.SCHEDULED, _S.ARRIVED, _S.READY, _S.STARTED, _S.DEPARTED)  # what a modality's worklist holds, by progress
BY_HAND: dict[StepStatus, frozenset[StepStatus]] = {
    _S.SCHEDULED: frozenset({_S.ARRIVED, _S.READY, _S.STARTED, _S.COMPLETED, _S.CANCELLED}),
    _S.ARRIVED: frozenset({_S.SCHEDULED, _S.READY, _S.STARTED, _S.DEPARTED, _S.COMPLETED, _S.CANCELLED}),
    _S.READY: frozenset({_S.ARRIVED, _S.STARTED, _S.DEPARTED, _S.COMPLETED, _S.CANCELLED}),
    _S.STARTED: frozenset({_S.COMPLETED, _S.DISCONTINUED}),
    _S.DEPARTED: frozenset({_S.ARRIVED, _S.COMPLETED, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.DISCONTINUED: frozenset({_S.SCHEDULED}),  # it is done again
    _S.CANCELLED: frozenset({_S.SCHEDULED}),
}


@dataclass(frozen=True, slots=True)
class Performed:
    """A performed step as the state of its scheduled step sees it."""

    status: PerformedStatus
    wrong_entry: bool = False  # discontinued because the modality had chosen another patient's entry


def moved_by_performance(current: StepStatus, performed: Sequence[Performed]) -> StepStatus:
    """The state of a step given all that was reported of it, in any order.

    A step goes on while any part of it is in progress (the append case of IHE SWF). When all have ended it is
    completed if one part was. A part that was of the wrong entry never happened.
    """
    statuses = {one.status for one in performed if not one.wrong_entry}
    if PerformedStatus.IN_PROGRESS in statuses:
        return _S.STARTED
    if PerformedStatus.COMPLETED in statuses:
        return _S.COMPLETED
    if PerformedStatus.DISCONTINUED in statuses:
        return _S.DISCONTINUED
    return _S.SCHEDULED if performed and current is _S.STARTED else current


def order_status(steps: Sequence[StepStatus]) -> StepStatus:
    """One word for an order: what is under way before what waits, what waits before what is over."""
    if not steps:
        return _S.SCHEDULED
    over = [status for status in steps if status not in OPEN]
    if len(over) == len(steps):
        return next(status for status in (_S.COMPLETED, _S.DISCONTINUED, _S.CANCELLED) if status in over)
    if _S.STARTED in steps or _S.COMPLETED in over:
        return _S.STARTED
    return max((status for status in steps if status in OPEN), key=OPEN.index)

"""Workitems of every establishment: made, read, updated, claimed, ended, searched. A change and its audit event are
one commit (PS3.4 CC.2)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from psycopg.types.json import Jsonb

from negatoscope.audit.events import procedure_recorded, queried
from negatoscope.dicom.charset import fold
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.matching import Kind, Match, json_text, matches
from negatoscope.errors import BadRequest, Conflict, NotFound, WorkitemState
from negatoscope.model.event import EventAction
from negatoscope.queries import load_queries
from negatoscope.worklist import ups
from negatoscope.worklist.ports import Asking, Journal, Transactions, Unit
from negatoscope.worklist.ups import Dataset, State

QUERIES = load_queries("negatoscope.worklist", "ups.sql")
_ROWS = 200  # of workitems read at once
_COLUMNS = {ups.STATE: "state", ups.SOP_INSTANCE: "sop_instance_uid"}


@dataclass(frozen=True, slots=True)
class Created:
    uid: str
    modified: bool  # what is kept is not what was given


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: all of it must match."""

    matches: Mapping[str, Match]  # by DICOM JSON key
    include: frozenset[int] | None = frozenset()  # beside what every answer has; None: everything
    fuzzy: bool = False
    limit: int = 500
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    rows: list[Dataset]
    more: bool  # there are others after them


@dataclass(frozen=True, slots=True)
class _Row:
    workitem_id: int
    state: State
    transaction_uid: str
    attributes: Dataset


class Workitems:
    """The worklist of unified procedure steps. Thread-safe: it holds nothing."""

    def __init__(self, transactions: Transactions, journal: Journal, limits: Limits = DEFAULT_LIMITS) -> None:
        self._transactions, self._journal, self._limits = transactions, journal, limits

    def create(self, given: Any, by: Asking, uid: str = "") -> Created:
        """Enter a workitem, SCHEDULED, in the asker's establishment.

        Args:
            given: DICOM JSON as it came; ``uid`` may also stand in it. Without one it gets one of ours.

        Raises:
            BadRequest and its kinds: not what an N-CREATE needs.
            Conflict: there is one of this UID.
        """
        dataset = ups.read_dataset(given, self._limits)
        if ups.taken_transaction(dataset):
            raise BadRequest("a new workitem has no Transaction UID")
        named = ups.named_uid(dataset, uid) or f"2.25.{uuid.uuid4().int}"
        actor = by.scope.actor
        with self._transactions.unit([actor.establishment_id]) as unit:
            made, modified = ups.new_workitem(dataset, named, _moment(unit))
            row = unit.execute(
                QUERIES["add"],
                {
                    "establishment_id": actor.establishment_id,
                    "sop_instance_uid": named,
                    "start_at": ups.text_of(made, ups.START),
                    "attributes": _json(made),
                    "created_by": actor.actor_id,
                },
            ).fetchone()
            if row is None:
                raise Conflict("there is a workitem of this UID")
            self._record(unit, by, EventAction.CREATE, made)
        return Created(named, modified)

    def get(self, uid: str, by: Asking) -> Dataset:
        """Raises NotFound."""
        found = self._held(uid, by)
        self._journal.record([queried(by.scope, "WORKITEM", [ups.SOP_INSTANCE], 1, by.door, by.address)])
        return found

    def check(self, uid: str, by: Asking) -> None:
        """Raises NotFound: not there, or not yours."""
        self._held(uid, by)

    def update(self, uid: str, given: Any, by: Asking, transaction_uid: str = "") -> None:
        """Replace the attributes that are given.

        Raises:
            NotFound, BadRequest and its kinds, WorkitemState.
        """
        dataset = ups.read_dataset(given, self._limits)
        key = ups.taken_transaction(dataset, transaction_uid)
        with self._transactions.unit([by.scope.actor.establishment_id]) as unit:
            row = self._locked(unit, uid, by)
            ups.may_update(row.state, row.transaction_uid, key)
            after = ups.updated(row.attributes, dataset, _moment(unit))
            self._change(unit, row, row.state, row.transaction_uid, after)
            self._record(unit, by, EventAction.UPDATE, after)

    def move(self, uid: str, given: Any, by: Asking) -> bool:
        """Claim, complete or cancel, as the Procedure Step State of ``given`` says; False: it was so already.

        Raises:
            NotFound, BadRequest and its kinds, WorkitemState.
        """
        dataset = ups.read_dataset(given, self._limits)
        key = ups.taken_transaction(dataset)
        wanted = _wanted(dataset)
        with self._transactions.unit([by.scope.actor.establishment_id]) as unit:
            row = self._locked(unit, uid, by)
            if not ups.may_move(row.state, row.transaction_uid, wanted, key):
                return False
            moment = _moment(unit)
            after = ups.with_cancellation_time(row.attributes, moment) if wanted is State.CANCELED else row.attributes
            if wanted is not State.IN_PROGRESS and (missing := ups.unfinished(after, wanted)):
                raise WorkitemState(ups.INCONSISTENT + ": a final state needs " + " ".join(missing))
            self._moved(unit, row, wanted, key, ups.with_state(after, wanted, moment), by)
        return True

    def request_cancellation(self, uid: str, given: Any, by: Asking) -> bool:
        """Cancel what nobody has claimed; of what somebody has, the request is recorded. False: it is canceled already.

        Nobody is told yet: there are no notifications. Its performer is free to go on (CC.2.2).

        Raises:
            NotFound, BadRequest.
            WorkitemState: it is completed.
        """
        reason = ups.read_dataset(given, self._limits) if given else {}
        with self._transactions.unit([by.scope.actor.establishment_id]) as unit:
            row = self._locked(unit, uid, by)
            if row.state is State.CANCELED:
                return False
            if row.state is State.COMPLETED:
                raise WorkitemState(ups.UPDATE_INCONSISTENT)
            if row.state is State.SCHEDULED:
                after = ups.canceled_by_us(row.attributes, reason, _moment(unit))
                self._moved(unit, row, State.CANCELED, "", after, by)
            else:
                self._record(unit, by, EventAction.EXECUTE, row.attributes)
        return True

    def find(self, search: Search, by: Asking) -> Answers:
        """Workitems by their scheduled start. The audit event is committed before the answer."""
        rows: list[Dataset] = []
        skipped = 0
        more = False
        for attributes in self.matching(search.matches, by, fuzzy=search.fuzzy):
            if skipped < search.offset:
                skipped += 1
            elif len(rows) == search.limit:
                more = True
                break
            else:
                rows.append(_returned(attributes, search))
        event = queried(by.scope, "WORKITEM", search.matches, len(rows), by.door, by.address)
        self._journal.record([event])
        return Answers(rows, more)

    def matching(self, keys: Mapping[str, Match], by: Asking, *, fuzzy: bool = False) -> Iterator[Dataset]:
        """Every workitem in the asker's reach that matches, read a page at a time."""
        statement, parameters = _statement(keys)
        parameters |= by.scope.parameters() | {"after_start": "", "after_id": 0, "rows": _ROWS}
        while True:
            with self._transactions.reading(by.scope) as unit:
                page = unit.execute(statement.encode(), parameters).fetchall()
            for row in page:
                if matches_all(keys, row["attributes"], fuzzy=fuzzy):
                    yield row["attributes"]
            if len(page) < _ROWS:
                return
            parameters |= {"after_start": page[-1]["start_at"], "after_id": page[-1]["workitem_id"]}

    def _held(self, uid: str, by: Asking) -> Dataset:
        with self._transactions.reading(by.scope) as unit:
            row = unit.execute(QUERIES["one"], by.scope.parameters() | {"sop_instance_uid": uid}).fetchone()
        if row is None:
            raise NotFound("no such workitem")
        found: Dataset = row["attributes"]
        return found

    def _locked(self, unit: Unit, uid: str, by: Asking) -> _Row:
        row = unit.execute(QUERIES["to_change"], by.scope.parameters() | {"sop_instance_uid": uid}).fetchone()
        if row is None:
            raise NotFound("no such workitem")
        return _Row(row["workitem_id"], State(row["state"]), row["transaction_uid"], row["attributes"])

    def _moved(self, unit: Unit, row: _Row, state: State, transaction_uid: str, after: Dataset, by: Asking) -> None:
        self._change(unit, row, state, transaction_uid, after)
        self._record(unit, by, EventAction.UPDATE, after)

    def _change(self, unit: Unit, row: _Row, state: State, transaction_uid: str, attributes: Dataset) -> None:
        unit.execute(
            QUERIES["change"],
            {
                "workitem_id": row.workitem_id,
                "state": state.value,
                "transaction_uid": transaction_uid,
                "start_at": ups.text_of(attributes, ups.START),
                "attributes": _json(attributes),
            },
        )

    def _record(self, unit: Unit, by: Asking, action: EventAction, attributes: Dataset) -> None:
        actor, patient = by.scope.actor, ups.text_of(attributes, ups.PATIENT_ID)
        self._journal.append(
            unit,
            [
                procedure_recorded(
                    actor, action, ups.text_of(attributes, ups.SOP_INSTANCE), ups.text_of(attributes, ups.STATE),
                    by.door, by.address, study_uid=ups.text_of(attributes, ups.STUDY),
                    patient=f"{actor.authority_oid}|{patient}" if patient else "",
                )
            ],
        )  # fmt: skip


def matches_all(keys: Mapping[str, Match], attributes: Dataset, *, fuzzy: bool = False) -> bool:
    return all(
        _words_begin(match, attributes.get(key))
        if fuzzy and match.vr == "PN" and match.values
        else matches(match, attributes.get(key))
        for key, match in keys.items()
    )


def _words_begin(match: Match, element: Dataset | None) -> bool:
    """Whether each word of a key begins a word of the name, as QIDO's fuzzy matching here."""
    names = [_words(json_text(value)) for value in (element or {}).get("Value", ())]
    return any(
        all(any(word.startswith(part) for word in words) for part in _words(key))
        for key in match.values
        for words in names
    )


def _words(text: str) -> list[str]:
    return fold(text).replace("^", " ").replace("=", " ").replace("*", " ").replace("?", " ").split()


def _statement(keys: Mapping[str, Match]) -> tuple[str, dict[str, Any]]:
    """What the index can tell narrows the rows; all keys are judged again."""
    conditions, parameters = [], {}
    for key, column in _COLUMNS.items():
        match = keys.get(key)
        if match is not None and match.kind in (Kind.SINGLE, Kind.UID_LIST):
            conditions.append(f"AND {column} = ANY(%({column})s::text[])")
            parameters[column] = list(match.values)
    return QUERIES["page"].replace("/*:conditions*/", " ".join(conditions)), parameters


def _returned(attributes: Dataset, search: Search) -> Dataset:
    if search.include is None:
        return attributes
    wanted = ups.RETURNED | search.include | {int(key, 16) for key in search.matches}
    return {key: value for key, value in attributes.items() if int(key, 16) in wanted}


def _wanted(dataset: Dataset) -> State:
    found = ups.text_of(dataset, ups.STATE)
    if found not in (State.IN_PROGRESS, State.COMPLETED, State.CANCELED):
        raise BadRequest("Procedure Step State is IN PROGRESS, COMPLETED or CANCELED")
    return State(found)


def _moment(unit: Unit) -> str:
    row = unit.execute(QUERIES["moment"]).fetchone()
    assert row is not None
    return str(row["moment"])


def _json(dataset: Dataset) -> Jsonb:
    return Jsonb(dataset, orjson.dumps)

"""Find patients, studies, series and instances (PS3.4 C.4.1, PS3.18 10.6).

SQL narrows, by index where there is one, always within ``readable_study``; ``dicom.matching`` decides on
what SQL cannot judge alone. Orders are stable, so pages neither repeat nor skip: patients by name, studies
by date, the newest first, series and instances by their numbers, each with a unique last key.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from negatoscope.archive.catalogue import instances_of
from negatoscope.archive.lookup import candidate_series
from negatoscope.archive.ports import Transactions, Unit
from negatoscope.archive.query_conditions import CATALOGUED, DETAILED, SOP_INSTANCE_UID, Level, Plan, plan_of
from negatoscope.archive.query_rows import (
    ALL,
    INSTANCE_RETURN,
    PATIENT_RETURN,
    SERIES_RETURN,
    STUDY_RETURN,
    All,
    Dataset,
    Include,
    Shape,
    full_patient,
    full_series,
    full_study,
    instance_url,
    instance_values,
    series_url,
    study_url,
)
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.matching import Match, matches
from negatoscope.model.actor import Scope
from negatoscope.queries import load_queries

__all__ = [
    "ALL",
    "Answers",
    "Include",
    "Level",
    "Query",
    "Stream",
    "find_instances",
    "find_patients",
    "find_series",
    "find_studies",
    "stream",
]

QUERIES = load_queries("negatoscope.archive", "query.sql")
Row = Mapping[str, Any]
Found = tuple[Row, Dataset]  # a row of the index, and all that is known of it
Held = tuple[Row, Dataset, list[Dataset]]  # a series, what is known of it, and of each of its instances
Details = Callable[[Scope, str, str], Mapping[str, Dataset]]
_SERIES_AT_ONCE = 32  # series whose instances are read by one statement
_ROWS_AT_ONCE = 500  # rows fetched at once where Python decides


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked. ``matches`` are all to be fulfilled; keys of levels above are allowed (relational).

    ``include`` adds to what is always answered; ``retrieve_prefix`` (``/dicom-web``) makes Retrieve URLs.
    """

    study_uid: str | None = None
    series_uid: str | None = None
    matches: Mapping[str, Match] = field(default_factory=dict)  # as dicom.matching.parse_identifier gives
    include: Include = frozenset()
    fuzzy: bool = False  # each word begins a word of the person's name, in any order
    limit: int = DEFAULT_LIMITS.query_limit
    offset: int = 0
    retrieve_prefix: str | None = None
    as_known: bool = False  # rows hold all that is known in no order; who asks picks. Not of instances


@dataclass(frozen=True, slots=True)
class Answers:
    """``rows`` in the DICOM JSON model; ``more``: there are others after them."""

    rows: list[Dataset]
    more: bool
    ignored: frozenset[int] = frozenset()  # keys of which the index knows nothing: they matched everything


@dataclass(frozen=True, slots=True)
class Stream:
    """Answers that are built when they are taken, so that twenty thousand never stand in memory together.

    Nothing of the database is held meanwhile.
    """

    rows: Iterator[Dataset]
    count: int
    more: bool
    ignored: frozenset[int] = frozenset()


def find_patients(transactions: Transactions, scope: Scope, query: Query) -> Answers:
    """Patients with a readable study that matches. Keys of the study level are allowed besides theirs."""
    return _whole(stream(transactions, scope, Level.PATIENT, query))


def find_studies(transactions: Transactions, scope: Scope, query: Query) -> Answers:
    """Studies that ``scope`` may read, newest first.

    Raises:
        Unavailable: the index cannot be reached.
    """
    return _whole(stream(transactions, scope, Level.STUDY, query))


def find_series(transactions: Transactions, scope: Scope, query: Query) -> Answers:
    """Series by study, then Series Number, then UID. Raises as :func:`find_studies`."""
    return _whole(stream(transactions, scope, Level.SERIES, query))


def stream(transactions: Transactions, scope: Scope, level: Level, query: Query) -> Stream:
    """The same answers as the functions of each level give, for a long list. Raises as :func:`find_studies`."""
    if level is Level.INSTANCE:
        found = find_instances(transactions, scope, query)
        return Stream(iter(found.rows), len(found.rows), found.more, found.ignored)
    always, full_of, url_of, statement = _LEVELS[level]
    plan = plan_of(level, query.matches, fuzzy=query.fuzzy, study_uid=query.study_uid, series_uid=query.series_uid)
    shape = Shape.of(always, query.include, query.retrieve_prefix)
    with transactions.reading(scope) as unit:
        rows = _found(unit, QUERIES[statement], scope, query, plan, full_of)
    page = rows[: query.limit]
    if query.as_known:
        return Stream(map(full_of, page), len(page), len(rows) > query.limit, frozenset(plan.ignored))
    answers = (shape.pick(full_of(row) | url_of(shape, row)) for row in page)
    return Stream(answers, len(page), len(rows) > query.limit, frozenset(plan.ignored))


def _whole(found: Stream) -> Answers:
    return Answers(list(found.rows), found.more, found.ignored)


_LEVELS: dict[Level, tuple[frozenset[int], Callable[[Row], Dataset], Callable[[Shape, Row], Dataset], str]] = {
    Level.PATIENT: (PATIENT_RETURN, full_patient, lambda shape, row: {}, "patients"),
    Level.STUDY: (STUDY_RETURN, full_study, study_url, "studies"),
    Level.SERIES: (SERIES_RETURN, full_series, series_url, "series"),
}


def find_instances(transactions: Transactions, scope: Scope, query: Query, details: Details | None = None) -> Answers:
    """Instances by series, then Instance Number, then UID. Raises as :func:`find_studies`.

    The index knows a few attributes of an instance. ``details(scope, study_uid, series_uid)`` gives all, by
    SOP Instance UID; it is called for series of a named study when the query needs more.
    """
    detailed = details is not None and query.study_uid is not None
    plan = plan_of(
        Level.INSTANCE,
        query.matches,
        fuzzy=query.fuzzy,
        study_uid=query.study_uid,
        series_uid=query.series_uid,
        detailed=detailed,
    )
    shape = Shape.of(INSTANCE_RETURN, query.include, query.retrieve_prefix)

    def page_of(held: Iterator[Held]) -> Answers:
        found = _judged_instances(held, plan)
        with closing(found):  # lets go of the cursor under it
            some = islice(found, query.offset, query.offset + query.limit + 1)
            page = [shape.pick(full | instance_url(shape, row, full)) for row, full in some]
        return Answers(page[: query.limit], len(page) > query.limit, frozenset(plan.ignored))

    with transactions.reading(scope) as unit:
        if plan.sop_instance_uids and query.study_uid is None:
            _narrow_to_holders(unit, scope, plan)
        held = _held(unit, scope, plan)
        with closing(held):
            if details is None or not detailed or not _wants_details(query, plan):
                return page_of(held)
            series = list(held)
    # Read without holding a connection, which reading may need itself.
    return page_of(_detailed(iter(series), scope, query, details))


def _found(
    unit: Unit, statement: str, scope: Scope, query: Query, plan: Plan, full_of: Callable[[Row], Dataset]
) -> Sequence[Row]:
    """Rows from the offset on; one more than the limit tells that there are more."""
    statement = statement.replace("/*:conditions*/", plan.where)
    parameters = scope.parameters() | plan.parameters
    if not plan.recheck:
        page = parameters | {"limit": query.limit + 1, "offset": query.offset}
        return unit.execute(f"{statement}\n{QUERIES['page']}", page).fetchall()
    judged = _judged(unit, statement, parameters, plan, full_of)
    with closing(judged):  # lets go of the cursor under it
        return [row for row, _ in islice(judged, query.offset, query.offset + query.limit + 1)]


def _judged(
    unit: Unit,
    statement: str,
    parameters: Mapping[str, Any],
    plan: Plan,
    full_of: Callable[[Row], Dataset],
) -> Generator[Found, None, None]:
    """All rows that fulfil what SQL could not judge, read as they are needed."""
    for row in _streamed(unit, statement, parameters):
        full = full_of(row)
        if all(matches(match, full.get(key)) for key, match in plan.recheck.items()):
            yield row, full


def _streamed(unit: Unit, statement: str, parameters: Mapping[str, Any]) -> Iterator[Row]:
    """Rows by a cursor in a transaction of its own: one snapshot, and no more of them than are looked at."""
    with unit.transaction(), unit.cursor(name="answers") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(statement, parameters)
        yield from cursor


def _held(unit: Unit, scope: Scope, plan: Plan) -> Generator[Held, None, None]:
    """The series that match, each with its instances and what is known of them."""
    statement = QUERIES["series"].replace("/*:conditions*/", plan.where)
    series = _judged(unit, statement, scope.parameters() | plan.parameters, plan, full_series)
    with closing(series):
        while some := list(islice(series, _SERIES_AT_ONCE)):
            records = instances_of(unit, [row["series_id"] for row, _ in some])
            for row, full in some:
                yield row, full, [instance_values(record) for record in records[row["series_id"]]]


def _detailed(held: Iterator[Held], scope: Scope, query: Query, details: Details) -> Iterator[Held]:
    """``held`` with those of the instances' other attributes that the query may be about."""
    asked = set() if isinstance(query.include, All) else {f"{tag:08X}" for tag in query.include}
    wanted = DETAILED | asked | query.matches.keys()
    for row, full, instances in held:
        known = details(scope, row["study_uid"], row["series_uid"])
        for values in instances:
            more = known.get(values[SOP_INSTANCE_UID]["Value"][0], {})
            values |= {key: element for key, element in more.items() if key in wanted and key not in values}
        yield row, full, instances


def _judged_instances(held: Iterator[Held], plan: Plan) -> Generator[Found, None, None]:
    for row, full, instances in held:
        for values in instances:
            if all(matches(match, values.get(key)) for key, match in plan.instance.items()):
                yield row, full | values


def _wants_details(query: Query, plan: Plan) -> bool:
    if isinstance(query.include, All) or not CATALOGUED.issuperset(plan.instance):
        return True
    return any(f"{tag:08X}" in DETAILED for tag in query.include)


def _narrow_to_holders(unit: Unit, scope: Scope, plan: Plan) -> None:
    """Only series that may hold one of the SOP Instance UIDs: by the lookup when closed, by row when open."""
    establishment_id = scope.actor.establishment_id
    uids = plan.sop_instance_uids
    holders = {
        row["series_id"]
        for row in unit.execute(QUERIES["open_series_of"], {"establishment_id": establishment_id, "uids": uids})
    }
    for uid in uids:
        holders.update(candidate_series(unit, establishment_id, uid))
    plan.only_series(sorted(holders))

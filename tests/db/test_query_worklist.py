"""The study list of the pages, and that searches reach the indexes behind row security."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from harness import World

from negatoscope.archive.query import QUERIES, Level
from negatoscope.archive.query_conditions import plan_of
from negatoscope.archive.query_names import MAX_TEXT, prefix_query
from negatoscope.archive.query_worklist import (
    ENOUGH,
    MAX_TOKENS,
    StudyKey,
    WorklistPage,
    read_date,
    worklist,
)
from negatoscope.dicom.matching import parse_match
from negatoscope.dicom.tags import vr_of
from negatoscope.errors import BadRequest
from query_data import SeriesData, StudyData, add, element

STUDIES = (
    StudyData("1.1", "DUPONT^JEAN", "IPP001", "20240102", "101112", "ACC-7", "19700131",
              attributes={"00081030": element("LO", "Thorax")}, series=(SeriesData("1.1.1"),)),
    StudyData("1.2", "MÜLLER-D'ARTAGNAN^Zoé", "20240102", "20240103", accession="B2",
              series=(SeriesData("1.2.1", "MR"), SeriesData("1.2.2", "SR"))),
    StudyData("1.3", "MRAZEK^Jan=山田^太郎", "X%_9", "20240103", accession="B3", series=(SeriesData("1.3.1", "US"),)),
    StudyData("1.4", "DUPONT^MARIE", "IPP002", "", accession="", series=(SeriesData("1.4.1"),)),
)  # fmt: skip


@pytest.fixture
def filled(world: World) -> World:
    add(world, "A", *STUDIES)
    add(world, "B", StudyData("2.1", "DUPONT^AUTRE", "IPP001", accession="ACC-7"))
    return world


def ask(world: World, code: str = "A", **asked: Any) -> WorklistPage:
    with world.database.reading(world.scope(code)) as unit:
        return worklist(unit, world.scope(code), **asked)


def found(world: World, **asked: Any) -> list[str]:
    return [row.study_uid for row in ask(world, **asked).rows]


TYPED = [
    ("", ["1.3", "1.2", "1.1", "1.4"]),
    ("d", ["1.2", "1.1", "1.4"]),
    ("dup", ["1.1", "1.4"]),
    ("DUPONT jean", ["1.1"]),
    ("jean dup", ["1.1"]),
    ("muller", ["1.2"]),
    ("artagnan zoe", ["1.2"]),
    ("Zoé", ["1.2"]),
    ("山田", ["1.3"]),
    ("uponT", []),
    ("ipp001", []),  # identifiers are as they are written
    ("IPP001", ["1.1"]),
    ("IPP", ["1.1", "1.4"]),
    ("X%_9", ["1.3"]),
    ("X%", ["1.3"]),
    ("X_", []),
    ("ACC-7", ["1.1"]),
    ("ACC", ["1.1"]),
    ("B", ["1.3", "1.2"]),
    ("CT", ["1.1", "1.4"]),
    ("mr", ["1.3", "1.2"]),  # a modality, and the beginning of a name
    ("mr zoe", ["1.2"]),
    ("02/01/2024", ["1.1"]),
    ("2/1/2024", ["1.1"]),
    ("2024-01-02", ["1.1"]),
    ("20240102", ["1.2", "1.1"]),  # an identifier too
    ("31/01/1970", ["1.1"]),
    ("dupont 02/01/2024", ["1.1"]),
    ("31/02/2024", []),
    ("' OR 1=1 --", []),
    ("\\", []),
    ("%", []),
    ("dup\x00ont", []),
    ("&|!:*()", []),
]


def test_what_people_type_finds_what_they_mean(filled: World) -> None:
    assert {text: found(filled, text=text) for text, _ in TYPED} == dict(TYPED)


def test_a_row_holds_what_the_list_shows(filled: World) -> None:
    (row,) = ask(filled, text="ACC-7").rows
    assert (row.study_uid, row.patient_name, row.patient_identifier, row.birth_date, row.sex) == (
        "1.1",
        "DUPONT^JEAN",
        "IPP001",
        "19700131",
        "F",
    )
    assert (row.study_date, row.study_time, row.description, row.accession_number) == (
        "20240102",
        "101112",
        "Thorax",
        "ACC-7",
    )
    assert (row.modalities, row.number_of_series, row.number_of_instances) == (("CT",), 1, 2)
    assert row.establishment_code == "A"
    assert row.changed_at.tzinfo is not None


def test_filters_bound_dates_and_modality(filled: World) -> None:
    assert found(filled, date_from="20240103") == ["1.3", "1.2"]
    assert found(filled, date_to="02/01/2024") == ["1.1"]  # a study without a date is in no range
    assert found(filled, date_from="20240102", date_to="20240102") == ["1.1"]
    assert found(filled, modality="sr") == ["1.2"]
    assert found(filled, modality="XX") == []
    with pytest.raises(BadRequest):
        ask(filled, date_from="yesterday")


def test_pages_follow_each_other_without_gap_or_repetition(filled: World) -> None:
    for size in (1, 2, 3, 4):
        seen: list[str] = []
        after: StudyKey | None = None
        while True:
            page = ask(filled, after=after, limit=size)
            seen += [row.study_uid for row in page.rows]
            if page.next is None:
                break
            after = StudyKey.parse(str(page.next))
        assert seen == ["1.3", "1.2", "1.1", "1.4"]


def test_a_study_that_arrives_meanwhile_moves_no_page(filled: World) -> None:
    first = ask(filled, limit=2)
    add(filled, "A", StudyData("1.9", "NEW^ONE", "N1", "20240110"))
    assert found(filled, after=first.next) == ["1.1", "1.4"]


@pytest.mark.parametrize("text", ["", "x", "20240101", "2024-1-1", "-", "-99999999999999999999", "20240101-1;"])
def test_a_cursor_that_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        StudyKey.parse(text)


def test_another_establishment_sees_its_own(filled: World) -> None:
    assert [row.study_uid for row in ask(filled, "B", text="dupont").rows] == ["2.1"]
    assert [row.study_uid for row in ask(filled, "B", text="ACC-7").rows] == ["2.1"]
    assert ask(filled, "B", text="zoe").rows == []


def test_the_length_of_a_text_is_bounded(filled: World) -> None:
    assert ask(filled, text="é" * (MAX_TEXT - 1)).rows == []
    assert ask(filled, text="é" * MAX_TEXT).rows == []
    with pytest.raises(BadRequest, match=str(MAX_TEXT)):
        ask(filled, text="é" * (MAX_TEXT + 1))


def test_words_over_the_limit_are_not_looked_at(filled: World) -> None:
    for count, rows in ((MAX_TOKENS - 1, 0), (MAX_TOKENS, 0), (MAX_TOKENS + 1, 1)):
        text = " ".join(["ACC-7"] * (count - 1) + ["zzz"])
        assert len(ask(filled, text=text).rows) == rows


def test_a_word_that_means_many_people_finds_the_same(world: World) -> None:
    """Two forms of one condition: a list of people, or reading in order when there are too many."""
    add(world, "A", StudyData("1.1", "MANY^ONE", "P1"), StudyData("1.2", "FEW", "MANY", accession="C1"))
    for first, last in ((1, ENOUGH - 3), (ENOUGH - 2, ENOUGH - 2), (ENOUGH - 1, ENOUGH - 1)):
        with world.database.unit(None) as unit:
            unit.execute(
                "INSERT INTO patient (authority_oid, identifier, name) SELECT '2.25.9', 'M' || n, 'MANY^' || n"
                " FROM generate_series(%s::int, %s::int) AS n",
                (first, last),
            )
            people = unit.execute("SELECT count(*) AS n FROM patient WHERE name_words @@ 'many'::tsquery").fetchone()
            assert people == {"n": last + 1}  # with MANY as identifier: one below, at, and over ENOUGH
        assert found(world, text="many") == ["1.1"]
        assert found(world, text="MANY") == ["1.2", "1.1"]
        assert found(world, text="many one") == ["1.1"]
        assert found(world, text="C1") == ["1.2"]


def test_dates_are_days_of_the_calendar() -> None:
    assert [read_date(text) for text in ("29/02/2024", "29/02/2023", "2024.01.02", "20241301", "1/1/24")] == [
        "20240229",
        None,
        None,
        None,
        None,
    ]


def test_words_are_quoted_whatever_they_hold() -> None:
    assert prefix_query("O'Brien <-> \\x & !y:*") == "'o':* & 'brien':* & 'x':* & 'y':*"
    assert prefix_query("^^ ''") is None


REACHED = [
    ("00100020", "P17", "identifier"),
    ("00100020", "P39*", "identifier"),
    ("00080050", "A17", "accession_number"),
    ("00080050", "A39*", "accession_number"),
    ("0020000D", "1.2.7,1.2.8", "study_uid"),
    ("00080020", "20000301-20000302", "study_date"),
    ("00100010", "NAME39*", "name_words"),
    ("00100010", "山田*", "name_words"),
    ("00100030", "19000331", "birth_date"),
]


def test_searches_reach_their_indexes_behind_row_security(world: World) -> None:
    """Row security bars operators that are not leakproof from indexes: a plan shows whether ours are."""
    scope = world.scope("A")
    with psycopg.connect(world.database.url, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO patient (authority_oid, identifier, name, birth_date) SELECT '2.25.1001', 'P' || n,"
            " 'NAME' || n || '^FIRST' || n % 50, (19000101 + n)::text FROM generate_series(1, 4000) AS n"
        )
        owner.execute(
            "INSERT INTO study (establishment_id, patient_id, study_uid, study_date, accession_number, attributes)"
            " SELECT %s, patient_id, '1.2.' || patient_id, (20000101 + patient_id)::text, 'A' || patient_id, '{}'"
            " FROM patient",
            (scope.actor.establishment_id,),
        )
        owner.execute("ANALYZE patient, study")
    plans: dict[str, str] = {}
    with world.database.reading(scope) as unit:
        for key, value, _ in REACHED:
            plan = plan_of(Level.STUDY, {key: parse_match(int(key, 16), vr_of(int(key, 16)), value)})
            statement = QUERIES["studies"].replace("/*:conditions*/", plan.where)
            lines = unit.execute(f"EXPLAIN {statement} LIMIT 10", scope.parameters() | plan.parameters).fetchall()
            plans[f"{key}={value}"] = "\n".join(line["QUERY PLAN"] for line in lines)
    missed = {
        case: text
        for (case, text), (_, _, column) in zip(plans.items(), REACHED, strict=True)
        if not re.search(rf"Index Cond: .*\b{column}\b", text)
    }
    assert missed == {}, "\n\n".join(missed.values())

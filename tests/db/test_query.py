"""Finding patients, studies, series and instances on a real PostgreSQL, behind row security."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from harness import World
from psycopg.pq import TransactionStatus

from negatoscope.archive.query import ALL, Answers, Query, find_instances, find_patients, find_series, find_studies
from negatoscope.archive.query_rows import Dataset
from negatoscope.dicom.matching import Kind, Match, matches, parse_match
from negatoscope.dicom.tags import vr_of
from negatoscope.errors import BadRequest
from negatoscope.model.actor import Scope
from query_data import SeriesData, StudyData, add, element

DESCRIPTION, REFERRER, CODES = "00081030", "00080090", "00081032"
STUDIES = (
    StudyData("1.1", "DUPONT^JEAN", "P1", "20240102", "101112", "A1", attributes={
        DESCRIPTION: element("LO", "Thorax 100% \\ été"), REFERRER: element("PN", {"Alphabetic": "MÜLLER^Zoé"}),
        "00080051": element("SQ", {"00400031": element("UT", "X")})},
        series=(SeriesData("1.1.1"), SeriesData("1.1.2", "MR", None))),
    StudyData("1.2", "Dupônt^Marie^^Dr", "P2", "20240103", "1011", "A_1", "19800229", "M", attributes={
        DESCRIPTION: element("LO", "thorax", "ABDOMEN"), REFERRER: element("PN", None, {"Alphabetic": "House^G"}),
        CODES: element("SQ", {"00080100": element("SH", "CT1"), "00080102": element("SH", "99X")},
                       {"00080100": element("SH", "CT2"), "00080102": element("SH", "99Y")})},
        series=(SeriesData("1.2.1", "CR"),)),
    StudyData("1.3", "Yamada^Tarou=山田^太郎=やまだ^たろう", "P%3", "20231231", "", "A%1", "", "", attributes={
        DESCRIPTION: element("LO"), REFERRER: element("PN")}, series=(SeriesData("1.3.1", "US"),)),
    StudyData("1.4", "D'ARTAGNAN-LE ROUX^ZOÉ", "p1", "", "235959.5", "", "19700102", attributes={
        "00101010": element("AS", "045Y"), "00101030": element("DS", 70.5), "00200010": element("SH", "S1")}),
    StudyData("1.5", "", "", "20240102", "000000", "A1 B", attributes={
        "00081048": element("PN", {"Alphabetic": "A^B", "Ideographic": "山田"}), "00200010": element("SH", "S?1")}),
    StudyData("1.6", "%^_", "P\\6", "20240229", "12", "A\\1", attributes={DESCRIPTION: element("LO", "_%")}),
)  # fmt: skip


def keys(**values: str) -> dict[str, Match]:
    """Keys by tag: ``keys(t00100010="DUP*")``."""
    return {name[1:]: parse_match(int(name[1:], 16), vr_of(int(name[1:], 16)), value) for name, value in values.items()}


def uids(answers: Answers, key: str = "0020000D") -> list[str]:
    return [row[key]["Value"][0] for row in answers.rows]


def studies(world: World, matching: dict[str, Match], **asked: Any) -> list[str]:
    return uids(find_studies(world.database, world.scope("A"), Query(matches=matching, **asked)))


@pytest.fixture
def filled(world: World) -> World:
    add(world, "A", *STUDIES)
    add(world, "B", StudyData("1.1", "DUPONT^JEAN", "P1", series=(SeriesData("2.1.1"),)), StudyData("2.2"))
    return world


JUDGED = [
    ("00100010", "DUPONT^JEAN"), ("00100010", "dupont^jean"), ("00100010", "DUPONT"), ("00100010", "DUP*"),
    ("00100010", "dupo?t^*"), ("00100010", "*jean"), ("00100010", "*"), ("00100010", "山田*"), ("00100010", "Yamada*"),
    ("00100010", "Yamada^Tarou=山田^太郎"), ("00100010", "=山田*"), ("00100010", "やまだ^たろう"),
    ("00100010", "D'ART*"),
    ("00100010", "dartagnan*"), ("00100010", "*roux^zoe"), ("00100010", "%*"), ("00100010", "%^_"), ("00100010", "_^%"),
    ("00100010", '""'), ("00100010", "DUPONT^JEAN^^^"), ("00100010", "^"), ("00100010", "\\"), ("00100010", "€*"),
    ("00100010", "DUPONT^MARIE^^DR"), ("00100010", "dupont^jean\\%^_"), ("00100010", "DUP*\\*tarou"),
    ("00100020", "P1"), ("00100020", "p1"), ("00100020", "P*"), ("00100020", "P?"), ("00100020", "P%*"),
    ("00100020", '""'), ("00100020", "P1\\P2"), ("00100020", "*1"), ("00100020", "P1*\\p*"), ("00100020", "nobody"),
    ("00100030", "19700101"), ("00100030", "19700101-19751231"), ("00100030", "-19700102"), ("00100030", '""'),
    ("00100040", "F"), ("00100040", "M\\F"), ("00100040", '""'), ("00101010", "045Y"), ("00101030", "70.5"),
    ("00101030", "7E1"), ("00101030", '""'),
    ("00080020", "20240102"), ("00080020", "20240102-20240103"), ("00080020", "-20231231"), ("00080020", "20240103-"),
    ("00080020", '""'), ("00080030", "101112"), ("00080030", "10-11"), ("00080030", "1200-"), ("00080030", '""'),
    ("00080050", "A1"), ("00080050", "A_1"), ("00080050", "A?1"), ("00080050", "A%*"), ("00080050", "a1"),
    ("00080050", '""'), ("00080050", "A1\\A_1"), ("00080050", "A1*"), ("00080050", "?1"),
    ("00080061", "CT"), ("00080061", "CR\\MR"), ("00080061", "C?"), ("00080061", '""'), ("00080061", "XX"),
    ("0020000D", "1.1"), ("0020000D", "1.1,1.4"), ("0020000D", "1.2\\1.3"), ("0020000D", "9"),
    ("00200010", "S1"), ("00200010", "S?1"), ("00200010", "S*"), ("00200010", '""'),
    ("00081030", "thorax"), ("00081030", "ABDOMEN"), ("00081030", "Thorax*"), ("00081030", "*100%*"),
    ("00081030", "*été"), ("00081030", "_*"), ("00081030", '""'), ("00081030", "_%"), ("00081030", "thorax\\_%"),
    ("00080090", "MULLER^ZOE"), ("00080090", "m*"), ("00080090", "*^g"), ("00080090", '""'), ("00080090", "House"),
    ("00081048", "山田"), ("00081048", "a^b"), ("00081048", "A^B=山*"), ("00081048", "a^b\\x"),
    ("00080056", "ONLINE"), ("00080056", "OFFLINE"), ("00201206", "1"), ("00201208", "4"), ("00201206", '""'),
]  # fmt: skip


def test_the_index_finds_exactly_what_the_matching_rules_say(filled: World) -> None:
    """PS3.4 C.2.2.2: SQL against the pure model, on all that is known of each study."""
    everything = find_studies(filled.database, filled.scope("A"), Query(include=ALL))
    found, expected = {}, {}
    for key, value in JUDGED:
        match = parse_match(int(key, 16), vr_of(int(key, 16)), value)
        expected[key, value] = [row["0020000D"]["Value"][0] for row in everything.rows if matches(match, row.get(key))]
        found[key, value] = studies(filled, {key: match})
    assert found == expected
    telling = [case for case in expected.values() if 0 < len(case) < len(STUDIES)]
    assert len(telling) > len(JUDGED) / 2  # the cases can tell right from wrong


def test_sequences_match_within_one_item(filled: World) -> None:
    def coded(value: str, scheme: str) -> dict[str, Match]:
        item = {"00080100": element("SH", value), "00080102": element("SH", scheme)}
        return {CODES: parse_match(0x00081032, "SQ", item)}

    assert studies(filled, coded("CT1", "99X")) == ["1.2"]
    assert studies(filled, coded("CT1", "99Y")) == []  # of two items
    assert studies(filled, coded("CT?", "*")) == ["1.2"]


def test_all_keys_must_match(filled: World) -> None:
    assert studies(filled, keys(t00080020="20240102", t00100010="DUP*")) == ["1.1"]
    assert studies(filled, keys(t00080020="20240102", t00080030="10", t00100020="P1")) == ["1.1"]


def test_studies_come_newest_first_and_pages_neither_repeat_nor_skip(filled: World) -> None:
    whole = studies(filled, {})
    assert whole == ["1.6", "1.2", "1.5", "1.1", "1.3", "1.4"]
    for matching in ({}, keys(t00080030="00-23")):  # by SQL alone, and judged again in Python
        expected = studies(filled, matching)
        for size in (1, 2, 4):
            pages = [
                find_studies(filled.database, filled.scope("A"), Query(matches=matching, limit=size, offset=offset))
                for offset in range(0, len(expected), size)
            ]
            assert [uid for page in pages for uid in uids(page)] == expected
            assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]


def test_another_establishment_sees_only_its_own(filled: World) -> None:
    found = find_studies(filled.database, filled.scope("B"), Query(include=ALL))
    assert sorted(uids(found)) == ["1.1", "2.2"]
    assert uids(find_series(filled.database, filled.scope("B"), Query(study_uid="1.1")), "0020000E") == ["2.1.1"]
    assert find_series(filled.database, filled.scope("B"), Query(study_uid="1.2")).rows == []
    assert find_instances(filled.database, filled.scope("B"), Query(matches=keys(t00080018="1.1.1.1"))).rows == []


def test_a_study_scoped_token_sees_that_study_alone(filled: World) -> None:
    scope = Scope(replace(filled.radiologist["A"], only_study_uid="1.2"))
    assert uids(find_studies(filled.database, scope, Query())) == ["1.2"]
    assert {row["0020000D"]["Value"][0] for row in find_instances(filled.database, scope, Query()).rows} == {"1.2"}
    assert find_series(filled.database, scope, Query(study_uid="1.1")).rows == []


def test_fuzzy_words_begin_words_of_the_name_in_any_order(filled: World) -> None:
    for text, expected in (
        ("jean dup", ["1.1"]),
        ("DUP", ["1.2", "1.1"]),
        ("zoe artagnan", ["1.4"]),
        ("*upon*", []),
        ("太", ["1.3"]),
        ("' | ! & :* \\", ["1.6", "1.2", "1.5", "1.1", "1.3", "1.4"]),
    ):
        key = Match(Kind.SINGLE if text.strip() else Kind.UNIVERSAL, "PN", (text,))
        found = studies(filled, {"00100010": key}, fuzzy=True)
        assert found == (expected if any(c.isalnum() for c in text) else []), text
    assert studies(filled, keys(t00080090="muller"), fuzzy=True) == ["1.1"]
    assert studies(filled, keys(t00080090="alphabetic"), fuzzy=True) == []


def test_a_study_answer_holds_what_the_standard_asks_for(filled: World) -> None:
    """PS3.18 table 10.6.3-3, values in UTF-8, patient values of the patient row, nothing else."""
    asked = Query(matches=keys(t0020000D="1.3"), retrieve_prefix="/dicom-web")
    (row,) = find_studies(filled.database, filled.scope("A"), asked).rows
    assert row == {
        "00080005": element("CS", "ISO_IR 192"),
        "00080020": element("DA", "20231231"),
        "00080030": element("TM"),
        "00080050": element("SH", "A%1"),
        "00080056": element("CS", "ONLINE"),
        "00080061": element("CS", "US"),
        "00080090": element("PN"),
        "00081030": element("LO"),
        "00081190": element("UR", "/dicom-web/studies/1.3"),
        "00100010": element(
            "PN", {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
        ),
        "00100020": element("LO", "P%3"),
        "00100030": element("DA"),
        "00100040": element("CS"),
        "0020000D": element("UI", "1.3"),
        "00200010": element("SH"),
        "00201206": element("IS", 1),
        "00201208": element("IS", 2),
    }
    assert list(row) == sorted(row)


def test_what_is_included_is_added_and_all_is_everything(filled: World) -> None:
    def ask(**asked: Any) -> dict[str, Any]:
        query = Query(matches=keys(t0020000D="1.2"), **asked)
        return find_studies(filled.database, filled.scope("A"), query).rows[0]

    assert CODES not in ask()
    assert ask(include=frozenset({0x00081032}))[CODES]["Value"][1]["00080100"] == element("SH", "CT2")
    assert "0020000E" not in ask(include=frozenset({0x0020000E}))  # of a level below: nothing to say
    assert set(ask()) | {CODES} == set(ask(include=ALL))
    assert list(ask(include=ALL)) == sorted(ask(include=ALL))


def test_series_come_by_number_with_counts_and_may_be_asked_by_study_keys(filled: World) -> None:
    found = find_series(filled.database, filled.scope("A"), Query(study_uid="1.1", retrieve_prefix="/dicom-web"))
    assert uids(found, "0020000E") == ["1.1.1", "1.1.2"]
    assert found.rows[1]["00200011"] == element("IS")
    assert found.rows[0]["00201209"] == element("IS", 2)
    assert found.rows[0]["00081190"] == element("UR", "/dicom-web/studies/1.1/series/1.1.1")
    everywhere = find_series(filled.database, filled.scope("A"), Query(matches=keys(t00100010="dup*")))
    assert uids(everywhere, "0020000E") == ["1.2.1", "1.1.1", "1.1.2"]
    modality = find_series(filled.database, filled.scope("A"), Query(matches=keys(t00080060="MR\\US")))
    assert uids(modality, "0020000E") == ["1.1.2", "1.3.1"]
    numbered = find_series(filled.database, filled.scope("A"), Query(matches=keys(t00200011="1"), study_uid="1.1"))
    assert uids(numbered, "0020000E") == ["1.1.1"]
    named = find_series(filled.database, filled.scope("A"), Query(study_uid="1.1", series_uid="1.1.2"))
    assert uids(named, "0020000E") == ["1.1.2"]


def test_studies_may_be_asked_by_series_uid_and_modality(filled: World) -> None:
    assert studies(filled, keys(t0020000E="1.1.2,1.3.1")) == ["1.1", "1.3"]
    assert studies(filled, keys(t00080060="MR")) == ["1.1"]


def test_instances_of_open_and_closed_series_look_alike(world: World) -> None:
    for code, closed in (("A", False), ("B", True)):
        series = (SeriesData("1.1", number=2, instances=(3, None, 1), closed=closed), SeriesData("1.2", closed=closed))
        add(world, code, StudyData("1", series=series))
    asked = Query(study_uid="1", retrieve_prefix="/d")
    opened, closed_rows = (find_instances(world.database, world.scope(code), asked).rows for code in "AB")
    assert opened == closed_rows
    assert [row["00080018"]["Value"][0] for row in opened] == ["1.2.1", "1.2.2", "1.1.3", "1.1.1", "1.1.2"]
    assert opened[0]["00081190"] == element("UR", "/d/studies/1/series/1.2/instances/1.2.1")
    assert opened[0]["00280010"] == element("US", 512)
    assert opened[4]["00200013"] == element("IS")


@pytest.mark.parametrize("closed", [False, True])
def test_an_instance_is_found_by_its_uid_alone(world: World, closed: bool) -> None:
    add(world, "A", *(StudyData(f"{n}", series=(SeriesData(f"{n}.1", closed=closed),)) for n in range(1, 5)))
    found = find_instances(world.database, world.scope("A"), Query(matches=keys(t00080018="3.1.2,4.1.1,9.9")))
    assert sorted(uids(found, "00080018")) == ["3.1.2", "4.1.1"]


def test_instances_are_paged_and_matched_across_series(world: World) -> None:
    series = tuple(SeriesData(f"1.{n}", number=n, instances=tuple(range(1, 6)), closed=n % 2 == 0) for n in range(70))
    add(world, "A", StudyData("1", series=series))
    whole = uids(find_instances(world.database, world.scope("A"), Query(study_uid="1", limit=500)), "00080018")
    assert len(whole) == 350
    pages = [
        find_instances(world.database, world.scope("A"), Query(study_uid="1", limit=50, offset=offset))
        for offset in range(0, 350, 50)
    ]
    assert [uid for page in pages for uid in uids(page, "00080018")] == whole
    assert [page.more for page in pages] == [True] * 6 + [False]
    third = find_instances(world.database, world.scope("A"), Query(study_uid="1", matches=keys(t00200013="3")))
    assert len(third.rows) == 70
    classes = Query(study_uid="1", matches=keys(t00080016="1.2.840.10008.5.1.4.1.1.4"))
    assert find_instances(world.database, world.scope("A"), classes).rows == []


def test_details_are_read_only_when_the_index_does_not_know(filled: World) -> None:
    asked: list[str] = []

    def details(scope: Scope, study_uid: str, series_uid: str) -> dict[str, Dataset]:
        asked.append(series_uid)
        return {f"{series_uid}.1": {"00080008": element("CS", "ORIGINAL"), "00091001": element("LO", "x")}}

    def ask(**wanted: Any) -> Answers:
        return find_instances(filled.database, filled.scope("A"), Query(study_uid="1.1", **wanted), details)

    assert len(ask().rows) == 4
    assert asked == []
    assert uids(ask(matches=keys(t00080008="ORIG*")), "00080018") == ["1.1.1.1", "1.1.2.1"]
    assert asked == ["1.1.1", "1.1.2"]
    private = {"00091001": parse_match(0x00091001, "LO", "x")}
    assert len(ask(matches=private).rows) == 2
    assert ask(include=frozenset({0x00080008})).rows[0]["00080008"] == element("CS", "ORIGINAL")
    unknown = find_instances(filled.database, filled.scope("A"), Query(study_uid="1.1", matches=private))
    assert (len(unknown.rows), unknown.ignored) == (4, frozenset({0x00091001}))


def test_a_key_the_index_does_not_know_matches_everything_and_is_reported(filled: World) -> None:
    found = find_studies(filled.database, filled.scope("A"), Query(matches=keys(t00180015="HEAD")))
    assert (len(found.rows), found.ignored) == (6, frozenset({0x00180015}))
    found = find_studies(filled.database, filled.scope("A"), Query(matches=keys(t00080005="ISO_IR 100")))
    assert (len(found.rows), found.ignored) == (6, frozenset())


def test_patients_are_found_once_with_their_counts(filled: World) -> None:
    add(filled, "A", StudyData("1.7", "DUPONT^JEAN", "P1", "20250101", series=(SeriesData("1.7.1"),)))
    found = find_patients(filled.database, filled.scope("A"), Query(matches=keys(t00100010="dup*")))
    assert uids(found, "00100020") == ["P1", "P2"]
    assert found.rows[0]["00201200"] == element("IS", 2)
    every = find_patients(filled.database, filled.scope("A"), Query(include=ALL))
    assert len(every.rows) == 6
    assert every.rows[-1]["00201204"]["Value"] == [2]
    judged = find_patients(filled.database, filled.scope("A"), Query(matches=keys(t00101010="045Y", t00080030="12")))
    assert uids(judged, "00100020") == ["p1"]
    assert judged.ignored == frozenset({0x00080030})
    assert len(find_patients(filled.database, filled.scope("B"), Query()).rows) == 1


@pytest.mark.parametrize(("count", "allowed"), [(7, True), (8, True), (9, False)])
def test_wild_cards_in_a_key_are_bounded(count: int, allowed: bool) -> None:
    if allowed:
        assert parse_match(0x00100010, "PN", "a?" * count).kind is Kind.WILD_CARD
    else:
        with pytest.raises(BadRequest, match="8 wild cards"):
            parse_match(0x00100010, "PN", "a?" * count)


def test_connections_come_back_clean_after_judged_pages(filled: World) -> None:
    """A page that stops early lets go of its cursor and its transaction."""
    for _ in range(30):
        find_studies(filled.database, filled.scope("A"), Query(matches=keys(t00080030="00-23"), limit=1))
    with filled.database.reading(filled.scope("A")) as unit:
        assert unit.info.transaction_status is TransactionStatus.IDLE

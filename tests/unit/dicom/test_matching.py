"""Matching of query keys, PS3.4 C.2.2.2."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.dicom.charset import fold
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.matching import (
    Kind,
    Match,
    json_text,
    like_pattern,
    matches,
    parse_identifier,
    parse_match,
    wild_card_matches,
)
from negatoscope.errors import BadRequest, LimitExceeded

ANY_TAG = 0x00080050


def match(vr: str, key: str, *values: Any) -> bool:
    """Whether an attribute with these values matches the key."""
    element = {"vr": vr, "Value": list(values)} if values else {"vr": vr}
    return matches(parse_match(ANY_TAG, vr, key), element)


def kind(vr: str, key: str) -> Kind:
    return parse_match(ANY_TAG, vr, key).kind


def name(alphabetic: str, ideographic: str = "", phonetic: str = "") -> dict[str, str]:
    groups = {"Alphabetic": alphabetic, "Ideographic": ideographic, "Phonetic": phonetic}
    return {group: text for group, text in groups.items() if text}


@pytest.mark.parametrize("vr", ["LO", "UI", "DA", "IS", "SQ", "OB", "PN"])
def test_an_empty_key_matches_all_even_what_is_absent(vr: str) -> None:
    assert kind(vr, "") is kind(vr, " \0") is Kind.UNIVERSAL
    assert matches(parse_match(ANY_TAG, vr, ""), None)
    assert match(vr, "")


@pytest.mark.parametrize("key", ["*", "**", "a\\*"])
def test_a_star_alone_matches_all(key: str) -> None:
    assert kind("LO", key) is Kind.UNIVERSAL
    assert matches(parse_match(ANY_TAG, "LO", key), None)


@pytest.mark.parametrize(
    ("vr", "key", "value", "expected"),
    [
        ("LO", "Head", "Head", True),
        ("LO", "Head", "head", False),  # only names compare without case
        ("LO", "Head", "Head CT", False),
        ("LO", " Head ", "Head", True),
        ("CS", "CT\\MR", "MR", True),  # several values: any of them
        ("CS", "CT\\MR", "US", False),
        ("LT", "a\\b", "a\\b", True),
        ("UR", "http://x", "http://x", True),
        ("SH", "A%", "A%", True),
        ("AS", "042Y", "042Y", True),
        ("AS", "04*", "04*", True),  # no wild cards in it: letters
        ("AT", "00100020", "00100020", True),
        ("IS", "7", 7, True),
        ("IS", "007", 7, True),
        ("IS", "8", 7, False),
        ("IS", "7", "7x", False),
        ("DS", "1.50", 1.5, True),
        ("US", "512", 512, True),
        ("IS", "7\\8", 8, True),
    ],
)
def test_single_values(vr: str, key: str, value: Any, expected: bool) -> None:
    assert kind(vr, key) is Kind.SINGLE
    assert match(vr, key, value) is expected


def test_one_of_several_values_is_enough_and_none_is_not() -> None:
    assert match("CS", "MR", "CT", None, "MR")
    assert not match("CS", "MR", None)
    assert not match("CS", "MR")
    assert not matches(parse_match(ANY_TAG, "CS", "MR"), None)


@pytest.mark.parametrize("vr", ["IS", "DS", "US", "FL"])
@pytest.mark.parametrize("key", ["x", "1-2", "1\\y"])
def test_a_number_must_be_one(vr: str, key: str) -> None:
    with pytest.raises(BadRequest):
        parse_match(ANY_TAG, vr, key)


@pytest.mark.parametrize("key", ["1.2.3", "1.2.9\\1.2.3", "1.2.9,1.2.3", " 1.2.3\0", "1.2.9, 1.2.3"])
def test_lists_of_uids_match_any_of_them_literally(key: str) -> None:
    assert kind("UI", key) is Kind.UID_LIST
    assert match("UI", key, "1.2.3")
    assert not match("UI", key, "1.2.33")
    assert not match("UI", "1.2.*", "1.2.3")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("H*", "Head", True),
        ("*d", "Head", True),
        ("H?ad", "Head", True),
        ("H?d", "Head", False),
        ("*ea*", "Head", True),
        ("He*ad", "Head", True),
        ("Hea*ad", "Head", False),  # the two ends may not overlap
        ("a*b*a", "aba", True),
        ("a*b*a", "ab", False),
        ("h*", "Head", False),
        ("*x*", "Head", False),
        ("H*x*d", "Head", False),
        ("x*", "Head", False),
        ("H.*", "Head", False),
        ("He**d", "Head", True),
        ("*\n?", "a\nb", True),
        ("????", "Head", True),
        ("???", "Head", False),
    ],
)
def test_wild_cards(key: str, value: str, expected: bool) -> None:
    assert kind("LO", key) is Kind.WILD_CARD
    assert match("LO", key, value) is expected


@given(
    pattern=st.text("ab?*", max_size=8),
    text=st.text("abc", max_size=10),
)
def test_wild_cards_mean_what_a_regular_expression_says(pattern: str, text: str) -> None:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    assert wild_card_matches(pattern, text) is (re.fullmatch(expression, text, re.DOTALL) is not None)


@given(text=st.text("ab%_\\*?", max_size=8), value=st.text("ab%_\\", max_size=8))
def test_the_pattern_for_sql_means_the_same(text: str, value: str) -> None:
    """LIKE, spelled out: a backslash quotes, % is any run, _ any one."""
    pattern, expression = like_pattern(text), ""
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        if letter == "\\":
            position += 1
            expression += re.escape(pattern[position])
        else:
            expression += {"%": ".*", "_": "."}.get(letter, re.escape(letter))
        position += 1
    assert (re.fullmatch(expression, value, re.DOTALL) is not None) is wild_card_matches(text, value)


@pytest.mark.parametrize(("cards", "taken"), [(7, True), (8, True), (9, False)])
def test_wild_cards_are_limited(cards: int, taken: bool) -> None:
    for key in ("a*" * cards, "?" * cards + "x"):
        if taken:
            assert kind("LO", key) is Kind.WILD_CARD
        else:
            with pytest.raises(BadRequest):
                parse_match(ANY_TAG, "LO", key)
    assert kind("LO", "a" + "*" * 64) is Kind.WILD_CARD  # a run of stars is one


def test_no_pattern_is_slow() -> None:
    begun = time.monotonic()
    assert not wild_card_matches("*a" * 8 + "b", "a" * 10_000)
    assert not match("LO", "a*a*a*a*a*a*a*a*b", "a" * 10_000)
    assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("müller^jÖrg", name("MULLER^Jörg"), True),
        ("Muller", name("Müller^Jörg"), False),
        ("Muller*", name("Müller^Jörg"), True),
        ("Müller^*", name("MULLER^JORG"), True),
        ("Muller^^", name("Muller"), True),
        ("M?ller*", name("Müller^Jörg"), True),
        ("山田*", name("Yamada^Tarou", "山田^太郎", "やまだ^たろう"), True),
        ("やまだ*", name("Yamada^Tarou", "山田^太郎", "やまだ^たろう"), True),
        ("*tarou", name("Yamada^Tarou", "山田^太郎"), True),
        ("Yamada*=山田*", name("Yamada^Tarou", "山田^太郎"), True),
        ("=山田*", name("Yamada^Tarou", "山田^太郎"), True),
        ("Yamada*=鈴木*", name("Yamada^Tarou", "山田^太郎"), False),
        ("Yamada*==x", name("Yamada^Tarou", "山田^太郎"), False),
        ("Léa", "LEA", True),  # a name that is only text
    ],
)
def test_names_compare_without_case_and_accents_group_by_group(key: str, value: Any, expected: bool) -> None:
    assert match("PN", key, value) is expected


@given(st.text("aéßİ^ ", min_size=1, max_size=8).filter(lambda t: t.strip(" ^")))
def test_a_name_matches_itself_in_any_case(text: str) -> None:
    assert match("PN", text.upper(), name(text)) or fold(text.upper()) != fold(text)


@pytest.mark.parametrize(
    ("vr", "key", "value", "expected"),
    [
        ("DA", "20260131", "20260131", True),
        ("DA", "20260131", "20260201", False),
        ("DA", "2026.01.31", "20260131", True),
        ("DA", "20260131", "2026.01.31", True),
        ("DA", "20260101-20260131", "20260131", True),
        ("DA", "20260101-20260131", "20260201", False),
        ("DA", "20260101 - 20260131", "20260115", True),
        ("DA", "20260101-", "20991231", True),
        ("DA", "20260101-", "20251231", False),
        ("DA", "-20260101", "19000101", True),
        ("DA", "-20260101", "20260102", False),
        ("DA", "-20260101", "2026", False),  # no date
        ("DA", "-20260101", "20250631", False),  # the 31st of June
        ("TM", "10", "101500", True),
        ("TM", "10", "110000", False),
        ("TM", "1015", "101530.5", True),
        ("TM", "10:15", "1015", True),
        ("TM", "100000-113000", "1130", True),
        ("TM", "100000-11", "115959.999", True),
        ("TM", "-11", "120000", False),
        ("TM", "1000-", "10", True),
        ("TM", "-101112.25", "101112.260000", False),
        ("TM", "235960", "235959", True),  # a leap second
        ("TM", "10", "xx", False),
        ("DT", "2026", "20260131101112", True),
        ("DT", "202602", "20260228235959.9", True),
        ("DT", "202602", "20260301", False),
        ("DT", "2025-2026", "20261231235959", True),
        ("DT", "2025-", "2024", False),
        ("DT", "-2025", "2024", True),
        ("DT", "20260131120000+0100", "20260131110000+0000", True),
        ("DT", "20260131120000+0100", "20260131120000+0000", False),
        ("DT", "20260131120000-0500", "20260131170000+0000", True),
        ("DT", "20260131120000-2027", "2026063012", True),  # too much for an offset: a range
        ("DT", "2026-0500-2027-0500", "2026", True),
        ("DT", "2026", "x", False),
    ],
)
def test_dates_times_and_ranges_of_them(vr: str, key: str, value: str, expected: bool) -> None:
    assert kind(vr, key) is Kind.RANGE
    assert match(vr, key, value) is expected


@pytest.mark.parametrize(
    ("vr", "key"),
    [
        ("DA", "2026"),
        ("DA", "-"),
        ("DA", "20260631"),
        ("DA", "20260101-20261301"),
        ("DA", "00000101"),
        ("DA", "20260101-20260102-20260103"),
        ("DA", "2026*"),
        ("TM", "1"),
        ("TM", "25"),
        ("TM", "1061"),
        ("TM", "a-b"),
        ("DT", "-"),
        ("DT", "202"),
        ("DT", "20261301"),
        ("DT", "2025-2026-2027"),
        ("DT", "0000"),
    ],
)
def test_what_is_no_date_time_or_range_is_a_bad_request(vr: str, key: str) -> None:
    with pytest.raises(BadRequest):
        parse_match(ANY_TAG, vr, key)


def test_ends_compare_as_text_with_stored_values() -> None:
    """SQL relies on it: ``study_date BETWEEN low AND high``."""
    parsed = parse_match(ANY_TAG, "TM", "10:00-1130")
    assert (parsed.low, parsed.high) == ("1000", "113059.999999")
    assert parse_match(ANY_TAG, "TM", "10").high == "105959.999999"
    assert parse_match(ANY_TAG, "TM", "101112").high == "101112.999999"
    assert parse_match(ANY_TAG, "TM", "101112.5").high == "101112.599999"
    assert parsed.low <= "100000" <= "113012.5" <= parsed.high
    assert parse_match(ANY_TAG, "DA", "20260131") == Match(Kind.RANGE, "DA", low="20260131", high="20260131")
    assert parse_match(ANY_TAG, "DA", "-2026.01.31") == Match(Kind.RANGE, "DA", high="20260131")


@given(low=st.dates(date(1900, 1, 1), date(2100, 1, 1)), length=st.integers(0, 1000), offset=st.integers(-2000, 2000))
def test_a_date_is_in_a_range_when_it_lies_between_its_ends(low: date, length: int, offset: int) -> None:
    high, value = low + timedelta(days=length), low + timedelta(days=offset)
    key = f"{low:%Y%m%d}-{high:%Y%m%d}"
    assert match("DA", key, f"{value:%Y%m%d}") is (low <= value <= high)


@given(
    st.text("0123456789-+.", max_size=30), st.text("0123456789-+.", max_size=26), st.sampled_from(["DA", "TM", "DT"])
)
def test_any_date_key_is_parsed_or_a_bad_request(key: str, value: str, vr: str) -> None:
    try:
        match(vr, key, value)
    except BadRequest:
        pass


@pytest.mark.parametrize("end", ["0001-1400", "0001+1400", "9999-1400", "9999+1400", "000101010000-1400"])
def test_the_ends_of_time_are_no_trouble(end: str) -> None:
    assert match("DT", end, "2026") is False
    assert match("DT", end, end)


def test_two_quotation_marks_match_what_has_no_value() -> None:
    assert kind("LO", '""') is Kind.EMPTY
    assert match("LO", '""')
    assert matches(parse_match(ANY_TAG, "LO", '""'), None)
    assert match("LO", '""', None)
    assert not match("LO", '""', "x")
    assert not matches(parse_match(ANY_TAG, "UT", '""'), {"vr": "UT", "BulkDataURI": "x"})
    literal = parse_match(ANY_TAG, "LO", '""', empty_value_matching=False)
    assert literal.kind is Kind.SINGLE
    assert matches(literal, {"vr": "LO", "Value": ['""']})


REQUEST = {"0040000A": {"vr": "SH", "Value": ["S1"]}, "00400007": {"vr": "LO", "Value": ["Head"]}}


def test_a_sequence_matches_when_one_item_matches_all_its_keys() -> None:
    key = parse_match(0x00400275, "SQ", {"0040000A": {"vr": "SH", "Value": ["S1"]}, "00400007": {"vr": "LO"}})
    assert key.kind is Kind.SEQUENCE
    assert matches(key, {"vr": "SQ", "Value": [{}, REQUEST]})
    assert not matches(key, {"vr": "SQ", "Value": [{}]})
    assert not matches(key, {"vr": "SQ"})
    assert not matches(key, None)
    both = {"0040000A": {"vr": "SH", "Value": ["S1"]}, "00400007": {"vr": "LO", "Value": ["Neck"]}}
    split = [REQUEST, {"00400007": {"vr": "LO", "Value": ["Neck"]}}]
    assert not matches(parse_match(0x00400275, "SQ", both), {"vr": "SQ", "Value": split})


def test_a_sequence_without_a_key_that_says_anything_matches_all() -> None:
    for value in ("", {}, {"00400007": {"vr": "LO"}}):
        assert matches(parse_match(0x00400275, "SQ", value), None)


def test_an_identifier_is_parsed_key_by_key() -> None:
    keys = parse_identifier(
        {
            "00080061": {"vr": "CS", "Value": ["CT", "MR"]},
            "00100010": {"vr": "PN", "Value": [name("Doe*", "山田")]},
            "00200013": {"vr": "IS", "Value": [7]},
            "00400275": {"vr": "SQ", "Value": [{"00321064": {"vr": "SQ", "Value": [REQUEST]}}]},
            "00400100": {"vr": "SQ"},
        }
    )
    assert keys["00080061"].values == ("CT", "MR")
    assert keys["00100010"] == Match(Kind.WILD_CARD, "PN", ("Doe*=山田",))
    assert keys["00200013"].values == ("7",)
    assert keys["00400275"].items["00321064"].items["0040000A"].values == ("S1",)
    assert keys["00400100"].kind is Kind.UNIVERSAL


@pytest.mark.parametrize(("depth", "taken"), [(1, True), (2, True), (3, False)])
def test_key_items_are_limited_in_depth(depth: int, taken: bool) -> None:
    value: dict[str, Any] = {"00080050": {"vr": "SH", "Value": ["x"]}}
    for _ in range(depth - 1):
        value = {"00400275": {"vr": "SQ", "Value": [value]}}
    limits = replace(DEFAULT_LIMITS, sequence_depth=2)
    if taken:
        assert parse_match(0x00400275, "SQ", value, limits=limits).kind is Kind.SEQUENCE
    else:
        with pytest.raises(LimitExceeded):
            parse_match(0x00400275, "SQ", value, limits=limits)


def test_values_of_the_json_model_as_text() -> None:
    assert [json_text(v) for v in (None, 7, 1.5, "x", name("A", "", "B"))] == ["", "7", "1.5", "x", "A==B"]

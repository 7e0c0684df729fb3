"""Rules on arrival are read strictly, match what they say, and wait for their hours."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from negatoscope.errors import BadRequest
from negatoscope.routing import Priority, read_rules
from negatoscope.routing.rules import LARGEST_FILE, MOST_RULES

FULL = """
[[rule]]
name = "thorax"
establishment = "HX"
to = ["EXPERT", "REGION"]
priority = "urgent"
between = "20:00-06:00"
hold = true
syntax = "1.2.840.10008.1.2.4.80"
[rule.match]
Modality = ["CT", "MR"]
StudyDescription = "*THORAX*éch?"
"""
STUDY = {"00081030": {"vr": "LO", "Value": ["Scanner thorax + echo"]}}
SERIES = {"00080060": {"vr": "CS", "Value": ["CT"]}}


def test_a_rule_says_who_what_when_and_to_whom() -> None:
    (rule,) = read_rules(FULL)
    assert (rule.to, rule.priority, rule.hold) == (("EXPERT", "REGION"), Priority.URGENT, True)
    assert rule.covers("HX", STUDY, SERIES)
    assert not rule.covers("HY", STUDY, SERIES)
    assert not rule.covers("HX", STUDY, {"00080060": {"vr": "CS", "Value": ["US"]}})
    assert not rule.covers("HX", {}, SERIES), "what is absent matches nothing"


@pytest.mark.parametrize(
    ("clock", "wait_s"),
    [("19:59", 60), ("20:00", 0), ("23:00", 0), ("05:59", 0), ("06:00", 14 * 3600), ("12:00", 8 * 3600)],
)
def test_a_rule_with_hours_waits_for_them(clock: str, wait_s: float) -> None:
    (rule,) = read_rules(FULL)
    assert rule.delay_s(datetime.fromisoformat(f"2026-03-01T{clock}:00")) == wait_s


def test_a_rule_without_conditions_covers_every_series_of_its_establishment_at_once() -> None:
    (rule,) = read_rules('[[rule]]\nname = "all"\nestablishment = "HX"\nto = "REGION"\n')
    assert rule.covers("HX", {}, {})
    assert rule.delay_s(datetime(2026, 3, 1, 12)) == 0
    assert (rule.priority, rule.hold, rule.syntax) == (Priority.NORMAL, False, "")


@pytest.mark.parametrize(
    "change",
    [
        ("name = ", "nom = "),
        ('name = "thorax"', 'name = "a b"'),
        ('establishment = "HX"', "establishment = 1"),
        ('to = ["EXPERT", "REGION"]', "to = []"),
        ('to = ["EXPERT", "REGION"]', ""),
        ('"urgent"', '"soon"'),
        ('"20:00-06:00"', '"24:00-06:00"'),
        ("hold = true", 'hold = "yes"'),
        ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.50"),  # with loss
        ("1.2.840.10008.1.2.4.80", "1.2.3"),
        ("Modality =", "Modalité ="),
        ("Modality =", "PixelData ="),
        ('["CT", "MR"]', "7"),
        ("[[rule]]", "[rule]"),
        ("[[rule]]", "[[rules]]"),
    ],
)
def test_what_is_not_understood_is_refused_and_not_passed_over(change: tuple[str, str]) -> None:
    with pytest.raises(BadRequest):
        read_rules(FULL.replace(*change))


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(BadRequest, match="stands twice"):
        read_rules(FULL + FULL)


@pytest.mark.parametrize(("rules", "fine"), [(MOST_RULES - 1, True), (MOST_RULES, True), (MOST_RULES + 1, False)])
def test_rules_are_bounded_in_number(rules: int, fine: bool) -> None:
    text = "".join(f'[[rule]]\nname = "r{n}"\nestablishment = "HX"\nto = "N"\n' for n in range(rules))
    if fine:
        assert len(read_rules(text)) == rules
    else:
        with pytest.raises(BadRequest):
            read_rules(text)


@pytest.mark.parametrize(("size", "fine"), [(-1, True), (0, True), (1, False)])
def test_a_file_of_rules_is_bounded_in_bytes(size: int, fine: bool) -> None:
    text = "#" * (LARGEST_FILE + size)
    if fine:
        assert read_rules(text) == []
    else:
        with pytest.raises(BadRequest):
            read_rules(text)


def test_no_pattern_takes_long() -> None:
    pattern = "*a" * 12 + "*"
    (rule,) = read_rules(FULL.replace("*THORAX*éch?", pattern))
    began = time.process_time()
    rule.covers("HX", {"00081030": {"vr": "LO", "Value": ["a" * 11 + "b" * 50]}}, SERIES)
    assert time.process_time() - began < 1.0

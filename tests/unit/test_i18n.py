"""Both languages are complete, and which one a visitor gets is their choice."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.web import i18n
from negatoscope.web.i18n import LANGUAGES, Speech, age_years, choose_language

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "src" / "negatoscope" / "web"
_PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|\{\w+\}")


def catalogue_file(language: str) -> Path:
    return WEB / "locales" / language / "LC_MESSAGES" / "messages.po"


def several(text: str | Sequence[str] | None) -> Sequence[str]:
    """The forms of a message, singular and plural."""
    return (text or "",) if isinstance(text, str | None) else text


def test_every_string_of_code_and_templates_is_in_both_catalogues_and_none_is_left_over() -> None:
    checked = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "catalogues.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, f"{checked.stdout}{checked.stderr}run python tools/catalogues.py"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_translation_is_fuzzy_empty_or_loses_a_placeholder(language: str) -> None:
    with catalogue_file(language).open("rb") as file:
        messages = [message for message in read_po(file, locale=language) if message.id]
    for message in messages:
        assert not message.fuzzy, message.id
        identifiers, texts = several(message.id), several(message.string)
        wanted = {name for identifier in identifiers for name in _PLACEHOLDER.findall(identifier)}
        for text in texts:
            assert text, message.id
            assert set(_PLACEHOLDER.findall(text)) == wanted, message.id
    assert len(messages) > 300


def test_no_language_is_written_into_a_template() -> None:
    """Words between tags come from the catalogue; what may stand bare is the product, languages, symbols."""
    allowed = {"Négatoscope", "Français", "English", "EN", "FR", "FINESS", "v", "·", "—", "↑", "↓", "↵", "/", "@", ":"}
    for template in (WEB / "templates").rglob("*.html"):
        classes = r"\{% block \w+_class %\}.*?\{% endblock %\}"
        text = re.sub(
            classes + r"|\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", " ", template.read_text(encoding="utf-8"), flags=re.S
        )
        bare = re.sub(r"<[^>]*>", " ", text)
        bare = re.sub(r"&\w+;", " ", bare)
        words = {word for word in bare.split() if word not in allowed}
        assert not words, f"{template.name}: {sorted(words)}"


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        (None, None, "fr"),  # nothing is known: French
        (None, "", "fr"),
        (None, "en-US,en;q=0.9", "en"),
        (None, "de-DE,de;q=0.9", "fr"),
        (None, "de,en;q=0.5,fr;q=0.4", "en"),
        (None, "en;q=0.4,fr;q=0.4", "en"),  # the earlier one on a tie
        (None, "en;q=0,fr;q=0.1", "fr"),
        (None, "en;q=nonsense", "fr"),
        ("fr", "en", "fr"),
        ("xx", "en", "en"),  # a cookie that names no language of ours
    ],
)
def test_the_language_is_the_visitor_s_choice(chosen: str | None, accepted: str | None, language: str) -> None:
    assert choose_language(chosen, accepted) == language


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_header_and_cookie_give_one_of_our_languages(cookie: str, header: str) -> None:
    assert choose_language(cookie, header) in LANGUAGES


def test_sizes_dates_and_times_are_written_as_each_language_writes_them() -> None:
    french, english = Speech("fr"), Speech("en")
    assert french.size(1_400_000_000) == "1,4\u00a0Go"
    assert english.size(1_400_000_000) == "1.4\u00a0GB"
    assert [english.size(n) for n in (0, 999, 1000, 99_900, 999_499)] == [
        "0\u00a0B", "999\u00a0B", "1\u00a0kB", "99.9\u00a0kB", "999\u00a0kB",
    ]  # fmt: skip
    assert english.size(999_500) == "1\u00a0MB"
    assert french.dicom_date("20260407") == "7 avr. 2026"
    assert english.dicom_date("20260407") == "Apr 7, 2026"
    assert french.dicom_time("101559.123456") == "10:15"
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert french.ago(now - timedelta(minutes=3), now) == "il y a 3 minutes"
    assert french.ago(None, now) == french.moment(None) == ""


@pytest.mark.parametrize("value", ["", "2026", "20261301", "20260230", "2026-04-07", "２０２６０４０７x"])
def test_what_is_no_date_is_shown_as_it_came(value: str) -> None:
    assert Speech("fr").dicom_date(value) == value


@pytest.mark.parametrize("value", ["", "1", "2460", "9915", "abcd", "1a15"])
def test_what_is_no_time_is_not_shown(value: str) -> None:
    assert Speech("fr").dicom_time(value) == ""


@pytest.mark.parametrize(
    ("born", "on", "years"),
    [
        ("19580614", date(2026, 6, 13), 67),
        ("19580614", date(2026, 6, 14), 68),
        ("20240229", date(2025, 2, 28), 0),
        ("20240229", date(2025, 3, 1), 1),
        ("20260101", date(2025, 12, 31), None),
        ("", date(2026, 1, 1), None),
    ],
)
def test_age_counts_completed_years(born: str, on: date, years: int | None) -> None:
    assert age_years(born, on) == years


def test_an_empty_message_is_not_the_catalogue_s_header() -> None:
    assert i18n.Speech("fr").gettext("") == ""

"""The audit trail in a real browser: searched, exported, usable on a phone, its own reading recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from visits import DESK, PHONE, Visit


def test_a_data_protection_officer_finds_who_signed_in_and_that_it_looked(visit: Visit) -> None:
    visit().enter("demo-referent", "/administration/quarantine")
    visitor = visit()
    page = visitor.enter("demo-dpo")
    expect(page.locator("h1")).to_have_text("Journal d’audit")
    page.fill("input[name=person]", "demo-referent")
    page.select_option("select[name=event]", value="110114")
    with page.expect_navigation():
        page.get_by_role("button", name="Afficher").click()
    expect(page.locator("tbody tr").first).to_contain_text("demo-referent")
    visitor.open("/audit?person=demo-dpo&event=110101")
    expect(page.locator("tbody tr").first).to_contain_text("keys: person event")


def test_older_events_are_on_the_next_page(visit: Visit) -> None:
    page = visit().enter("demo-admin", "/audit")
    first = page.locator("tbody tr").last.get_attribute("id")
    page.get_by_role("link", name="Plus anciens").click()
    second = page.locator("tbody tr").first.get_attribute("id")
    assert int(str(second).split("-")[1]) == int(str(first).split("-")[1]) - 1
    page.get_by_role("link", name="Les plus récents").click()
    expect(page.get_by_role("link", name="Les plus récents")).to_have_count(0)


def test_the_export_is_a_table(visit: Visit) -> None:
    page = visit().enter("demo-dpo")
    with page.expect_download() as download:
        page.get_by_role("link", name="Exporter en CSV").click()
    text = download.value.path().read_text(encoding="utf-8-sig")
    assert text.startswith("sequence,at,kind,")
    assert len(text.splitlines()) > 2
    assert ",CLINIQUE-DEMO," not in text, "another establishment's"


@pytest.mark.parametrize(("viewport", "language"), [(DESK, "fr-FR"), (PHONE, "fr-FR"), (PHONE, "en-GB")])
def test_everybody_can_use_it(
    visit: Visit, axe: Callable[[Page], list[str]], viewport: dict[str, Any], language: str
) -> None:
    page = visit(viewport, language).enter("demo-dpo", "/audit")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]

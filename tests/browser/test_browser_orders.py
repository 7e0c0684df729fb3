"""Orders in a real browser: entered, followed, cancelled; seen by a modality; usable on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dimse_archive import run
from system import System
from visits import DESK, PHONE, Visit

FINDSCU = Path("/usr/bin/findscu")
FORM = {"identifier": "CHU0009901", "family": "Demonouvelle", "given": "Zoé", "description": "Scanner du genou"}


def enter(page: Page, accession: str) -> None:
    page.get_by_text("Saisir une demande").click()
    for name, value in FORM.items():
        page.fill(f"input[name={name}]", value)
    page.fill("input[name=accession_number]", accession)
    page.select_option("form.form-grid select[name=modality]", "CT")
    page.get_by_role("button", name="Saisir", exact=True).click()


def test_an_order_is_entered_seen_by_the_modality_and_cancelled(visit: Visit, site: System, tmp_path: Path) -> None:
    page = visit().enter("demo-manip", "/orders")
    enter(page, "NAV-1")
    expect(page.get_by_role("status")).to_contain_text("La demande est saisie")
    expect(page.locator("h1")).to_contain_text("DEMONOUVELLE Zoé")
    if FINDSCU.exists():
        found = run(
            [
                FINDSCU, "-W", "-X", "-od", tmp_path, "-aet", "DEMO_SCANNER", "-aec", "NEGATOSCOPE",
                "-k", "AccessionNumber=NAV-1", "-k", "PatientName", "-k", "ScheduledProcedureStepSequence[0].Modality",
                "127.0.0.1", str(site.dicom_port),
            ]
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        assert len(list(tmp_path.glob("rsp*.dcm"))) == 1
    page.get_by_role("button", name="Le patient est arrivé").click()
    expect(page.locator(".tag").first).to_have_text("Patient arrivé")
    page.fill("input[name=reason]", "examen refusé")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Annuler la demande").click()
    expect(page.get_by_role("status")).to_contain_text("annulée")
    expect(page.locator("body")).to_contain_text("examen refusé")


def test_a_number_that_is_taken_is_said_and_nothing_typed_is_lost(visit: Visit) -> None:
    page = visit().enter("demo-secretaire", "/orders")
    enter(page, "NAV-2")
    page.goto(page.url.split("/orders/")[0] + "/orders")
    enter(page, "NAV-2")
    expect(page.get_by_role("alert")).to_contain_text("porte déjà ce numéro")
    expect(page.locator("input[name=family]")).to_have_value("Demonouvelle")


def test_what_is_expected_today_stands_before_the_examinations(visit: Visit) -> None:
    page = visit().enter("demo-manip", "/worklist")
    page.locator("#expected summary").click()
    expect(page.locator("#expected")).to_contain_text("DEMOLECOMTE")
    page.locator("#expected a", has_text="DEMOLECOMTE").click()
    expect(page).to_have_url(re.compile(r"/orders/\d+$"))


def test_no_patient_stands_in_an_address(visit: Visit) -> None:
    visitor = visit()
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    page = visitor.enter("demo-manip", "/orders")
    enter(page, "NAV-3")
    page.goto(f"{visitor.base}/orders?day={date.today().isoformat()}&state=&modality=CT")
    expect(page.locator("table")).to_contain_text("DEMONOUVELLE")
    assert not [url for url in asked if re.search("nouvelle|zo%C3%A9|CHU0009901", url, re.I)]


def test_an_order_of_the_command_line_is_on_the_page_at_once(visit: Visit, site: System) -> None:
    page = visit().enter("demo-manip", "/orders?day=2030-05-06")
    words = ["--accession", "CLI-1", "--patient-id", "CHU1", "--patient-name", "DEMOLIGNE^Ana", "--modality", "MR"]
    words += ["--station-ae", "DEMO_IRM", "--scheduled", "2030-05-06T14:30", "--establishment", "CHU-DEMO"]
    assert site.run("order", "add", *words).stdout.strip().isdecimal()
    page.reload()
    expect(page.locator("tbody tr")).to_contain_text("DEMOLIGNE Ana")
    again = site.run("order", "add", *words, check=False)
    assert (again.returncode, len(again.stderr.splitlines())) == (1, 1)
    assert "DEMOLIGNE" not in again.stderr


def test_a_clinician_has_no_orders(visit: Visit) -> None:
    page = visit().enter("demo-medecin", "/worklist")
    expect(page.locator("nav a", has_text="Demandes")).to_have_count(0)
    expect(page.locator("#expected")).to_have_count(0)


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("language", ["fr-FR", "en-GB"])
def test_the_pages_of_orders_are_usable_by_everybody(
    visit: Visit, axe: Callable[[Page], list[str]], pictures: Path, viewport: dict[str, int], language: str
) -> None:
    visitor = visit(viewport, language)
    page = visitor.enter("demo-manip", "/orders")
    # An account's language stands before the browser's, and is kept from one visit to the next.
    if page.locator("html").get_attribute("lang") != language[:2]:
        with page.expect_navigation():
            page.locator(f"button[name=language][value={language[:2]}]").click()
    expect(page.locator("h1")).to_have_text("Orders" if language.startswith("en") else "Demandes")
    number = page.locator("tbody tr").first.get_attribute("id")
    assert number is not None
    for path in ("/orders", f"/orders/{number.removeprefix('order-')}"):
        visitor.open(path)
        if path == "/orders":
            page.locator("details.fold summary").click()
        assert axe(page) == []
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
        name = f"{path.strip('/').split('/')[0]}-{'one' if path.count('/') > 1 else 'list'}"
        page.screenshot(path=pictures / f"{name}-{viewport['width']}-{language[:2]}.png", full_page=True)

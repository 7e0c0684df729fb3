"""What people see and do, in a real browser on the real server."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from negatoscope.demo import CURRENT_CT, PRIOR_CT, tiny_studies
from negatoscope.sharing.attempts import LOGIN_LIMIT
from system import System
from visits import DESK, PASSWORD, PHONE, TINY, Visit

CT = CURRENT_CT.study_uid
ADMINISTRATION = ["", "/establishments", "/applications", "/users", "/storage", "/quarantine", "/alerts"]


def lit(png: bytes, above: int = 24) -> float:
    """Share of the pixels of a screenshot that are not black."""
    gray = np.asarray(Image.open(BytesIO(png)).convert("L"))
    return float((gray > above).mean())


def loaded(page: Page) -> None:
    """Wait until the light viewer shows an image. (wait_for_function needs eval, which our policy forbids.)"""
    for _ in range(200):
        if page.evaluate("document.getElementById('image').naturalWidth > 0"):
            return
        page.wait_for_timeout(50)
    pytest.fail("no image within 10 s")


# Coming in ---------------------------------------------------------------------------------------


def test_a_password_opens_the_worklist_and_signing_out_closes_it(visit: Visit) -> None:
    visitor = visit()
    page = visitor.open("/worklist")
    expect(page).to_have_url(re.compile(r"/login\?next=%2Fworklist"))
    page.fill("input[name=name]", "testeur")
    page.fill("input[name=password]", PASSWORD)
    page.click("text=Se connecter >> nth=-1")
    expect(page).to_have_url(f"{visitor.base}/worklist")
    page.get_by_role("button", name="Se déconnecter").click()
    expect(page.get_by_role("status")).to_contain_text("Vous êtes déconnecté")
    page.go_back()
    visitor.open("/worklist")
    expect(page).to_have_url(re.compile("/login"))


def test_a_wrong_password_is_said_without_saying_whether_the_user_exists(visit: Visit) -> None:
    said = []
    for name in ("testeur", "personne-de-ce-nom"):
        page = visit().open("/login")
        page.fill("input[name=name]", name)
        page.fill("input[name=password]", "pas le bon mot de passe")
        page.keyboard.press("Enter")
        said.append(page.get_by_role("alert").inner_text())
    assert said == ["Identifiant ou mot de passe incorrect."] * 2


def test_too_many_attempts_are_told_to_wait(visit: Visit) -> None:
    page = visit().open("/login")
    for _ in range(LOGIN_LIMIT + 1):
        page.fill("input[name=name]", "visiteur-insistant")
        page.fill("input[name=password]", "encore un essai")
        with page.expect_navigation():
            page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Trop de tentatives")


def test_every_demonstration_account_shows_its_role_and_establishment(visit: Visit) -> None:
    page = visit().open("/login")
    card = page.locator('button[value="demo-clinique"]')
    expect(card).to_contain_text("Radiologue")
    expect(card).to_contain_text("Clinique des Exemples")


def test_the_login_page_never_sends_anybody_elsewhere(visit: Visit) -> None:
    visitor = visit()
    for next_page in ("//example.org/", "https://example.org/", "/\\example.org"):
        visitor.open(f"/login?next={next_page}")
        visitor.page.click('button[value="demo"]')
        expect(visitor.page).to_have_url(f"{visitor.base}/worklist")
        visitor.page.get_by_role("button", name="Se déconnecter").click()


# Worklist ----------------------------------------------------------------------------------------


def test_search_finds_names_without_their_accents(visit: Visit) -> None:
    page = visit().enter("demo", "/worklist")
    page.fill("#q", "ines demofabre")
    expect(page.locator("#rows tr").first).to_contain_text("DEMOFABRE INÈS")
    expect(page.locator("#rows a.open", has_text="DEMOMARIN")).to_have_count(0)
    expect(page).to_have_url(re.compile("q=ines"))


def test_modality_and_dates_narrow_the_list(visit: Visit) -> None:
    page = visit().enter("demo", "/worklist")
    page.locator(".chip", has_text=re.compile("^CT$")).click()
    expect(page.locator("#rows tr", has_text="IRM")).to_have_count(0)
    rows = page.locator("#rows tr").count()
    page.locator(".more-filters summary").click()
    page.fill("input[name=from]", "2026-03-12")
    page.fill("input[name=to]", "2026-03-12")
    expect(page.locator("#rows tr")).to_have_count(1)
    assert rows > 1


def test_a_search_that_finds_nothing_says_so(visit: Visit) -> None:
    page = visit().enter("demo", "/worklist")
    page.fill("#q", "zzzzzz")
    expect(page.locator(".empty")).to_contain_text("Aucun examen trouvé")
    expect(page.locator("table")).to_be_hidden()


def test_more_examinations_follow_without_repeating_any(visit: Visit) -> None:
    page = visit().enter("demo-clinique", "/worklist")
    expect(page.locator("#rows tr")).to_have_count(50)
    page.get_by_role("link", name="Plus d’examens").click()
    expect(page.get_by_role("link", name="Plus d’examens")).to_have_count(0)
    ids = page.locator("#rows tr").evaluate_all("rows => rows.map(row => row.id)")
    assert len(ids) == len(set(ids)) >= TINY


def test_a_new_examination_appears_by_itself(visit: Visit, site: System, tmp_path: Path) -> None:
    page = visit().enter("demo-cabinet", "/worklist")
    expect(page.locator("#rows tr").first).to_be_visible()
    (tmp_path / "new.dcm").write_bytes(next(iter(tiny_studies(1, seed=77))))
    site.run("import", str(tmp_path), "--establishment", "CABINET-DEMO")
    row = page.locator("#rows tr", has_text="TINY77-")
    expect(row).to_be_visible(timeout=15_000)
    expect(row).to_contain_text("En cours d’arrivée")


def test_the_keyboard_alone_finds_and_opens_an_examination(visit: Visit) -> None:
    page = visit().enter("demo", "/worklist")
    page.keyboard.press("/")
    expect(page.locator("#q")).to_be_focused()
    page.keyboard.type("demomarin")
    expect(page.locator("#rows a.open", has_text="DEMOFABRE")).to_have_count(0)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#rows a.open").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1.name")).to_contain_text("DEMOMARIN JEANNE")


def test_without_a_script_the_list_is_searched_and_images_are_turned(visit: Visit) -> None:
    visitor = visit(java_script_enabled=False)
    page = visitor.enter("demo", "/worklist")
    page.fill("#q", "demomarin")
    page.keyboard.press("Enter")
    expect(page.locator("#rows tr")).to_have_count(2)
    visitor.open(f"/studies/{CT}/images")
    first = page.locator("#image").get_attribute("src")
    page.get_by_role("link", name="Image suivante").click()
    assert page.locator("#image").get_attribute("src") != first
    expect(page.locator("#image")).to_have_js_property("complete", True)


# Study and light viewer --------------------------------------------------------------------------


def test_the_study_shows_whose_it_is_its_series_its_report_and_its_prior(visit: Visit) -> None:
    visitor = visit()
    page = visitor.enter("demo", f"/studies/{CT}")
    for trait in ("DEMOMARIN JEANNE", "14 juin 1958", "67 ans", "Féminin", "CHU0000101"):
        expect(page.locator(".identity")).to_contain_text(trait)
    expect(page.locator(".series")).to_have_count(1)
    expect(page.locator(".series .count")).to_have_text("120 images")
    compare = page.get_by_role("link", name="Comparer à l’antérieur").get_attribute("href")
    assert compare
    assert f"StudyInstanceUIDs={CT},{PRIOR_CT.study_uid}" in compare
    document = page.locator(".side a[target=_blank]").first.get_attribute("href")
    answer = page.request.get(f"{visitor.base}{document}")
    assert (answer.status, answer.body()[:5]) == (200, b"%PDF-")


def test_a_structured_report_is_readable(visit: Visit) -> None:
    visitor = visit()
    page = visitor.enter("demo", "/worklist?modality=SR")
    page.locator("#rows a.open").first.click()
    page.locator(".side a[href$='/report']").first.click()
    expect(page.locator(".report dl")).not_to_have_count(0)
    expect(page.locator(".report")).not_to_be_empty()


def test_the_light_viewer_shows_an_image_that_is_not_black_on_a_phone(visit: Visit) -> None:
    page = visit(PHONE, has_touch=True).enter("demo", f"/studies/{CT}/images")
    loaded(page)
    assert lit(page.locator("#stage").screenshot()) > 0.3
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_light_viewer_turns_by_keys_windows_by_name_and_plays(visit: Visit) -> None:
    page = visit().enter("demo", f"/studies/{CT}/images")
    expect(page.locator("#position")).to_have_text("61 / 120")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#position")).to_have_text("62 / 120")
    loaded(page)
    page.wait_for_timeout(300)
    plain = page.locator("#stage").screenshot()
    page.get_by_role("link", name="Os", exact=True).click()
    expect(page.locator("#window-label")).to_have_text("Os")
    expect(page.locator("#image")).to_have_attribute("src", re.compile("window=500"))
    assert abs(lit(page.locator("#stage").screenshot(), 90) - lit(plain, 90)) > 0.05
    page.get_by_role("button", name="Lecture").click()
    expect(page.locator("#position")).not_to_have_text("62 / 120")
    page.get_by_role("button", name="Pause").click()
    page.keyboard.press("End")
    expect(page.locator("#position")).to_have_text("120 / 120")
    page.keyboard.press("+")
    expect(page.locator("#zoom")).to_have_text("×1.3")


def test_the_viewer_shows_the_demonstration_ct(visit: Visit) -> None:
    """OHIF draws by WebGL; on a machine without a graphics card that takes its time."""
    visitor = visit()
    page = visitor.enter("demo", f"/studies/{CT}")
    page.get_by_role("link", name="Ouvrir dans la visionneuse").click()
    canvas = page.locator(".cornerstone-canvas").first
    canvas.wait_for(state="visible", timeout=120_000)
    for _ in range(60):
        page.wait_for_timeout(1000)
        if lit(canvas.screenshot(timeout=60_000), 40) > 0.1:
            break
    else:
        pytest.fail("the viewport stayed black")
    visitor.complaints.clear()  # OHIF talks on the console; ours is that nothing leaves the origin


# Rights ------------------------------------------------------------------------------------------


def test_what_is_not_yours_looks_like_what_is_not_there(visit: Visit) -> None:
    visitor = visit()
    page = visitor.enter("demo-clinique", "/worklist")

    def answer(path: str) -> tuple[int, str]:
        got = page.request.get(visitor.base + path)
        return got.status, got.text().replace(path, "")

    absent = answer("/studies/2.25.4242")
    assert absent[0] == 404
    assert answer(f"/studies/{CT}") == absent
    assert answer(f"/studies/{CT}/images") == absent
    assert answer("/administration/users") == absent
    assert answer("/no/such/page") == absent


@pytest.mark.parametrize(
    ("login", "sections"),
    [
        ("demo", ["/worklist", "/orders", "/import"]),
        ("demo-admin", ["/administration", "/audit"]),
        ("demo-referent", ["/worklist", "/orders", "/administration"]),
        ("demo-medecin", ["/worklist"]),
        ("demo-secretaire", ["/worklist", "/orders", "/import"]),
        ("demo-dpo", ["/audit"]),
    ],
)
def test_each_role_is_offered_what_it_may_open_and_nothing_else(visit: Visit, login: str, sections: list[str]) -> None:
    visitor = visit()
    page = visitor.enter(login)
    offered = page.locator("header nav a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert offered == sections
    for path in ("/worklist", "/orders", "/import", "/administration"):
        assert page.request.get(visitor.base + path).status == (200 if path in sections else 404), path


def test_a_secretary_finds_studies_and_sees_no_image(visit: Visit) -> None:
    page = visit().enter("demo-secretaire", f"/studies/{CT}")
    expect(page.locator("h1.name")).to_contain_text("DEMOMARIN")
    expect(page.locator("main img")).to_have_count(0)
    expect(page.get_by_role("link", name="Ouvrir dans la visionneuse")).to_have_count(0)


# Language, theme ---------------------------------------------------------------------------------


def test_the_browser_s_language_is_spoken_until_another_is_chosen(visit: Visit) -> None:
    page = visit(language="en-GB").open("/login")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.get_by_role("button", name="Français").click()
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    page.click('button[value="demo"]')
    expect(page.get_by_role("heading", level=1)).to_have_text("Examens")
    page.get_by_role("button", name="EN").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Worklist")
    page.get_by_role("button", name="FR").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Examens")


# Administration ----------------------------------------------------------------------------------


def test_an_administrator_adds_changes_and_removes_an_application_entity(visit: Visit) -> None:
    page = visit().enter("demo-admin", "/administration/applications")
    page.get_by_text("Ajouter une entité applicative").click()
    page.fill("input[name=title]", "SCANNER_NEUF")
    page.fill("input[name=host]", "192.0.2.17")
    page.fill("input[name=port]", "104")
    page.get_by_role("button", name="Ajouter").click()
    expect(page.get_by_role("status")).to_contain_text("ajoutée")
    row = page.locator("tr", has_text="SCANNER_NEUF")
    expect(row).to_contain_text("192.0.2.17:104")
    expect(row).to_contain_text("Enregistrer des images")
    row.get_by_role("link", name="Modifier").click()
    page.fill("input[name=port]", "11112")
    page.check("input[value=query]")
    page.get_by_role("button", name="Enregistrer").click()
    expect(row).to_contain_text("192.0.2.17:11112")
    expect(row).to_contain_text("Rechercher")
    row.get_by_role("link", name="Modifier").click()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Retirer").click()
    expect(page.locator("tr", has_text="SCANNER_NEUF")).to_have_count(0)


def test_a_form_that_cannot_be_saved_says_why_and_keeps_what_was_typed(visit: Visit) -> None:
    page = visit().enter("demo-admin", "/administration/applications")
    page.get_by_text("Ajouter une entité applicative").click()
    page.fill("input[name=title]", "TITRE")
    page.fill("input[name=port]", "104")
    page.get_by_role("button", name="Ajouter").click()
    expect(page.get_by_role("alert")).to_contain_text("un port va de 1 à 65535 et demande une adresse")
    expect(page.locator("input[name=title]")).to_have_value("TITRE")


def test_an_administrator_adds_and_disables_a_user_who_can_then_no_longer_enter(visit: Visit) -> None:
    page = visit().enter("demo-admin", "/administration/users")
    page.get_by_text("Ajouter un utilisateur").click()
    page.fill("input[name=name]", "nouvelle")
    page.fill("input[name=password]", PASSWORD)
    page.get_by_role("button", name="Ajouter").click()
    expect(page.get_by_role("status")).to_contain_text("ajouté")
    newcomer = visit()
    other = newcomer.open("/login")
    other.fill("input[name=name]", "nouvelle")
    other.fill("input[name=password]", PASSWORD)
    other.keyboard.press("Enter")
    expect(other).to_have_url(f"{newcomer.base}/worklist")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Désactiver nouvelle").click()
    expect(page.locator("tr", has_text="nouvelle")).to_contain_text("désactivé")
    other.reload()
    expect(other).to_have_url(re.compile("/login"))


def test_a_token_is_shown_once_and_works(visit: Visit) -> None:
    visitor = visit()
    page = visitor.enter("demo", "/account")
    page.get_by_role("button", name="Créer un jeton").click()
    token = page.locator("#secret").inner_text()
    stranger = visit()
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/dicom+json"}
    assert stranger.page.request.get(f"{visitor.base}/dicom-web/studies?limit=1", headers=headers).status == 200
    visitor.open("/account")
    assert token not in page.content()


def test_a_forged_form_is_refused(visit: Visit) -> None:
    visitor = visit()
    page = visitor.enter("demo-admin", "/administration/users")
    forged = page.request.post(
        f"{visitor.base}/administration/users/demo/disable",
        form={"csrf": "0" * 64},
        headers={"Origin": "https://example.org"},
    )
    assert forged.status == 403
    expect(visit().open("/login").locator('button[value="demo"]')).to_be_visible()


# Every page ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "viewport", "theme"), [("desk", DESK, "light"), ("desk", DESK, "dark"), ("phone", PHONE, "light")]
)
def test_no_page_has_a_serious_accessibility_finding(
    visit: Visit,
    axe: Callable[[Page], list[str]],
    pictures: Path,
    size: str,
    viewport: dict[str, int],
    theme: str,
) -> None:
    found: dict[str, list[str]] = {}

    def look(page: Page, name: str) -> None:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=pictures / f"{size}-{theme}-{name}.png")
        found[name] = axe(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], f"{name} scrolls sideways"

    reader = visit(viewport)
    reader.page.context.add_cookies([{"name": "negatoscope_theme", "value": theme, "url": reader.base}])
    look(reader.open("/login"), "login")
    page = reader.enter("demo", "/worklist")
    look(page, "worklist")
    for name, path in {
        "worklist-empty": "/worklist?q=zzzz",
        "study": f"/studies/{CT}",
        "images": f"/studies/{CT}/images",
        "import": "/import",
        "account": "/account",
        "not-found": "/nothing",
    }.items():
        look(reader.open(path), name)
    administrator = visit(viewport)
    administrator.page.context.add_cookies([{"name": "negatoscope_theme", "value": theme, "url": reader.base}])
    administrator.enter("demo-admin")
    for section in ADMINISTRATION:
        look(administrator.open(f"/administration{section}"), f"administration{section.replace('/', '-')}")
    assert {name: findings for name, findings in found.items() if findings} == {}

"""The screen of sending in a real browser: a node that is down, what waits for it, and that it arrives in the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from negatoscope.demo import CURRENT_CT
from sending_bench import free_port, shelf
from system import System
from visits import DESK, PHONE, Visit

SCREEN = "/administration/nodes"
STUDY, OBJECTS = CURRENT_CT.study_uid, 121  # 120 slices and a document
RULES = """
[[rule]]
name = "nuit"
establishment = "CHU-DEMO"
to = "REGION"
priority = "bulk"
between = "20:00-06:00"
hold = true

[rule.match]
Modality = "ES"
"""


@pytest.fixture
def rules(site: System) -> Iterator[Path]:
    path = site.data / "routing.toml"
    yield path
    path.unlink(missing_ok=True)


def add_node(page: Page, name: str, port: int, establishment: str = "CHU-DEMO") -> None:
    if page.locator("details.fold").get_attribute("open") is None:
        page.get_by_text("Ajouter un nœud distant").click()
    page.fill("input[name=name]", name)
    page.select_option("select[name=establishment]", establishment)
    page.fill("input[name=title]", name)
    page.fill("input[name=host]", "127.0.0.1")
    page.fill("input[name=port]", str(port))
    page.get_by_role("button", name="Ajouter").click()


@pytest.mark.parametrize(("login", "offered"), [("demo-admin", 1), ("demo-referent", 1), ("demo-manip", 0)])
def test_the_screen_of_sending_is_offered_to_who_administers(visit: Visit, login: str, offered: int) -> None:
    visitor = visit()
    page = visitor.enter(login, "/administration")
    expect(page.locator(f'.admin-nav a[href="{SCREEN}"]')).to_have_count(offered)
    assert page.request.get(visitor.base + SCREEN).status == (200 if offered else 404)


def test_a_name_that_is_none_is_said_in_the_visitor_s_language(visit: Visit) -> None:
    page = visit().enter("demo-admin", SCREEN)
    add_node(page, "RÉGION", 104)
    expect(page.get_by_role("alert")).to_contain_text("un nom a de 1 à 32 lettres")
    expect(page.locator("input[name=host]")).to_have_value("127.0.0.1")


def test_rules_are_shown_and_what_is_wrong_with_their_file(visit: Visit, rules: Path) -> None:
    visitor = visit()
    page = visitor.enter("demo-admin", SCREEN)
    add_node(page, "REGION", 9)
    expect(page.get_by_role("status")).to_contain_text("ajouté")
    rules.write_text(RULES)
    visitor.open(SCREEN)
    row = page.locator("section", has=page.locator("#rules-title")).locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("20:00–06:00")
    expect(row).to_contain_text("REGION")
    rules.write_text(RULES.replace('"REGION"', '"AILLEURS"'))
    visitor.open(SCREEN)
    expect(page.locator("main")).to_contain_text("the establishment has no node AILLEURS")


def test_what_a_node_that_is_down_was_not_sent_is_tried_again_and_arrives(
    visit: Visit, site: System, axe: Callable[[Page], list[str]], pictures: Path
) -> None:
    port = free_port()
    visitor = visit()
    page = visitor.enter("demo-referent", SCREEN)
    add_node(page, "ECRAN", port)
    expect(page.get_by_role("status")).to_contain_text("ajouté")
    site.run("send", STUDY, "--to", "ECRAN", "--establishment", "CHU-DEMO")
    node = page.locator("tr[id^=node-]", has_text="ECRAN")
    delivery = page.locator("tr[id^=delivery-]", has_text="ECRAN")

    def until(row: str, text: str) -> None:
        for _ in range(60):
            visitor.open(SCREEN)
            if text in page.locator(f"tr[id^={row}-]", has_text="ECRAN").inner_text():
                return
            page.wait_for_timeout(250)
        pytest.fail(f"{row} never said {text}")

    until("node", "ne répond pas")
    expect(node).to_contain_text("no-connection")
    until("delivery", "abandonné")
    expect(delivery).to_contain_text(f"0 / {OBJECTS}")
    for name, viewport in (("desk", DESK), ("phone", PHONE)):
        page.set_viewport_size(viewport)  # type: ignore[arg-type]  # a dict with both keys
        page.wait_for_load_state("networkidle")
        page.screenshot(path=pictures / f"nodes-{name}.png", full_page=True)
        assert axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.set_viewport_size(DESK)  # type: ignore[arg-type]  # as above
    with shelf(port=port, title="ECRAN") as receiver:
        node.get_by_role("button", name=re.compile("^Interroger")).click()
        expect(page.get_by_role("status")).to_contain_text("répond")
        delivery.get_by_role("button", name=re.compile("^Réessayer")).click()
        expect(page.get_by_role("status")).to_contain_text("modifié")
        until("delivery", "envoyé")
    expect(delivery).to_contain_text(f"{OBJECTS} / {OBJECTS}")
    assert len(receiver.counts) == OBJECTS
    assert set(receiver.counts.values()) == {1}

"""The real server with the demonstration in it, and a real browser in front of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from negatoscope.demo import tiny_studies
from system import System
from visits import DESK, PASSWORD, TINY, Visit, Visitor

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
# Background services would look for hosts outside; WebGL is drawn by the CPU (SwiftShader).
FLAGS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


@pytest.fixture(scope="session")
def site() -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="negatoscope-browser-"))
    # A node that is down is given up while a test looks on.
    system = System(folder / "data", NEGATOSCOPE_SEND_RETRY_S="0.5", NEGATOSCOPE_SEND_GIVE_UP_S="3")
    system.run("demo")
    system.run(
        "user", "add", "testeur", "--role", "radiologist", "--establishment", "CHU-DEMO", "--password-stdin",
        stdin=PASSWORD,
    )  # fmt: skip
    files = folder / "tiny"
    files.mkdir()
    for number, data in enumerate(tiny_studies(TINY)):
        (files / f"{number}.dcm").write_bytes(data)
    system.run("import", str(files), "--establishment", "CLINIQUE-DEMO")
    system.start()
    yield system
    system.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("no /usr/bin/chromium; tools/peers.py installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(site: System, chromium: Browser) -> Iterator[Visit]:
    """Makes visitors. Whatever a test does, no request of theirs may leave the origin, nothing may break CSP."""
    contexts: list[BrowserContext] = []
    visitors: list[Visitor] = []

    def make(viewport: dict[str, int] = DESK, language: str = "fr-FR", **options: Any) -> Visitor:
        context = chromium.new_context(viewport=viewport, locale=language, **options)  # type: ignore[arg-type]
        context.set_default_timeout(20_000)
        contexts.append(context)
        visitor = Visitor(context.new_page(), site.url)
        own = urlsplit(site.url).netloc

        def requested(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != own:
                visitor.strangers.append(url)

        def said(kind: str, text: str) -> None:
            # a status of 400 and more is also "said"; tests look at statuses themselves
            if kind == "error" and "status of" not in text:
                visitor.complaints.append(text)

        context.on("request", lambda request: requested(request.url))
        visitor.page.on("console", lambda message: said(message.type, message.text))
        visitor.page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
        visitors.append(visitor)
        return visitor

    yield make
    for context in contexts:
        context.close()
    assert [visitor.strangers for visitor in visitors if visitor.strangers] == []
    assert [visitor.complaints for visitor in visitors if visitor.complaints] == []


@pytest.fixture(scope="session")
def axe() -> Callable[[Page], list[str]]:
    """Serious and critical findings of axe-core on the page as it is now: rule, then the elements."""
    if not AXE.exists():
        pytest.skip("no node_modules/axe-core; tools/peers.py installs it")
    source = AXE.read_text(encoding="utf-8")

    def findings(page: Page) -> list[str]:
        page.evaluate(source)
        result = page.evaluate("axe.run()")
        return [
            f"{found['id']}: {[node['target'] for node in found['nodes']][:5]}"
            for found in result["violations"]
            if found["impact"] in ("serious", "critical")
        ]

    return findings


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots go, for people to look at: ``$PAGE_PICTURES`` or a temporary folder."""
    folder = Path(os.environ.get("PAGE_PICTURES") or tempfile.mkdtemp(prefix="negatoscope-pictures-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder

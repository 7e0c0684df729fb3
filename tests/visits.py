"""A person in front of a browser: what browser tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from playwright.sync_api import Page

DESK = {"width": 1920, "height": 1080}
PHONE = {"width": 390, "height": 844}
PASSWORD = "lumière et film 35"  # of the user testeur
TINY = 60  # studies of the clinic besides its own: more than one page


@dataclass
class Visitor:
    """A browser window of its own, and what happened in it that should not."""

    page: Page
    base: str
    strangers: list[str] = field(default_factory=list)  # requests to another origin
    complaints: list[str] = field(default_factory=list)  # errors and CSP violations on the console

    def open(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def enter(self, login: str, path: str = "/") -> Page:
        """Sign in by the one click of a demonstration."""
        self.open(f"/login?next={path}")
        with self.page.expect_navigation():
            self.page.click(f'button[name="name"][value="{login}"]')
        return self.page


Visit = Callable[..., Visitor]

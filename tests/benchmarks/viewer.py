"""From the click on a study to its first image in the viewer, in Chromium."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.data import DataSet, uid_of_run
from benchmarks.servers import Ours

CHROMIUM = Path("/usr/bin/chromium")
# What makes headless Chromium draw without a graphics card.
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
PATIENCE_S = 60.0
_WARMING = 2  # views that are not counted
_LOOK_S = 0.05  # between looks at the page: each costs the page 20 ms without a graphics card
_LIT = """() => [...document.querySelectorAll('canvas')].some(canvas => {
    if (canvas.width < 100 || canvas.height < 100) return false;
    const small = new OffscreenCanvas(16, 16).getContext('2d');
    small.drawImage(canvas, 0, 0, 16, 16);
    const values = small.getImageData(0, 0, 16, 16).data;
    let bright = 0;
    for (let at = 0; at < values.length; at += 4) if (values[at] > 40 && values[at + 3] > 0) bright += 1;
    return bright > 16;
})"""


def first_images(ours: Ours, data: DataSet, run: int, times: int) -> list[float]:
    """Seconds from click to a lit viewport, ``times`` times; the first two, which fill caches, are not among them.

    The browser is one that has shown the viewer before: it compiles a script for keeping when it meets it again.
    """
    from playwright.sync_api import sync_playwright

    study = uid_of_run(data.items[0].study, run)
    taken = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_context(viewport={"width": 1600, "height": 1000}, locale="en").new_page()
        page.goto(f"{ours.system.url}/login")
        page.fill("input[name=name]", "person")
        page.fill("input[name=password]", "correct horse battery staple")
        page.press("input[name=password]", "Enter")
        page.wait_for_url(lambda url: "/login" not in url)
        for attempt in range(times + _WARMING):
            page.goto(f"{ours.system.url}/studies/{study}")
            link = page.locator("a[href*='/viewer/viewer']").first
            began = time.perf_counter()
            link.click(no_wait_after=True)
            while time.perf_counter() - began < PATIENCE_S:
                try:
                    if page.evaluate(_LIT):
                        break
                except Exception:  # the page is changing
                    pass
                time.sleep(_LOOK_S)
            else:
                raise AssertionError(f"no image within {PATIENCE_S} s")
            if attempt >= _WARMING:
                taken.append(time.perf_counter() - began)
        browser.close()
    return taken

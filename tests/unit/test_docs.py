"""The documentation says what the code does: generated parts are fresh, links lead somewhere, nothing is left out."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

from negatoscope import cli
from negatoscope.dicom.limits import Limits
from negatoscope.errors import WIRE_FORMS
from negatoscope.metrics import METRICS
from negatoscope.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
ALERTS = ROOT / "docs" / "how-to" / "metrics-and-alerts.md"
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
ALERT_ROW = re.compile(r"^\| `negatoscope_(\w+)` \| (.*?) \|", re.MULTILINE)
ADR_PARTS = {"Context", "Decision", "Evidence", "On paper", "Cost", "What would change our mind"}
# Spelt in two halves, so that this file passes its own test.
DENIED = [
    "/wo" "rk/", "/ro" "ot/", "far" "m-", "py" "pi.org", "np" "mjs.org", "deb.deb" "ian.org", ".lib" "rary/",
]  # fmt: skip
LARGEST_IMAGE = 400_000  # bytes


@cache
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def kept_files() -> list[Path]:
    """What is or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("no git repository here: which files are committed is not known")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def markdown() -> list[Path]:
    above = [*ROOT.glob("*.md"), *(ROOT / "changes").glob("*.md")]
    return sorted({*above, *(ROOT / "docs").rglob("*.md")})


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(text: str) -> set[str]:
    """Of the headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_generated_parts_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert generator().main(["--check"]) == 0, capsys.readouterr().out + "cure: .venv/bin/python tools/docs.py"


def test_a_stale_part_is_noticed() -> None:
    stale = "<!-- from code: application-entity-rights -->\nnone\n<!-- end -->\n"
    assert generator().filled(stale) != stale
    fresh = generator().filled(stale)
    assert generator().filled(fresh) == fresh


def test_a_part_that_nothing_makes_is_an_error() -> None:
    with pytest.raises(KeyError):
        generator().filled("<!-- from code: nothing-of-that-name -->\n<!-- end -->\n")


def test_every_generated_part_has_a_page() -> None:
    shown = {name for page in markdown() for name in generator().blocks_of(page.read_text(encoding="utf-8"))}
    assert shown == set(generator().BLOCKS)


@pytest.mark.parametrize("page", markdown(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        led = (page.parent / path).resolve() if path else page
        inside = led.is_relative_to(ROOT) and led.exists()
        if not inside or (anchor and anchor not in anchors(led.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


def test_every_page_of_docs_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    listed = set(LINK.findall(index)) | {"index.md"}
    assert {page for page in pages if not page.startswith(("adr/", "plan/", "performance"))} <= listed


def test_every_command_and_argument_is_documented_and_has_a_meaning() -> None:
    text = (REFERENCE / "command-line.md").read_text(encoding="utf-8")
    leaves = generator().leaves(cli._parser())
    assert len(leaves) > 10
    for words, _, parser in leaves:
        assert f"### `{words}`" in text
        assert [action.dest for action in parser._actions if not action.help] == []


def test_every_setting_limit_error_and_metric_is_documented() -> None:
    for page, names in {
        "settings.md": [field.name for field in dataclasses.fields(Settings)],
        "limits.md": [field.name for field in dataclasses.fields(Limits)],
        "errors.md": [kind.__name__ for kind in WIRE_FORMS],
        "metrics.md": [f"negatoscope_{name}" for name in METRICS],
    }.items():
        text = (REFERENCE / page).read_text(encoding="utf-8")
        assert [name for name in names if f"| `{name}` |" not in text] == []


def test_every_metric_has_a_line_that_says_what_to_do() -> None:
    rows = dict(ALERT_ROW.findall(ALERTS.read_text(encoding="utf-8")))
    assert set(rows) == set(METRICS)
    idle = {name for name in METRICS if not generator().is_used(rf'"{name}"|\bAS {name}\b')}
    assert {name for name, when in rows.items() if when == "not counted yet"} == idle


def test_no_committed_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in kept_files():
        text = path.read_bytes().decode("utf-8", "replace").lower()
        found += [f"{path.relative_to(ROOT)}: {word}" for word in DENIED if word in text]
    assert found == []


def test_pictures_of_the_documentation_are_small_and_shown() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in markdown())
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < LARGEST_IMAGE
        assert f"images/{picture.name}" in text


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=lambda page: page.stem)
def test_a_decision_has_its_number_and_the_parts_of_a_decision(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {int(page.name[:4])}. ")
    parts = re.findall(r"^\*\*([A-Z][^*]*)\.\*\*", text, re.MULTILINE)
    assert "Decision" in parts
    assert len(parts) >= 2, "a decision has a context, a cost or what would change our mind"
    assert set(parts) <= ADR_PARTS
    assert len(parts) == len(set(parts))

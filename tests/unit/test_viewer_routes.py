"""The viewer's door: same origin only, no inline script, nothing of one request kept for another."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from negatoscope.web.app import DEFAULT_HEADERS
from negatoscope.web.viewer import (
    CONTENT_SECURITY_POLICY,
    ISOLATION,
    STUDIES_IN_ADDRESS,
    Mint,
    accepts_gzip,
    app_config,
    media_type,
    page,
    study_uids,
    viewer_routes,
)

INDEX = '<html lang="{{language}}"><script src="{{config}}"></script></html>'
SCRIPT = b"// a bundle\n" * 200


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What tools/viewer.py leaves, in small."""
    folder = tmp_path / "ohif"
    (folder / "1-abc" / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(INDEX)
    (folder / "LICENSE").write_text("MIT")
    (folder / ".made-by").write_text("stamp")
    (folder / "1-abc" / "app.js").write_bytes(SCRIPT)
    (folder / "1-abc" / "app.js.gz").write_bytes(gzip.compress(SCRIPT))
    (folder / "1-abc" / "codec.wasm").write_bytes(b"\0asm")
    (folder / "1-abc" / "assets" / "favicon.ico").write_bytes(b"icon")
    (tmp_path / "secret.txt").write_text("not for you")
    return folder


def client(folder: Path, mint: Mint | None = None) -> TestClient:
    app = Starlette(routes=viewer_routes(mint, folder))
    return TestClient(app, base_url="http://pacs.test", follow_redirects=False)


def config_of(script: str) -> dict[str, object]:
    found = re.search(r"var config = (\{.*\}), words = (\{.*?\}), token = ", script)
    assert found
    parsed: dict[str, object] = json.loads(found[1])
    return parsed


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("1-abc/app.js", "text/javascript; charset=utf-8"),
        ("1-abc/codec.wasm", "application/wasm"),
        ("1-abc/assets/favicon.ico", media_type("favicon.ico")),
    ],
)
def test_files_are_served_with_their_type_and_may_be_kept_for_ever(made: Path, address: str, kind: str) -> None:
    answer = client(made).get(f"/viewer/{address}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert "immutable" in answer.headers["cache-control"]


def test_every_answer_is_isolated_whatever_it_is(made: Path, tmp_path: Path) -> None:
    addresses = ["", "/", "/viewer", "/app-config.js", "/1-abc/app.js", "/nothing.js", "/?StudyInstanceUIDs=1.2"]
    for folder in (made, tmp_path / "empty"):
        for address in addresses:
            answer = client(folder).get(f"/viewer{address}")
            for name, value in ISOLATION.items():
                assert answer.headers[name] == value, (address, name)
            assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("name", ["Cross-Origin-Opener-Policy", "Cross-Origin-Embedder-Policy"])
def test_pages_are_isolated_as_the_viewer_is_so_that_a_click_changes_no_process(name: str) -> None:
    assert DEFAULT_HEADERS[name.lower()] == ISOLATION[name]


def test_a_compressed_twin_is_sent_only_to_those_who_take_it(made: Path) -> None:
    taken = client(made).get("/viewer/1-abc/app.js", headers={"accept-encoding": "br, gzip"})
    plain = client(made).get("/viewer/1-abc/app.js", headers={"accept-encoding": "identity"})
    assert taken.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert taken.content == plain.content == SCRIPT
    assert taken.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


def test_a_range_is_of_the_bytes_as_they_are(made: Path) -> None:
    answer = client(made).get("/viewer/1-abc/app.js", headers={"range": "bytes=3-4", "accept-encoding": "gzip"})
    assert (answer.status_code, answer.content) == (206, b"a ")


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("br", False),
        ("", False),
    ],
)
def test_accept_encoding_is_read_as_rfc_9110_says(header: str, taken: bool) -> None:
    assert accepts_gzip(header) is taken


@pytest.mark.parametrize(
    "address",
    ["../secret.txt", "%2e%2e/secret.txt", "1-abc/../../secret.txt", "..%2fsecret.txt", "1-abc/app.js/..", ".made-by"],
)
def test_no_address_leads_outside_the_folder(made: Path, address: str) -> None:
    answer = client(made).get(f"/viewer/{address}")
    assert "not for you" not in answer.text
    assert "stamp" not in answer.text


def test_a_missing_file_is_not_answered_with_the_page(made: Path) -> None:
    assert client(made).get("/viewer/1-abc/gone.js").status_code == 404


def test_the_page_has_no_inline_script_and_is_kept_by_nobody(made: Path) -> None:
    answer = client(made).get("/viewer/viewer?StudyInstanceUIDs=1.2.3,1.2.4")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert 'src="/viewer/app-config.js?StudyInstanceUIDs=1.2.3%2C1.2.4"' in answer.text


def test_the_policy_forbids_inline_scripts_eval_and_other_origins() -> None:
    policy = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))
    assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert policy["default-src"] == "'none'"
    for sources in policy.values():
        assert set(sources.split()) <= {"'self'", "'none'", "blob:", "data:", "'unsafe-inline'", "'wasm-unsafe-eval'"}


def test_only_scripts_as_workers_obey_them_may_build_functions(made: Path) -> None:
    allowed = {
        address: "'unsafe-eval'" in client(made).get(f"/viewer/{address}").headers["content-security-policy"]
        for address in ("1-abc/app.js", "1-abc/codec.wasm", "viewer", "nothing.html")
    }
    assert [address for address, may in allowed.items() if may] == ["1-abc/app.js"]


def test_viewer_alone_leads_to_the_studies_or_home(made: Path) -> None:
    opened = client(made).get("/viewer?StudyInstanceUIDs=1.2&hangingProtocolId=@ohif/hpCompare")
    assert opened.status_code == 303
    assert opened.headers["location"] == "/viewer/viewer?StudyInstanceUIDs=1.2&hangingProtocolId=@ohif/hpCompare"
    assert client(made).get("/viewer/").headers["location"] == "/"


def test_without_the_files_a_page_says_what_to_do(tmp_path: Path) -> None:
    answer = client(tmp_path / "nothing").get("/viewer/?StudyInstanceUIDs=1.2")
    assert answer.status_code == 503
    assert "make install" in answer.text
    assert 'lang="fr"' in answer.text


# Configuration -----------------------------------------------------------------------------------


def test_the_configuration_points_at_this_origin_and_nowhere_else(made: Path) -> None:
    script = client(made).get("/viewer/app-config.js").text
    assert "://" not in script
    config = config_of(script)
    (source,) = config["dataSources"]  # type: ignore[misc]  # JSON of our own making
    assert source["configuration"]["wadoRoot"] == source["configuration"]["qidoRoot"] == "/dicom-web"  # type: ignore[has-type]
    assert config["showStudyList"] is False
    assert config["investigationalUseDialog"] == {"option": "never"}


def test_the_notice_is_in_the_language_of_the_page() -> None:
    assert "Non destin\\u00e9 au diagnostic primaire" in app_config("fr", None)
    assert "Not for primary diagnosis" in app_config("en", None)


@pytest.mark.parametrize(
    ("query", "accept", "language"),
    [
        ("", "", "fr"),
        ("", "en-GB,en;q=0.9", "en"),
        ("", "de, fr;q=0.5", "fr"),
        ("?lng=fr", "en", "fr"),
        ("?lng=en-US", "fr", "en"),
        ("?lng=<script>", "", "fr"),
    ],
)
def test_the_page_speaks_french_unless_told_otherwise(made: Path, query: str, accept: str, language: str) -> None:
    answer = client(made).get(f"/viewer/viewer{query}", headers={"accept-language": accept})
    assert f'lang="{language}"' in answer.text


class Minter:
    """Gives a token named after the studies asked for, and remembers."""

    def __init__(self, answer: str | None = "T0KEN") -> None:
        self.asked: list[list[str]] = []
        self.answer = answer

    def __call__(self, request: Request, uids: Sequence[str]) -> str | None:
        self.asked.append(list(uids))
        return self.answer


def test_a_token_is_minted_for_the_studies_of_the_page_only(made: Path) -> None:
    minter = Minter()
    answer = client(made, minter).get("/viewer/app-config.js?StudyInstanceUIDs=1.2,3.4")
    assert minter.asked == [["1.2", "3.4"]]
    assert '"T0KEN"' in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_no_token_stands_in_the_script_when_the_session_serves(made: Path) -> None:
    minter = Minter(None)
    assert "token = null" in client(made, minter).get("/viewer/app-config.js?StudyInstanceUIDs=1.2").text


def test_no_token_is_minted_without_a_study(made: Path) -> None:
    minter = Minter()
    client(made, minter).get("/viewer/app-config.js")
    client(made, minter).get("/viewer/app-config.js?StudyInstanceUIDs=../../etc")
    assert minter.asked == []


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_another_site_that_includes_the_script_gets_no_token(made: Path, site: str) -> None:
    minter = Minter()
    answer = client(made, minter).get("/viewer/app-config.js?StudyInstanceUIDs=1.2", headers={"sec-fetch-site": site})
    assert minter.asked == []
    assert "token = null" in answer.text


def test_nothing_in_a_token_or_an_address_can_leave_its_string() -> None:
    script = app_config("fr", '</script><script>alert(1)</script>"\u2028&')
    assert "<" not in script.split("token = ")[1].split(";")[0]
    shown = page(INDEX, "fr", study_uids(['1.2"><script>alert(1)</script>']))
    assert "alert" not in shown


@pytest.mark.parametrize("count", [STUDIES_IN_ADDRESS - 1, STUDIES_IN_ADDRESS, STUDIES_IN_ADDRESS + 1])
def test_as_many_studies_as_the_bound_are_taken_from_an_address(count: int) -> None:
    uids = [f"1.2.{number}" for number in range(count)]
    assert study_uids([",".join(uids)]) == uids[:STUDIES_IN_ADDRESS]


@pytest.mark.parametrize(
    ("uid", "taken"), [("1" * 64, True), ("1" * 65, False), ("1..2", False), ("1.2 ", True), ("x", False), ("", False)]
)
def test_what_is_not_a_uid_is_left_out(uid: str, taken: bool) -> None:
    assert study_uids([uid]) == ([uid.strip()] if taken else [])

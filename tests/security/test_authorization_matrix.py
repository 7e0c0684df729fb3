"""Every route x every role x whose it is, on the real application: generated from its route table."""

from __future__ import annotations

import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.model.actor import Role
from negatoscope.web.authentication import SAFE_METHODS
from security.estate import STRANGERS, Estate, estate, refused_for_login, refused_for_role, routes_of
from security.matrix import ROWS, Family, Names, Row

GUARDED = sorted(name for name, row in ROWS.items() if row.family is not Family.PUBLIC)
PROGRAMS = sorted(name for name, row in ROWS.items() if row.family is Family.PROGRAM)


@pytest.fixture(scope="module")
def world_of_roles(postgresql: EmbeddedPostgreSQL) -> Iterator[Estate]:
    folder = Path(tempfile.mkdtemp(prefix="negatoscope-matrix-"))
    admin = postgresql.url.replace("/negatoscope?", "/postgres?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE DATABASE matrix TEMPLATE negatoscope")
    with estate(postgresql.url.replace("/negatoscope?", "/matrix?"), folder) as made:
        yield made
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("DROP DATABASE matrix WITH (FORCE)")
    shutil.rmtree(folder, ignore_errors=True)


def cells(made: Estate, name: str) -> list[tuple[str, str]]:
    """(method, path) of the routes of this name; OPTIONS is judged with the others of its path."""
    return [(method, path) for found, method, path in routes_of(made.app.routes) if found == name]


def test_every_route_has_a_row_and_every_row_a_route(world_of_roles: Estate) -> None:
    names = {name for name, method, _ in routes_of(world_of_roles.app.routes) if method != "OPTIONS"}
    assert names - set(ROWS) == set(), "routes without a row in tests/security/matrix.py"
    assert set(ROWS) - names == set(), "rows of routes that are gone"


@pytest.mark.parametrize("name", ROWS)
def test_a_role_gets_through_where_its_row_says_so_and_nowhere_else(world_of_roles: Estate, name: str) -> None:
    row, wrong = ROWS[name], []
    for method, path in cells(world_of_roles, name):
        for role in Role:
            response = world_of_roles.ask(
                method, path, role.value, row, world_of_roles.named(row.names, "own", role.value)
            )
            good = response.status_code in row.through if role in row.roles else refused_for_role(row.family, response)
            if not good:
                wrong.append((method, path, role.value, response.status_code))
    assert wrong == []


@pytest.mark.parametrize("name", GUARDED)
def test_nobody_gets_through_without_a_valid_login(world_of_roles: Estate, name: str) -> None:
    row, wrong = ROWS[name], []
    for method, path in cells(world_of_roles, name):
        values = world_of_roles.named(row.names, "own", "no login")
        for audience in STRANGERS:
            response = world_of_roles.ask(method, path, audience, row, values)
            if not refused_for_login(row.family, response):
                wrong.append((method, path, audience, response.status_code))
        if method == "GET" and row.family is Family.PROGRAM:
            head = world_of_roles.ask("HEAD", path, "no login", row, values)
            token = {
                "access_token": world_of_roles.tokens["radiologist"],
                "token": world_of_roles.tokens["radiologist"],
            }
            in_address = world_of_roles.ask(method, path, "no login", Row(row.family, query=row.query | token), values)
            wrong += [
                (method, path, "HEAD or token in the address", r.status_code)
                for r in (head, in_address)
                if r.status_code != 401
            ]
    assert wrong == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_stranger_learns_nothing_from_a_request_that_is_wrong_besides(world_of_roles: Estate, name: str) -> None:
    """401 comes before 400, 404 and 406: what is wrong with a request is for those who may make it."""
    row, wrong = ROWS[name], []
    for method, path in cells(world_of_roles, name):
        values = world_of_roles.named(row.names, "own", "no login")
        odd = {
            "media type": ({"Accept": "text/x-nothing"}, values, {}),
            "no UID": ({}, values | {"study_uid": "x", "series_uid": "x", "sop_instance_uid": "x"}, {}),
            "frame": ({}, values | {"frames": "0", "path": "zzz"}, {}),
            "parameter": ({}, values, {"limit": "-1", "viewport": "x", "requestType": "x", "charset": "x"}),
        }
        for kind, (headers, named, query) in odd.items():
            asked = Row(row.family, query=row.query | query)
            response = world_of_roles.ask(method, path, "no login", asked, named, headers=headers)
            if response.status_code != 401:
                wrong.append((method, path, kind, response.status_code))
    assert wrong == []


def likeness(response: Any, values: dict[str, str]) -> tuple[int, dict[str, str], str]:
    """What a client sees, without the time and with what it asked for itself taken out."""
    asked = {response.request.url.path, quote(response.request.url.path, safe="")}
    asked |= {value for value in values.values() if value.startswith("2.25.")}

    def blank(text: str) -> str:
        for value in sorted(asked, key=len, reverse=True):
            text = text.replace(value, "*")
        return text

    headers = {k: blank(v) for k, v in response.headers.items() if k not in ("date", "content-length")}
    return response.status_code, headers, blank(response.text)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.names])
def test_what_is_not_yours_is_answered_as_what_does_not_exist(world_of_roles: Estate, name: str) -> None:
    row, wrong = ROWS[name], []
    for method, path in cells(world_of_roles, name):
        for role in sorted(row.roles - row.platform):
            answers = []
            for whose in ("foreign", "absent"):
                values = world_of_roles.named(row.names, whose, role.value)
                answers.append(likeness(world_of_roles.ask(method, path, role.value, row, values), values))
            expected = {200, 204} if row.foreign_is_empty else {404}
            if answers[0] != answers[1] or answers[0][0] not in expected:
                wrong.append((method, path, role.value, answers))
    assert wrong == []


@pytest.mark.parametrize("role", Role)
def test_a_token_of_somebody_else_is_not_there_to_be_revoked(world_of_roles: Estate, role: Role) -> None:
    ((method, path),) = cells(world_of_roles, "revoke-credential")
    for whose in ("foreign", "absent"):
        values = world_of_roles.named(Names.CREDENTIAL, whose, role.value)
        response = world_of_roles.ask(method, path, role.value, ROWS["revoke-credential"], values)
        assert response.status_code == 404


@pytest.mark.parametrize("name", GUARDED)
def test_a_token_bound_to_a_study_opens_that_study_alone(world_of_roles: Estate, name: str) -> None:
    row, wrong = ROWS[name], []
    for method, path in cells(world_of_roles, name):
        own = world_of_roles.named(row.names, "own", "study token")
        status = world_of_roles.ask(method, path, "study token", row, own).status_code
        if row.study_token and status not in row.through:
            wrong.append((method, path, "its study", status))
        if row.names is Names.STUDY:
            second = own | world_of_roles.places["A"].second_study
            second["instance_uid"] = second["sop_instance_uid"]
            absent = world_of_roles.named(row.names, "absent", "study token")
            answers = [
                likeness(world_of_roles.ask(method, path, "study token", row, values), values)
                for values in (second, absent)
            ]
            if answers[0] != answers[1] or (answers[0][0] == 200 and not row.foreign_is_empty):
                wrong.append((method, path, "another study", answers))
    assert wrong == []


def test_a_token_bound_to_a_study_changes_and_administers_nothing(world_of_roles: Estate) -> None:
    wrong = []
    for name, method, path in routes_of(world_of_roles.app.routes):
        row = ROWS.get(name)
        if row is None or row.family is Family.PUBLIC or method in SAFE_METHODS:
            continue
        values = world_of_roles.named(row.names, "own", "radiologist")
        response = world_of_roles.ask(method, path, "study token", row, values)
        if name != "revoke-credential" and response.status_code < 400:
            wrong.append((name, response.status_code))
    assert wrong == []


@pytest.mark.parametrize("audience", ["radiologist", "study token"])
def test_a_search_finds_what_is_ones_own(world_of_roles: Estate, audience: str) -> None:
    if not cells(world_of_roles, "search-studies"):
        pytest.skip("no search yet")
    ((method, path),) = cells(world_of_roles, "search-studies")
    found = world_of_roles.ask(method, path, audience, ROWS["search-studies"], {}).json()
    uids = {study["0020000D"]["Value"][0] for study in found}
    place = world_of_roles.places["A"]
    mine = {place.study["study_uid"]} | ({place.second_study["study_uid"]} if audience == "radiologist" else set())
    assert uids == mine


def test_no_page_that_another_site_opens_in_a_signed_in_browser_changes_anything(world_of_roles: Estate) -> None:
    """The session cookie, an unsafe method, a foreign Origin or none: refused, on every such route."""
    wrong = []
    for name, method, path in routes_of(world_of_roles.app.routes):
        row = ROWS.get(name)
        if row is None or method in SAFE_METHODS or not row.roles:
            continue
        role = sorted(row.roles)[0]
        secret = world_of_roles.accounts.open_session(world_of_roles.actors[role.value], 60)
        values = world_of_roles.named(row.names, "own", role.value)
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {}):
            cookie = {"Cookie": f"negatoscope={secret}"}
            response = world_of_roles.ask(method, path, "no login", row, values, headers=headers | cookie)
            if response.status_code != 403:
                wrong.append((name, headers, response.status_code))
        if world_of_roles.accounts.actor_of_secret(secret) is None:
            wrong.append((name, {}, 0))
    assert wrong == []


def test_every_answer_to_somebody_who_signed_in_stays_out_of_caches(world_of_roles: Estate) -> None:
    wrong = []
    for name in GUARDED:
        row = ROWS[name]
        for method, path in cells(world_of_roles, name):
            if method != "GET":
                continue
            role = sorted(row.roles)[0].value
            response = world_of_roles.ask(method, path, role, row, world_of_roles.named(row.names, "own", role))
            caching = response.headers.get("cache-control", "")
            if not re.search(r"no-store|private|no-cache", caching):
                wrong.append((name, caching))
    assert wrong == []


@pytest.mark.parametrize("name", ["retrieve-study", "metadata-study", "study"])
def test_time_does_not_tell_what_is_not_yours_from_what_does_not_exist(world_of_roles: Estate, name: str) -> None:
    row = ROWS[name]
    ((method, path),) = cells(world_of_roles, name)
    took: dict[str, list[float]] = {"foreign": [], "absent": []}
    for _ in range(15):
        for whose, times in took.items():
            values = world_of_roles.named(row.names, whose, "radiologist")
            started = time.perf_counter()
            world_of_roles.ask(method, path, "radiologist", row, values)
            times.append(time.perf_counter() - started)
    assert abs(statistics.median(took["foreign"]) - statistics.median(took["absent"])) < 0.010

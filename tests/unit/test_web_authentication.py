"""Who asks over HTTP, and whether our own pages sent it: no database, a fake of accounts."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from starlette.requests import Request
from starlette.responses import Response

from negatoscope.errors import Forbidden, Unauthenticated
from negatoscope.model.actor import Actor, ActorKind, Role
from negatoscope.sharing import ROLES
from negatoscope.web import authentication
from negatoscope.web.authentication import Authentication

TOKEN = "ngt_" + "t" * 43
SESSION = "ngs_" + "s" * 43
OTHER_SESSION = "ngs_" + "o" * 43
ACTOR = Actor(7, ActorKind.USER, "dr", Role.RADIOLOGIST, 1, "A", "2.25.1", ROLES[Role.RADIOLOGIST].rights)


class Accounts:
    """Knows some secrets, opens and closes sessions."""

    def __init__(self) -> None:
        self.good = {TOKEN: ACTOR, SESSION: ACTOR, OTHER_SESSION: ACTOR}
        self.asked: list[str] = []
        self.closed: list[str] = []

    def actor_of_secret(self, secret: str) -> Actor | None:
        self.asked.append(secret)
        return self.good.get(secret)

    def known_actor(self, secret: str) -> Actor | None:
        return self.good.get(secret)

    def open_session(self, actor: Actor, ttl_s: float) -> str:
        secret = "ngs_" + "n" * 43
        self.good[secret] = actor
        return secret

    def close_session(self, secret: str, actor: Actor, address: str) -> None:
        self.closed.append(secret)
        del self.good[secret]


@pytest.fixture
def accounts() -> Accounts:
    return Accounts()


def made(accounts: Accounts, *, secure: bool = False, proxies: str = "") -> Authentication:
    return Authentication(accounts, secure=secure, session_s=3600.0, trusted_proxies=proxies)


def request(
    headers: Mapping[str, str] | list[tuple[str, str]] = {},  # noqa: B006 - never changed
    method: str = "GET",
    query: str = "",
    client: str = "192.0.2.1",
    state: object = None,
) -> Request:
    pairs = list(headers.items()) if isinstance(headers, Mapping) else headers
    scope = {
        "type": "http",
        "method": method,
        "path": "/",
        "query_string": query.encode(),
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in pairs],
        "client": (client, 1234) if client else None,
        "app": SimpleNamespace(state=SimpleNamespace(authentication=state)),
    }
    return Request(scope)


def test_a_bearer_token_names_its_actor(accounts: Accounts) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert made(accounts).actor_of(request({"Authorization": f"{scheme} {TOKEN}"})) is ACTOR


def test_a_session_cookie_names_its_actor(accounts: Accounts) -> None:
    assert made(accounts).actor_of(request({"Cookie": f"negatoscope={SESSION}"})) is ACTOR
    assert made(accounts, secure=True).actor_of(request({"Cookie": f"__Host-negatoscope={SESSION}"})) is ACTOR


REFUSED: dict[str, Request] = {
    "nothing": request(),
    "unknown token": request({"Authorization": "Bearer ngt_" + "x" * 43}),
    "another scheme": request({"Authorization": f"Basic {TOKEN}"}),
    "no secret": request({"Authorization": "Bearer"}),
    "malformed": request({"Authorization": "Bearer ngt_\u00e9"}),
    "a session as bearer": request({"Authorization": f"Bearer {SESSION}"}),
    "a token as cookie": request({"Cookie": f"negatoscope={TOKEN}"}),
    "a cookie of another name": request({"Cookie": f"__Host-negatoscope={SESSION}"}),
    "two headers": request([("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")]),
    "bad token, good cookie": request({"Authorization": "Bearer x", "Cookie": f"negatoscope={SESSION}"}),
    "a token in the address": request(query=f"access_token={TOKEN}&token={TOKEN}"),
    "a very long cookie": request({"Cookie": f"negatoscope=ngs_{'s' * 10_000}"}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_credential_of_ours_is_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(Unauthenticated):
        made(accounts).actor_of(REFUSED[name])
    assert made(accounts).visitor_of(REFUSED[name]) is None
    assert made(accounts).known_actor_of(REFUSED[name]) is None


def test_what_cannot_be_a_secret_is_not_asked_of_the_database(accounts: Accounts) -> None:
    for name in set(REFUSED) - {"unknown token"}:
        made(accounts).visitor_of(REFUSED[name])
    assert accounts.asked == []


def test_signing_in_gives_a_new_session_and_ends_the_old_one(accounts: Accounts) -> None:
    response = Response()
    made(accounts).sign_in(request({"Cookie": f"negatoscope={SESSION}"}), response, ACTOR)
    cookie = response.headers["set-cookie"]
    assert accounts.closed == [SESSION]
    assert f"negatoscope=ngs_{'n' * 43}; HttpOnly; Max-Age=3600; Path=/; SameSite=lax" == cookie


def test_the_cookie_is_host_bound_and_secure_over_https(accounts: Accounts) -> None:
    response = Response()
    made(accounts, secure=True).sign_in(request(), response, ACTOR)
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-negatoscope=ngs_")
    assert {"Secure", "HttpOnly", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_signing_out_ends_the_session_at_the_server_and_the_cookie(accounts: Accounts) -> None:
    response = Response()
    made(accounts).sign_out(request({"Cookie": f"negatoscope={SESSION}"}), response)
    assert accounts.closed == [SESSION]
    assert "Max-Age=0" in response.headers["set-cookie"]
    made(accounts).sign_out(request(), Response())
    assert accounts.closed == [SESSION]


def cookie_post(**headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return request({"Cookie": f"negatoscope={SESSION}", "Host": "pacs.example:8080", **named}, "POST")


def test_a_form_with_the_token_of_its_session_passes(accounts: Accounts) -> None:
    auth = made(accounts)
    token = auth.csrf_token(cookie_post())
    assert len(token) == 64
    assert SESSION not in token
    auth.check_csrf(cookie_post(), token)
    auth.check_csrf(cookie_post(X_CSRF_Token=token))


def test_the_token_of_another_session_is_refused_even_from_our_origin(accounts: Accounts) -> None:
    auth = made(accounts)
    other = auth.csrf_token(request({"Cookie": f"negatoscope={OTHER_SESSION}"}))
    for headers in ({}, {"Origin": "http://pacs.example:8080"}):
        with pytest.raises(Forbidden):
            auth.check_csrf(cookie_post(**headers), other)
        with pytest.raises(Forbidden):
            auth.check_csrf(cookie_post(**headers), "\u00e9")


SAME_ORIGIN: dict[str, dict[str, str]] = {
    "plain HTTP": {"Origin": "http://pacs.example:8080"},
    "behind a TLS proxy": {"Origin": "https://pacs.example:8080"},
    "as the viewer's STOW": {"Origin": "http://pacs.example:8080", "Sec_Fetch_Site": "same-origin"},
    "case": {"Origin": "http://PACS.example:8080"},
}
FOREIGN: dict[str, dict[str, str]] = {
    "no origin": {},
    "another site": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://pacs.example:9090"},
    "sibling host": {"Origin": "http://pacs.example:8080", "Sec_Fetch_Site": "same-site"},
    "cross-site": {"Origin": "http://pacs.example:8080", "Sec_Fetch_Site": "cross-site"},
    "null": {"Origin": "null"},
    "prefix": {"Origin": "http://pacs.example:8080.evil.example"},
    "user part": {"Origin": "http://pacs.example:8080@evil.example"},
    "another scheme": {"Origin": "file://pacs.example:8080"},
}


@pytest.mark.parametrize("name", SAME_ORIGIN)
def test_an_unsafe_request_of_our_own_origin_passes(accounts: Accounts, name: str) -> None:
    made(accounts).check_csrf(cookie_post(**SAME_ORIGIN[name]))
    assert made(accounts).actor_of(cookie_post(**SAME_ORIGIN[name])) is ACTOR


@pytest.mark.parametrize("name", FOREIGN)
def test_an_unsafe_request_from_elsewhere_is_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(Forbidden):
        made(accounts).check_csrf(cookie_post(**FOREIGN[name]))
    with pytest.raises(Forbidden):
        made(accounts).actor_of(cookie_post(**FOREIGN[name]))


def test_signing_somebody_in_from_elsewhere_is_refused(accounts: Accounts) -> None:
    stranger = request({"Host": "pacs.example", "Origin": "http://evil.example"}, "POST")
    with pytest.raises(Forbidden):
        made(accounts).check_csrf(stranger, "")
    made(accounts).check_csrf(request({"Host": "pacs.example", "Origin": "http://pacs.example"}, "POST"), "")
    with pytest.raises(Forbidden):
        made(accounts).check_csrf(request({"Origin": "http://"}, "POST"))
    assert made(accounts).csrf_token(stranger) == ""


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_safe_methods_need_no_token(accounts: Accounts, method: str) -> None:
    made(accounts).check_csrf(request({"Cookie": f"negatoscope={SESSION}"}, method))


def test_a_bearer_token_needs_no_token_besides(accounts: Accounts) -> None:
    bearer = request({"Authorization": f"Bearer {TOKEN}"}, "POST")
    assert made(accounts).known_actor_of(bearer) is None  # an unsafe method is judged in full
    assert made(accounts).actor_of(bearer) is ACTOR


def test_an_authorization_header_does_not_open_the_cookies_door(accounts: Accounts) -> None:
    forged = request({"Authorization": "x", "Cookie": f"negatoscope={SESSION}"}, "POST")
    with pytest.raises(Unauthenticated):
        made(accounts).actor_of(forged)


@pytest.mark.parametrize(
    ("client", "proxies", "forwarded", "expected"),
    [
        ("192.0.2.1", "", [], "192.0.2.1"),
        ("::ffff:192.0.2.1", "", [], "192.0.2.1"),
        ("", "", [], ""),
        ("192.0.2.1", "", ["203.0.113.9"], "192.0.2.1"),  # nobody's word but a proxy's counts
        ("127.0.0.1", "127.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", "127.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),  # the client's own claim is not believed
        ("127.0.0.1", "127.0.0.1, 10.0.0.0/8", ["203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        ("127.0.0.1", "127.0.0.1", ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        ("127.0.0.1", "127.0.0.1", ["junk"], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", ["127.0.0.1"], "127.0.0.1"),
        ("testclient", "127.0.0.1", ["203.0.113.9"], "testclient"),
    ],
)
def test_the_address_is_that_of_the_last_hop_before_our_proxies(
    accounts: Accounts, client: str, proxies: str, forwarded: list[str], expected: str
) -> None:
    asked = request([("X-Forwarded-For", hop) for hop in forwarded], client=client)
    assert made(accounts, proxies=proxies).address_of(asked) == expected


def test_handlers_find_it_in_the_state_of_the_application(accounts: Accounts) -> None:
    auth = made(accounts)
    asked = request({"Cookie": f"negatoscope={SESSION}"}, state=auth)
    assert authentication.actor_of(asked) is authentication.visitor_of(asked) is ACTOR
    assert authentication.known_actor_of(asked) is ACTOR
    assert authentication.csrf_token(asked) == auth.csrf_token(asked)
    assert authentication.address_of(asked) == "192.0.2.1"
    authentication.check_csrf(asked)
    authentication.sign_in(asked, Response(), ACTOR)
    authentication.sign_out(asked, Response())

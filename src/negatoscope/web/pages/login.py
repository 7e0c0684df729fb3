"""Coming in, going out, and the choices a browser remembers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from negatoscope.errors import Forbidden, TooManyRequests, Unauthenticated
from negatoscope.model.actor import Actor
from negatoscope.sharing.accounts import DEMO_LOGIN
from negatoscope.web import authentication
from negatoscope.web.i18n import LANGUAGE_COOKIE, LANGUAGES
from negatoscope.web.pages.common import THEME_COOKIE, THEMES, Visit, own_path, page, see_other
from negatoscope.web.pages.services import pages_of

REMEMBERED_S = 365 * 86400  # of the two cookies of taste; they say nothing of anybody
LONGEST_PASSWORD = 1024  # characters that are looked at


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


def start(_request: Request, visit: Visit) -> Response:
    """``/``: to what this visitor is here for."""
    menu = visit.menu()
    return see_other(menu[0].path if menu else "/welcome")


def welcome(request: Request, visit: Visit) -> Response:
    """For a role that has no screen yet."""
    return page(request, visit, "welcome.html")


def show_login(request: Request, visit: Visit) -> Response:
    if visit.actor is not None:
        return see_other(own_path(request.query_params.get("next", "/")))
    return _login_page(request, visit)


def sign_in(request: Request, visit: Visit) -> Response:
    """Password login. One answer for a wrong name and a wrong password."""
    name, password = visit.value("name"), (visit.form.get("password") or [""])[0][:LONGEST_PASSWORD]
    try:
        actor = pages_of(request).logins.sign_in(name, password, visit.address)
    except Unauthenticated:
        return _login_page(request, visit, visit.speech.gettext(_("Wrong user name or password.")), 401)
    except TooManyRequests:
        wait = visit.speech.gettext(_("Too many attempts. Wait a few minutes, then try again."))
        return _login_page(request, visit, wait, 429)
    return _signed_in(request, visit, actor)


def enter_demonstration(request: Request, visit: Visit) -> Response:
    """One click, in a demonstration folder only."""
    try:
        actor = pages_of(request).logins.enter_demonstration(visit.value("name"), visit.address)
    except Forbidden:
        return _login_page(request, visit, visit.speech.gettext(_("Wrong user name or password.")), 401)
    return _signed_in(request, visit, actor)


def sign_out(request: Request, _visit: Visit) -> Response:
    response = see_other("/login", "signed-out")
    authentication.sign_out(request, response)
    return response


def remember(request: Request, visit: Visit) -> Response:
    """Language and theme, for visitors too. A signed-in user's language is kept with the account."""
    response = see_other(own_path(visit.value("back", 2048) or "/"))
    language, theme = visit.value("language"), visit.value("theme")
    if language in LANGUAGES:
        _keep(request, response, LANGUAGE_COOKIE, language)
        if visit.actor is not None:
            pages_of(request).accounts.set_language(visit.actor, language)
    if theme in THEMES:
        _keep(request, response, THEME_COOKIE, theme)
    return response


def _signed_in(request: Request, visit: Visit, actor: Actor) -> Response:
    response = see_other(own_path(visit.value("next", 2048) or "/"))
    authentication.sign_in(request, response, actor)
    if LANGUAGE_COOKIE not in request.cookies:
        language = pages_of(request).accounts.language_of(actor)
        if language in LANGUAGES:
            _keep(request, response, LANGUAGE_COOKIE, language)
    return response


def _keep(request: Request, response: Response, name: str, value: str) -> None:
    secure = pages_of(request).settings.secure_cookies
    response.set_cookie(name, value, max_age=REMEMBERED_S, path="/", secure=secure, httponly=True, samesite="lax")


def _login_page(request: Request, visit: Visit, problem: str = "", status: int = 200) -> Response:
    accounts = pages_of(request).accounts.demonstrations()
    context = {
        "demonstrations": sorted(accounts, key=lambda account: (account.name != DEMO_LOGIN, account.name)),
        "name": visit.form.get("name", [""])[0][:64] if problem else "",
        "next": visit.form.get("next", [request.query_params.get("next", "/")])[0][:2048],
    }
    return page(request, visit, "login.html", context, status=status, problem=problem)

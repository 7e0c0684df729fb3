"""What every page shares: rendering, who asks, the form token, errors turned into pages.

A handler is a plain synchronous function ``(request, visit) -> Response`` and runs in the thread pool;
:func:`shown` and :func:`posted` make a route's endpoint of it. A form is read, bounded, and its token
checked before its handler is called.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from negatoscope.errors import BadRequest, Forbidden, NegatoscopeError, NotFound, Unauthenticated, wire_form
from negatoscope.model.actor import Actor, Right
from negatoscope.web import authentication
from negatoscope.web.i18n import LANGUAGE_COOKIE, Speech, choose_language
from negatoscope.web.pages import words
from negatoscope.web.refusing import note_refusal

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent.parent / "static"
THEME_COOKIE = "negatoscope_theme"
THEMES = ("light", "dark")
FORM_FIELDS = 64  # a page's form has at most a dozen
FORM_FIELD_BYTES = 64 << 10


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


@dataclass(frozen=True, slots=True)
class MenuItem:
    section: str
    path: str
    icon: str
    label: str


@dataclass(frozen=True, slots=True)
class Visit:
    """One request as a page sees it: who asks, in which language, with which form token."""

    actor: Actor | None
    speech: Speech
    theme: str
    form_token: str
    address: str  # of the peer, for the audit trail
    form: Mapping[str, list[str]] = field(default_factory=dict)  # of a POST

    @property
    def signed_in(self) -> Actor:
        """The actor of a page that is only for people who signed in."""
        if self.actor is None:
            raise Unauthenticated("sign in first")
        return self.actor

    def may(self, right: Right) -> bool:
        return self.actor is not None and right in self.actor.rights

    @property
    def may_store(self) -> bool:
        return self.may(Right.STORE)

    @property
    def role_label(self) -> str:
        role = self.actor.role if self.actor else None
        return words.ROLES.get(role.value, role.value) if role else ""

    def menu(self) -> list[MenuItem]:
        """The sections this visitor can open; a section that would answer 404 is not offered."""
        items = []
        if self.may(Right.QUERY):
            items.append(MenuItem("worklist", "/worklist", "list", _("Worklist")))
        if self.may(Right.WORKLIST):
            items.append(MenuItem("orders", "/orders", "clock", _("Orders")))
        if self.may(Right.STORE):
            items.append(MenuItem("import", "/import", "upload", _("Import")))
        if self.may(Right.ADMINISTER) or self.may(Right.QUARANTINE):
            items.append(MenuItem("administration", "/administration", "gear", _("Administration")))
        if self.may(Right.AUDIT):
            items.append(MenuItem("audit", "/audit", "report", _("Audit trail")))
        return items

    def value(self, name: str, limit: int = 1024) -> str:
        """A field of the form, trimmed; ``""`` when it is absent. Raises ``BadRequest`` over ``limit`` characters."""
        values = self.form.get(name) or [""]
        text = values[0].strip()
        if len(text) > limit:
            raise BadRequest(f"the field {name} has at most {limit} characters")
        return text


Handler = Callable[[Request, Visit], Response]


class NotForRole(NotFound):
    """Nothing here by that name. The visitor sees what ``NotFound`` shows; the audit trail knows the difference."""


# Rendering ---------------------------------------------------------------------------------------


@cache
def static_address(path: str) -> str:
    """The address of a file of ``static``, with a version so that browsers may keep it for ever."""
    file = STATIC / path
    version = hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else "absent"
    return f"/static/{path}?v={version}"


@cache
def environment(language: str) -> jinja2.Environment:
    """The templates in one language. Undefined names are errors, all values are escaped."""
    speech = Speech(language)
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("negatoscope.web", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The i18n extension adds this method when it is loaded; its type stubs do not know.
    made.install_gettext_callables(speech.gettext, speech.ngettext, newstyle=True)  # type: ignore[attr-defined]
    made.globals.update(speech.callables())
    made.globals.update(
        static=static_address,
        language=language,
        modalities=words.MODALITIES,
        roles=words.ROLES,
        rights=words.RIGHTS,
        sexes=words.SEX,
        sex_short=words.SEX_SHORT,
    )
    return made


def page(
    request: Request,
    visit: Visit,
    template: str,
    context: Mapping[str, Any] | None = None,
    *,
    section: str = "",
    status: int = 200,
    problem: str = "",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Render ``template``. Pages hold patients' data: no cache may keep them."""
    done = DONE.get(request.query_params.get("done", ""), "")
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    html = (
        environment(visit.speech.language)
        .get_template(template)
        .render(
            {
                "visit": visit,
                "theme": visit.theme,
                "csrf": visit.form_token,
                "section": section,
                "problem": problem,
                "done": done,
                "back": back if request.method == "GET" else "/",
                **(context or {}),
            }
        )
    )
    return HTMLResponse(html, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})


# What a page says after a change that it was redirected from: the address carries the key.
DONE = {
    "signed-out": _("You are signed out."),
    "establishment-added": _("The establishment was added."),
    "application-added": _("The application entity was added."),
    "application-changed": _("The application entity was changed."),
    "application-removed": _("The application entity was removed."),
    "user-added": _("The user was added."),
    "user-disabled": _("The user was disabled and signed out everywhere."),
    "user-enabled": _("The user was enabled."),
    "password-changed": _("The password was changed."),
    "token-revoked": _("The token was revoked."),
    "resolved": _("The object was marked as resolved."),
    "node-added": _("The remote node was added."),
    "node-changed": _("The remote node was changed."),
    "node-answers": _("The remote node answers."),
    "node-silent": _("The remote node does not answer."),
    "delivery-changed": _("The delivery was changed."),
    "order-added": _("The order was entered: it is on the modality's worklist."),
    "order-moved": _("The state of the order was changed."),
    "order-cancelled": _("The order was cancelled."),
}


def see_other(path: str, done: str = "") -> Response:
    """After a form: 303, so that a reload sends nothing twice."""
    return RedirectResponse(path + (f"?done={done}" if done else ""), status_code=303)


def own_path(path: str) -> str:
    """``path`` when it is a page of ours, else ``/``: a redirect never leaves the origin."""
    fine = path.startswith("/") and not path.startswith(("//", "/\\")) and "\\" not in path and path.isprintable()
    return path if fine and len(path) <= 2048 else "/"


# Endpoints ---------------------------------------------------------------------------------------


def visit_of(request: Request, form: Mapping[str, list[str]] | None = None) -> Visit:
    """Who asks, and how to speak to them: the cookie is set at sign-in to the account's language."""
    actor = authentication.visitor_of(request)
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    speech = Speech(choose_language(chosen, request.headers.get("accept-language")))
    theme = request.cookies.get(THEME_COOKIE, "")
    return Visit(
        actor=actor,
        speech=speech,
        theme=theme if theme in THEMES else THEMES[0],
        form_token=authentication.csrf_token(request),
        address=authentication.address_of(request),
        form=form or {},
    )


def shown(handler: Handler, *needs: Right, signed_in: bool = True) -> Callable[[Request], Any]:
    """The endpoint of a page that is read (GET).

    Whoever has not signed in is sent to the login page and comes back. Whoever has none of the rights in
    ``needs`` gets the same 404 as for an address that does not exist.
    """

    def respond(request: Request) -> Response:
        visit = visit_of(request)
        try:
            if signed_in and visit.actor is None:
                return to_login(request)
            if needs and not any(visit.may(right) for right in needs):
                raise NotForRole("nothing here by that name")
            return handler(request, visit)
        except NegatoscopeError as error:
            return _refusal(request, visit, error)

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(respond, request)

    return endpoint


def posted(handler: Handler, *needs: Right, signed_in: bool = True) -> Callable[[Request], Any]:
    """The endpoint of a form (POST): as :func:`shown`, with the form read and its token checked."""

    def respond(request: Request, form: Mapping[str, list[str]]) -> Response:
        visit = visit_of(request, form)
        try:
            if signed_in and visit.actor is None:
                return see_other("/login")
            if needs and not any(visit.may(right) for right in needs):
                raise NotForRole("nothing here by that name")
            authentication.check_csrf(request, visit.value("csrf"))
            return handler(request, visit)
        except NegatoscopeError as error:
            return _refusal(request, visit, error)

    async def endpoint(request: Request) -> Response:
        try:
            async with request.form(max_files=0, max_fields=FORM_FIELDS, max_part_size=FORM_FIELD_BYTES) as form:
                fields = _fields(form)
        except HTTPException as error:  # Starlette's own limits
            visit = await run_in_threadpool(visit_of, request)
            return error_page(request, visit, BadRequest(str(error.detail)))
        return await run_in_threadpool(respond, request, fields)

    return endpoint


def _refusal(request: Request, visit: Visit, error: NegatoscopeError) -> Response:
    if isinstance(error, NotForRole | Forbidden):
        note_refusal(request, visit.actor, "page")
    return error_page(request, visit, error)


def _fields(form: FormData) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.setdefault(name, []).append(value)
    return fields


def to_login(request: Request) -> Response:
    """Sign in first, then come back here. A fragment asked for by htmx makes the whole page go there."""
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    target = "/login" if path == "/" else f"/login?{urlencode({'next': path})}"
    if request.headers.get("hx-request"):
        return Response(status_code=401, headers={"HX-Redirect": "/login", "Cache-Control": "no-store"})
    return RedirectResponse(target, status_code=303, headers={"Cache-Control": "no-store"})


# Errors ------------------------------------------------------------------------------------------

# Heading and explanation by HTTP status; nothing here tells "forbidden" from "absent".
ERRORS = {
    400: (_("This request cannot be understood"), _("Something in the address or the form is not right.")),
    401: (_("Sign in first"), _("This page is for people who signed in.")),
    403: (
        _("Not allowed"),
        _("The form was too old, or your role does not allow this. Go back, reload the page, try again."),
    ),
    404: (_("Nothing here"), _("There is nothing by that name, or it is not yours to see.")),
    429: (_("Too many attempts"), _("Wait a moment, then try again.")),
    500: (_("Something broke on our side"), _("It was written down. Nothing that was stored is lost.")),
    503: (_("Not available at this moment"), _("The archive cannot answer now. Try again in a few seconds.")),
}


def error_page(request: Request, visit: Visit, error: NegatoscopeError, reference: str = "") -> Response:
    """The page of an error; ``reference`` is the id under which the log has more."""
    status = wire_form(error).http
    heading, explanation = ERRORS.get(status) or (ERRORS[400] if status < 500 else ERRORS[500])
    if status >= 500:
        log.error("page failed: %s", type(error).__name__)
    return page(
        request,
        visit,
        "error.html",
        {"status": status, "heading": heading, "explanation": explanation, "detail": reference},
        status=status,
    )


def error_response(request: Request, error: NegatoscopeError, reference: str = "") -> Response:
    """The same for a request that no page answered: an unknown address, a defect."""
    return error_page(request, visit_of(request), error, reference)


def language_of(request: Request) -> str:
    """The language of a request, for doors that are no page of this package (the viewer)."""
    asked = request.query_params.get("lng", "")[:2].lower()
    chosen = asked or request.cookies.get(LANGUAGE_COOKIE)
    return choose_language(chosen, request.headers.get("accept-language"))

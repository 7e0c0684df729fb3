"""Administration: establishments, application entities, users, storage, quarantine, damage.

An administrator sees the platform, a referent the own establishment. Every change goes through a use case
that commits it together with its audit event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from negatoscope.audit.events import quarantine_read
from negatoscope.errors import BadRequest, Conflict, Forbidden, NegatoscopeError, NotFound
from negatoscope.model.actor import Actor, Right, Role
from negatoscope.sharing import policy
from negatoscope.web.pages.common import MenuItem, NotForRole, Visit, page, see_other
from negatoscope.web.pages.figures import QUERIES
from negatoscope.web.pages.services import pages_of

LISTED = 500  # rows of one list


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


@dataclass(frozen=True, slots=True)
class Screen:
    item: MenuItem
    right: Right
    platform: bool = False  # administrators of the platform only


def _screen(section: str, icon: str, label: str, right: Right = Right.ADMINISTER, platform: bool = False) -> Screen:
    path = "/administration" + (f"/{section}" if section != "overview" else "")
    return Screen(MenuItem(section, path, icon, label), right, platform)


SCREENS = {
    screen.item.section: screen
    for screen in (
        _screen("overview", "pulse", _("Overview")),
        _screen("establishments", "building", _("Establishments")),
        _screen("applications", "modality", _("Application entities")),
        _screen("users", "users", _("Users")),
        _screen("nodes", "upload", _("Sending")),
        _screen("storage", "disk", _("Storage"), platform=True),
        _screen("quarantine", "shield", _("Quarantine"), Right.QUARANTINE),
        _screen("alerts", "alert", _("Damage"), platform=True),
    )
}

DAMAGE = {
    "missing": _("missing"),
    "truncated": _("truncated"),
    "altered": _("altered"),
    "swapped": _("swapped"),
}


def platform_wide(actor: Actor) -> bool:
    """Whether ``actor`` administers the platform, not one establishment."""
    return Right.ADMINISTER in actor.rights and policy.administered(actor) is None


def _mine(visit: Visit) -> list[Screen]:
    actor = visit.signed_in
    return [s for s in SCREENS.values() if s.right in actor.rights and (platform_wide(actor) or not s.platform)]


def screen_page(
    request: Request,
    visit: Visit,
    section: str,
    context: Mapping[str, Any],
    *,
    template: str = "",
    problem: str = "",
) -> Response:
    """A screen in its frame. One that is not this visitor's does not exist."""
    screens = _mine(visit)
    screen = SCREENS[section]
    if screen not in screens:
        raise NotForRole("nothing here by that name")
    pages = pages_of(request)
    figures = pages.figures.read(pages, _bounds(visit))
    counts = {"quarantine": figures.quarantine_open, "alerts": figures.damage_open}
    shared = {
        "screen": screen.item,
        "screens": [other.item for other in screens],
        "counts": counts,
        "figures": figures,
        "now": datetime.now(UTC),
        "platform": platform_wide(visit.signed_in),
    }
    return page(
        request,
        visit,
        template or f"admin/{section}.html",
        {**shared, **context},
        section="administration",
        status=422 if problem else 200,
        problem=problem,
    )


def _bounds(visit: Visit) -> int | None:
    actor = visit.signed_in
    return None if platform_wide(actor) else actor.establishment_id


def _why(visit: Visit, error: NegatoscopeError, taken: str) -> str:
    """What went wrong with a form, in the visitor's language; our own words in English follow."""
    if isinstance(error, Conflict):
        return visit.speech.gettext(taken)
    said = visit.speech.gettext(FAULTS[str(error)]) if str(error) in FAULTS else str(error)
    return f"{visit.speech.gettext(_('This cannot be saved:'))} {said}"


# The use cases' messages as people read them; a test holds both sides together.
FAULTS = {
    "an AE title has 1 to 16 characters of ASCII, no backslash": _(
        "an AE title has 1 to 16 plain characters, no accent, no backslash."
    ),
    "a port is 1 to 65535 and needs a host": _("a port is 1 to 65535 and needs an address."),
    "a host is an IP address or a host name": _("an address is an IP address or a host name."),
    "rights of an application entity: query, retrieve, store, worklist": _("choose at least one right."),
    "an establishment's code has 1 to 32 letters, digits, dots, hyphens or underscores": _(
        "a code has 1 to 32 letters, digits, dots, hyphens or underscores."
    ),
    "the assigning authority is an OID": _("the authority is an OID, such as 1.2.250.1.71."),
    "a FINESS number has 9 letters or digits": _("a FINESS number has 9 letters or digits."),
    "a name has 1 to 200 printable characters": _("a name has 1 to 200 characters."),
    "a login has 1 to 64 letters, digits, dots, hyphens, underscores or @": _(
        "a user name has 1 to 64 letters, digits, dots, hyphens, underscores or @."
    ),
    "a password has at least 12 characters": _("a password has at least 12 characters."),
    "a password has at most 256 characters": _("a password has at most 256 characters."),
    "this password is too easy to guess": _("this password is too easy to guess."),
    "the login demo is kept for demonstrations": _("this user name is kept for demonstrations."),
    "a node's name has 1 to 32 letters, digits, dots, hyphens or underscores": _(
        "a name has 1 to 32 letters, digits, dots, hyphens or underscores."
    ),
    "the address of a DICOMweb node is http:// or https://, without user, query or fragment": _(
        "the DICOMweb address begins with http:// or https:// and names no user, query or fragment."
    ),
    "an authorization is one line of printable ASCII": _("the authorization is one line of plain characters."),
    "no such establishment": _("this establishment does not exist."),
}


# Screens -----------------------------------------------------------------------------------------


def show_overview(request: Request, visit: Visit) -> Response:
    """The first screen of the section; who has no overview goes to the screen they have."""
    screens = _mine(visit)
    if SCREENS["overview"] not in screens:
        return see_other(screens[0].item.path)
    accounts = pages_of(request).accounts
    return screen_page(request, visit, "overview", {"applications": accounts.entities(by=visit.signed_in)})


def show_storage(request: Request, visit: Visit) -> Response:
    return screen_page(request, visit, "storage", {})


def show_alerts(request: Request, visit: Visit) -> Response:
    if SCREENS["alerts"] not in _mine(visit):
        raise NotForRole("nothing here by that name")
    with pages_of(request).database.unit(None) as unit:
        rows = unit.execute(QUERIES["damaged"], {"limit": LISTED}).fetchall()
    return screen_page(request, visit, "alerts", {"rows": rows, "kinds": DAMAGE})


# Establishments ----------------------------------------------------------------------------------


def _establishments(request: Request, visit: Visit) -> list[Any]:
    actor = visit.signed_in
    rows = pages_of(request).accounts.establishments()
    return [row for row in rows if platform_wide(actor) or row.establishment_id == actor.establishment_id]


def show_establishments(request: Request, visit: Visit, problem: str = "") -> Response:
    form = {name: visit.form.get(name, [""])[0] for name in ("code", "name", "oid", "finess")}
    context = {
        "establishments": _establishments(request, visit),
        "may_add": platform_wide(visit.signed_in),
        "form": form,
    }
    return screen_page(request, visit, "establishments", context, problem=problem)


def add_establishment(request: Request, visit: Visit) -> Response:
    _only_platform(visit)
    try:
        pages_of(request).accounts.add_establishment(
            visit.value("code"),
            visit.value("name"),
            visit.value("oid"),
            visit.value("finess").replace(" ", "") or None,
            by=visit.signed_in,
        )
    except (BadRequest, Conflict) as error:
        return show_establishments(request, visit, _why(visit, error, _("This code is taken.")))
    return see_other("/administration/establishments", "establishment-added")


def _only_platform(visit: Visit) -> None:
    if not platform_wide(visit.signed_in):
        raise NotForRole("nothing here by that name")


# Application entities ----------------------------------------------------------------------------

AE_FORM = ("title", "establishment", "host", "port")


def show_applications(request: Request, visit: Visit, problem: str = "") -> Response:
    actor = visit.signed_in
    form: dict[str, Any] = {name: visit.form.get(name, [""])[0] for name in AE_FORM}
    form["rights"] = visit.form.get("rights", []) if visit.form else ["store"]
    form["establishment"] = form["establishment"] or actor.establishment_code
    context = {
        "applications": pages_of(request).accounts.entities(by=actor),
        "establishments": _establishments(request, visit),
        "form": form,
    }
    return screen_page(request, visit, "applications", context, problem=problem)


def add_application(request: Request, visit: Visit) -> Response:
    try:
        host, port = _host_and_port(visit)
        pages_of(request).accounts.add_entity(
            visit.value("title"), visit.value("establishment"), _rights(visit), host, port, by=visit.signed_in
        )
    except (BadRequest, Conflict) as error:
        return show_applications(request, visit, _why(visit, error, _("This title is known at this address.")))
    return see_other("/administration/applications", "application-added")


def show_application(request: Request, visit: Visit, problem: str = "") -> Response:
    entity = _application(request, visit)
    form: dict[str, Any] = {"host": entity.host or "", "port": entity.port or "", "rights": sorted(entity.rights)}
    if visit.form:
        form = {"host": visit.value("host"), "port": visit.value("port"), "rights": visit.form.get("rights", [])}
    context = {"entity": entity, "form": form}
    return screen_page(request, visit, "applications", context, template="admin/application.html", problem=problem)


def change_application(request: Request, visit: Visit) -> Response:
    entity = _application(request, visit)
    try:
        host, port = _host_and_port(visit)
        pages_of(request).accounts.change_entity(entity.actor_id, _rights(visit), host, port, by=visit.signed_in)
    except (BadRequest, Conflict) as error:
        return show_application(request, visit, _why(visit, error, _("This title is known at this address.")))
    return see_other("/administration/applications", "application-changed")


def remove_application(request: Request, visit: Visit) -> Response:
    pages_of(request).accounts.remove_entity(_application(request, visit).actor_id, by=visit.signed_in)
    return see_other("/administration/applications", "application-removed")


def _application(request: Request, visit: Visit) -> Any:
    wanted = request.path_params["actor_id"]
    for entity in pages_of(request).accounts.entities(by=visit.signed_in):
        if entity.actor_id == wanted:
            return entity
    raise NotFound("nothing here by that name")


def _host_and_port(visit: Visit) -> tuple[str | None, int | None]:
    host, port = visit.value("host") or None, visit.value("port")
    if port and not (port.isascii() and port.isdecimal() and len(port) <= 5):
        raise BadRequest("a port is 1 to 65535 and needs a host")
    return host, int(port) if port else None


def _rights(visit: Visit) -> set[Right]:
    try:
        return {Right(value) for value in visit.form.get("rights", [])}
    except ValueError as error:
        raise BadRequest("no such right") from error


# Users -------------------------------------------------------------------------------------------

USER_FORM = ("name", "display_name", "role", "establishment")


def show_users(request: Request, visit: Visit, problem: str = "") -> Response:
    actor = visit.signed_in
    form = {name: visit.form.get(name, [""])[0] for name in USER_FORM}
    context = {
        "users": pages_of(request).accounts.users(by=actor),
        "establishments": _establishments(request, visit),
        "may_add": platform_wide(actor),
        "form": {**form, "role": form["role"] or Role.RADIOLOGIST.value},
    }
    return screen_page(request, visit, "users", context, problem=problem)


def add_user(request: Request, visit: Visit) -> Response:
    _only_platform(visit)
    try:
        role = Role(visit.value("role"))
    except ValueError as error:
        raise BadRequest("no such role") from error
    try:
        pages_of(request).accounts.add_user(
            visit.value("name"),
            role,
            visit.value("establishment"),
            (visit.form.get("password") or [""])[0] or None,
            by=visit.signed_in,
            display_name=visit.value("display_name"),
            language=visit.speech.language,
        )
    except (BadRequest, Conflict) as error:
        return show_users(request, visit, _why(visit, error, _("This user name is taken.")))
    return see_other("/administration/users", "user-added")


def disable_user(request: Request, visit: Visit) -> Response:
    return _set_disabled(request, visit, disabled=True)


def enable_user(request: Request, visit: Visit) -> Response:
    return _set_disabled(request, visit, disabled=False)


def _set_disabled(request: Request, visit: Visit, *, disabled: bool) -> Response:
    _only_platform(visit)
    name = str(request.path_params["name"])
    if name == visit.signed_in.name:
        raise BadRequest("nobody shuts themselves out")
    pages_of(request).accounts.set_disabled(name, disabled, by=visit.signed_in)
    return see_other("/administration/users", "user-disabled" if disabled else "user-enabled")


# Quarantine --------------------------------------------------------------------------------------

# Slugs of archive.commit: why an object was kept aside.
REASONS = {
    "same-uid-other-bytes": _("same identifier, other content"),
    "same-uid-other-series": _("same identifier, another series"),
    "study-of-another-patient": _("another patient for the same study"),
    "series-of-another-study": _("another study for the same series"),
    "first-copy-damaged": _("same content again, the kept copy is damaged"),
}
RESOLUTIONS = {
    "first-is-right": _("the first is right"),
    "corrected-at-source": _("corrected at the source and sent again"),
    "taken-out": _("downloaded and dealt with elsewhere"),
}


def show_quarantine(request: Request, visit: Visit) -> Response:
    """What was set aside and still waits; patients' identifiers are shown, so looking is recorded."""
    pages, actor = pages_of(request), visit.signed_in
    rows = pages.quarantine.listed(_quarantine_bounds(visit), most=LISTED)
    pages.trail.record([quarantine_read(actor, len(rows), "page", visit.address)])
    context = {
        "rows": rows,
        "reasons": REASONS,
        "resolutions": RESOLUTIONS,
        "may_export": Right.RETRIEVE in actor.rights,
    }
    return screen_page(request, visit, "quarantine", context)


def download_quarantined(request: Request, visit: Visit) -> Response:
    """The object as a file, as it was received. Needs the right to read images besides."""
    actor = visit.signed_in
    quarantine = pages_of(request).quarantine
    held = quarantine.get(_quarantine_bounds(visit, export=True), request.path_params["quarantine_id"])
    parts = quarantine.part10(held, actor, "page", visit.address)
    first = next(parts)  # audited before the answer begins
    name = f"quarantine-{held.quarantine_id}.dcm"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(chain([first], parts), media_type="application/dicom", headers=headers)


def resolve_quarantined(request: Request, visit: Visit) -> Response:
    resolution = visit.value("resolution")
    if resolution not in RESOLUTIONS:
        raise BadRequest("no such resolution")
    pages_of(request).quarantine.resolve(
        _quarantine_bounds(visit),
        request.path_params["quarantine_id"],
        resolution,
        visit.signed_in,
        "page",
        visit.address,
    )
    return see_other("/administration/quarantine", "resolved")


def _quarantine_bounds(visit: Visit, *, export: bool = False) -> int | None:
    try:
        return policy.quarantine_bounds(visit.signed_in, export=export)
    except Forbidden as error:
        raise NotForRole("nothing here by that name") from error

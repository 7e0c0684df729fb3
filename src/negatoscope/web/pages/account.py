"""My account: password, tokens and sessions. An administrator makes no token for somebody else."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from negatoscope.errors import BadRequest, Forbidden, NotFound, PreconditionFailed
from negatoscope.web.pages.common import Visit, page, see_other
from negatoscope.web.pages.services import pages_of

DAY_S = 86400.0


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


LIFETIMES = {"1": _("One day"), "30": _("30 days"), "90": _("90 days"), "365": _("One year")}  # by days


def show_account(request: Request, visit: Visit) -> Response:
    return _account_page(request, visit)


def create_token(request: Request, visit: Visit) -> Response:
    """A new token of one's own. It is in this answer and nowhere else: the page is not redirected to."""
    me, days = visit.signed_in, visit.value("days")
    if days not in LIFETIMES:
        raise BadRequest("no such lifetime")
    secret = pages_of(request).accounts.create_token(me.name, int(days) * DAY_S, by=me)
    ends = datetime.now(UTC) + timedelta(days=int(days))
    return _account_page(request, visit, issued={"text": secret, "expires_at": ends})


def revoke_credential(request: Request, visit: Visit) -> Response:
    try:
        credential_id = uuid.UUID(str(request.path_params["credential_id"]))
    except ValueError as error:
        raise NotFound("nothing here by that name") from error
    me = visit.signed_in
    pages_of(request).accounts.revoke(me.name, credential_id, by=me)
    return see_other("/account", "token-revoked")


def change_password(request: Request, visit: Visit) -> Response:
    """Every session ends with the old password, this one too."""
    me = visit.signed_in
    current, fresh = (visit.form.get(name, [""])[0] for name in ("current", "password"))
    problem = ""
    try:
        pages_of(request).accounts.set_password(me.name, fresh, by=me, current=current)
    except Forbidden:
        problem = visit.speech.gettext(_("The current password is wrong."))
    except BadRequest:
        problem = visit.speech.gettext(_("Choose another password: at least 12 characters, not easy to guess."))
    except PreconditionFailed:
        problem = visit.speech.gettext(_("This account has no password."))
    return _account_page(request, visit, problem, 422) if problem else see_other("/login", "password-changed")


def _account_page(
    request: Request, visit: Visit, problem: str = "", status: int = 200, issued: dict[str, object] | None = None
) -> Response:
    me = visit.signed_in
    rows = pages_of(request).accounts.credentials(me.name, by=me)
    context = {"issued": issued, "credentials": rows, "lifetimes": LIFETIMES, "here": me.session}
    return page(request, visit, "account.html", context, section="account", status=status, problem=problem)

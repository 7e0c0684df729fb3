"""Pages for people: server-rendered, in French and English, usable without a script.

:data:`page_routes` is the visible list; each has a name of its own. ``app.state.pages`` holds the
:class:`PageServices`, ``app.state.authentication`` says who asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from negatoscope.model.actor import Right
from negatoscope.web.pages import account, administration, audit, importing, login, nodes, orders, study, worklist
from negatoscope.web.pages.common import error_response, language_of, posted, shown
from negatoscope.web.pages.services import PageServices
from negatoscope.web.pages.static import static_route

__all__ = ["PageServices", "error_response", "language_of", "page_routes"]

Endpoint = Callable[[Request], Any]
ADMINISTRATION = (Right.ADMINISTER, Right.QUARANTINE)


def _get(path: str, endpoint: Endpoint, name: str) -> Route:
    return Route(path, endpoint, methods=["GET"], name=name)


def _post(path: str, endpoint: Endpoint, name: str) -> Route:
    return Route(path, endpoint, methods=["POST"], name=name)


_ADMIN = "/administration"
_SERIES = "/studies/{study_uid}/series/{series_uid}"

page_routes: list[Route] = [
    static_route,
    _get("/", shown(login.start), "start"),
    _get("/welcome", shown(login.welcome), "welcome"),
    _get("/login", shown(login.show_login, signed_in=False), "login"),
    _post("/login", posted(login.sign_in, signed_in=False), "sign-in"),
    _post("/login/demonstration", posted(login.enter_demonstration, signed_in=False), "enter-demonstration"),
    _post("/logout", posted(login.sign_out, signed_in=False), "sign-out"),
    _post("/preferences", posted(login.remember, signed_in=False), "remember"),
    _get("/account", shown(account.show_account), "account"),
    _post("/account/tokens", posted(account.create_token), "create-token"),
    _post("/account/password", posted(account.change_password), "change-password"),
    _post("/account/credentials/{credential_id}/revoke", posted(account.revoke_credential), "revoke-credential"),
    _get("/worklist", shown(worklist.show_worklist, Right.QUERY), "worklist"),
    _get("/worklist/more", shown(worklist.more_studies, Right.QUERY), "worklist-more"),
    _get("/worklist/live", shown(worklist.live_studies, Right.QUERY), "worklist-live"),
    _get("/studies/{study_uid}", shown(study.show_study, Right.QUERY), "study"),
    _get("/studies/{study_uid}/images", shown(study.choose_series, Right.RETRIEVE), "study-images"),
    _get(f"{_SERIES}/images", shown(study.show_images, Right.RETRIEVE), "series-images"),
    _get(f"{_SERIES}/instances/{{instance_uid}}/report", shown(study.show_report, Right.RETRIEVE), "report"),
    _get("/orders", shown(orders.show_orders, Right.WORKLIST), "orders"),
    _post("/orders", posted(orders.add_order, Right.WORKLIST), "add-order"),
    _get("/orders/{request_id:int}", shown(orders.show_order, Right.WORKLIST), "order"),
    _post("/orders/{request_id:int}/status", posted(orders.change_order, Right.WORKLIST), "change-order"),
    _get("/import", shown(importing.show_import, Right.STORE), "import"),
    _get("/audit", shown(audit.show_audit, Right.AUDIT), "audit"),
    _get("/audit/export.csv", shown(audit.export_audit, Right.AUDIT), "audit-export"),
    _get(_ADMIN, shown(administration.show_overview, *ADMINISTRATION), "administration"),
    _get(f"{_ADMIN}/establishments", shown(administration.show_establishments, Right.ADMINISTER), "establishments"),
    _post(f"{_ADMIN}/establishments", posted(administration.add_establishment, Right.ADMINISTER), "add-establishment"),
    _get(f"{_ADMIN}/applications", shown(administration.show_applications, Right.ADMINISTER), "applications"),
    _post(f"{_ADMIN}/applications", posted(administration.add_application, Right.ADMINISTER), "add-application"),
    _get(
        f"{_ADMIN}/applications/{{actor_id:int}}",
        shown(administration.show_application, Right.ADMINISTER),
        "application",
    ),
    _post(
        f"{_ADMIN}/applications/{{actor_id:int}}",
        posted(administration.change_application, Right.ADMINISTER),
        "change-application",
    ),
    _post(
        f"{_ADMIN}/applications/{{actor_id:int}}/remove",
        posted(administration.remove_application, Right.ADMINISTER),
        "remove-application",
    ),
    _get(f"{_ADMIN}/users", shown(administration.show_users, Right.ADMINISTER), "users"),
    _post(f"{_ADMIN}/users", posted(administration.add_user, Right.ADMINISTER), "add-user"),
    _post(f"{_ADMIN}/users/{{name}}/disable", posted(administration.disable_user, Right.ADMINISTER), "disable-user"),
    _post(f"{_ADMIN}/users/{{name}}/enable", posted(administration.enable_user, Right.ADMINISTER), "enable-user"),
    _get(f"{_ADMIN}/nodes", shown(nodes.show_nodes, Right.ADMINISTER), "nodes"),
    _post(f"{_ADMIN}/nodes", posted(nodes.add_node, Right.ADMINISTER), "add-node"),
    _post(f"{_ADMIN}/nodes/{{node_id:int}}", posted(nodes.change_node, Right.ADMINISTER), "change-node"),
    _post(f"{_ADMIN}/queue/{{delivery_id:int}}", posted(nodes.change_delivery, Right.ADMINISTER), "change-delivery"),
    _get(f"{_ADMIN}/storage", shown(administration.show_storage, Right.ADMINISTER), "storage"),
    _get(f"{_ADMIN}/alerts", shown(administration.show_alerts, Right.ADMINISTER), "alerts"),
    _get(f"{_ADMIN}/quarantine", shown(administration.show_quarantine, Right.QUARANTINE), "quarantine"),
    _get(
        f"{_ADMIN}/quarantine/{{quarantine_id:int}}/object",
        shown(administration.download_quarantined, Right.QUARANTINE),
        "quarantined-object",
    ),
    _post(
        f"{_ADMIN}/quarantine/{{quarantine_id:int}}/resolve",
        posted(administration.resolve_quarantined, Right.QUARANTINE),
        "resolve-quarantined",
    ),
]

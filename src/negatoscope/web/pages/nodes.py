"""The screen of sending: how remote nodes are doing, and what waits for them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from negatoscope.errors import BadRequest, Conflict, NotFound, PreconditionFailed
from negatoscope.routing import NewNode, NodeKind
from negatoscope.web.nodes import SendingServices
from negatoscope.web.pages.administration import _establishments as administered_establishments
from negatoscope.web.pages.administration import _why as why
from negatoscope.web.pages.administration import platform_wide, screen_page
from negatoscope.web.pages.common import Visit, see_other

NODE_FORM = ("name", "establishment", "kind", "title", "host", "port", "url")
SHOWN = 100  # deliveries


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


HEALTH = {"answers": _("answers"), "silent": _("does not answer"), "paused": _("paused"), "unknown": _("not asked yet")}
STATES = {
    "held": _("to release"),
    "waiting": _("waits"),
    "sending": _("being sent"),
    "committing": _("awaits the promise"),
    "done": _("sent"),
    "dead": _("given up"),
    "cancelled": _("cancelled"),
}
PRIORITIES = {"URGENT": _("urgent"), "NORMAL": _("normal"), "BULK": _("bulk")}


def sending_of(request: Request) -> SendingServices:
    parts: SendingServices = request.app.state.sending
    return parts


def show_nodes(request: Request, visit: Visit, problem: str = "") -> Response:
    actor, parts = visit.signed_in, sending_of(request)
    file, everywhere = parts.rules(), platform_wide(actor)
    context = {
        "nodes": parts.nodes.listed(by=actor),
        "deliveries": parts.queue.listed(by=actor, limit=SHOWN),
        "rules_file": file,
        "rules": [rule for rule in file.rules if everywhere or rule.establishment == actor.establishment_code],
        "establishments": administered_establishments(request, visit),
        "form": {name: visit.form.get(name, [""])[0] for name in NODE_FORM},
        "health": HEALTH,
        "states": STATES,
        "priorities": PRIORITIES,
    }
    return screen_page(request, visit, "nodes", context, problem=problem)


def add_node(request: Request, visit: Visit) -> Response:
    port = visit.value("port")
    try:
        if port and not (port.isascii() and port.isdecimal() and len(port) <= 5):
            raise BadRequest("a port is 1 to 65535 and needs a host")
        web = visit.value("kind") == NodeKind.DICOMWEB.value
        node = NewNode(
            establishment=visit.value("establishment"),
            name=visit.value("name"),
            kind=NodeKind.DICOMWEB if web else NodeKind.DIMSE,
            title=visit.value("title"),
            host=visit.value("host"),
            port=int(port) if port else None,
            url=visit.value("url"),
            secret=visit.value("authorization", 4096) if web else "",
            commitment=bool(visit.value("commitment")) and not web,
            tls=bool(visit.value("tls")) and not web,
        )
        sending_of(request).nodes.add(node, by=visit.signed_in)
    except (BadRequest, Conflict, NotFound) as error:
        return show_nodes(request, visit, why(visit, error, _("The establishment has a node of this name.")))
    return see_other("/administration/nodes", "node-added")


def change_node(request: Request, visit: Visit) -> Response:
    """Pause, resume or echo, as the button says."""
    parts, node_id, actor = sending_of(request), request.path_params["node_id"], visit.signed_in
    change = visit.value("change")
    if change == "echo":
        silent = parts.echo(node_id, actor)
        return see_other("/administration/nodes", "node-silent" if silent else "node-answers")
    parts.nodes.get(node_id, by=actor)  # not yours comes first
    if change not in ("pause", "resume"):
        raise BadRequest("no such change")
    parts.nodes.pause(node_id, change == "pause", by=actor)
    return see_other("/administration/nodes", "node-changed")


def change_delivery(request: Request, visit: Visit) -> Response:
    """Retry, release or cancel, as the button says."""
    queue, delivery_id, actor = sending_of(request).queue, request.path_params["delivery_id"], visit.signed_in
    queue.get(delivery_id, by=actor)
    changes = {"retry": queue.retry, "release": queue.release, "cancel": queue.cancel}
    change = changes.get(visit.value("change"))
    if change is None:
        raise BadRequest("no such change")
    try:
        change(delivery_id, by=actor)
    except PreconditionFailed:  # it has gone on meanwhile: the page shows how
        return see_other("/administration/nodes")
    return see_other("/administration/nodes", "delivery-changed")

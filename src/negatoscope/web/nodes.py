"""Sending for programs: ``/api/nodes`` and ``/api/queue``, JSON in and out. No patient's data in either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from negatoscope.errors import BadRequest
from negatoscope.model.actor import Actor, Right
from negatoscope.routing import DeliveryRow, NewNode, Node, NodeKind, Nodes, Priority, Queue, RulesFile, State
from negatoscope.sharing import policy
from negatoscope.web.services import Services

DOOR = "api"
_NODE_FIELDS = {"establishment", "name", "kind", "title", "host", "port", "url", "authorization", "concurrency",
                "commitment", "tls"}  # fmt: skip
_ASK_FIELDS = {"node", "study", "series", "priority", "hold"}


@dataclass(frozen=True, slots=True)
class SendingServices:
    """Kept as ``app.state.sending``. All of them block."""

    nodes: Nodes
    queue: Queue
    rules: Callable[[], RulesFile]
    echo: Callable[[int, Actor], str]  # a node by its id: why it does not answer, "" when it does
    readable: Callable[[Actor, str, str | None], int]  # raises NotFound, Forbidden


def node_routes(services: Services, parts: SendingServices) -> list[BaseRoute]:
    api = _Api(services, parts)
    node, delivery = "/api/nodes/{node_id:int}", "/api/queue/{delivery_id:int}"
    return [
        Route("/api/nodes", api.nodes, methods=["GET"], name="list-nodes"),
        Route("/api/nodes", api.add_node, methods=["POST"], name="api-add-node"),
        Route(node, api.remove_node, methods=["DELETE"], name="remove-node"),
        Route(f"{node}/echo", api.echo_node, methods=["POST"], name="api-echo-node"),
        Route(f"{node}/pause", api.pause_node, methods=["POST"], name="api-pause-node"),
        Route(f"{node}/resume", api.resume_node, methods=["POST"], name="api-resume-node"),
        Route("/api/queue", api.queue, methods=["GET"], name="list-deliveries"),
        Route("/api/queue", api.ask, methods=["POST"], name="ask-delivery"),
        Route(delivery, api.delivery, methods=["GET"], name="read-delivery"),
        Route(f"{delivery}/retry", api.retry, methods=["POST"], name="retry-delivery"),
        Route(f"{delivery}/release", api.release, methods=["POST"], name="release-delivery"),
        Route(f"{delivery}/cancel", api.cancel, methods=["POST"], name="cancel-delivery"),
    ]


class _Api:
    def __init__(self, services: Services, parts: SendingServices) -> None:
        self._services, self._parts = services, parts

    async def nodes(self, request: Request) -> Response:
        """Nodes with how they are doing."""
        actor = await self._actor(request, Right.ADMINISTER)
        found = await self._services.run(lambda: self._parts.nodes.listed(by=actor))
        return _json({"nodes": [node_json(node) for node in found]})

    async def add_node(self, request: Request) -> Response:
        """201 with the node."""
        actor = await self._actor(request, Right.ADMINISTER)
        new = new_node(await _body(request, _NODE_FIELDS))

        def work() -> Node:
            return self._parts.nodes.get(self._parts.nodes.add(new, by=actor), by=actor)

        return _json(node_json(await self._services.run(work)), 201)

    async def remove_node(self, request: Request) -> Response:
        """Forget a node for which nothing waits."""
        actor = await self._actor(request, Right.ADMINISTER)
        await self._services.run(lambda: self._parts.nodes.remove(request.path_params["node_id"], by=actor))
        return Response(status_code=204)

    async def echo_node(self, request: Request) -> Response:
        """Whether a node answers: C-ECHO, or a search."""
        actor = await self._actor(request, Right.ADMINISTER)
        silent = await self._services.run(lambda: self._parts.echo(request.path_params["node_id"], actor))
        return _json({"answers": not silent, "failure": silent})

    async def pause_node(self, request: Request) -> Response:
        """Send nothing to a node for now."""
        return await self._paused(request, True)

    async def resume_node(self, request: Request) -> Response:
        """Send to a node again."""
        return await self._paused(request, False)

    async def _paused(self, request: Request, paused: bool) -> Response:
        actor = await self._actor(request, Right.ADMINISTER)
        node_id = request.path_params["node_id"]

        def work() -> Node:
            self._parts.nodes.pause(node_id, paused, by=actor)
            return self._parts.nodes.get(node_id, by=actor)

        return _json(node_json(await self._services.run(work)))

    async def queue(self, request: Request) -> Response:
        """Deliveries, what needs somebody first; ``state`` narrows them."""
        actor = await self._actor(request)
        rows = await self._services.run(lambda: self._parts.queue.listed(by=actor, states=_states(request)))
        return _json({"deliveries": [delivery_json(row) for row in rows]})

    async def ask(self, request: Request) -> Response:
        """Send a study, or a series of it, to a node of one's establishment: 202 with the delivery."""
        actor = await self._actor(request, Right.RETRIEVE)
        given = await _body(request, _ASK_FIELDS)
        study, series = _text(given, "study"), _text(given, "series") or None
        hold = given.get("hold", False)
        if not isinstance(hold, bool):
            raise BadRequest("hold is true or false")
        priority = priority_of(_text(given, "priority") or "normal")
        address = self._services.authentication.address_of(request)

        def work() -> DeliveryRow:
            node = self._parts.nodes.named(_text(given, "node"), by=actor)
            self._parts.readable(actor, study, series)
            asked = self._parts.queue.ask(
                node, study, series, by=actor, priority=priority, hold=hold, door=DOOR, address=address
            )
            return self._parts.queue.get(asked, by=actor)

        return _json(delivery_json(await self._services.run(work)), 202)

    async def delivery(self, request: Request) -> Response:
        """One delivery, and the objects that the node has not acknowledged."""
        actor, delivery_id = await self._actor(request), request.path_params["delivery_id"]

        def work() -> dict[str, Any]:
            row = self._parts.queue.get(delivery_id, by=actor)
            missing = self._parts.queue.missing(delivery_id, by=actor)
            return delivery_json(row) | {"missing": [{"sop_instance_uid": uid, "reason": why} for uid, why in missing]}

        return _json(await self._services.run(work))

    async def retry(self, request: Request) -> Response:
        """Send what is missing of a dead delivery again."""
        return await self._changed(request, self._parts.queue.retry)

    async def release(self, request: Request) -> Response:
        """Let a held delivery go."""
        return await self._changed(request, self._parts.queue.release)

    async def cancel(self, request: Request) -> Response:
        """Send no more of a delivery."""
        return await self._changed(request, self._parts.queue.cancel)

    async def _changed(self, request: Request, change: Callable[..., None]) -> Response:
        actor, delivery_id = await self._actor(request), request.path_params["delivery_id"]

        def work() -> DeliveryRow:
            change(delivery_id, by=actor)
            return self._parts.queue.get(delivery_id, by=actor)

        return _json(delivery_json(await self._services.run(work)))

    async def _actor(self, request: Request, right: Right | None = None) -> Actor:
        """Raises Unauthenticated, Forbidden."""
        actor = await self._services.run(self._services.authentication.actor_of, request)
        if right is not None:
            policy.require(actor, right)
        return actor


# Reading and writing -------------------------------------------------------------------------------


def new_node(given: Mapping[str, Any]) -> NewNode:
    """Raises ``BadRequest``; what is only badly formed is judged by the use case."""
    try:
        kind = NodeKind(_text(given, "kind") or "dimse")
    except ValueError:
        raise BadRequest("a node is of the kind dimse or dicomweb") from None
    port, concurrency = given.get("port"), given.get("concurrency", 2)
    commitment, tls = given.get("commitment", False), given.get("tls", False)
    if not (port is None or type(port) is int) or type(concurrency) is not int:
        raise BadRequest("port and concurrency are numbers")
    if type(commitment) is not bool or type(tls) is not bool:
        raise BadRequest("commitment and tls are true or false")
    return NewNode(
        establishment=_text(given, "establishment"),
        name=_text(given, "name"),
        kind=kind,
        title=_text(given, "title"),
        host=_text(given, "host"),
        port=port,
        url=_text(given, "url"),
        secret=_text(given, "authorization"),
        concurrency=concurrency,
        commitment=commitment,
        tls=tls,
    )


def priority_of(text: str) -> Priority:
    """Raises ``BadRequest``."""
    try:
        return Priority[text.upper()]
    except KeyError:
        raise BadRequest("priority is urgent, normal or bulk") from None


def node_json(node: Node) -> dict[str, Any]:
    """A node without its secret."""
    return {
        "id": node.node_id,
        "establishment": node.code,
        "name": node.name,
        "kind": node.kind.value,
        "title": node.title,
        "address": node.address,
        "concurrency": node.concurrency,
        "commitment": node.commitment,
        "tls": node.tls,
        "health": node.health,
        "failure": node.failure,
        "last_contact": node.contact_at,
        "held": node.held,
        "waiting": node.waiting,
        "sending": node.sending,
        "committing": node.committing,
        "dead": node.dead,
    }


def delivery_json(row: DeliveryRow) -> dict[str, Any]:
    return {
        "id": row.delivery_id,
        "establishment": row.code,
        "node": row.node,
        "study": row.study_uid,
        "series": row.series_uid,
        "rule": row.rule,
        "asked_by": row.actor,
        "priority": row.priority.name.lower(),
        "state": row.state.value,
        "reason": row.reason,
        "attempts": row.attempts,
        "objects": row.objects,
        "delivered": row.delivered,
        "bytes": row.bytes,
        "bytes_delivered": row.bytes_delivered,
        "created": row.created_at,
        "finished": row.finished_at,
    }


def _states(request: Request) -> list[State] | None:
    wanted = request.query_params.getlist("state")
    try:
        return [State(value) for value in wanted] or None
    except ValueError:
        raise BadRequest(f"state is one of {', '.join(State)}") from None


async def _body(request: Request, known: set[str]) -> Mapping[str, Any]:
    try:
        given = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise BadRequest("the body is no JSON") from None
    if not isinstance(given, dict) or set(given) - known:
        raise BadRequest(f"the body is an object of {', '.join(sorted(known))}")
    return given


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name) or ""
    if not isinstance(value, str):
        raise BadRequest(f"{name} is a text")
    return value


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json", headers={"Cache-Control": "no-store"})

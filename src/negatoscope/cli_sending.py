"""Commands of sending: nodes, and what is sent to them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from negatoscope.bootstrap import Core
from negatoscope.errors import NotFound
from negatoscope.routing import NewNode, Node, NodeKind, Priority
from negatoscope.sending import Sending, echo, locate_or_fail, sending
from negatoscope.settings import Settings
from negatoscope.sharing import COMMAND_LINE

Opened = Callable[[Settings], AbstractContextManager[Core]]
Add = Callable[..., argparse.ArgumentParser]


class SendingFailed(OSError):
    """The node did not answer; ``str()`` is one line."""


def add_commands(add: Add, group: Callable[[str, str], Any], opened: Opened) -> None:
    """``node add|list|echo|pause|resume|remove`` and ``send``, to the command line's grammar."""
    actions = group("node", "remote nodes that images are sent to")
    sub = add("add", lambda o, s: _add(o, s, opened), "add a remote node", actions)
    sub.add_argument("name", help="short name, as used by the other commands and by rules")
    sub.add_argument("--establishment", required=True, metavar="CODE", help="the one it belongs to")
    sub.add_argument("--title", default="", help="its AE title, for a DIMSE node")
    sub.add_argument("--host", default="", help="where it listens")
    sub.add_argument("--port", type=int, help="where it listens")
    sub.add_argument("--url", default="", help="its DICOMweb address; then it takes STOW-RS")
    sub.add_argument("--authorization-stdin", action="store_true", help="read the Authorization header to send it")
    sub.add_argument("--concurrency", type=int, default=2, metavar="N", help="deliveries at once")
    sub.add_argument("--tls", action="store_true", help="call it over TLS")
    sub.add_argument("--commitment", action="store_true", help="ask for storage commitment after each delivery")
    add("list", lambda o, s: _list(s, opened), "one JSON object a line, with how it is doing", actions)
    for word, run, text in (
        ("echo", _echo, "ask a node whether it is there"),
        ("pause", _pause, "send nothing to a node for now"),
        ("resume", _resume, "send to a node again"),
        ("remove", _remove, "forget a node"),
    ):
        sub = add(word, lambda o, s, run=run: run(o, s, opened), text, actions)
        sub.add_argument("name", help="as listed")
        sub.add_argument("--establishment", required=True, metavar="CODE", help="the one it belongs to")
    sub = add("send", lambda o, s: _send(o, s, opened), "send a study, or a series of it, to a node")
    sub.add_argument("study", help="its UID")
    sub.add_argument("--to", required=True, metavar="NODE", help="name of a node of the establishment")
    sub.add_argument("--establishment", required=True, metavar="CODE", help="the one that holds the study")
    sub.add_argument("--series", metavar="UID", help="this series alone")
    sub.add_argument("--priority", choices=[one.name.lower() for one in Priority], default="normal", help="its turn")


def _add(options: argparse.Namespace, settings: Settings, opened: Opened) -> int:
    secret = sys.stdin.readline().rstrip("\r\n") if options.authorization_stdin else ""
    node = NewNode(
        establishment=options.establishment,
        name=options.name,
        kind=NodeKind.DICOMWEB if options.url else NodeKind.DIMSE,
        title=options.title,
        host=options.host,
        port=options.port,
        url=options.url,
        secret=secret,
        concurrency=options.concurrency,
        commitment=options.commitment,
        tls=options.tls,
    )
    with opened(settings) as built:
        sending(built).nodes.add(node, by=COMMAND_LINE)
    return 0


def _list(settings: Settings, opened: Opened) -> int:
    with opened(settings) as built:
        for node in sending(built).nodes.listed(by=COMMAND_LINE):
            print(json.dumps(node_json(node)))
    return 0


def node_json(node: Node) -> dict[str, Any]:
    """A node as programs see it: without its secret."""
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
        "last_contact": node.contact_at.isoformat() if node.contact_at else None,
        "held": node.held,
        "waiting": node.waiting,
        "sending": node.sending,
        "committing": node.committing,
        "dead": node.dead,
    }


def _named(parts: Sending, options: argparse.Namespace) -> Node:
    for node in parts.nodes.listed(by=COMMAND_LINE):
        if (node.code, node.name) == (options.establishment, options.name):
            return node
    raise NotFound(f"no node {options.name} of {options.establishment}")


def _echo(options: argparse.Namespace, settings: Settings, opened: Opened) -> int:
    with opened(settings) as built:
        parts = sending(built)
        silent = echo(built, parts, _named(parts, options).node_id, COMMAND_LINE)
    if silent:
        raise SendingFailed(f"{options.name} does not answer: {silent}")
    print(f"{options.name} answers")
    return 0


def _pause(options: argparse.Namespace, settings: Settings, opened: Opened) -> int:
    with opened(settings) as built:
        parts = sending(built)
        parts.nodes.pause(_named(parts, options).node_id, True, by=COMMAND_LINE)
    return 0


def _resume(options: argparse.Namespace, settings: Settings, opened: Opened) -> int:
    with opened(settings) as built:
        parts = sending(built)
        parts.nodes.pause(_named(parts, options).node_id, False, by=COMMAND_LINE)
    return 0


def _remove(options: argparse.Namespace, settings: Settings, opened: Opened) -> int:
    with opened(settings) as built:
        parts = sending(built)
        parts.nodes.remove(_named(parts, options).node_id, by=COMMAND_LINE)
    return 0


def _send(options: argparse.Namespace, settings: Settings, opened: Opened) -> int:
    with opened(settings) as built:
        parts = sending(built)
        place = built.accounts.establishment(options.establishment)
        hand = parts.hand(place.code)
        node = parts.nodes.in_establishment(place.establishment_id, options.to)
        locate_or_fail(built, hand, options.study, options.series)
        priority = Priority[options.priority.upper()]
        print(parts.queue.ask(node, options.study, options.series, by=hand, priority=priority, door="cli"))
    return 0

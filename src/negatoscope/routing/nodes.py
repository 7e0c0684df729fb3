"""Remote nodes: where an establishment may send to, whether they answer, and who may change that.

A node belongs to one establishment and takes objects by C-STORE (``dimse``) or STOW-RS (``dicomweb``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import DictRow

from negatoscope.errors import BadRequest, Conflict, NotFound, PreconditionFailed
from negatoscope.model.actor import Actor, Right
from negatoscope.model.event import AuditEvent, EventAction, EventKind, EventOutcome
from negatoscope.queries import load_queries
from negatoscope.routing.ports import Journal, Unit, Units
from negatoscope.sharing import policy

QUERIES = load_queries("negatoscope.routing", "nodes.sql")
LARGEST_CONCURRENCY = 16
LONGEST_URL = 512
LONGEST_SECRET = 4096
_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")
_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")  # PS3.5 table 6.2-1, AE
_HOST = re.compile(r"[A-Za-z0-9_:]([A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?")


class NodeKind(StrEnum):
    DIMSE = "dimse"
    DICOMWEB = "dicomweb"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNode:
    """What is entered of a node."""

    establishment: str  # code
    name: str
    kind: NodeKind = NodeKind.DIMSE
    title: str = ""
    host: str = ""
    port: int | None = None
    url: str = ""
    secret: str = field(default="", repr=False)  # Authorization header sent to a DICOMweb node
    concurrency: int = 2  # deliveries at once
    commitment: bool = False  # ask for storage commitment after each delivery
    tls: bool = False  # a DIMSE node is called over TLS


@dataclass(frozen=True, slots=True)
class Node:
    """A node and how it is doing. Times by the database's clock."""

    node_id: int
    establishment_id: int
    code: str  # of the establishment
    name: str
    kind: NodeKind
    title: str
    host: str
    port: int | None
    url: str
    concurrency: int
    commitment: bool
    tls: bool
    paused_at: datetime | None
    contact_at: datetime | None
    failures: int  # times in a row that it did not answer
    failure: str  # why, the last time: a slug
    retry_at: datetime
    held: int = 0  # deliveries by state
    waiting: int = 0
    sending: int = 0
    committing: int = 0
    dead: int = 0
    oldest_at: datetime | None = None  # when the oldest delivery that is not sent was asked for
    secret: str = field(default="", repr=False)

    @property
    def certificates(self) -> frozenset[str]:
        """Fingerprints of which it must have one: none are bound, its name must be in its certificate."""
        return frozenset()

    @property
    def address(self) -> str:
        """Where it is, for people and for the audit trail; never the secret."""
        return self.url or f"{self.host}:{self.port}"

    @property
    def health(self) -> str:
        """A slug: paused, silent, answers, unknown."""
        if self.paused_at is not None:
            return "paused"
        if self.failures:
            return "silent"
        return "answers" if self.contact_at is not None else "unknown"


def check(node: NewNode) -> None:
    """Raises ``BadRequest`` with the first thing that is not well formed."""
    if not _NAME.fullmatch(node.name):
        raise BadRequest("a node's name has 1 to 32 letters, digits, dots, hyphens or underscores")
    if not 1 <= node.concurrency <= LARGEST_CONCURRENCY:
        raise BadRequest(f"a node takes 1 to {LARGEST_CONCURRENCY} deliveries at once")
    if node.kind is NodeKind.DIMSE:
        if not _TITLE.fullmatch(node.title):
            raise BadRequest("an AE title has 1 to 16 characters of ASCII, no backslash")
        if not _HOST.fullmatch(node.host):
            raise BadRequest("a host is an IP address or a host name")
        if node.port is None or not 1 <= node.port <= 65_535:
            raise BadRequest("a port is 1 to 65535 and needs a host")
        return
    _check_url(node.url)
    if len(node.secret) > LONGEST_SECRET or not all(" " <= letter <= "~" for letter in node.secret):
        raise BadRequest("an authorization is one line of printable ASCII")
    if node.commitment:
        raise BadRequest("storage commitment is a service of DIMSE nodes")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) <= 65_535
    except ValueError:
        fine = False
        parts = urlsplit("")
    plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= LONGEST_URL
    if not fine or not plain or parts.query or parts.fragment or parts.username or parts.password:
        raise BadRequest("the address of a DICOMweb node is http:// or https://, without user, query or fragment")


class Nodes:
    """Thread-safe."""

    def __init__(self, units: Units, trail: Journal) -> None:
        self._units, self._trail = units, trail

    def add(self, node: NewNode, *, by: Actor) -> int:
        """Its id.

        Raises:
            Forbidden: ``by`` administers nothing.
            BadRequest: a field is not well formed.
            NotFound: no such establishment, or not ``by``'s to administer.
            Conflict: the establishment has a node of that name.
        """
        mine = policy.administered(by)
        check(node)
        web = node.kind is NodeKind.DICOMWEB
        with self._units.unit(None) as unit:
            place = unit.execute(QUERIES["establishment"], {"code": node.establishment.replace("\0", "")}).fetchone()
            if place is None or mine not in (None, place["establishment_id"]):
                raise NotFound("no such establishment")
            values = {
                "establishment": node.establishment,
                "mine": [place["establishment_id"]],
                "name": node.name,
                "kind": node.kind.value,
                "title": "" if web else node.title,
                "host": "" if web else node.host.lower(),
                "port": None if web else node.port,
                "url": node.url.rstrip("/") if web else "",
                "secret": node.secret if web else "",
                "concurrency": node.concurrency,
                "commitment": node.commitment,
                "tls": node.tls and not web,
            }
            try:
                row = unit.execute(QUERIES["add"], values).fetchone()
            except psycopg.errors.UniqueViolation as error:
                raise Conflict(f"the node {node.name} is known there") from error
            assert row is not None
            where = values["url"] or f"{values['host']}:{values['port']}"
            self._changed(unit, by, EventAction.CREATE, node.name, node.establishment, address=str(where))
        return int(row["node_id"])

    def listed(self, *, by: Actor) -> list[Node]:
        """All to an administrator, those of its establishment to a referent. Raises ``Forbidden``."""
        return self._read(policy.administered(by))

    def sendable(self, *, by: Actor) -> list[Node]:
        """Where ``by`` may send to: the nodes of its own establishment. Raises ``Forbidden``."""
        policy.require(by, Right.RETRIEVE)
        return self._read(by.establishment_id)

    def get(self, node_id: int, *, by: Actor) -> Node:
        """Raises ``Forbidden``; ``NotFound`` when it is not there or not ``by``'s to administer."""
        return _only(self._read(policy.administered(by), node_id=node_id))

    def named(self, name: str, *, by: Actor) -> Node:
        """The node of that name where ``by`` may send to. Raises ``Forbidden``, ``NotFound``."""
        policy.require(by, Right.RETRIEVE)
        return _only(self._read(by.establishment_id, name=name.replace("\0", "")))

    def in_establishment(self, establishment_id: int, name: str) -> Node:
        """For rules and the command line. Raises ``NotFound``."""
        return _only(self._read(establishment_id, name=name.replace("\0", "")))

    def of_id(self, node_id: int) -> Node:
        """For the sender. Raises ``NotFound``."""
        return _only(self._read(None, node_id=node_id))

    def pause(self, node_id: int, paused: bool, *, by: Actor) -> None:
        """Stop sending to it (what is under way ends with its object), or go on. Raises as :meth:`get`."""
        node = self.get(node_id, by=by)
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["pause"], {"node_id": node_id, "paused": paused})
            if not paused:
                unit.execute(QUERIES["try_now"], {"node_id": node_id})
            change = "paused" if paused else "resumed"
            self._changed(unit, by, EventAction.UPDATE, node.name, node.code, change=change)

    def remove(self, node_id: int, *, by: Actor) -> None:
        """Forget it and its history.

        Raises:
            Forbidden, NotFound: as :meth:`get`.
            PreconditionFailed: deliveries wait for it; cancel them first.
        """
        node = self.get(node_id, by=by)
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["open_deliveries"], {"node_id": node_id}).fetchone()
            if row and row["count"]:
                raise PreconditionFailed("deliveries wait for this node; cancel them first")
            unit.execute(QUERIES["remove_history"], {"node_id": node_id})
            unit.execute(QUERIES["remove"], {"node_id": node_id})
            self._changed(unit, by, EventAction.DELETE, node.name, node.code)

    def answered(self, node_id: int) -> None:
        """It answered just now."""
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["answered"], {"node_id": node_id})

    def silent(self, node_id: int, failure: str, first_s: float, longest_s: float) -> int:
        """It did not answer: nothing is tried for ``first_s`` seconds, twice as long each time. How often in a row."""
        values = {"node_id": node_id, "failure": failure, "first_s": first_s, "longest_s": longest_s}
        with self._units.unit(None) as unit:
            row = unit.execute(QUERIES["silent"], values).fetchone()
        return int(row["failures"]) if row else 0

    def _read(self, establishment_id: int | None, node_id: int | None = None, name: str | None = None) -> list[Node]:
        values = {"establishment_id": establishment_id, "node_id": node_id, "name": name}
        with self._units.unit(None) as unit:
            return [_node(row) for row in unit.execute(QUERIES["nodes"], values)]

    def _changed(self, unit: Unit, by: Actor, action: EventAction, name: str, code: str, **detail: str | int) -> None:
        event = AuditEvent(
            EventKind.SECURITY_ALERT,
            action,
            EventOutcome.SUCCESS,
            by.actor_id or None,
            by.name,
            code,
            door="administration",
            detail={"what": "node-administration", "subject": name, **detail},
        )
        self._trail.append(unit, [event])


def _node(row: DictRow) -> Node:
    return Node(**row | {"kind": NodeKind(row["kind"])})


def _only(rows: list[Node]) -> Node:
    if len(rows) != 1:
        raise NotFound("no such node")
    return rows[0]

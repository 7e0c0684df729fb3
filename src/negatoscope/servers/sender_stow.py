"""Deliveries by STOW-RS, PS3.18 10.5: a few objects a request, each acknowledged by the answer's body."""

from __future__ import annotations

import http.client
import logging
import ssl
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

import orjson

from negatoscope.archive.retrieve import Retrieval
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.errors import CannotTranscode, CorruptObject, NegatoscopeError, Unavailable
from negatoscope.routing import Node
from negatoscope.servers.dicom_pixels import Transcoder
from negatoscope.servers.sender_run import NodeSilent, Parcel, Run, preferred

log = logging.getLogger(__name__)

TIMEOUT_S = 60.0  # for a connection, and for each step of an exchange
MOST_OBJECTS, MOST_BYTES = 32, 16 << 20  # of one request; a larger object goes alone
LONGEST_ANSWER = 16 << 20  # bytes
SPOOLED = 1 << 20  # bytes of a transcoded object that are kept in memory; the rest is in an unnamed file
READ = 1 << 20
_JSON = "application/dicom+json"
# The node's fault, or ours in reaching it, not the objects'.
_NODE_STATUSES = frozenset({401, 403, 404, 405, 407, 408, 425, 429, 507})


class StowCarrier:
    """Thread-safe: a connection belongs to the call."""

    def __init__(self, retrieval: Retrieval, transcoder: Transcoder) -> None:
        self._retrieval, self._transcoder = retrieval, transcoder

    def echo(self, node: Node) -> None:
        """A search that can have one answer at most. Raises NodeSilent."""
        connection = _connection(node)
        try:
            connection.request("GET", _path(node, "/studies?limit=1"), headers=_headers(node, {"Accept": _JSON}))
            answer = connection.getresponse()
            answer.read(LONGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise NodeSilent("no-connection") from error
        finally:
            connection.close()
        if answer.status not in (200, 204):
            raise NodeSilent(f"http-{answer.status}")

    def deliver(self, node: Node, parcels: Sequence[Parcel], run: Run) -> None:
        """See ``Carrier``."""
        connection = _connection(node)
        try:
            for batch in requests(parcels):
                run.check()
                self._post(connection, node, batch, run)
        finally:
            connection.close()

    def _post(self, connection: http.client.HTTPConnection, node: Node, batch: Sequence[Parcel], run: Run) -> None:
        """Send a request, without objects that turn out to be corrupt. Raises NodeSilent."""
        left = [part for one in batch if (part := self._prepare(one, run)) is not None]
        if any(part.spool for part in left):
            connection.close()  # the node may have tired of one that was idle meanwhile
        try:
            while left:
                body = _Body(self._retrieval, left)
                try:
                    connection.request(
                        "POST", _path(node, "/studies"), body=body.pieces(), headers=_headers(node, body.head())
                    )
                    answer = connection.getresponse()
                    run.connected.set()
                    text = answer.read(LONGEST_ANSWER + 1)
                except NegatoscopeError as error:
                    # Half of it is under way: without its end no server can take it for whole.
                    connection.close()
                    log.error("an object cannot be sent: %s", type(error).__name__)
                    assert body.current is not None
                    run.refused(body.current.parcel, "corrupt")
                    body.current.close()
                    left.remove(body.current)
                    continue
                except (OSError, http.client.HTTPException) as error:
                    connection.close()
                    if body.current is not None:  # else the connection could not be had: no object's fault
                        run.lost(part.parcel for part in left)
                    raise NodeSilent("connection-lost" if body.current else "no-connection") from error
                if answer.will_close:
                    connection.close()
                _judge(answer.status, text, [part.parcel for part in left], run)
                return
        finally:
            for part in left:
                part.close()

    def _prepare(self, parcel: Parcel, run: Run) -> _Part | None:
        """As the delivery wants it, else as stored; None: it cannot be sent, which is noted. Raises Unavailable."""
        record = parcel.record
        wanted = preferred(record, run.claimed.syntax)
        try:
            if wanted:
                with suppress(CannotTranscode):
                    return _transcoded(parcel, wanted, self._transcoder.transcode(record, parcel.study_uid, wanted))
        except Unavailable:
            raise
        except NegatoscopeError as error:
            log.error("an object cannot be sent: %s", type(error).__name__)
            run.refused(parcel, "corrupt" if isinstance(error, CorruptObject) else "unreadable")
            return None
        return _Part(parcel, record.transfer_syntax_uid, record.location.length)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """One object as it leaves."""

    parcel: Parcel
    syntax: str
    length: int  # of its data set, bytes
    spool: IO[bytes] | None = None  # its data set, when that is not the stored one

    def blocks(self, retrieval: Retrieval) -> Iterator[bytes]:
        """Raises CorruptObject."""
        if self.spool is None:
            yield from retrieval.read(self.parcel.record, self.parcel.study_uid)
            return
        self.spool.seek(0)
        while block := self.spool.read(READ):
            yield block

    def close(self) -> None:
        if self.spool is not None:
            self.spool.close()


def _transcoded(parcel: Parcel, syntax: str, pieces: Iterator[bytes]) -> _Part:
    """Set aside: a body says how long it is before its first byte."""
    spool = tempfile.SpooledTemporaryFile(SPOOLED, prefix="stow-")  # noqa: SIM115 - outlives the call
    try:
        for piece in pieces:
            spool.write(piece)
    except BaseException:
        spool.close()
        raise
    return _Part(parcel, syntax, spool.tell(), spool)


class _Body:
    """One multipart body of known length. ``current``: the part that is being read."""

    def __init__(self, retrieval: Retrieval, parts: Sequence[_Part]) -> None:
        self._retrieval, self._parts = retrieval, parts
        self._boundary = uuid.uuid4().hex
        self.current: _Part | None = None

    def head(self) -> dict[str, str]:
        size = sum(len(self._before(one)) + one.length + 2 for one in self._parts)
        return {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={self._boundary}',
            "Content-Length": str(size + len(self._end)),
            "Accept": _JSON,
        }

    def pieces(self) -> Iterator[bytes]:
        """Raises CorruptObject."""
        for part in self._parts:
            self.current = part
            yield self._before(part)
            yield from part.blocks(self._retrieval)
            yield b"\r\n"
        yield self._end

    def _before(self, part: _Part) -> bytes:
        record = part.parcel.record
        meta = write_file_meta(record.sop_class_uid, record.sop_instance_uid, part.syntax)
        return f"--{self._boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + meta

    @property
    def _end(self) -> bytes:
        return f"--{self._boundary}--\r\n".encode()


def requests(parcels: Sequence[Parcel]) -> Iterator[list[Parcel]]:
    """Parcels by request; one over which a connection was lost goes alone."""
    batch: list[Parcel] = []
    size = 0
    for parcel in parcels:
        alone = bool(parcel.wanted.losses)
        length = parcel.record.location.length
        if batch and (alone or len(batch) >= MOST_OBJECTS or size + length > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(parcel)
        size += length if not alone else MOST_BYTES
    if batch:
        yield batch


def _judge(status: int, text: bytes, parcels: Sequence[Parcel], run: Run) -> None:
    """PS3.18 table 10.5.3-1. Raises NodeSilent: nothing is known of these objects."""
    if status >= 500 or status in _NODE_STATUSES or status < 200 or 300 <= status < 400:
        raise NodeSilent(f"http-{status}")
    stored, failed = _outcomes(text)
    everything = status == 200 and not stored and not failed  # a short answer: all was stored
    for parcel in parcels:
        uid = parcel.record.sop_instance_uid
        if uid in stored or (everything and uid not in failed):
            run.acknowledged(parcel)
        else:
            run.refused(parcel, failed.get(uid, f"http-{status}"))


def _outcomes(text: bytes) -> tuple[set[str], dict[str, str]]:
    """SOP Instance UIDs stored, and those that were not with the reason in hexadecimal."""
    if len(text) > LONGEST_ANSWER:
        raise NodeSilent("answer-too-long")
    document: Any = None
    with suppress(orjson.JSONDecodeError):
        document = orjson.loads(text)
    if isinstance(document, list):
        document = document[0] if document else None
    if not isinstance(document, dict):
        return set(), {}
    failed = {}
    for item in _items(document, "00081198"):
        reason = _first(item, "00081197")
        failed[str(_first(item, "00081155"))] = f"{reason:04X}" if isinstance(reason, int) else "refused"
    return {str(_first(item, "00081155")) for item in _items(document, "00081199")} - set(failed), failed


def _items(document: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = document.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _first(item: dict[str, Any], tag: str) -> object:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else ""


def _connection(node: Node) -> http.client.HTTPConnection:
    parts = urlsplit(node.url)
    assert parts.hostname is not None
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT_S, context=context)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)


def _path(node: Node, resource: str) -> str:
    return urlsplit(node.url).path.rstrip("/") + resource


def _headers(node: Node, more: dict[str, str]) -> dict[str, str]:
    return more | ({"Authorization": node.secret} if node.secret else {})

"""What every route that gives images has in common: find within the scope, compare tags, audit, answer.

It blocks and runs on a worker thread; a route makes one trip there and sends what comes back. What was found
``prompt`` is on the event loop and may not wait: where it would have to, :class:`MustWait` is raised, and the
same is done again on a thread.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from negatoscope.audit.events import Disclosure
from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import NotAcceptable, NotFound, RangeNotSatisfiable
from negatoscope.model.actor import Right, Scope
from negatoscope.model.stored import InstanceRecord, SeriesHolding
from negatoscope.web.media_types import Choice, Offer, accept_of, describe, preferences
from negatoscope.web.sending import Body, GeneratedResponse, Piece, Span, VerifiedResponse, length_of
from negatoscope.web.services import DOOR, Services

INSTANCE_PATH = "/dicom-web/studies/{study_uid}/series/{series_uid}/instances/{sop_instance_uid}"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z", re.ASCII)
_LONGEST_REMEMBERED = 512  # characters of an Accept header whose reading is kept

FOUND = "negatoscope.found"  # in the scope of a request whose instance was found before its handler is called

Answer = ASGIApp  # a response, ready to be sent


class MustWait(Exception):
    """This is no work for the event loop."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a request names, and in whose name it may be read."""

    scope: Scope
    holdings: list[SeriesHolding]
    prompt: bool = False

    @property
    def study_uid(self) -> str:
        return self.holdings[0].study_uid

    @property
    def records(self) -> list[InstanceRecord]:
        return [record for holding in self.holdings for record in holding.instances]

    @property
    def instance(self) -> InstanceRecord:
        """The one instance of a request that names one."""
        return self.holdings[0].instances[0]


def find(
    services: Services, request: Request, study_uid: str, series_uid: str | None, sop_instance_uid: str | None
) -> Found:
    """Authenticate, bound, locate.

    Raises:
        Unauthenticated, Forbidden: nobody, or a role that reads no image.
        NotFound: nothing there, nothing for this actor, or no UID at all: the answer is the same.
    """
    scope = services.scope(request, Right.RETRIEVE)
    for uid in (study_uid, series_uid, sop_instance_uid):
        if uid is not None and not is_valid_uid(uid):
            raise NotFound("nothing here by that name")
    return Found(scope, services.retrieval.locate(scope, study_uid, series_uid, sop_instance_uid))


def find_by_path(services: Services, request: Request) -> Found:
    """:func:`find` by the parameters of the path."""
    path = request.path_params
    found: Found | None = request.scope.get(FOUND)
    return found or find(services, request, path["study_uid"], path.get("series_uid"), path.get("sop_instance_uid"))


def may_wait(found: Found) -> None:
    """To be called before what blocks. Raises MustWait."""
    if found.prompt:
        raise MustWait


def disclose(services: Services, request: Request, found: Found, action: Disclosure) -> None:
    """Return once the trail says that these images leave. Raises Unavailable: then nothing does."""
    if found.prompt:
        if not services.trail.is_covered(found.scope, action, {holding.study_uid for holding in found.holdings}):
            raise MustWait
        return
    address = services.authentication.address_of(request)
    services.trail.disclose(found.scope, action, {holding.study_uid for holding in found.holdings}, DOOR, address)


# Representations ----------------------------------------------------------------------------------


def wanted(request: Request, offers: tuple[Offer, ...]) -> list[Choice]:
    """Acceptable representations, best first. Raises NotAcceptable, BadRequest."""
    accept = accept_of(request.headers.get("accept"), request.query_params.get("accept"))
    short = accept is None or len(accept) <= _LONGEST_REMEMBERED
    choices = _remembered(accept, offers) if short else preferences(accept, offers)
    if not choices:
        raise NotAcceptable("this resource comes as " + ", ".join(dict.fromkeys(map(describe, offers))))
    return choices


@lru_cache(256)
def _remembered(accept: str | None, offers: tuple[Offer, ...]) -> list[Choice]:
    return preferences(accept, offers)


def tag_of(found: Found, *variant: object) -> str:
    """Entity tag of a representation: what is stored, its version, and how it is shown (RFC 9110 8.8.3)."""
    digest = hashlib.sha256(repr(variant).encode())
    for holding in found.holdings:
        digest.update(f"{holding.series_id}:{holding.series_uid}".encode())
        if len(holding.instances) > 1:
            digest.update(f":{holding.version}:{len(holding.instances)}".encode())
        for record in holding.instances[:1]:
            digest.update(record.sop_instance_uid.encode() + record.sha256[:8] + record.transfer_syntax_uid.encode())
    return f'W/"{digest.hexdigest()[:32]}"'


def unchanged(request: Request, tag: str) -> Response | None:
    """304 when the client holds this representation already (RFC 9110 13.1.2)."""
    given = request.headers.get("if-none-match")
    if given is None:
        return None
    tags = {one.strip().removeprefix("W/") for one in given.split(",")}
    if "*" in tags or tag.removeprefix("W/") in tags:
        return Response(status_code=304, headers={"etag": tag})
    return None


# Answers ------------------------------------------------------------------------------------------


def answer(
    services: Services, pieces: Sequence[Piece], headers: Mapping[str, str], *, status: int = 200
) -> VerifiedResponse:
    """A body of known length."""
    retrieval = services.retrieval

    def read(span: Span, buffer: memoryview, wait: bool) -> memoryview | None:
        return retrieval.read_into(span.record, span.offset, span.length, buffer, span.study_uid, wait=wait)

    def steps(span: Span, step: int) -> Iterator[bytes]:
        return retrieval.read_steps(span.record, span.offset, span.length, step, span.study_uid)

    return VerifiedResponse(
        Body(pieces, read, steps, services.room),
        services.executor,
        status=status,
        headers=headers,
        sent=lambda count: services.metrics.count("served_bytes_total", count, door=DOOR),
    )


def generated(services: Services, chunks: Iterator[bytes], headers: Mapping[str, str]) -> GeneratedResponse:
    """A body of unknown length. ``chunks`` are never empty."""
    return GeneratedResponse(next(chunks, b""), chunks, services.executor, headers=headers)


def ranged(
    services: Services, request: Request, pieces: Sequence[Piece], headers: Mapping[str, str]
) -> VerifiedResponse:
    """One value, or the byte range of it that is asked for (RFC 9110 14; a list of ranges gets the whole)."""
    length = length_of(pieces)
    headers = {**headers, "accept-ranges": "bytes"}
    bounds = parse_range(request.headers.get("range"), length)
    if bounds is None:
        return answer(services, pieces, headers)
    start, end = bounds
    headers["content-range"] = f"bytes {start}-{end - 1}/{length}"
    return answer(services, cut(pieces, start, end), headers, status=206)


def cut(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    """The pieces of a range of the whole."""
    kept: list[Piece] = []
    at = 0
    for piece in pieces:
        size = length_of([piece])
        first, last = max(start - at, 0), min(end - at, size)
        if first < last:
            if isinstance(piece, Span):
                kept.append(Span(piece.record, piece.offset + first, last - first, piece.study_uid))
            else:
                kept.append(piece[first:last])
        at += size
    return kept


def parse_range(header: str | None, length: int) -> tuple[int, int] | None:
    """Start and end (not included) of one byte range; None: serve everything.

    Raises:
        RangeNotSatisfiable: it begins after the end.
    """
    found = _RANGE.match(header.strip()) if header else None
    if found is None or len(header or "") > 64 or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, length - int(found[2])), length
    else:
        start, end = int(found[1]), min(int(found[2]) + 1, length) if found[2] else length
        if found[2] and int(found[2]) < start:
            return None  # not a valid range, so there is none
    if start >= end:
        raise RangeNotSatisfiable(f"the value has {length} bytes")
    return start, end

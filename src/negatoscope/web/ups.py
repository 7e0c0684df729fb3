"""UPS-RS: workitems made, read, updated, claimed, ended and searched for. PS3.18 11.4 to 11.9.

Whether a workitem is there and yours is judged before the body is looked at. The Transaction UID is the key of who
performs a workitem: it is in no answer. No matches is 200 with an empty list, as searches here do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from negatoscope.archive.query_rows import ALL
from negatoscope.dicom.uid import is_valid_uid
from negatoscope.dicom.xml_model import to_xml
from negatoscope.errors import (
    BadRequest,
    NotFound,
    UnsupportedMediaType,
    WorkitemEnded,
    WorkitemNotClaimed,
    WorkitemState,
)
from negatoscope.model.actor import Right
from negatoscope.web import problem
from negatoscope.web.media_types import (
    DICOM_JSON,
    DICOM_XML,
    JSON,
    MULTIPART,
    Choice,
    Offer,
    accept_of,
    check_charset,
    negotiate,
)
from negatoscope.web.native_xml import from_xml
from negatoscope.web.qido_parameters import parse_search
from negatoscope.web.services import DOOR, Services
from negatoscope.wire.multipart import MultipartWriter, new_boundary, parse_content_type
from negatoscope.worklist.ports import Asking
from negatoscope.worklist.ups_book import Search, Workitems

PREFIX = "/dicom-web/workitems"
OFFERS = (Offer(DICOM_JSON), Offer(JSON), Offer(MULTIPART, DICOM_XML))
_PLAIN = (Offer(DICOM_JSON), Offer(JSON), Offer(DICOM_XML), Offer(MULTIPART, DICOM_XML))
MORE = "There are additional results that can be requested"
CREATED_MODIFIED = "The Workitem was created with modifications"
ALREADY = "The UPS is already in the requested state of {}"
_CREATE_NAMES = ("workitem", "AffectedSOPInstanceUID", "affectedsopinstanceuid")
_TRANSACTION_NAMES = ("transaction", "transaction-uid", "transactionuid", "TransactionUID")

Endpoint = Callable[[Request], Awaitable[Response]]


def ups_routes(services: Services) -> list[BaseRoute]:
    doors = _Doors(services)
    return [
        Route(PREFIX, _warning(doors.create), methods=["POST"], name="create-workitem"),
        Route(PREFIX, _warning(doors.search), methods=["GET"], name="search-workitems"),
        Route(PREFIX + "/{workitem}", _warning(doors.retrieve), methods=["GET"], name="retrieve-workitem"),
        Route(PREFIX + "/{workitem}", _warning(doors.update), methods=["POST"], name="update-workitem"),
        Route(PREFIX + "/{workitem}/state", _warning(doors.move), methods=["PUT"], name="change-workitem-state"),
        Route(
            PREFIX + "/{workitem}/cancelrequest", _warning(doors.cancel), methods=["POST"], name="cancel-workitem"
        ),
    ]  # fmt: skip


def warning(text: str) -> str:
    """A Warning header field, RFC 7234 5.5: PS3.18 names the texts."""
    return f'299 negatoscope "{text}."'


def _warning(endpoint: Endpoint) -> Endpoint:
    """What is refused for a workitem's state says why in a Warning too (PS3.18 11.6.3.2, 11.7.3.2)."""

    async def warned(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (WorkitemNotClaimed, WorkitemEnded, WorkitemState) as error:
            response = problem.problem(error)
            response.headers["warning"] = warning(str(error).split(":", 1)[0])
            return response

    return warned


class _Doors:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._workitems = Workitems(services.database, services.trail, services.limits)

    async def create(self, request: Request) -> Response:
        by = await self._asking(request)
        uid = _named(request, _CREATE_NAMES)
        given = await self._body(request)
        made = await self._services.run(self._workitems.create, given, by, uid)
        headers = {"Location": f"{str(request.base_url).rstrip('/')}{PREFIX}/{made.uid}"}
        headers["Content-Location"] = headers["Location"]
        if made.modified:
            headers["Warning"] = warning(CREATED_MODIFIED)
        return Response(None, 201, headers)

    async def search(self, request: Request) -> Response:
        by = await self._asking(request)
        choice = _chosen(request, OFFERS)
        asked = parse_search(request.query_params.multi_items(), self._services.limits)
        include = asked.include_with(frozenset())
        search = Search(asked.matches, None if include is ALL else include, asked.fuzzy, asked.limit, asked.offset)
        found = await self._services.run(self._workitems.find, search, by)
        headers = {"Warning": f'299 negatoscope "{MORE}"'} if found.more else {}
        return _datasets(choice, found.rows, headers)

    async def retrieve(self, request: Request) -> Response:
        by = await self._asking(request)
        choice = _chosen(request, _PLAIN)
        found = await self._services.run(self._workitems.get, _uid(request), by)
        return _datasets(choice, [found], {})

    async def update(self, request: Request) -> Response:
        by, uid = await self._target(request)
        key = _named(request, _TRANSACTION_NAMES)
        given = await self._body(request)
        await self._services.run(self._workitems.update, uid, given, by, key)
        return Response(None, 200, {"Content-Location": f"{PREFIX}/{uid}"})

    async def move(self, request: Request) -> Response:
        by, uid = await self._target(request)
        given = await self._body(request)
        if await self._services.run(self._workitems.move, uid, given, by):
            return Response(None, 200)
        held = await self._services.run(self._workitems.get, uid, by)
        return Response(None, 200, {"Warning": warning(ALREADY.format(held["00741000"]["Value"][0]))})

    async def cancel(self, request: Request) -> Response:
        by, uid = await self._target(request)
        given = await self._body(request, empty=True)
        if await self._services.run(self._workitems.request_cancellation, uid, given, by):
            return Response(None, 202)
        return Response(None, 202, {"Warning": warning(ALREADY.format("CANCELED"))})

    async def _asking(self, request: Request) -> Asking:
        return await self._services.run(asking, self._services, request)

    async def _target(self, request: Request) -> tuple[Asking, str]:
        """Who asks and what for. Raises NotFound before anything of the request is judged."""
        by, uid = await self._asking(request), _uid(request)
        await self._services.run(self._workitems.check, uid, by)
        return by, uid

    async def _body(self, request: Request, *, empty: bool = False) -> Any:
        """The data set of the body. Raises UnsupportedMediaType, BadRequest."""
        body = await request.body()
        if empty and not body:
            return None
        media, _ = parse_content_type(request.headers.get("content-type", ""))
        if media in (DICOM_JSON, JSON):
            try:
                return orjson.loads(body)
            except orjson.JSONDecodeError:
                raise BadRequest("the body is no JSON") from None
        if media == DICOM_XML:
            return await self._services.run(from_xml, body, self._services.limits)
        raise UnsupportedMediaType(f"workitems are taken as {DICOM_JSON} or {DICOM_XML}")


def asking(services: Services, request: Request) -> Asking:
    """Raises Unauthenticated, Forbidden."""
    return Asking(services.scope(request, Right.WORKLIST), DOOR, services.authentication.address_of(request))


def _uid(request: Request) -> str:
    """The workitem that the path names; what is no UID names nothing."""
    uid = str(request.path_params["workitem"])
    if not is_valid_uid(uid):
        raise NotFound("no such workitem")
    return uid


def _named(request: Request, names: tuple[str, ...]) -> str:
    """A UID in the query: ``?1.2.3`` as PS3.18 writes it, or with one of ``names`` before it.

    Raises:
        BadRequest: no UID, two of them, or another parameter.
    """
    found = {
        value if name in names else name
        for name, value in request.query_params.multi_items()
        if name not in ("accept", "charset")
    } - {""}
    if len(found) > 1 or any(not is_valid_uid(uid) for uid in found):
        raise BadRequest("the query is a UID")
    return next(iter(found), "")


def _chosen(request: Request, offers: tuple[Offer, ...]) -> Choice:
    check_charset(request.query_params.get("charset"))
    return negotiate(accept_of(request.headers.get("accept"), request.query_params.get("accept")), offers)


def _datasets(choice: Choice, rows: list[dict[str, Any]], headers: dict[str, str]) -> Response:
    headers = {"Vary": "Accept", **headers}
    essence = choice.offer.essence
    if essence == DICOM_XML:
        return Response(to_xml(rows[0]), media_type=DICOM_XML, headers=headers)
    if essence != MULTIPART:
        return Response(orjson.dumps(rows), media_type=essence, headers=headers)
    writer = MultipartWriter(new_boundary())
    head = {"Content-Type": DICOM_XML}
    parts = [writer.part_head(head, first=place == 0) + to_xml(row) for place, row in enumerate(rows)]
    headers["Content-Type"] = writer.content_type(DICOM_XML)
    return Response(b"".join([*parts, writer.closing]), headers=headers)

"""QIDO-RS: search for studies, series and instances. PS3.18 8.3.4 and 10.6.

No answers is 200 with an empty list (table 10.6.3-1 since 2024; before, 204). That something is there but
not yours looks the same. The audit event is committed before the answer leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from negatoscope.archive.instance_details import instance_details
from negatoscope.archive.query import (
    Answers,
    Level,
    Query,
    find_instances,
    find_series,
    find_studies,
)
from negatoscope.archive.query_rows import SERIES_RETURN, STUDY_RETURN
from negatoscope.audit.events import queried
from negatoscope.dicom.tags import tag_text
from negatoscope.dicom.uid import is_valid_uid
from negatoscope.dicom.xml_model import to_xml
from negatoscope.errors import BadRequest
from negatoscope.model.actor import Right, Scope
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
from negatoscope.web.qido_parameters import Asked, parse_search
from negatoscope.web.services import DOOR, Services
from negatoscope.wire.multipart import MultipartWriter, new_boundary

PREFIX = "/dicom-web"
OFFERS = (Offer(DICOM_JSON), Offer(JSON), Offer(MULTIPART, DICOM_XML))
MORE = "There are additional results that can be requested"
NOT_MATCHED = "These attributes were not matched, the index does not hold them:"


@dataclass(frozen=True, slots=True)
class Resource:
    """One row of PS3.18 table 10.6.1-1 (and series by UID alone, which clients ask for)."""

    name: str
    path: str
    level: Level
    besides: frozenset[int] = frozenset()  # attributes of levels above that the path does not name


RESOURCES = (
    Resource("search-studies", "/studies", Level.STUDY),
    Resource("search-study-series", "/studies/{study_uid}/series", Level.SERIES),
    Resource("search-study-instances", "/studies/{study_uid}/instances", Level.INSTANCE, SERIES_RETURN),
    Resource("search-series-instances", "/studies/{study_uid}/series/{series_uid}/instances", Level.INSTANCE),
    Resource("search-series", "/series", Level.SERIES, STUDY_RETURN),
    Resource("search-instances-of-series", "/series/{series_uid}/instances", Level.INSTANCE, STUDY_RETURN),
    Resource("search-instances", "/instances", Level.INSTANCE, STUDY_RETURN | SERIES_RETURN),
)


def qido_routes(services: Services) -> list[BaseRoute]:
    return [Route(PREFIX + one.path, _endpoint(services, one), methods=["GET"], name=one.name) for one in RESOURCES]


def _endpoint(services: Services, resource: Resource) -> Callable[[Request], Any]:
    return partial(_serve, services, resource)


async def _serve(services: Services, resource: Resource, request: Request) -> Response:
    return await services.run(search, services, resource, request)


def search(services: Services, resource: Resource, request: Request) -> Response:
    """Negotiate, parse, find, record, answer.

    Raises:
        Unauthenticated, Forbidden, NotAcceptable, BadRequest, Unavailable.
    """
    scope = services.scope(request, Right.QUERY)
    choice = negotiate(accept_of(request.headers.get("accept"), request.query_params.get("accept")), OFFERS)
    check_charset(request.query_params.get("charset"))
    asked = parse_search(request.query_params.multi_items(), services.limits)
    query = _query(resource, request.path_params, asked)
    found = _find(services, scope, resource.level, query)
    event = queried(
        scope, resource.level, asked.matches, len(found.rows), DOOR, services.authentication.address_of(request)
    )
    services.trail.record([event])
    return _answer(choice, found)


def _query(resource: Resource, path: Mapping[str, str], asked: Asked) -> Query:
    for uid in path.values():
        if not is_valid_uid(uid):
            raise BadRequest("the path does not name a UID")
    return Query(
        study_uid=path.get("study_uid"),
        series_uid=path.get("series_uid"),
        matches=asked.matches,
        include=asked.include_with(resource.besides),
        fuzzy=asked.fuzzy,
        limit=asked.limit,
        offset=asked.offset,
        retrieve_prefix=PREFIX,
    )


def _find(services: Services, scope: Scope, level: Level, query: Query) -> Answers:
    if level is Level.STUDY:
        return find_studies(services.database, scope, query)
    if level is Level.SERIES:
        return find_series(services.database, scope, query)
    return find_instances(
        services.database, scope, query, partial(instance_details, services.retrieval, services.limits)
    )


def _answer(choice: Choice, found: Answers) -> Response:
    headers = {"Vary": "Accept"}
    if warnings := _warnings(found):
        headers["Warning"] = ", ".join(warnings)
    if choice.offer.essence != MULTIPART:
        return Response(orjson.dumps(found.rows), media_type=choice.offer.essence, headers=headers)
    writer = MultipartWriter(new_boundary())
    head = {"Content-Type": DICOM_XML}
    parts = [writer.part_head(head, first=place == 0) + to_xml(row) for place, row in enumerate(found.rows)]
    headers["Content-Type"] = writer.content_type(DICOM_XML)
    return Response(b"".join([*parts, writer.closing]), headers=headers)


def _warnings(found: Answers) -> list[str]:
    """PS3.18 10.6.3.1: what the client should know of a success."""
    warnings = [f'299 negatoscope "{MORE}"'] if found.more else []
    if found.ignored:
        names = " ".join(tag_text(tag) for tag in sorted(found.ignored))
        warnings.append(f'299 negatoscope "{NOT_MATCHED} {names}"')
    return warnings

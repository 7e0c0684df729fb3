"""WADO-URI, PS3.18 chapter 9: one object by query parameters, as older viewers and RIS links ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from negatoscope.audit.events import Disclosure
from negatoscope.dicom.pixels.describe import Window
from negatoscope.dicom.pixels.render import LARGEST_SIDE, RENDERED_MEDIA, RenderOptions, Viewport
from negatoscope.dicom.pixels.transcode import can_transcode
from negatoscope.errors import BadRequest, CannotTranscode, NotAcceptable
from negatoscope.model.stored import InstanceRecord
from negatoscope.web import wado
from negatoscope.web.delivery import Answer, Found, answer, disclose, find, generated, tag_of, unchanged
from negatoscope.web.media_types import ANY, DICOM, parse_accept
from negatoscope.web.rendered import decimal, rendered, whole_number
from negatoscope.web.services import Services

_KNOWN = (*RENDERED_MEDIA, DICOM)


def wado_uri_routes(services: Services) -> list[BaseRoute]:
    """``/wado``."""
    return [Route("/wado", partial(_serve, services), name="wado-uri")]


async def _serve(services: Services, request: Request) -> Answer:
    return await services.run(retrieve_object, services, request)


def retrieve_object(services: Services, request: Request) -> Answer:
    """The object as application/dicom, or a picture of it (image/jpeg unless it is none)."""
    query = request.query_params
    services.authentication.actor_of(request)  # a stranger is not even told what is wrong
    if query.get("requestType") != "WADO":
        raise BadRequest("requestType=WADO is needed")
    uids = [query.get(name, "") for name in ("studyUID", "seriesUID", "objectUID")]
    if not all(uids):
        raise BadRequest("studyUID, seriesUID and objectUID are needed")
    found = find(services, request, *uids)
    record = found.instance
    media = _media(query, request.headers.get("accept"), record)
    if media == DICOM:
        return _dicom(services, request, found, query.get("transferSyntax") or None)
    frame = whole_number(query.get("frameNumber", "1"), 1, 10**9 - 1, "frameNumber")
    options = _options(query, media, record)
    tag = tag_of(found, options, frame)
    if same := unchanged(request, tag):
        return same
    disclose(services, request, found, Disclosure.VIEW)
    picture = rendered(services, record, found.study_uid, frame, options)
    return answer(services, [picture], {"etag": tag, "content-type": media})


def _media(query: Mapping[str, str], accept: str | None, record: InstanceRecord) -> str:
    """contentType first, then Accept; by default a picture of images and the object of all else."""
    default = RENDERED_MEDIA[0] if record.rows else DICOM
    for names in (query.get("contentType"), accept):
        if names:
            for wanted in sorted(parse_accept(names.replace(";", ",") if "=" not in names else names), key=_weight):
                if wanted.essence in ("*/*", "image/*", "application/*"):
                    return DICOM if wanted.essence == "application/*" else default
                if wanted.essence in _KNOWN:
                    return wanted.essence
            raise NotAcceptable("this object comes as " + ", ".join(_KNOWN))
    return default


def _weight(wanted: object) -> float:
    return -float(getattr(wanted, "weight", 1.0))


def _dicom(services: Services, request: Request, found: Found, syntax: str | None) -> Answer:
    record = found.instance
    if syntax in (ANY, record.transfer_syntax_uid):
        syntax = None
    if syntax and not can_transcode(record.transfer_syntax_uid, syntax):
        raise CannotTranscode("the object cannot be had in that transfer syntax")
    tag = tag_of(found, DICOM, syntax)
    if same := unchanged(request, tag):
        return same
    disclose(services, request, found, Disclosure.TRANSFER)
    headers = {
        "etag": tag,
        "content-type": DICOM,
        "content-disposition": f'attachment; filename="{record.sop_instance_uid}.dcm"',
    }
    if syntax is None:
        return answer(services, wado.file_pieces(record, found.study_uid), headers)
    return generated(services, wado.transcoded_file(services, record, found.study_uid, syntax), headers)


def _options(query: Mapping[str, str], media: str, record: InstanceRecord) -> RenderOptions:
    center, width = query.get("windowCenter"), query.get("windowWidth")
    if (center is None) != (width is None):
        raise BadRequest("windowCenter and windowWidth go together")
    window = None
    if center is not None and width is not None:
        window = Window(decimal(center, "windowCenter"), decimal(width, "windowWidth"))
        if window.width < 1:
            raise BadRequest("windowWidth is at least 1")
    return RenderOptions(
        media=media,
        window=window,
        viewport=_viewport(query, record),
        quality=whole_number(query.get("imageQuality", "90"), 1, 100, "imageQuality"),
    )


def _viewport(query: Mapping[str, str], record: InstanceRecord) -> Viewport | None:
    """rows, columns and region (xmin,ymin,xmax,ymax as parts of the image, from 0 to 1)."""
    rows, columns, region = query.get("rows"), query.get("columns"), query.get("region")
    if rows is None and columns is None and region is None:
        return None
    full_rows, full_columns = record.rows or 1, record.columns or 1
    left, top, right, bottom = 0.0, 0.0, 1.0, 1.0
    if region is not None:
        parts = [decimal(part, "region") for part in region.split(",")]
        if len(parts) != 4 or not (0 <= parts[0] < parts[2] <= 1 and 0 <= parts[1] < parts[3] <= 1):
            raise BadRequest("region is xmin,ymin,xmax,ymax, each from 0 to 1")
        left, top, right, bottom = parts
    wide, high = (right - left) * full_columns, (bottom - top) * full_rows
    height = whole_number(rows, 1, LARGEST_SIDE, "rows") if rows else 0
    across = whole_number(columns, 1, LARGEST_SIDE, "columns") if columns else 0
    across = across or min(LARGEST_SIDE, max(1, round(wide * (height / high if height else 1))))
    height = height or min(LARGEST_SIDE, max(1, round(high * (across / wide))))
    return Viewport(across, height, left * full_columns, top * full_rows, wide, high)

"""WADO-RS bulk data, PS3.18 10.4.1.1.5: the values that metadata give by reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request

from negatoscope.archive.open_metadata import stored_instance_json
from negatoscope.archive.partial import PartialObject
from negatoscope.audit.events import Disclosure
from negatoscope.dicom.json_model import find_bulk, read_bulk
from negatoscope.dicom.pixels.header import PIXEL_TAGS
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.errors import NegatoscopeError, NotFound
from negatoscope.model.stored import InstanceRecord, SeriesHolding
from negatoscope.web.delivery import (
    Answer,
    answer,
    cut,
    disclose,
    find_by_path,
    generated,
    parse_range,
    ranged,
    tag_of,
    unchanged,
    wanted,
)
from negatoscope.web.media_types import MULTIPART, OCTET_STREAM, Offer
from negatoscope.web.sending import Piece, Span, length_of
from negatoscope.web.services import Services
from negatoscope.wire.multipart import MultipartWriter, new_boundary

VALUE = (Offer(MULTIPART, OCTET_STREAM), Offer(OCTET_STREAM))
VALUES = (Offer(MULTIPART, OCTET_STREAM),)
_PATH = re.compile(r"[0-9A-F]{8}(?:/[0-9]{1,9}/[0-9A-F]{8})*")


def retrieve_value(services: Services, request: Request) -> Answer:
    """One value: a multipart body of one part, or bare bytes, of which a range may be asked for."""
    path = request.path_params["path"].upper()
    if not _PATH.fullmatch(path):
        raise NotFound("bulk data")
    choice = wanted(request, VALUE)[0]
    bare = choice.offer.part is None
    found = find_by_path(services, request)
    tag = tag_of(found, path, bare)
    if same := unchanged(request, tag):
        return same
    value = _value(services, found.instance, found.study_uid, path)
    disclose(services, request, found, Disclosure.VIEW)
    if bare:
        return ranged(services, request, [value], {"etag": tag, "content-type": OCTET_STREAM})
    writer = MultipartWriter(new_boundary())
    length = length_of([value])
    bounds = parse_range(request.headers.get("range"), length)
    headers = {"etag": tag, "content-type": writer.content_type(OCTET_STREAM), "accept-ranges": "bytes"}
    about = {"Content-Type": OCTET_STREAM, "Content-Location": request.url.path}
    pieces: list[Piece] = [value]
    if bounds is not None:  # the range is of the value: the parts of multipart/related are values, PS3.18 8.6.1.2
        about["Content-Range"] = headers["content-range"] = f"bytes {bounds[0]}-{bounds[1] - 1}/{length}"
        pieces = cut(pieces, *bounds)
    pieces = [writer.part_head(about, first=True), *pieces, writer.closing]
    return answer(services, pieces, headers, status=200 if bounds is None else 206)


def retrieve_all(services: Services, request: Request) -> Answer:
    """Every bulk value of an instance, series or study but its pixel data, one part a value."""
    wanted(request, VALUES)
    found = find_by_path(services, request)
    tag = tag_of(found, "bulkdata")
    if same := unchanged(request, tag):
        return same
    disclose(services, request, found, Disclosure.VIEW)
    writer = MultipartWriter(new_boundary())
    headers = {"etag": tag, "content-type": writer.content_type(OCTET_STREAM)}
    return generated(services, _parts(services, writer, found.holdings), headers)


def _parts(services: Services, writer: MultipartWriter, holdings: list[SeriesHolding]) -> Iterator[bytes]:
    first = True
    for holding in holdings:
        for record in holding.instances:
            document = stored_instance_json(services.retrieval, holding, record, services.limits)
            for uri in _addresses(document):
                path = uri.split("/bulkdata/", 1)[1]
                if int(path[:8], 16) in PIXEL_TAGS:
                    continue
                head = writer.part_head({"Content-Type": OCTET_STREAM, "Content-Location": uri}, first=first)
                value = _value(services, record, holding.study_uid, path)
                first = False
                yield head
                yield from _bytes(services, value)
    if first:
        raise NotFound("nothing here has bulk data")
    yield writer.closing


def _bytes(services: Services, value: Piece) -> Iterator[bytes]:
    if not isinstance(value, Span):
        yield bytes(value)
        return
    for at in range(0, value.length, 1 << 20):
        size = min(1 << 20, value.length - at)
        yield services.retrieval.read_range(value.record, value.offset + at, size, value.study_uid)


def _addresses(dataset: dict[str, Any]) -> Iterator[str]:
    """BulkDataURIs of a DICOM JSON object, nested ones too; its depth was judged when it was made."""
    for element in dataset.values():
        if "BulkDataURI" in element:
            yield element["BulkDataURI"]
        elif element["vr"] == "SQ":
            for item in element.get("Value", ()):
                yield from _addresses(item)


def _value(services: Services, record: InstanceRecord, study_uid: str, path: str) -> Piece:
    """The value at ``path``: a run of stored bytes where it can be given as it lies. Raises NotFound."""
    syntax = transfer_syntax(record.transfer_syntax_uid)
    with PartialObject(services.retrieval, record, study_uid, services.limits) as opened:
        if opened.sparse and not syntax.deflated:
            top = int(path[:8], 16)
            try:
                header = opened.header()
            except NegatoscopeError:
                header = None
            pixels = next((header.elements[tag] for tag in PIXEL_TAGS if tag in header), None) if header else None
            if pixels is not None and top == pixels.tag and not pixels.undefined and syntax.little_endian:
                return Span(record, pixels.offset, pixels.length, study_uid)
            if pixels is not None and top < pixels.tag:
                with opened.buffer[: pixels.start] as before:
                    return read_bulk(before, record.transfer_syntax_uid, path, services.limits)
            opened.need_all()
        if syntax.little_endian and not syntax.deflated and int(path[-8:], 16) in PIXEL_TAGS:
            offset, length = find_bulk(opened.buffer, record.transfer_syntax_uid, path, services.limits)
            return Span(record, offset, length, study_uid)
        return read_bulk(opened.buffer, record.transfer_syntax_uid, path, services.limits)

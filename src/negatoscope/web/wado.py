"""WADO-RS: studies, series, instances as objects, and their metadata. PS3.18 10.4.

404 also stands for "not yours". 406 is decided before any byte leaves. The audit event commits before the
first byte. Objects leave as they were received, behind a file meta group of ours; another transfer syntax
only when Accept asks for it.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import orjson
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from negatoscope.archive.open_metadata import stored_instance_json
from negatoscope.archive.partial import PartialObject
from negatoscope.audit.events import Disclosure
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.dicom.pixels.transcode import can_transcode
from negatoscope.dicom.xml_model import to_xml
from negatoscope.errors import CannotTranscode, CorruptObject
from negatoscope.model.stored import InstanceRecord, SeriesHolding
from negatoscope.web import bulkdata, frames, rendered
from negatoscope.web.delivery import (
    FOUND,
    INSTANCE_PATH,
    Answer,
    Found,
    MustWait,
    answer,
    disclose,
    find_by_path,
    generated,
    may_wait,
    tag_of,
    unchanged,
    wanted,
)
from negatoscope.web.locating import Locator
from negatoscope.web.media_types import ANY, DICOM, DICOM_JSON, DICOM_XML, JSON, MULTIPART, Choice, Offer
from negatoscope.web.sending import Piece, Span
from negatoscope.web.services import Services
from negatoscope.wire.multipart import MultipartWriter, new_boundary

ZIP = "application/zip"
PARTS = Offer(MULTIPART, DICOM)
OBJECTS = (PARTS, Offer(ZIP))
OBJECT = (PARTS, Offer(DICOM), Offer(ZIP))
METADATA = (Offer(DICOM_JSON), Offer(JSON), Offer(MULTIPART, DICOM_XML))
_ZIP_BLOCK = 1 << 18

Handler = Callable[[Services, Request], Answer]


def wado_routes(services: Services) -> list[BaseRoute]:
    """Below ``/dicom-web``. The routes asked most come first."""
    study = "/dicom-web/studies/{study_uid}"
    series = study + "/series/{series_uid}"
    levels = {"instance": INSTANCE_PATH, "series": series, "study": study}
    table: list[tuple[str, str, Handler]] = [
        ("retrieve-frames", INSTANCE_PATH + "/frames/{frames}", frames.retrieve_frames),
        ("retrieve-instance", INSTANCE_PATH, retrieve_objects),
        ("rendered-frames", INSTANCE_PATH + "/frames/{frames}/rendered", rendered.retrieve_rendered),
        ("thumbnail-frames", INSTANCE_PATH + "/frames/{frames}/thumbnail", rendered.retrieve_thumbnail),
        ("bulkdata", INSTANCE_PATH + "/bulkdata/{path:path}", bulkdata.retrieve_value),
    ]
    for level, path in levels.items():
        if level != "instance":
            table.append((f"retrieve-{level}", path, retrieve_objects))
        table += [
            (f"metadata-{level}", path + "/metadata", retrieve_metadata),
            (f"rendered-{level}", path + "/rendered", rendered.retrieve_rendered),
            (f"thumbnail-{level}", path + "/thumbnail", rendered.retrieve_thumbnail),
            (f"bulkdata-{level}", path + "/bulkdata", bulkdata.retrieve_all),
            (f"pixeldata-{level}", path + "/pixeldata", frames.retrieve_pixel_data),
        ]
    locator = Locator(services)
    prompt = {"retrieve-frames", "retrieve-instance"}
    return [
        Route(path, _endpoint(services, handler, locator if name in prompt else None), name=name)
        for name, path, handler in table
    ]


def _endpoint(services: Services, handler: Handler, locator: Locator | None) -> Answer:
    """A route that makes one trip to a worker thread and sends what came of it; with ``locator`` not even that
    where nothing has to be waited for."""
    if locator is None:
        return partial(_serve, services, handler)  # type: ignore[return-value]  # Starlette tells by its signature
    return partial(_serve_prompt, services, handler, locator)  # type: ignore[return-value]  # as above


async def _serve(services: Services, handler: Handler, request: Request) -> Answer:
    return await services.run(_handle, services, handler, request)


async def _serve_prompt(services: Services, handler: Handler, locator: Locator, request: Request) -> Answer:
    found = await locator.instance_of(request)
    if found is not None:
        request.scope[FOUND] = found
        try:
            return handler(services, request)
        except MustWait:
            request.scope[FOUND] = replace(found, prompt=False)
    return await services.run(_handle, services, handler, request)


def _handle(services: Services, handler: Handler, request: Request) -> Answer:
    services.authentication.actor_of(request)  # a stranger is not even told what is wrong
    return handler(services, request)


# Objects ------------------------------------------------------------------------------------------


def retrieve_objects(services: Services, request: Request) -> Answer:
    """A study, series or instance: multipart/related of application/dicom, one part an instance; a ZIP; for an
    instance also the bare application/dicom."""
    single = "sop_instance_uid" in request.path_params
    choices = wanted(request, OBJECT if single else OBJECTS)
    found = find_by_path(services, request)
    choice, syntax = _possible(choices, found.records)
    tag = tag_of(found, choice.offer.essence, syntax)
    if same := unchanged(request, tag):
        return same
    disclose(services, request, found, Disclosure.TRANSFER)
    headers = {"etag": tag}
    if syntax is not None or choice.offer.essence == ZIP:
        may_wait(found)
    if choice.offer.essence == ZIP:
        headers |= {"content-type": ZIP, "content-disposition": 'attachment; filename="images.zip"'}
        return generated(services, _zipped(services, found, syntax), headers)
    if choice.offer.essence == DICOM:
        record = found.instance
        headers |= {
            "content-type": f"{DICOM}; transfer-syntax={syntax or record.transfer_syntax_uid}",
            "content-disposition": f'attachment; filename="{record.sop_instance_uid}.dcm"',
        }
        if syntax is None:
            return answer(services, file_pieces(record, found.study_uid), headers)
        return generated(services, transcoded_file(services, record, found.study_uid, syntax), headers)
    writer = MultipartWriter(new_boundary())
    headers["content-type"] = writer.content_type(DICOM)
    if syntax is None:
        return answer(services, _parts(writer, found), headers)
    return generated(services, _transcoded_parts(services, writer, found, syntax), headers)


def _possible(choices: list[Choice], records: list[InstanceRecord]) -> tuple[Choice, str | None]:
    """The best choice that all instances can be had in, and its transfer syntax (None: as stored)."""
    for choice in choices:
        syntax = choice.transfer_syntax
        if syntax in (None, ANY) or all(record.transfer_syntax_uid == syntax for record in records):
            return choice, None
        if syntax and all(can_transcode(record.transfer_syntax_uid, syntax) for record in records):
            return choice, syntax
    raise CannotTranscode("not all instances can be had in that transfer syntax")


def file_pieces(record: InstanceRecord, study_uid: str) -> list[Piece]:
    """A DICOM file: file meta of ours, the data set as it is kept."""
    meta = write_file_meta(record.sop_class_uid, record.sop_instance_uid, record.transfer_syntax_uid)
    return [meta, Span(record, 0, record.location.length, study_uid)]


def location(holding: SeriesHolding, record: InstanceRecord) -> str:
    """The address of an instance."""
    return INSTANCE_PATH.format(
        study_uid=holding.study_uid, series_uid=holding.series_uid, sop_instance_uid=record.sop_instance_uid
    )


def _part_head(
    writer: MultipartWriter, holding: SeriesHolding, record: InstanceRecord, syntax: str, first: bool
) -> bytes:
    headers = {
        "Content-Type": f"{DICOM}; transfer-syntax={syntax}",
        "Content-Location": location(holding, record),
    }
    return writer.part_head(headers, first=first)


def _instances(found: Found) -> Iterator[tuple[SeriesHolding, InstanceRecord]]:
    return ((holding, record) for holding in found.holdings for record in holding.instances)


def _parts(writer: MultipartWriter, found: Found) -> list[Piece]:
    pieces: list[Piece] = []
    for holding, record in _instances(found):
        meta, data = file_pieces(record, holding.study_uid)
        head = _part_head(writer, holding, record, record.transfer_syntax_uid, not pieces)
        pieces += [head + meta, data] if isinstance(meta, bytes) else [head, meta, data]
    return [*pieces, writer.closing]


def _transcoded_parts(services: Services, writer: MultipartWriter, found: Found, syntax: str) -> Iterator[bytes]:
    for number, (holding, record) in enumerate(_instances(found)):
        chunks = transcoded_file(services, record, holding.study_uid, syntax)
        yield _part_head(writer, holding, record, syntax, number == 0) + next(chunks)
        yield from chunks
    yield writer.closing


def transcoded_file(services: Services, record: InstanceRecord, study_uid: str, syntax: str) -> Iterator[bytes]:
    """A DICOM file in another syntax; every frame is proven equal before its bytes leave."""
    meta = write_file_meta(record.sop_class_uid, record.sop_instance_uid, syntax)
    with PartialObject(services.retrieval, record, study_uid, services.limits) as opened:
        opened.need_all()
        chunks = services.pixels.transcode(opened.buffer, record.transfer_syntax_uid, syntax)
        yield meta + next(chunks, b"")
        yield from (chunk for chunk in chunks if chunk)


class _Sink:
    """What a ZIP writer writes to: cannot be sought in, so sizes follow the data (APPNOTE 4.3.9)."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes, /) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """The file belongs to whoever reads it."""

    def take(self) -> bytes:
        taken, self._written = bytes(self._written), bytearray()
        return taken

    def __len__(self) -> int:
        return len(self._written)


def _zipped(services: Services, found: Found, syntax: str | None) -> Iterator[bytes]:
    """A ZIP of DICOM files, not compressed again, named by UIDs alone."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for holding, record in _instances(found):
            name = f"{holding.series_uid}/{record.sop_instance_uid}.dcm"
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            large = record.location.length >= (1 << 31) or syntax is not None
            with archive.open(entry, "w", force_zip64=large) as file:
                for chunk in _file_chunks(services, holding, record, syntax):
                    file.write(chunk)
                    if len(sink) >= _ZIP_BLOCK:
                        yield sink.take()
    yield sink.take()


def _file_chunks(
    services: Services, holding: SeriesHolding, record: InstanceRecord, syntax: str | None
) -> Iterator[bytes]:
    if syntax is not None:
        yield from transcoded_file(services, record, holding.study_uid, syntax)
        return
    yield write_file_meta(record.sop_class_uid, record.sop_instance_uid, record.transfer_syntax_uid)
    yield from services.retrieval.read(record, holding.study_uid)


# Metadata -----------------------------------------------------------------------------------------


def retrieve_metadata(services: Services, request: Request) -> Answer:
    """Everything but bulk values, of all instances: DICOM JSON, or one XML document a part."""
    choice = wanted(request, METADATA)[0]
    found = find_by_path(services, request)
    tag = tag_of(found, choice.offer.essence)
    if same := unchanged(request, tag):
        return same
    disclose(services, request, found, Disclosure.VIEW)
    headers = {"etag": tag}
    if choice.offer.essence == MULTIPART:
        writer = MultipartWriter(new_boundary())
        headers["content-type"] = writer.content_type(DICOM_XML)
        return generated(services, _xml_parts(services, writer, found), headers)
    headers |= {"content-type": choice.offer.essence, "vary": "accept-encoding"}
    if len(found.holdings) == 1 and "sop_instance_uid" not in request.path_params and _takes_gzip(request):
        block = services.retrieval.stored_metadata(found.holdings[0])
        if block is not None:
            _open(block)
            return answer(services, [block], {**headers, "content-encoding": "gzip"})
    whole = "sop_instance_uid" not in request.path_params
    arrays = [text for holding in found.holdings if (text := _json_items(services, holding, whole))]
    return answer(services, [b"[" + b",".join(arrays) + b"]"], headers)


def _json_items(services: Services, holding: SeriesHolding, whole: bool) -> bytes:
    """The JSON objects of a series' instances, commas between: the stored block, or made from headers."""
    block = services.retrieval.stored_metadata(holding) if whole else None
    if block is not None:
        return _open(block)[1:-1]
    retrieval, limits = services.retrieval, services.limits
    return b",".join(
        orjson.dumps(stored_instance_json(retrieval, holding, record, limits)) for record in holding.instances
    )


def _open(block: bytes) -> bytes:
    """The stored array; gzip's own checksum verifies it. Raises CorruptObject."""
    try:
        return gzip.decompress(block)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptObject("stored metadata do not match their checksum") from error


def _xml_parts(services: Services, writer: MultipartWriter, found: Found) -> Iterator[bytes]:
    first = True
    for holding, record in _instances(found):
        document = to_xml(stored_instance_json(services.retrieval, holding, record, services.limits))
        head = {"Content-Type": DICOM_XML, "Content-Location": location(holding, record) + "/metadata"}
        yield writer.part_head(head, first=first) + document
        first = False
    yield writer.closing


def _takes_gzip(request: Request) -> bool:
    codings = request.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
    return any(coding.split(";q=")[0] in ("gzip", "*") and not coding.endswith(";q=0") for coding in codings)

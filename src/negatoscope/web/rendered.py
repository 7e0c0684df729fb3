"""Rendered pictures and thumbnails, PS3.18 10.4.1.1.3 and 8.3.5.

Documents and videos are given as they are, with byte ranges. Everything that decodes runs in the pixel pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from starlette.requests import Request

from negatoscope.archive.open_metadata import stored_instance_json
from negatoscope.archive.partial import WHOLE, PartialObject
from negatoscope.audit.events import Disclosure
from negatoscope.dicom.pixels.describe import Window
from negatoscope.dicom.pixels.documents import encapsulated_document, video_stream
from negatoscope.dicom.pixels.header import plain
from negatoscope.dicom.pixels.render import LARGEST_SIDE, RENDERED_MEDIA, RenderOptions, Viewport, placeholder_thumbnail
from negatoscope.dicom.pixels.source import Source
from negatoscope.dicom.uid import TRANSFER_SYNTAXES, transfer_syntax
from negatoscope.errors import BadRequest, CorruptObject, NotAcceptable, NotFound, PixelsUnreadable
from negatoscope.model.checksum import BLOCK, covering
from negatoscope.model.stored import InstanceRecord, SeriesHolding
from negatoscope.web.delivery import (
    Answer,
    Found,
    answer,
    disclose,
    find_by_path,
    generated,
    ranged,
    tag_of,
    unchanged,
    wanted,
)
from negatoscope.web.frames import parse_frames
from negatoscope.web.media_types import MULTIPART, OCTET_STREAM, Offer, negotiate
from negatoscope.web.sending import Piece, Span
from negatoscope.web.services import Services
from negatoscope.wire.multipart import MultipartWriter, new_boundary

_DOCUMENTS = frozenset(f"1.2.840.10008.5.1.4.1.1.104.{number}" for number in range(1, 6))  # PDF, CDA, STL, OBJ, MTL
_DOCUMENT_MEDIA = frozenset({"application/pdf", "text/xml", "model/stl", "model/obj", "model/mtl"})
_SHOWN = frozenset({"application/pdf", "video/mpeg", "video/mp4", "video/H265"})  # by browsers, harmlessly
THUMBNAIL_SIDE = 128
_VIDEO = frozenset(uid for uid, syntax in TRANSFER_SYNTAXES.items() if syntax.video)
PICTURES = (*(Offer(media) for media in RENDERED_MEDIA), *(Offer(MULTIPART, media) for media in RENDERED_MEDIA))
THUMBNAILS = tuple(Offer(media) for media in RENDERED_MEDIA)
_FUNCTIONS = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}


def retrieve_rendered(services: Services, request: Request) -> Answer:
    """Pictures. One instance or frame: the bare picture, unless multipart is asked for. Several: one a part."""
    frames = parse_frames(request.path_params["frames"]) if "frames" in request.path_params else [1]
    found = find_by_path(services, request)
    if "sop_instance_uid" in request.path_params and (document := _as_it_is(services, request, found)) is not None:
        return document
    choices = wanted(request, PICTURES)
    several = "sop_instance_uid" not in request.path_params or len(frames) > 1
    choice = next((one for one in choices if (one.offer.part is not None) == several), choices[0])
    media = choice.offer.part or choice.offer.essence
    options = render_options(request.query_params, media)
    if (marks := request.query_params.get("annotation")) is not None:
        options = _with(options, _annotations(services, found, marks))
    tag = tag_of(found, options, frames, choice.offer)
    if same := unchanged(request, tag):
        return same
    disclose(services, request, found, Disclosure.VIEW)
    if choice.offer.part is None:
        holding, record = (found.holdings[0], found.instance) if not several else representative(found)
        picture = rendered(services, record, holding.study_uid, frames[0], options)
        return answer(services, [picture], {"etag": tag, "content-type": media})
    writer = MultipartWriter(new_boundary())
    headers = {"etag": tag, "content-type": writer.content_type(media)}
    return generated(services, _parts(services, writer, found, frames, options), headers)


def retrieve_thumbnail(services: Services, request: Request) -> Answer:
    """One small picture that stands for a study, series, instance or frame; a labelled tile for what is none."""
    frame = parse_frames(request.path_params["frames"])[0] - 1 if "frames" in request.path_params else None
    media = wanted(request, THUMBNAILS)[0].offer.essence
    side = _side(request.query_params.get("viewport"))
    found = find_by_path(services, request)
    holding, record = representative(found)
    tag = tag_of(found, "thumbnail", record.sop_instance_uid, media, side, frame)
    if same := unchanged(request, tag):
        return same
    disclose(services, request, found, Disclosure.VIEW)
    return answer(
        services, [small_picture(services, holding, record, frame, side, media)], {"etag": tag, "content-type": media}
    )


def small_picture(
    services: Services, holding: SeriesHolding, record: InstanceRecord, frame: int | None, side: int, media: str
) -> bytes:
    """A thumbnail, or a tile with the modality. Raises NotFound: no such frame."""
    if not record.rows or record.transfer_syntax_uid in _VIDEO:
        return placeholder_thumbnail(holding.modality, side, media)
    if frame is None and (record.number_of_frames or 1) > 1:
        frame = (record.number_of_frames or 1) // 2
    source = _source(services, record, holding.study_uid, frame or 0)
    try:
        return services.pixels.thumbnail(source, record.transfer_syntax_uid, frame, side, media)
    except (NotAcceptable, PixelsUnreadable):
        return placeholder_thumbnail(holding.modality, side, media)


def rendered(services: Services, record: InstanceRecord, study_uid: str, frame: int, options: RenderOptions) -> bytes:
    """One frame, counted from 1, as a picture. Raises NotFound, NotAcceptable, PixelsUnreadable, BadRequest."""
    if not record.rows:
        raise NotAcceptable("the instance is no image")
    source = _source(services, record, study_uid, frame - 1)
    return services.pixels.render(source, record.transfer_syntax_uid, frame - 1, options)


def _source(services: Services, record: InstanceRecord, study_uid: str, frame: int) -> Source:
    """The header and one frame (from 0) of a large object; all of a small or an encapsulated one, whose fragments
    must be walked. Raises NotFound: no such frame."""
    length = record.location.length
    needed = [(0, length)]
    if length > WHOLE:
        table = services.frame_tables.of(record, study_uid)
        if not 0 <= frame < len(table.frames):
            raise NotFound(f"the instance has {len(table.frames)} frames")
        if table.addressable and not table.encapsulated:
            needed = [(0, table.header_end), *((offset, offset + size) for offset, size in table.frames[frame])]

    def read(start: int, room: memoryview) -> None:
        """A MiB at a time: its checksum is taken while it is still in the processor's cache."""
        for at in range(0, len(room), BLOCK):
            with room[at : at + BLOCK] as block:
                if services.retrieval.read_into(record, start + at, len(block), block, study_uid) is None:
                    raise CorruptObject("stored bytes are missing")

    return Source(length, _blocks(needed, length), read)


def _blocks(needed: Iterable[tuple[int, int]], length: int) -> tuple[tuple[int, int], ...]:
    """The blocks, each once, in which ranges lie, as runs: a checksum covers a whole block."""
    runs: list[tuple[int, int]] = []
    for offset, end in sorted(needed):
        first, last = covering(offset, end - offset, length)
        if runs and first <= runs[-1][1]:
            runs[-1] = (runs[-1][0], max(runs[-1][1], last))
        else:
            runs.append((first, last))
    return tuple(runs)


def representative(found: Found) -> tuple[SeriesHolding, InstanceRecord]:
    """The instance that stands for what was found: the middle image of the first series that has any."""
    for holding in found.holdings:
        images = [record for record in holding.instances if record.rows]
        if images:
            return holding, images[len(images) // 2]
    return found.holdings[0], found.holdings[0].instances[0]


def _parts(
    services: Services, writer: MultipartWriter, found: Found, frames: list[int], options: RenderOptions
) -> Iterator[bytes]:
    first = True
    for holding in found.holdings:
        for record in holding.instances:
            if not record.rows or record.transfer_syntax_uid in _VIDEO:
                continue
            for frame in frames:
                picture = rendered(services, record, holding.study_uid, frame, options)
                yield writer.part_head({"Content-Type": options.media}, first=first) + picture
                first = False
    if first:
        raise NotAcceptable("nothing here can be rendered as a picture")
    yield writer.closing


def _as_it_is(services: Services, request: Request, found: Found) -> Answer | None:
    """An encapsulated document or a video, with byte ranges; None for what is rendered."""
    record = found.instance
    if record.sop_class_uid not in _DOCUMENTS and record.transfer_syntax_uid not in _VIDEO:
        return None
    media, pieces = _stream(services, record, found.study_uid)
    choice = negotiate(request.headers.get("accept"), (Offer(media), Offer(MULTIPART, media)))
    tag = tag_of(found, media, choice.offer.part)
    if same := unchanged(request, tag):
        return same
    disclose(services, request, found, Disclosure.VIEW)
    headers = {"etag": tag, "content-type": media}
    if choice.offer.part is not None:
        writer = MultipartWriter(new_boundary())
        pieces = [writer.part_head({"Content-Type": media}, first=True), *pieces, writer.closing]
        return answer(services, pieces, {**headers, "content-type": writer.content_type(media)})
    # Shown within a page of the viewer, never as a page of its own with our origin's rights.
    headers["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
    headers["x-frame-options"] = "SAMEORIGIN"
    if media not in _SHOWN:
        headers["content-disposition"] = f'attachment; filename="{record.sop_instance_uid}"'
    return ranged(services, request, pieces, headers)


def _stream(services: Services, record: InstanceRecord, study_uid: str) -> tuple[str, list[Piece]]:
    """Media type and bytes of a document or video, as they lie unless the data set is deflated."""
    with PartialObject(services.retrieval, record, study_uid, services.limits) as opened:
        opened.need_all()
        if record.transfer_syntax_uid in _VIDEO:
            stream = video_stream(opened.buffer, record.transfer_syntax_uid, services.limits)
            return stream.media_type, [Span(record, offset, length, study_uid) for offset, length in stream.fragments]
        media, offset, length = encapsulated_document(opened.buffer, record.transfer_syntax_uid, services.limits)
        media = media if media in _DOCUMENT_MEDIA else OCTET_STREAM  # received text does not choose our headers
        if transfer_syntax(record.transfer_syntax_uid).deflated:
            view, _ = plain(opened.buffer, record.transfer_syntax_uid, services.limits)
            return media, [bytes(view[offset : offset + length])]
        return media, [Span(record, offset, length, study_uid)]


# Parameters ---------------------------------------------------------------------------------------


def render_options(query: Mapping[str, str], media: str) -> RenderOptions:
    """Options of PS3.18 8.3.5.1. Raises BadRequest."""
    window = query.get("window")
    viewport = query.get("viewport")
    return RenderOptions(
        media=media,
        window=_window(window) if window else None,
        viewport=_viewport(viewport) if viewport else None,
        quality=whole_number(query.get("quality", "90"), 1, 100, "quality"),
    )


def whole_number(text: str, least: int, most: int, name: str) -> int:
    """A number within bounds. Raises BadRequest."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
        raise BadRequest(f"{name} is a number from {least} to {most}")
    return int(text)


def decimal(text: str, name: str) -> float:
    """A finite decimal number. Raises BadRequest."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not -1e9 <= value <= 1e9:
        raise BadRequest(f"{name} is a decimal number")
    return value


def _window(text: str) -> Window:
    parts = text.split(",")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2].strip().lower() not in _FUNCTIONS):
        raise BadRequest("window is center,width,function; function linear, linear-exact or sigmoid")
    function = _FUNCTIONS[parts[2].strip().lower()] if len(parts) == 3 else "LINEAR"
    center, width = decimal(parts[0], "window center"), decimal(parts[1], "window width")
    if width < (1 if function == "LINEAR" else 1e-9):
        raise BadRequest("window width is too small")
    return Window(center, width, function)


def _viewport(text: str) -> Viewport:
    parts = text.split(",")
    if len(parts) not in (2, 4, 6):
        raise BadRequest("viewport is vw,vh or vw,vh,sx,sy,sw,sh")
    columns, rows = (whole_number(part, 1, LARGEST_SIDE, "viewport size") for part in parts[:2])
    left, top = (decimal(part or "0", "viewport region") for part in (parts[2:4] or ("0", "0")))
    width, height = (decimal(part, "viewport region") if part else None for part in (parts[4:6] or ("", "")))
    return Viewport(columns, rows, left, top, width, height)


def _side(viewport: str | None) -> int:
    if not viewport:
        return THUMBNAIL_SIDE
    size = _viewport(viewport)
    return min(max(size.columns, size.rows), 1024)


def _with(options: RenderOptions, lines: tuple[str, ...]) -> RenderOptions:
    return RenderOptions(options.media, options.window, options.viewport, options.quality, lines)


def _annotations(services: Services, found: Found, marks: str) -> tuple[str, ...]:
    """Lines to burn in: PS3.18 8.3.5.1.1 patient and technique. Raises BadRequest."""
    kinds = [mark.strip().lower() for mark in marks.split(",") if mark.strip()]
    if not set(kinds) <= {"patient", "technique"}:
        raise BadRequest("annotation is patient, technique or both")
    document = stored_instance_json(services.retrieval, found.holdings[0], found.instance, services.limits)
    tags = {
        "patient": ("00100010", "00100020", "00100030", "00100040", "00080020", "00080080"),
        "technique": ("00080060", "0008103E", "00200011", "00200013", "00180060", "00181151", "00180050"),
    }
    return tuple(line for kind in kinds if (line := "  ".join(filter(None, (_text(document, t) for t in tags[kind])))))


def _text(document: Mapping[str, Any], tag: str) -> str:
    values = document.get(tag, {}).get("Value") or [""]
    value = values[0]
    return str(value.get("Alphabetic", "") if isinstance(value, dict) else value)[:64]

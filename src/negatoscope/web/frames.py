"""WADO-RS frames and pixel data, PS3.18 10.4.1.1.6 and 8.7.3.3.

Stored frames leave as they lie whenever that is what was asked for: the stored syntax, ``transfer-syntax=*``,
or uncompressed little endian for a native object. All else is done by the pixel pool. A client that does not
name a transfer syntax gets the default of the media type it names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from starlette.requests import Request

from negatoscope.archive.frames import FrameTable
from negatoscope.archive.partial import PartialObject
from negatoscope.audit.events import Disclosure
from negatoscope.dicom.pixels.transcode import can_transcode
from negatoscope.dicom.uid import (
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    transfer_syntax,
)
from negatoscope.errors import BadRequest, CannotTranscode, NotFound, PixelsUnreadable
from negatoscope.model.stored import InstanceRecord, SeriesHolding
from negatoscope.web.delivery import (
    INSTANCE_PATH,
    Answer,
    answer,
    disclose,
    find_by_path,
    generated,
    may_wait,
    tag_of,
    unchanged,
    wanted,
)
from negatoscope.web.media_types import ANY, MULTIPART, OCTET_STREAM, Choice, Offer
from negatoscope.web.sending import Piece, Span
from negatoscope.web.services import Services
from negatoscope.wire.multipart import MultipartWriter, new_boundary

_JPEG, _MPEG = "1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.4.10"
# Media type of the compressed frames -> its transfer syntaxes, the default first (PS3.18 table 8.7.3-5).
COMPRESSED: dict[str, tuple[str, ...]] = {
    "image/jpeg": (_JPEG + "70", _JPEG + "50", _JPEG + "51", _JPEG + "57"),
    "image/jls": (_JPEG + "80", _JPEG + "81"),
    "image/jp2": (_JPEG + "90", _JPEG + "91"),
    "image/jpx": (_JPEG + "92", _JPEG + "93"),
    "image/jphc": (_JPEG + "201", _JPEG + "202", _JPEG + "203"),
    "image/jxl": (_JPEG + "110", _JPEG + "111", _JPEG + "112"),
    "image/dicom-rle": ("1.2.840.10008.1.2.5",),
    "video/mpeg": (_MPEG + "0", _MPEG + "1", _MPEG + "0.1", _MPEG + "1.1"),
    "video/mp4": tuple(_MPEG + n for n in ("2", "3", "4", "5", "6", "2.1", "3.1", "4.1", "5.1", "6.1")),
    "video/h265": (_MPEG + "7", _MPEG + "8"),
}
_OLD_NAMES = {"image/x-jls": "image/jls", "image/x-dicom-rle": "image/dicom-rle", "image/jph": "image/jphc"}
_MEDIA_OF = {syntax: media for media, syntaxes in COMPRESSED.items() for syntax in syntaxes}
_NATIVE = frozenset({EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN})
_NAMES = (OCTET_STREAM, *COMPRESSED, *_OLD_NAMES)
FRAMES = tuple(Offer(MULTIPART, name) for name in _NAMES)
FRAME = (*FRAMES, *(Offer(name) for name in _NAMES))  # a single frame may come bare
_MADE_AT_ONCE = 16 << 20  # native bytes of the frames of one pixel job
MOST_FRAMES = 10_000  # in one list


@dataclass(frozen=True, slots=True)
class Form:
    """How frames are given."""

    media: str
    syntax: str
    stored: bool  # as they lie


def retrieve_frames(services: Services, request: Request) -> Answer:
    """One part a frame, in the order of the list; a single frame also bare."""
    numbers = parse_frames(request.path_params["frames"])
    choices = wanted(request, FRAME if len(numbers) == 1 else FRAMES)
    found = find_by_path(services, request)
    holding, record = found.holdings[0], found.instance
    if not services.frame_tables.known(record):
        may_wait(found)
    table = services.frame_tables.of(record, found.study_uid)
    if numbers[-1] > len(table.frames) or max(numbers) > len(table.frames):
        raise NotFound(f"the instance has {len(table.frames)} frames")
    choice, form = choose(choices, record, table)
    tag = tag_of(found, choice.offer, form, numbers)
    if same := unchanged(request, tag):
        return same
    if not form.stored:
        may_wait(found)
    disclose(services, request, found, Disclosure.VIEW)
    content_type = f"{form.media}; transfer-syntax={form.syntax}"
    data = _frames(services, record, holding, table, form, numbers)
    if choice.offer.part is None:
        return answer(services, next(data), {"etag": tag, "content-type": content_type})
    writer = MultipartWriter(new_boundary())
    headers = {"etag": tag, "content-type": writer.content_type(form.media)}
    if not form.stored and len(numbers) > 1:
        return generated(services, _chunks(writer, holding, record, content_type, numbers, data), headers)
    pieces: list[Piece] = []
    for number, frame in zip(numbers, data, strict=True):
        pieces += [_head(writer, holding, record, content_type, number, not pieces), *frame]
    return answer(services, [*pieces, writer.closing], headers)


def retrieve_pixel_data(services: Services, request: Request) -> Answer:
    """All frames of an instance, series or study, one part an instance (PS3.18 10.4.1.1.9), as stored."""
    choices = wanted(request, (Offer(MULTIPART, OCTET_STREAM),))
    found = find_by_path(services, request)
    tag = tag_of(found, "pixeldata")
    if same := unchanged(request, tag):
        return same
    disclose(services, request, found, Disclosure.VIEW)
    writer = MultipartWriter(new_boundary())
    pieces: list[Piece] = []
    for holding in found.holdings:
        for record in holding.instances:
            try:
                table = services.frame_tables.of(record, holding.study_uid)
            except PixelsUnreadable:
                continue  # no image
            form = choose(choices, record, table)[1]
            (data,) = zip(
                *_frames(services, record, holding, table, form, range(1, len(table.frames) + 1)), strict=True
            )
            content_type = f"{form.media}; transfer-syntax={form.syntax}"
            pieces += [_head(writer, holding, record, content_type, None, not pieces), *data]
    if not pieces:
        raise NotFound("nothing here has pixel data")
    return answer(services, [*pieces, writer.closing], {"etag": tag, "content-type": writer.content_type(OCTET_STREAM)})


def parse_frames(text: str) -> list[int]:
    """A list of frame numbers from 1, commas between. Raises BadRequest."""
    parts = text.split(",")
    if len(parts) > MOST_FRAMES or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        raise BadRequest(f"frames are a list of at most {MOST_FRAMES} numbers, commas between")
    numbers = [int(part) for part in parts]
    if 0 in numbers:
        raise BadRequest("frames are counted from 1")
    return numbers


def choose(choices: list[Choice], record: InstanceRecord, table: FrameTable) -> tuple[Choice, Form]:
    """The best choice that these frames can be had in. Raises CannotTranscode."""
    for choice in choices:
        form = _form(choice, record.transfer_syntax_uid, table)
        if form is not None:
            return choice, form
    raise CannotTranscode("the frames cannot be had in any of the forms asked for")


def _form(choice: Choice, stored: str, table: FrameTable) -> Form | None:
    media = choice.offer.part or choice.offer.essence
    media = _OLD_NAMES.get(media, media)
    asked = choice.transfer_syntax
    if media == OCTET_STREAM:
        if asked == ANY or (asked == stored and stored not in _NATIVE):
            return Form(media, stored, True) if table.addressable else Form(media, EXPLICIT_LITTLE_ENDIAN, False)
        target = asked or EXPLICIT_LITTLE_ENDIAN
        native = not table.encapsulated and table.little_endian and table.addressable
        if native and target in _NATIVE:
            return Form(media, target, True)
    else:
        kept = stored in COMPRESSED[media]
        if kept and asked in (None, ANY, stored):
            return Form(media, stored, True)
        target = COMPRESSED[media][0] if asked in (None, ANY) else asked or ""
        if target not in COMPRESSED[media]:
            return None
    source = EXPLICIT_LITTLE_ENDIAN if transfer_syntax(stored).deflated else stored
    return Form(media, target, False) if target == source or can_transcode(stored, target) else None


def _frames(
    services: Services,
    record: InstanceRecord,
    holding: SeriesHolding,
    table: FrameTable,
    form: Form,
    numbers: list[int] | range,
) -> Iterator[list[Piece]]:
    """The pieces of each frame."""
    if form.stored:
        for number in numbers:
            yield [Span(record, offset, length, holding.study_uid) for offset, length in table.frames[number - 1]]
        return
    with PartialObject(services.retrieval, record, holding.study_uid, services.limits) as opened:
        opened.need(0, table.header_end)
        if table.encapsulated or not table.addressable:
            opened.need_all()
        step = max(1, _MADE_AT_ONCE // max(1, table.frame_bytes))
        for first in range(0, len(numbers), step):
            some = [number - 1 for number in numbers[first : first + step]]
            for index in some if opened.sparse else ():
                for offset, length in table.frames[index]:
                    opened.need(offset, length)
            made = services.pixels.transcode_frames(
                opened.buffer, record.transfer_syntax_uid, form.syntax, some, extents=opened.extents
            )
            for frame in made:
                yield [frame]


def _head(
    writer: MultipartWriter,
    holding: SeriesHolding,
    record: InstanceRecord,
    content_type: str,
    number: int | None,
    first: bool,
) -> bytes:
    instance = INSTANCE_PATH.format(
        study_uid=holding.study_uid, series_uid=holding.series_uid, sop_instance_uid=record.sop_instance_uid
    )
    where = f"{instance}/frames/{number}" if number is not None else f"{instance}/pixeldata"
    return writer.part_head({"Content-Type": content_type, "Content-Location": where}, first=first)


def _chunks(
    writer: MultipartWriter,
    holding: SeriesHolding,
    record: InstanceRecord,
    content_type: str,
    numbers: list[int],
    frames: Iterator[list[Piece]],
) -> Iterator[bytes]:
    """Frames made one by one, as they go out."""
    for index, (number, frame) in enumerate(zip(numbers, frames, strict=True)):
        head = _head(writer, holding, record, content_type, number, index == 0)
        yield head + b"".join(piece for piece in frame if isinstance(piece, bytes))
    yield writer.closing

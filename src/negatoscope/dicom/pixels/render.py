"""One frame as a picture that a browser shows: PS3.18 8.3.5 over the pipeline of PS3.3 C.7.6.3 and C.11."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.colour import apply_palette, to_eight_bits, ybr_to_rgb
from negatoscope.dicom.pixels.decode import decode_frame, decoded_photometric
from negatoscope.dicom.pixels.describe import PixelDescription, Window, describe_header, frame_transform
from negatoscope.dicom.pixels.frames import frame_bytes, frame_locations
from negatoscope.dicom.pixels.header import PIXEL_TAGS, Buffer, Header, plain, read_header
from negatoscope.dicom.pixels.values import grey_levels
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.errors import BadRequest, NotAcceptable, NotFound, PixelsUnreadable

Picture = NDArray[np.uint8]  # (rows, columns) or (rows, columns, 3)

RENDERED_MEDIA = ("image/jpeg", "image/png", "image/gif")
LARGEST_SIDE = 1 << 14  # pixels of a viewport's side
_REPRESENTATIVE_FRAME = 0x00286010


@dataclass(frozen=True, slots=True)
class Viewport:
    """PS3.18 8.3.5.1.3: what part of the image, into what size.

    A negative ``width`` or ``height`` of the region mirrors it. ``None`` is the whole image.
    """

    columns: int
    rows: int
    left: float = 0.0
    top: float = 0.0
    width: float | None = None
    height: float | None = None


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """What the client may ask of a rendering."""

    media: str = "image/jpeg"
    window: Window | None = None
    viewport: Viewport | None = None
    quality: int = 90  # of JPEG, 1 to 100
    annotation: tuple[str, ...] = ()  # lines burned into the top left corner


def render(
    data: Buffer,
    transfer_syntax_uid: str,
    frame: int,
    options: RenderOptions | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> bytes:
    """One frame, counted from 0, as JPEG, PNG or GIF.

    Raises:
        NotAcceptable: the object has no still pixels, or ``options.media`` is not a picture's.
        NotFound: no such frame.
        BadRequest: a viewport of no size, too large, or outside the image.
        PixelsUnreadable, LimitExceeded, TruncatedObject: the pixels cannot be had.
    """
    options = options or RenderOptions()
    if options.media not in RENDERED_MEDIA:
        raise NotAcceptable(f"cannot render as {options.media}")
    picture, description = _picture(data, transfer_syntax_uid, frame, limits, options.window)
    if options.viewport is not None:
        picture = _through(picture, options.viewport, description)
    if options.annotation:
        picture = _annotated(picture, options.annotation)
    return encode_picture(picture, options.media, options.quality)


def thumbnail(
    data: Buffer,
    transfer_syntax_uid: str,
    frame: int | None,
    size: int,
    media: str = "image/jpeg",
    limits: Limits = DEFAULT_LIMITS,
) -> bytes:
    """A picture of at most ``size`` pixels a side, square pixels, never enlarged.

    Without a frame: the Representative Frame Number, else the middle one. Errors as :func:`render`.
    """
    if not 1 <= size <= LARGEST_SIDE or media not in RENDERED_MEDIA:
        raise BadRequest(f"a thumbnail of {size} pixels as {media}")
    picture, description = _picture(data, transfer_syntax_uid, frame, limits)
    rows, columns = picture.shape[0] * max(description.transform.aspect, 1e-3), float(picture.shape[1])
    scale = min(size / rows, size / columns, 1.0)
    target = (max(round(columns * scale), 1), max(round(rows * scale), 1))
    small = np.asarray(Image.fromarray(picture).resize(target, Image.Resampling.BOX, reducing_gap=2.0))
    return encode_picture(small, media, 80)


def encode_picture(picture: Picture, media: str, quality: int = 90) -> bytes:
    """A grey or RGB picture in one of :data:`RENDERED_MEDIA`."""
    picture = np.ascontiguousarray(picture)
    if media == "image/png":
        return bytes(imagecodecs.png_encode(picture, 1))
    if media == "image/gif":
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "GIF")
        return out.getvalue()
    quality = min(max(quality, 1), 100)
    subsampling: Any = {"subsampling": "444" if quality >= 90 else "420"} if picture.ndim == 3 else {}
    return bytes(imagecodecs.jpeg8_encode(picture, quality, **subsampling))


def placeholder_thumbnail(label: str, size: int, media: str = "image/png") -> bytes:
    """A dark tile that names what cannot be shown as a picture (PDF, SR, video)."""
    tile = Image.new("L", (size, size), 32)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((1, 1, size - 2, size - 2), outline=96)
    font = ImageFont.load_default(max(size // 5, 8))
    draw.text((size / 2, size / 2), label[:12], fill=208, font=font, anchor="mm")
    return encode_picture(np.asarray(tile), media)


def frame_picture(header: Header, description: PixelDescription, frame: int, window: Window | None = None) -> Picture:
    """One frame as grey levels or RGB of 8 bits, at the size it is stored.

    Raises:
        NotFound: no such frame.
        PixelsUnreadable, LimitExceeded, TruncatedObject: the pixels cannot be had.
    """
    if not 0 <= frame < description.frames:
        raise NotFound(f"frame {frame + 1} of {description.frames}")
    fragments = frame_locations(header.view, description)[frame]
    stored = decode_frame(frame_bytes(header.view, fragments), description, frame)
    if description.monochrome or (description.samples == 1 and description.palette is None):
        transform = frame_transform(header, description, frame)
        return grey_levels(np.ascontiguousarray(stored), description, transform, window)
    return _rgb(stored, description)


def _picture(
    data: Buffer, transfer_syntax_uid: str, frame: int | None, limits: Limits, window: Window | None = None
) -> tuple[Picture, PixelDescription]:
    view, syntax = plain(data, transfer_syntax_uid, limits)
    header = read_header(view, syntax, limits)
    if not any(tag in header for tag in PIXEL_TAGS):
        raise NotAcceptable("the object has no pixels to render")
    if transfer_syntax(syntax).video:
        raise NotAcceptable("the object is a video")
    description = describe_header(header, syntax, limits)
    if frame is None:
        named = header.integer(_REPRESENTATIVE_FRAME, 0) - 1
        frame = named if 0 <= named < description.frames else description.frames // 2
    return frame_picture(header, description, frame, window), description


def _rgb(stored: NDArray[Any], description: PixelDescription) -> Picture:
    photometric = decoded_photometric(description)
    if description.palette is not None and description.samples == 1:
        return apply_palette(stored, description.palette)
    if stored.dtype.kind == "i":
        stored = stored.view(f"u{stored.dtype.itemsize}")
    if stored.dtype.kind != "u":
        raise PixelsUnreadable(f"{photometric} pixels of kind {stored.dtype}")
    pixels = to_eight_bits(stored, description.bits_stored)
    if photometric == "ARGB":
        return pixels[..., 1:4]
    if photometric == "CMYK":
        ink, black = 255 - pixels[..., :3].astype(np.uint16), 255 - pixels[..., 3:].astype(np.uint16)
        return (ink * black // 255).astype(np.uint8)
    if photometric.startswith("YBR"):
        return ybr_to_rgb(pixels, partial="PARTIAL" in photometric)
    return pixels[..., :3]


def _through(picture: Picture, viewport: Viewport, description: PixelDescription) -> Picture:
    """Cut, mirrored, scaled to fit with square pixels, centred on black of the viewport's size."""
    rows, columns = picture.shape[:2]
    width = float(columns) - viewport.left if viewport.width is None else viewport.width
    height = float(rows) - viewport.top if viewport.height is None else viewport.height
    if not (1 <= viewport.columns <= LARGEST_SIDE and 1 <= viewport.rows <= LARGEST_SIDE):
        raise BadRequest(f"a viewport of {viewport.columns} x {viewport.rows} pixels")
    left, top = max(viewport.left, 0.0), max(viewport.top, 0.0)
    right, bottom = min(viewport.left + abs(width), columns), min(viewport.top + abs(height), rows)
    if not (right - left >= 1 and bottom - top >= 1):
        raise BadRequest("the region lies outside the image")
    aspect = description.transform.aspect
    scale = min(viewport.columns / (right - left), viewport.rows / ((bottom - top) * aspect))
    size = (
        min(max(round((right - left) * scale), 1), viewport.columns),
        min(max(round((bottom - top) * aspect * scale), 1), viewport.rows),
    )
    x, y = int(left), int(top)
    cut = Image.fromarray(picture[y : math.ceil(bottom), x : math.ceil(right)])
    box = (left - x, top - y, right - x, bottom - y)
    image = cut.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=2.0)
    if width < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if height < 0:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if image.size == (viewport.columns, viewport.rows):
        return np.asarray(image)
    canvas = Image.new(image.mode, (viewport.columns, viewport.rows))
    canvas.paste(image, ((viewport.columns - image.width) // 2, (viewport.rows - image.height) // 2))
    return np.asarray(canvas)


def _annotated(picture: Picture, lines: tuple[str, ...]) -> Picture:
    """Lines in the top left corner, white on a black edge so that they read on any image."""
    image = Image.fromarray(picture)
    font = ImageFont.load_default(max(min(image.size) // 32, 9))
    white, black = ((255, 255, 255), (0, 0, 0)) if picture.ndim == 3 else (255, 0)
    draw = ImageDraw.Draw(image)
    draw.multiline_text((4, 2), "\n".join(lines), fill=white, font=font, stroke_width=1, stroke_fill=black)
    return np.asarray(image)

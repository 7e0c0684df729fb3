"""A frame becomes the picture that PS3.3 C.11 and PS3.18 8.3.5 describe."""

from __future__ import annotations

import io
from struct import pack
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from negatoscope.dicom.pixels.describe import Window
from negatoscope.dicom.pixels.documents import encapsulated_document, video_stream
from negatoscope.dicom.pixels.render import (
    LARGEST_SIDE,
    RenderOptions,
    Viewport,
    placeholder_thumbnail,
    render,
    thumbnail,
)
from negatoscope.errors import BadRequest, NotAcceptable, NotFound
from unit.dicom.samples import element, item, sequence
from unit.pixels.build import EXPLICIT, header, image, ramp

PNG = RenderOptions(media="image/png")


def shown(data: bytes, options: RenderOptions = PNG, frame: int = 0) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(render(data, EXPLICIT, frame, options))))


def windowed(center: float, width: float, function: str = "LINEAR") -> RenderOptions:
    return RenderOptions(media="image/png", window=Window(center, width, function))


def lut_item(first: int, bits: int, values: list[int]) -> bytes:
    descriptor = element(0x00283002, "US", pack("<3H", len(values), first, bits))
    return item(descriptor + element(0x00283006, "OW", pack(f"<{len(values)}H", *values)))


# PS3.3 C.11.2.1.2.1 and C.11.2.1.3.2, worked by hand.
@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (windowed(2048, 4096), {0: 0, 2047: 127, 2048: 128, 4095: 255}),
        (windowed(2048, 1), {2047: 0, 2048: 255}),
        (windowed(0, 100), {0: 129, 50: 255, 4095: 255}),
        (windowed(100, 100, "LINEAR_EXACT"), {50: 0, 100: 128, 150: 255, 125: 191}),
        (windowed(100, 0.5), {99: 0, 100: 128, 101: 255}),
        (windowed(100, 40, "SIGMOID"), {100: 128, 110: 186, 90: 69}),
    ],
)
def test_windows_follow_the_equations_of_the_standard(window: RenderOptions, expected: dict[int, int]) -> None:
    data = image(np.array([sorted(expected)], np.uint16))
    assert shown(data, window)[0].tolist() == [expected[value] for value in sorted(expected)]


def test_rescale_comes_before_the_window() -> None:
    extra = {
        0x00281050: ("DS", b"0 "),
        0x00281051: ("DS", b"2001"),
        0x00281052: ("DS", b"-1000 "),
        0x00281053: ("DS", b"2 "),
    }
    assert shown(image(np.array([[0, 500, 1000]], np.uint16), extra=extra))[0].tolist() == [0, 128, 255]


def test_the_window_asked_for_wins_over_the_stored_one() -> None:
    extra = {0x00281050: ("DS", b"0 "), 0x00281051: ("DS", b"10")}
    data = image(np.array([[0, 1000]], np.uint16), extra=extra)
    assert shown(data)[0].tolist() == [142, 255]
    assert shown(data, windowed(500.5, 1001))[0].tolist() == [0, 255]


def test_without_a_window_the_range_is_shown_but_not_the_padding() -> None:
    values = np.array([[-2000, 0, 50, 100]], np.int16)
    assert shown(image(values))[0].tolist() == [0, 243, 249, 255]
    padded = image(values, extra={0x00280120: ("SS", pack("<h", -2000))})
    assert shown(padded)[0].tolist() == [0, 0, 128, 255]


def test_a_flat_image_is_black_and_does_not_divide_by_zero() -> None:
    assert shown(image(np.full((2, 2), 7, np.uint16))).max() == 0


def test_monochrome1_and_inverse_are_one_inversion() -> None:
    values = np.array([[0, 255]], np.uint8)
    inverse = {0x20500020: ("CS", b"INVERSE ")}
    assert shown(image(values, photometric="MONOCHROME1"))[0].tolist() == [255, 0]
    assert shown(image(values, photometric="MONOCHROME1", extra=inverse))[0].tolist() == [255, 0]
    assert shown(image(values, extra=inverse))[0].tolist() == [255, 0]


def test_modality_and_voi_tables_apply_in_turn() -> None:
    voi = sequence(0x00283010, [lut_item(100, 8, [0, 51, 255])])
    modality = sequence(0x00283000, [lut_item(1, 16, [100, 101, 102])])
    data = header(1, 4, allocated=8) + modality + voi + element(0x7FE00010, "OB", bytes([0, 2, 3, 9]))
    assert shown(data)[0].tolist() == [0, 51, 255, 255]


def test_float_and_32_bit_pixels_are_shown_over_their_range() -> None:
    dose = image(np.array([[0, 1 << 30, 1 << 31]], np.uint32))
    assert shown(dose)[0].tolist() == [0, 128, 255]
    values = np.array([[-1.0, np.nan, 1.0]], np.float32)
    data = header(1, 3, allocated=32) + element(0x7FE00008, "OF", values.tobytes())
    assert shown(data)[0].tolist() == [0, 128, 255]


def test_colour_is_shown_in_rgb() -> None:
    red = np.array([[[255, 0, 0]]], np.uint8)
    assert shown(image(red)).tolist() == red.tolist()
    assert shown(image(np.array([[[76, 85, 255]]], np.uint8), photometric="YBR_FULL")).tolist() == [[[254, 0, 0]]]
    deep = image(np.array([[[65535, 256, 0]]], np.uint16))
    assert shown(deep).tolist() == [[[255, 1, 0]]]


def test_a_palette_gives_colours_and_clips_its_ends() -> None:
    extra = {}
    for channel, entries in enumerate(([10, 20], [30, 40], [50, 60])):
        extra[0x00281101 + channel] = ("US", pack("<3H", 2, 1, 8))
        extra[0x00281201 + channel] = ("OW", bytes(entries))
    data = image(np.array([[0, 1, 2, 9]], np.uint8), photometric="PALETTE COLOR", extra=extra)
    assert shown(data).tolist() == [[[10, 30, 50], [10, 30, 50], [20, 40, 60], [20, 40, 60]]]


@pytest.mark.parametrize(
    ("media", "signature"), [("image/jpeg", b"\xff\xd8\xff"), ("image/png", b"\x89PNG"), ("image/gif", b"GIF8")]
)
@pytest.mark.parametrize("samples", [1, 3])
def test_each_media_type_is_what_it_says(media: str, signature: bytes, samples: int) -> None:
    picture = render(image(ramp("u1", samples=samples)), EXPLICIT, 0, RenderOptions(media=media))
    assert picture.startswith(signature)
    assert Image.open(io.BytesIO(picture)).size == (24, 16)


def test_quality_makes_smaller_pictures() -> None:
    data = image(np.random.default_rng(1).integers(0, 255, (64, 64)).astype(np.uint8))
    sizes = [len(render(data, EXPLICIT, 0, RenderOptions(quality=quality))) for quality in (10, 50, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


QUARTERS = np.kron(np.array([[0, 80], [160, 255]], np.uint8), np.ones((8, 8), np.uint8))


@pytest.mark.parametrize(
    ("viewport", "corners"),
    [
        (Viewport(16, 16), [0, 80, 160, 255]),
        (Viewport(8, 8, 8, 0, 8, 8), [80, 80, 80, 80]),
        (Viewport(16, 16, 0, 0, -16, 16), [80, 0, 255, 160]),
        (Viewport(16, 16, 0, 0, 16, -16), [160, 255, 0, 80]),
        (Viewport(16, 16, 8, 8), [255, 255, 255, 255]),
    ],
)
def test_the_viewport_cuts_mirrors_and_scales(viewport: Viewport, corners: list[int]) -> None:
    seen = shown(image(QUARTERS), RenderOptions(media="image/png", viewport=viewport))
    assert seen.shape == (viewport.rows, viewport.columns)
    assert [int(seen[y, x]) for y in (0, -1) for x in (0, -1)] == corners


def test_a_viewport_of_another_shape_is_filled_with_black() -> None:
    white = image(np.array([[0] + [255] * 15] * 16, np.uint8))
    seen = shown(white, RenderOptions(media="image/png", viewport=Viewport(40, 16, 1, 0, 15, 15)))
    assert seen.shape == (16, 40)
    assert (seen[8, 0], seen[8, 20], seen[8, -1]) == (0, 255, 0)


def test_pixels_that_are_not_square_are_squared_when_scaled() -> None:
    tall = image(np.array([[0] + [255] * 15] * 16, np.uint8), extra={0x00280034: ("IS", b"2\\1 ")})
    seen = shown(tall, RenderOptions(media="image/png", viewport=Viewport(32, 32, 1, 0, 15, 16)))
    assert (seen[16, 2], seen[16, 16], seen[16, 29]) == (0, 255, 0)
    assert shown(tall).shape == (16, 16)


@pytest.mark.parametrize("side", [LARGEST_SIDE - 1, LARGEST_SIDE, LARGEST_SIDE + 1])
def test_a_viewport_over_the_largest_side_is_refused(side: int) -> None:
    options = RenderOptions(media="image/png", viewport=Viewport(side, 1))
    if side > LARGEST_SIDE:
        with pytest.raises(BadRequest):
            shown(image(QUARTERS), options)
    else:
        assert shown(image(QUARTERS), options).shape == (1, side)


@pytest.mark.parametrize(
    "viewport",
    [Viewport(0, 5), Viewport(5, 5, 16, 0), Viewport(5, 5, 0, 0, 0.0, 4), Viewport(5, 5, -9, 0, 9, 9)],
)
def test_a_viewport_that_shows_nothing_is_refused(viewport: Viewport) -> None:
    with pytest.raises(BadRequest):
        shown(image(QUARTERS), RenderOptions(viewport=viewport))


def test_annotations_are_burned_into_the_corner() -> None:
    for samples in (1, 3):
        black = image(ramp("u1", 96, 96, samples) // 64)
        plain, annotated = shown(black), shown(black, RenderOptions(media="image/png", annotation=("Épaule", "R")))
        assert np.array_equal(plain[60:], annotated[60:])
        assert (plain[:40] != annotated[:40]).any()


def test_a_thumbnail_fits_and_is_never_enlarged() -> None:
    data = image(ramp("u1", 100, 200))
    assert Image.open(io.BytesIO(thumbnail(data, EXPLICIT, 0, 64))).size == (64, 32)
    assert Image.open(io.BytesIO(thumbnail(data, EXPLICIT, 0, 1000, "image/png"))).size == (200, 100)
    with pytest.raises(BadRequest):
        thumbnail(data, EXPLICIT, 0, 0)


def test_the_thumbnail_of_many_frames_is_the_representative_or_the_middle_one() -> None:
    frames = np.stack([np.array([[0, 200]], np.uint8) if n == 3 else np.array([[0, 0]], np.uint8) for n in range(6)])
    middle = image(frames, frames=6)
    named = image(frames, frames=6, extra={0x00286010: ("US", pack("<H", 1))})
    seen = [np.asarray(Image.open(io.BytesIO(thumbnail(d, EXPLICIT, None, 8, "image/png")))) for d in (middle, named)]
    assert [int(picture.max()) for picture in seen] == [255, 0]


def test_a_frame_that_is_not_there_is_not_found() -> None:
    for frame in (-1, 1):
        with pytest.raises(NotFound):
            render(image(QUARTERS), EXPLICIT, frame)


def test_objects_without_pixels_are_not_acceptable() -> None:
    with pytest.raises(NotAcceptable, match="no pixels"):
        render(element(0x00080060, "CS", b"SR"), EXPLICIT, 0)
    with pytest.raises(NotAcceptable, match="image/bmp"):
        render(image(QUARTERS), EXPLICIT, 0, RenderOptions(media="image/bmp"))


def test_a_placeholder_carries_its_label() -> None:
    tiles = {placeholder_thumbnail(label, 64) for label in ("PDF", "SR")}
    assert len(tiles) == 2
    assert placeholder_thumbnail("PDF", 64, "image/jpeg").startswith(b"\xff\xd8")


def test_an_encapsulated_document_is_found_without_its_padding() -> None:
    pdf = element(0x00420011, "OB", b"%PDF-1.4\n\0") + element(0x00420012, "LO", b"application/pdf ")
    media_type, offset, length = encapsulated_document(pdf + element(0x00420015, "UL", pack("<L", 9)), EXPLICIT)
    assert (media_type, pdf[offset : offset + length]) == ("application/pdf", b"%PDF-1.4\n")
    with pytest.raises(NotAcceptable):
        encapsulated_document(image(QUARTERS), EXPLICIT)


@pytest.mark.parametrize(
    ("last", "media_type"), [("101", "video/mpeg"), ("102", "video/mp4"), ("102.1", "video/mp4"), ("107", "video/H265")]
)
def test_a_video_is_its_fragments_joined(last: str, media_type: str) -> None:
    from unit.pixels.build import encapsulated

    syntax = f"1.2.840.10008.1.2.4.{last}"
    data = header(2, 2, allocated=8, frames=50) + encapsulated([b"ab", b"cd"])
    stream = video_stream(data, syntax)
    assert (stream.media_type, stream.length) == (media_type, 4)
    assert b"".join(data[offset : offset + length] for offset, length in stream.fragments) == b"abcd"
    with pytest.raises(NotAcceptable, match="video"):
        render(data, syntax, 0)
    with pytest.raises(NotAcceptable):
        video_stream(data, EXPLICIT)

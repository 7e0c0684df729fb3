"""Every syntax gives back the stored values, and a codestream of another size never reaches its decoder."""

from __future__ import annotations

from struct import pack
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from negatoscope.dicom import uid
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.pixels.decode import decode_frame, decoded_photometric
from negatoscope.dicom.pixels.encode import HTJ2K_RPCL, encode_frame
from negatoscope.dicom.pixels.frames import frame_bytes, frame_locations
from negatoscope.dicom.pixels.header import read_header
from negatoscope.dicom.pixels.luts import read_palette
from negatoscope.errors import PixelsUnreadable, TruncatedObject
from unit.dicom.samples import element
from unit.pixels.build import (
    BIG,
    EXPLICIT,
    HTJ2K,
    J2K,
    JPEG,
    JPEG_LS,
    JPEG_XL,
    RLE,
    described,
    encapsulated,
    even,
    header,
    image,
    ramp,
)


def decoded(data: bytes, syntax: str = EXPLICIT, index: int = 0) -> NDArray[Any]:
    found = described(data, syntax)
    return decode_frame(frame_bytes(data, frame_locations(data, found)[index]), found, index)


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_native_values_come_back(kind: str, syntax: str) -> None:
    values = ramp(kind)
    assert np.array_equal(decoded(image(values, syntax=syntax), syntax), values)


def test_bytes_and_bits_in_big_endian_words_come_back() -> None:
    written = uid.TRANSFER_SYNTAXES[BIG]
    odd = header(1, 3, allocated=8, frames=2, syntax=BIG) + element(0x7FE00010, "OW", b"\2\1\4\3\6\5", syntax=written)
    assert [decoded(odd, BIG, n).ravel().tolist() for n in (0, 1)] == [[1, 2, 3], [4, 5, 6]]
    bits = header(1, 12, allocated=1, frames=2, syntax=BIG) + element(
        0x7FE00010, "OW", b"\x02\x01\x00\x03", syntax=written
    )
    assert decoded(bits, BIG, 0).ravel().tolist() == [1] + [0] * 8 + [1, 0, 0]


def test_one_bit_frames_begin_within_a_byte() -> None:
    data = header(1, 5, allocated=1, frames=3) + element(0x7FE00010, "OB", pack("<H", 0b11011_00001_10101))
    assert [decoded(data, EXPLICIT, n).ravel().tolist() for n in range(3)] == [
        [1, 0, 1, 0, 1],
        [1, 0, 0, 0, 0],
        [1, 1, 0, 1, 1],
    ]


def test_bits_outside_bits_stored_mean_nothing() -> None:
    unsigned = np.array([[0xF123, 0x0FFF]], np.uint16)
    assert decoded(image(unsigned, stored=12)).tolist() == [[0x123, 0xFFF]]
    signed = np.array([[0x0FFF, 0x0800, 0xF7FF]], np.uint16)
    assert decoded(image(signed, stored=12, signed=True)).tolist() == [[-1, -2048, 2047]]
    high = np.array([[0xABC5, 0x1230]], np.uint16)
    assert decoded(image(high, stored=12, high=15)).tolist() == [[0xABC, 0x123]]
    assert decoded(image(high, stored=12, high=15, signed=True)).tolist() == [[0xABC - 0x1000, 0x123]]


def test_planes_become_pixels() -> None:
    planes = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    data = header(2, 2, samples=3, photometric="RGB", allocated=8, planar=1)
    found = decoded(data + element(0x7FE00010, "OB", planes.tobytes()))
    assert np.array_equal(found, planes.transpose(1, 2, 0))


def test_chrominances_of_4_2_2_are_shared_by_pairs() -> None:
    data = header(1, 2, samples=3, photometric="YBR_FULL_422", allocated=8, planar=0)
    assert decoded(data + element(0x7FE00010, "OB", b"\1\2\3\4")).tolist() == [[[1, 3, 4], [2, 3, 4]]]
    odd = header(2, 3, samples=3, photometric="YBR_FULL_422", allocated=8, planar=0)
    with pytest.raises(PixelsUnreadable, match="odd"):
        decoded(odd + element(0x7FE00010, "OB", bytes(12)))


@pytest.mark.parametrize(("tag", "vr", "kind"), [(0x7FE00008, "OF", "f4"), (0x7FE00009, "OD", "f8")])
def test_float_pixels_come_back(tag: int, vr: str, kind: str) -> None:
    values = np.array([[1.5, -2.25]], kind)
    data = header(1, 2, allocated=values.dtype.itemsize * 8) + element(tag, vr, values.tobytes())
    assert np.array_equal(decoded(data), values)


LOSSLESS = {RLE: "RLE", JPEG_LS: "JPEG-LS", J2K: "JPEG 2000", HTJ2K: "HTJ2K", HTJ2K_RPCL: "HTJ2K RPCL"}


_SHAPES = [
    *(("u1", bits, samples) for bits, samples in ((8, 1), (5, 1), (8, 3))),
    *(("u2", bits, samples) for bits, samples in ((16, 1), (12, 1), (16, 3), (10, 3))),
    *(("i1", 8, 1), ("i2", 16, 1), ("i2", 12, 1)),
]


@pytest.mark.parametrize("syntax", LOSSLESS, ids=LOSSLESS.values())
@pytest.mark.parametrize(
    ("kind", "bits", "samples"),
    _SHAPES,
)
def test_what_is_encoded_without_loss_comes_back(syntax: str, kind: str, bits: int, samples: int) -> None:
    values = ramp(kind, samples=samples, bits=bits)
    native = described(image(values, stored=bits))
    encoded = encode_frame(values, native, syntax)
    assert len(encoded) % 2 == 0
    photometric = "YBR_RCT" if samples == 3 and syntax in (J2K, HTJ2K, HTJ2K_RPCL) else native.photometric
    data = header(16, 24, samples=samples, photometric=photometric, allocated=native.bits_allocated, stored=bits,
                  signed=native.signed, planar=0 if samples == 3 else None)  # fmt: skip
    found = described(data + encapsulated([encoded]), syntax)
    assert np.array_equal(decode_frame(encoded, found, 0), values)
    assert decoded_photometric(found) == native.photometric


def test_a_signed_image_in_an_unsigned_codestream_keeps_its_signs() -> None:
    """Pixel Representation decides, not the codestream (PS3.5 8.2.4)."""
    values = ramp("i2", bits=13)
    unsigned = (values & 0x1FFF).astype(np.uint16)
    encoded = imagecodecs.jpeg2k_encode(unsigned, 0, codecformat="j2k", reversible=True, bitspersample=13)
    data = header(16, 24, stored=13, signed=True) + encapsulated([even(encoded, b"\0")])
    assert np.array_equal(decoded(data, J2K), values)


@pytest.mark.parametrize(("photometric", "is_rgb"), [("YBR_FULL", False), ("RGB", True), ("YBR_FULL_422", False)])
def test_lossy_jpeg_in_colour_always_decodes_to_rgb(photometric: str, is_rgb: bool) -> None:
    """Without an Adobe marker the data set says what the components are."""
    colour = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    encoded = imagecodecs.jpeg8_encode(
        colour, 100, colorspace="RGB", outcolorspace="RGB" if is_rgb else "YCBCR", subsampling="444"
    )
    without_adobe = _without_marker(encoded, 0xEE)
    data = header(16, 16, samples=3, photometric=photometric, allocated=8, planar=0)
    found = decoded(data + encapsulated([even(without_adobe, b"\0")]), JPEG)
    assert np.abs(found.astype(int) - colour).max() <= 3


def _without_marker(stream: bytes | bytearray, marker: int) -> bytes:
    stream = bytes(stream)
    place = stream.find(bytes([0xFF, marker]))
    if place < 0:
        return stream
    return stream[:place] + stream[place + 2 + int.from_bytes(stream[place + 2 : place + 4], "big") :]


SMALL = np.zeros((16, 16), np.uint8)
LIARS = {
    "JPEG": (JPEG, imagecodecs.jpeg8_encode(SMALL)),
    "JPEG-LS": (JPEG_LS, imagecodecs.jpegls_encode(SMALL)),
    "JPEG 2000": (J2K, imagecodecs.jpeg2k_encode(SMALL, 0, codecformat="j2k", reversible=True)),
    "JP2": (J2K, imagecodecs.jpeg2k_encode(SMALL, 0, codecformat="jp2", reversible=True)),
    "HTJ2K": (HTJ2K, imagecodecs.htj2k_encode(SMALL)),
    "JPEG XL": (JPEG_XL, imagecodecs.jpegxl_encode(SMALL, lossless=True)),
}


@pytest.mark.parametrize(("rows", "columns"), [(16, 15), (15, 16), (16, 17), (17, 16)])
@pytest.mark.parametrize("name", LIARS)
def test_a_codestream_of_another_size_is_refused(name: str, rows: int, columns: int) -> None:
    syntax, stream = LIARS[name]
    honest = header(16, 16, allocated=8) + encapsulated([even(stream, b"\0")])
    assert np.array_equal(decoded(honest, syntax), SMALL)
    with pytest.raises(PixelsUnreadable, match="the codestream is 16 x 16"):
        decoded(header(rows, columns, allocated=8) + encapsulated([even(stream, b"\0")]), syntax)


@pytest.mark.parametrize("side", [(8, 8), (8, 16), (256, 256), (100, 300), (9, 1000), (48, 64), (72, 128)])
def test_the_size_of_a_jpeg_xl_is_read_in_each_of_its_forms(side: tuple[int, int]) -> None:
    stream = imagecodecs.jpegxl_encode(np.zeros(side, np.uint8), lossless=True)
    data = header(*side, allocated=8) + encapsulated([even(stream, b"\0")])
    assert decoded(data, JPEG_XL).shape == side


@pytest.mark.parametrize("name", LIARS)
@pytest.mark.parametrize("cut", [1, 3, 11, 40, 60])
def test_a_codestream_cut_anywhere_is_unreadable_or_decoded_whole(name: str, cut: int) -> None:
    """Some decoders fill what is missing; none may answer with another shape or another error."""
    syntax, stream = LIARS[name]
    data = header(16, 16, allocated=8) + encapsulated([even(stream[:cut], b"\0")])
    try:
        assert decoded(data, syntax).shape == (16, 16)
    except PixelsUnreadable:
        pass


def test_colour_in_a_grey_image_is_refused() -> None:
    stream = imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(PixelsUnreadable, match="3 components"):
        decoded(header(16, 16, allocated=8) + encapsulated([even(stream, b"\0")]), JPEG)


@pytest.mark.parametrize("broken", [b"", b"\1\0\0\0", pack("<16L", 1, 64, *[0] * 14), pack("<16L", 99, *[64] * 15)])
def test_rle_that_makes_no_sense_is_refused(broken: bytes) -> None:
    with pytest.raises(PixelsUnreadable):
        decoded(header(16, 16, allocated=8) + encapsulated([broken + b"\0\0"]), RLE)


def test_rle_segments_longer_than_the_frame_are_refused_or_cut() -> None:
    """The decoder's panic, which is not even an Exception, must not pass."""
    run, literal = b"\x81\x07", b"\x03abcd"
    for first, second in ((run, run), (literal, literal + run), (run, literal)):
        segments = pack("<16L", 2, 64, 64 + len(first), *[0] * 13) + first + second
        data = header(2, 2, allocated=16) + encapsulated([even(segments, b"\0")])
        try:
            assert decoded(data, RLE).shape == (2, 2)
        except PixelsUnreadable:
            pass


def test_native_bytes_that_are_missing_are_truncated() -> None:
    found = described(image(ramp("u2")))
    with pytest.raises(TruncatedObject):
        decode_frame(b"\0" * 10, found, 0)


def palette_values(words: list[int], *, segmented: bool, count: int, first: int = 0, bits: int = 16) -> list[int]:
    tag = 0x00281221 if segmented else 0x00281201
    elements = {}
    for channel in range(3):
        elements[0x00281101 + channel] = element(0x00281101 + channel, "US", pack("<3H", count & 0xFFFF, first, bits))
        elements[tag + channel] = element(tag + channel, "OW", pack(f"<{len(words)}H", *words))
    view = memoryview(b"".join(elements[key] for key in sorted(elements)))
    palette = read_palette(read_header(view, EXPLICIT, DEFAULT_LIMITS), False)
    assert palette is not None
    assert palette.green.first == first
    return [int(v) for v in palette.red.values]


def test_segments_of_a_palette_unfold() -> None:
    """PS3.3 C.7.9.2: discrete, linear, and a repetition of both."""
    words = [0, 1, 1000, 1, 4, 3000, 2, 2, 0, 0]
    assert palette_values(words, segmented=True, count=10) == [
        1000,
        1500,
        2000,
        2500,
        3000,
        *[1000],
        1500,
        2000,
        2500,
        3000,
    ]


def test_a_short_palette_repeats_its_last_entry_and_a_long_one_is_cut() -> None:
    assert palette_values([0, 2, 256, 512], segmented=True, count=4) == [256, 512, 512, 512]
    assert palette_values([1, 60000, 60000], segmented=True, count=3) == [1, 2, 3]


@pytest.mark.parametrize("words", [[0, 9, 1], [7, 1, 1], [2, 1], [1, 2]])
def test_segments_that_make_no_sense_are_refused(words: list[int]) -> None:
    with pytest.raises(PixelsUnreadable):
        palette_values(words, segmented=True, count=8)


def test_a_palette_filled_to_eight_bits_is_read_as_eight_bits() -> None:
    assert palette_values([0, 128, 255], segmented=False, count=3) == [0, 128, 255]

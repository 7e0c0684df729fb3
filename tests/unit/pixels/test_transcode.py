"""Another transfer syntax, the same pixels and the same attributes, or CannotTranscode."""

from __future__ import annotations

import zlib
from io import BytesIO
from struct import pack
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.filereader import read_dataset

from negatoscope.dicom import uid
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.pixels import encode as encoder
from negatoscope.dicom.pixels import transcode as module
from negatoscope.dicom.pixels.decode import decode_frame
from negatoscope.dicom.pixels.describe import PixelDescription, describe
from negatoscope.dicom.pixels.frames import frame_bytes, frame_locations
from negatoscope.dicom.pixels.transcode import SOURCES, TARGETS, TRANSCODINGS, can_transcode, transcode, transcode_frame
from negatoscope.errors import CannotTranscode, LimitExceeded
from unit.dicom.samples import element, item, nested, sequence
from unit.pixels.build import (
    BIG,
    DEFLATED,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG,
    JPEG_LS,
    RLE,
    encapsulated,
    even,
    header,
    image,
    ramp,
)


def transcoded(data: bytes, source: str, target: str) -> bytes:
    return b"".join(transcode(data, source, target))


def parsed(data: bytes, syntax: str) -> Dataset:
    return read_dataset(BytesIO(data), syntax == IMPLICIT, syntax != BIG)


def all_frames(data: bytes, syntax: str) -> list[NDArray[Any]]:
    found = describe(data, syntax)
    table = frame_locations(data, found)
    return [decode_frame(frame_bytes(data, table[n]), found, n) for n in range(len(table))]


def test_the_table_holds_every_pair_that_is_offered() -> None:
    assert set(TRANSCODINGS) == SOURCES
    assert {uid.DEFLATED_LITTLE_ENDIAN, uid.EXPLICIT_BIG_ENDIAN, JPEG} <= SOURCES
    for source, targets in TRANSCODINGS.items():
        assert targets == TARGETS - {source}
        assert can_transcode(source, source)
    assert not can_transcode(EXPLICIT, JPEG), "nothing is ever encoded with loss"
    assert not can_transcode("1.2.840.10008.1.2.4.102", EXPLICIT)


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("source", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
def test_pixels_and_attributes_survive_every_pair(source: str, target: str) -> None:
    nest = sequence(0x00081140, [item(element(0x00081150, "UI", b"1.2\0"), undefined=True), item(b"")], undefined=True)
    native = EXPLICIT if source == DEFLATED else source
    extra = {0x00080060: ("CS", b"CT"), 0x00181316: ("DS", b"1.5 "), 0x0028000A: ("UN", b"xy")}
    frames = np.stack([ramp("i2", bits=12), ramp("i2", bits=12)[::-1]])
    body = image(frames, syntax=native, frames=2, stored=12, extra=extra)
    data = (nest if native == EXPLICIT else b"") + body
    given = zlib.compress(data, wbits=-15) if source == DEFLATED else data
    if source == target:
        assert transcoded(given, source, target) == given
        return
    result = transcoded(given, source, target)
    assert all(np.array_equal(a, b) for a, b in zip(all_frames(result, target), frames, strict=True))
    before, after = parsed(data, native), parsed(result, target)
    changed = {element.tag for element in before if element.tag in after and element.value != after[element.tag].value}
    assert changed <= {0x7FE00010}
    assert [element.tag for element in before] == [element.tag for element in after]


@pytest.mark.parametrize(
    ("target", "photometric", "planar"),
    [(J2K, "YBR_RCT", 0), (HTJ2K, "YBR_RCT", 0), (JPEG_LS, "RGB", 0), (RLE, "RGB", 1), (IMPLICIT, "RGB", 0)],
)
def test_colour_attributes_follow_the_syntax_and_come_back(target: str, photometric: str, planar: int) -> None:
    data = image(ramp("u1", samples=3))
    result = transcoded(data, EXPLICIT, target)
    after = parsed(result, target)
    assert (after.PhotometricInterpretation, after.PlanarConfiguration) == (photometric, planar)
    back = parsed(transcoded(result, target, EXPLICIT), EXPLICIT)
    assert (back.PhotometricInterpretation, back.PlanarConfiguration) == ("RGB", 0)
    assert back.PixelData == parsed(data, EXPLICIT).PixelData


def test_an_odd_number_of_bytes_is_made_even() -> None:
    values = ramp("u1", 3, 3)
    for target in (RLE, JPEG_LS, J2K, HTJ2K):
        there = transcoded(image(values), EXPLICIT, target)
        back = transcoded(there, target, EXPLICIT)
        assert len(there) % 2 == len(back) % 2 == 0
        assert np.array_equal(all_frames(back, EXPLICIT)[0], values)


def test_lossy_images_are_decompressed_and_keep_their_mark() -> None:
    stream = even(bytes(imagecodecs.jpeg8_encode(ramp("u1"), 80)), b"\0")
    data = header(16, 24, allocated=8) + encapsulated([stream])
    for target in (EXPLICIT, JPEG_LS):
        after = parsed(transcoded(data, JPEG, target), target)
        assert after.LossyImageCompression == "01"
    assert "LossyImageCompression" not in parsed(transcoded(image(ramp("u1")), EXPLICIT, J2K), J2K)


@pytest.mark.parametrize(
    ("data", "target"),
    [
        (image(np.zeros((2, 2), np.uint32)), JPEG_LS),
        (image(np.zeros((2, 2), np.uint32)), J2K),
        (header(1, 2, allocated=32) + element(0x7FE00008, "OF", bytes(8)), HTJ2K),
        (header(4, 4, allocated=1) + element(0x7FE00010, "OB", bytes(2)), RLE),
        (image(np.full((2, 2), 0xF001, np.uint16), stored=12), J2K),
    ],
    ids=["32 bits to JPEG-LS", "32 bits to JPEG 2000", "float", "one bit", "overlay bits in the cells"],
)
def test_pixels_that_a_codec_cannot_hold_are_refused(data: bytes, target: str) -> None:
    with pytest.raises(CannotTranscode):
        transcoded(data, EXPLICIT, target)


def test_overlay_bits_in_the_cells_survive_rle() -> None:
    values = np.array([[0xF001, 0x1FFF]], np.uint16)
    data = image(values, stored=12)
    assert parsed(transcoded(transcoded(data, EXPLICIT, RLE), RLE, EXPLICIT), EXPLICIT).PixelData == values.tobytes()


def test_a_frame_that_does_not_come_back_equal_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """I7: the proof is made with the decoder, on what was really written."""
    right = encoder.encode_frame

    def wrong(values: NDArray[Any], description: PixelDescription, target: str) -> bytes:
        changed = values.copy()
        changed[3, 3] ^= 1
        return right(changed, description, target)

    monkeypatch.setattr(module, "encode_frame", wrong)
    for target in (RLE, JPEG_LS, J2K, HTJ2K):
        with pytest.raises(CannotTranscode, match="frame 1 does not come back"):
            transcoded(image(ramp("u2")), EXPLICIT, target)


def test_the_offset_table_leads_to_every_frame() -> None:
    frames = np.stack([ramp("u1"), np.zeros((16, 24), np.uint8), ramp("u1")[::-1]])
    result = transcoded(image(frames, frames=3), EXPLICIT, RLE)
    start = result.index(pack("<HHI", 0xFFFE, 0xE000, 12)) + 8
    offsets = np.frombuffer(result[start : start + 12], "<u4")
    assert [result[start + 12 + offset :][:4] for offset in offsets] == [b"\xfe\xff\x00\xe0"] * 3


def test_one_frame_can_be_had_alone() -> None:
    frames = np.stack([ramp("u2"), ramp("u2")[::-1]])
    data = image(frames, frames=2)
    assert transcode_frame(data, EXPLICIT, IMPLICIT, 1) == frames[1].tobytes()
    assert np.array_equal(imagecodecs.jpegls_decode(transcode_frame(data, EXPLICIT, JPEG_LS, 1)), frames[1])
    with pytest.raises(CannotTranscode, match="frame 3"):
        transcode_frame(data, EXPLICIT, JPEG_LS, 2)


def test_objects_without_pixels_change_syntax_too() -> None:
    report = sequence(0x0040A730, [item(sequence(0x0040A730, [item(element(0x0040A160, "UT", b"text"))]))])
    implicit = transcoded(element(0x00080060, "CS", b"SR") + report, EXPLICIT, IMPLICIT)
    assert parsed(implicit, IMPLICIT).ContentSequence[0].ContentSequence[0].TextValue == "text"
    assert parsed(transcoded(implicit, IMPLICIT, EXPLICIT), EXPLICIT).Modality == "SR"


def test_group_lengths_go_and_ambiguous_values_follow_the_sign() -> None:
    implicit = uid.TRANSFER_SYNTAXES[IMPLICIT]
    smallest = {0x00280000: ("UL", pack("<L", 99)), 0x00280106: ("US", pack("<h", -5)), 0x00290010: ("LO", b"ME")}
    private = {0x00291001: ("UN", b"\1\2")}
    data = image(ramp("i2"), syntax=IMPLICIT, extra=smallest | private)
    after = parsed(transcoded(data, IMPLICIT, EXPLICIT), EXPLICIT)
    assert (after.SmallestImagePixelValue, after[0x00280106].VR) == (-5, "SS")
    assert (after[0x00291001].value, after[0x00291001].VR) == (b"\1\2", "UN")
    assert 0x00280000 not in after
    assert implicit.explicit is False


def test_a_value_too_long_for_its_short_header_becomes_unknown() -> None:
    data = element(0x00204000, "LT", b"x" * 70_000, syntax=uid.TRANSFER_SYNTAXES[IMPLICIT])
    after = parsed(transcoded(data, IMPLICIT, EXPLICIT), EXPLICIT)
    assert len(after[0x00204000].value) == 70_000


def test_numbers_of_big_endian_are_turned_round() -> None:
    written = uid.TRANSFER_SYNTAXES[BIG]
    values = element(0x00186020, "SL", pack(">l", -7), syntax=written)
    values += element(0x00189087, "FD", pack(">2d", 1.5, 2.5), syntax=written)
    after = parsed(transcoded(values, BIG, EXPLICIT), EXPLICIT)
    assert (after[0x00186020].value, list(after[0x00189087].value)) == (-7, [1.5, 2.5])


@pytest.mark.parametrize(("depth", "accepted"), [(63, True), (64, True), (65, False)])
@pytest.mark.parametrize("undefined", [True, False])
def test_sequences_nested_over_the_limit_are_not_rewritten(depth: int, undefined: bool, accepted: bool) -> None:
    data = nested(depth, undefined=undefined)
    if accepted:
        assert transcoded(data, EXPLICIT, IMPLICIT).count(pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) >= depth
    else:
        with pytest.raises(LimitExceeded):
            transcoded(data, EXPLICIT, IMPLICIT)


def test_what_follows_the_pixels_is_kept() -> None:
    trailing = element(0xFFFCFFFC, "OB", b"\0\0")
    assert transcoded(image(ramp("u1")) + trailing, EXPLICIT, JPEG_LS).endswith(trailing)
    there = transcoded(image(ramp("u1")), EXPLICIT, JPEG_LS) + trailing
    assert transcoded(there, JPEG_LS, EXPLICIT).endswith(trailing)


def test_large_objects_are_written_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TABLE_MEMORY", 16 * 24 * 2 - 1)
    result = transcoded(image(np.stack([ramp("u1")] * 2), frames=2), EXPLICIT, RLE)
    assert len(all_frames(result, RLE)) == 2
    assert pack("<HHI", 0xFFFE, 0xE000, 0) in result
    assert DEFAULT_LIMITS.frames

"""What the header says of the pixels is read without the pixels, and judged."""

from __future__ import annotations

from struct import pack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.describe import Window, describe, frame_transform
from negatoscope.dicom.pixels.frames import frame_locations
from negatoscope.dicom.pixels.header import plain, read_header
from negatoscope.errors import LimitExceeded, PixelsUnreadable, TruncatedObject
from unit.dicom.samples import element, item, nested, sequence
from unit.pixels.build import BIG, EXPLICIT, IMPLICIT, J2K, encapsulated, header, image, ramp


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_every_native_syntax_reads_alike(syntax: str) -> None:
    data = image(ramp("i2"), syntax=syntax, stored=12, extra={0x00281053: ("DS", b"2 "), 0x00281052: ("DS", b"-1024 ")})
    found = describe(data, syntax)
    assert (found.rows, found.columns, found.bits_stored, found.signed) == (16, 24, 12, True)
    assert (found.transform.slope, found.transform.intercept) == (2.0, -1024.0)
    assert found.little == (syntax != BIG)


@pytest.mark.parametrize(("frames", "accepted"), [(2, True), (3, True), (4, False)])
def test_frames_over_the_limit_are_refused(frames: int, accepted: bool) -> None:
    data = image(np.zeros((frames, 2, 2), np.uint8), frames=frames)
    limits = Limits(frames=3)
    if accepted:
        assert describe(data, EXPLICIT, limits).frames == frames
    else:
        with pytest.raises(LimitExceeded, match="3 frames"):
            describe(data, EXPLICIT, limits)


@pytest.mark.parametrize(("columns", "accepted"), [(7, True), (8, True), (9, False)])
def test_frame_pixels_over_the_limit_are_refused(columns: int, accepted: bool) -> None:
    data = image(np.zeros((2, columns), np.uint8))
    limits = Limits(frame_pixels=16)
    if accepted:
        assert describe(data, EXPLICIT, limits).columns == columns
    else:
        with pytest.raises(LimitExceeded, match="16 allowed"):
            describe(data, EXPLICIT, limits)


@pytest.mark.parametrize(("limit", "accepted"), [(8, False), (9, True), (10, True)])
def test_elements_over_the_limit_are_refused(limit: int, accepted: bool) -> None:
    data = image(np.zeros((2, 2), np.uint8))  # eight elements and the pixels
    if accepted:
        assert describe(data, EXPLICIT, Limits(elements=limit)).rows == 2
    else:
        with pytest.raises(LimitExceeded, match="8 elements"):
            describe(data, EXPLICIT, Limits(elements=limit))


@pytest.mark.parametrize(("depth", "accepted"), [(63, True), (64, True), (65, False), (100_000, False)])
def test_sequences_nested_over_the_limit_are_refused(depth: int, accepted: bool) -> None:
    before = nested(depth, undefined=True)
    data = before + image(np.zeros((2, 2), np.uint8))
    if accepted:
        assert describe(data, EXPLICIT).rows == 2
    else:
        with pytest.raises(LimitExceeded, match="64"):
            describe(data, EXPLICIT)


@pytest.mark.parametrize("missing", [1, 0])
def test_native_pixels_must_hold_every_declared_frame(missing: int) -> None:
    data = header(2, 2, allocated=8, frames=3) + element(0x7FE00010, "OB", bytes(12 - missing))
    if missing:
        with pytest.raises(TruncatedObject, match="12 needed"):
            describe(data, EXPLICIT)
    else:
        assert describe(data, EXPLICIT).frames == 3


def test_pixels_that_end_after_the_data_set_are_truncated() -> None:
    with pytest.raises(TruncatedObject):
        describe(image(ramp("u2"))[:-1], EXPLICIT)


def test_a_data_set_without_pixels_is_unreadable() -> None:
    with pytest.raises(PixelsUnreadable, match="no pixel data"):
        describe(header(2, 2), EXPLICIT)


@pytest.mark.parametrize(
    "wrong",
    [{"samples": 2}, {"allocated": 12}, {"allocated": 8, "stored": 9}, {"stored": 0, "high": 0}],
)
def test_attributes_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(PixelsUnreadable):
        describe(header(2, 2, **wrong) + element(0x7FE00010, "OW", bytes(64)), EXPLICIT)  # type: ignore[arg-type]  # ints


def test_an_image_of_no_rows_is_refused() -> None:
    with pytest.raises(PixelsUnreadable, match="0 rows"):
        describe(header(0, 4) + element(0x7FE00010, "OW", b""), EXPLICIT)


def test_full_colour_under_the_name_of_4_2_2_is_taken_as_full() -> None:
    full = image(ramp("u1", 4, 4, 3), photometric="YBR_FULL_422")
    assert describe(full, EXPLICIT).photometric == "YBR_FULL"


def test_each_frame_of_an_enhanced_object_has_its_own_window_and_rescale() -> None:
    def frame(center: str, slope: str) -> bytes:
        voi = element(0x00281050, "DS", center.encode()) + element(0x00281051, "DS", b"10")
        rescale = element(0x00281052, "DS", b"0 ") + element(0x00281053, "DS", slope.encode())
        return item(sequence(0x00289132, [item(voi)]) + sequence(0x00289145, [item(rescale)]), undefined=True)

    spacing = sequence(0x00289110, [item(element(0x00280030, "DS", b"2\\1 "))])
    groups = sequence(0x52009229, [item(spacing)]) + sequence(0x52009230, [frame("40", "2 "), frame("50", "3 ")])
    data = header(1, 1, allocated=8, frames=2) + groups + element(0x7FE00010, "OB", b"\1\2")
    view, syntax = plain(data, EXPLICIT, DEFAULT_LIMITS)
    found = describe(data, EXPLICIT)
    parts = [frame_transform(read_header(view, syntax, DEFAULT_LIMITS), found, n) for n in (0, 1, 2)]
    assert [part.windows for part in parts] == [(Window(40, 10),), (Window(50, 10),), ()]
    assert [part.slope for part in parts] == [2.0, 3.0, 1.0]
    assert {part.aspect for part in parts} == {2.0}


def test_windows_of_no_width_are_as_good_as_none() -> None:
    data = image(ramp("u2"), extra={0x00281050: ("DS", b"0 "), 0x00281051: ("DS", b"0 ")})
    assert describe(data, EXPLICIT).transform.windows == ()


def test_padding_is_a_range_whichever_way_round() -> None:
    extra = {0x00280120: ("SS", pack("<h", -2000)), 0x00280121: ("SS", pack("<h", -3000))}
    assert describe(image(ramp("i2"), extra=extra), EXPLICIT).padding == (-3000, -2000)


_SEEDS = [
    (image(ramp("u2", 4, 4), extra={0x00281050: ("DS", b"40\\50 "), 0x00281051: ("DS", b"10\\1x ")}), EXPLICIT),
    (image(ramp("u1", 4, 4, 3), syntax=IMPLICIT), IMPLICIT),
    (image(ramp("i2", 4, 4), syntax=BIG), BIG),
    (nested(5, undefined=True) + header(4, 4, frames=2) + encapsulated([b"\xff\xd8ab", b"\xff\xd8"], [0, 12]), J2K),
]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(_SEEDS),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 500),
)
def test_no_header_however_damaged_raises_anything_else(
    seed: tuple[bytes, str], edits: list[tuple[int, int]], cut: int
) -> None:
    """H5 in small: three errors and no other."""
    damaged = bytearray(seed[0][: len(seed[0]) - cut] if cut < 50 else seed[0])
    for place, value in edits:
        damaged[place % len(damaged)] = value
    try:
        found = describe(damaged, seed[1])
        frame_locations(damaged, found)
    except (PixelsUnreadable, LimitExceeded, TruncatedObject):
        return
    assert found.rows

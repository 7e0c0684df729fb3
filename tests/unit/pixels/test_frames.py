"""Frames are found by arithmetic or from fragment headers, however wrong the offset table."""

from __future__ import annotations

from struct import pack

import pytest

from negatoscope.dicom.limits import Limits
from negatoscope.dicom.pixels.frames import after_fragments, frame_bytes, frame_locations
from negatoscope.errors import LimitExceeded, PixelsUnreadable, TruncatedObject
from unit.dicom.samples import element, item
from unit.pixels.build import BIG, EXPLICIT, J2K, described, encapsulated, header

SOI = b"\xff\x4f\xff\x51"


def pieces(data: bytes, syntax: str = J2K) -> list[bytes]:
    return [bytes(frame_bytes(data, fragments)) for fragments in frame_locations(data, described(data, syntax))]


def encapsulated_image(frames: int, fragments: list[bytes], table: list[int], extra: bytes = b"") -> bytes:
    return header(2, 2, allocated=8, frames=frames) + extra + encapsulated(fragments, table)


def test_native_frames_follow_one_another() -> None:
    data = header(1, 2, allocated=8, frames=3) + element(0x7FE00010, "OB", b"aabbcc")
    assert pieces(data, EXPLICIT) == [b"aa", b"bb", b"cc"]


def test_one_bit_frames_share_bytes() -> None:
    data = header(1, 5, allocated=1, frames=3) + element(0x7FE00010, "OB", b"\x12\x34")
    table = frame_locations(data, described(data))
    assert [fragments[0][1] for fragments in table] == [1, 2, 1]
    assert [fragments[0][0] - table[0][0][0] for fragments in table] == [0, 0, 1]


def test_bytes_in_big_endian_words_come_with_their_whole_word() -> None:
    from negatoscope.dicom import uid

    syntax = uid.TRANSFER_SYNTAXES[BIG]
    data = header(1, 3, allocated=8, frames=2, syntax=BIG) + element(0x7FE00010, "OW", b"badcfe", syntax=syntax)
    assert pieces(data, BIG) == [b"badc", b"dcfe"]


def test_a_million_native_frames_cost_nothing_to_locate() -> None:
    data = header(1, 1, allocated=8, frames=1_000_000) + element(0x7FE00010, "OB", bytes(1_000_000))
    table = frame_locations(data, described(data))
    assert len(table) == 1_000_000
    assert table[999_999][0][0] - table[0][0][0] == 999_999
    assert len(table[5:9]) == 4
    with pytest.raises(IndexError):
        table[1_000_000]


def test_the_basic_offset_table_groups_fragments() -> None:
    assert pieces(encapsulated_image(2, [b"a1", b"a2", b"b1"], [0, 20])) == [b"a1a2", b"b1"]


def test_all_fragments_are_the_only_frame() -> None:
    assert pieces(encapsulated_image(1, [b"a1", b"a2"], [])) == [b"a1a2"]


@pytest.mark.parametrize("table", [[], [0], [0, 11, 20], [4, 20, 10], [0, 0, 0], [0, 4_000_000_000, 1]])
def test_without_a_table_that_fits_there_is_one_fragment_a_frame(table: list[int]) -> None:
    assert pieces(encapsulated_image(3, [b"aa", b"bb", b"cc"], table)) == [b"aa", b"bb", b"cc"]


def test_the_extended_offset_table_serves_where_the_basic_one_is_empty() -> None:
    tables = element(0x7FE00001, "OV", pack("<2Q", 0, 20)) + element(0x7FE00002, "OV", pack("<2Q", 4, 2))
    assert pieces(encapsulated_image(2, [b"a1", b"a2", b"b1"], [], tables)) == [b"a1a2", b"b1"]


def test_without_any_table_frames_begin_where_codestreams_begin() -> None:
    fragments = [SOI + b"1", b"more", SOI + b"2", b"more", b"more"]
    assert pieces(encapsulated_image(2, [f + b"\0" * (len(f) % 2) for f in fragments], [])) == [
        SOI + b"1\0more",
        SOI + b"2\0moremore",
    ]


def test_fragments_that_no_rule_shares_out_are_refused() -> None:
    with pytest.raises(PixelsUnreadable, match="3 fragments"):
        pieces(encapsulated_image(2, [b"aa", b"bb", b"cc"], []))


def test_fewer_fragments_than_frames_is_a_truncated_object() -> None:
    with pytest.raises(TruncatedObject, match="1 fragments for 2 frames"):
        pieces(encapsulated_image(2, [b"aa"], []))
    with pytest.raises(TruncatedObject, match="without a fragment"):
        pieces(encapsulated_image(1, [], []))


def test_a_fragment_that_ends_after_the_data_set_is_truncated() -> None:
    data = header(2, 2, allocated=8) + element(0x7FE00010, "OB", length=0xFFFFFFFF) + item(b"")
    with pytest.raises(TruncatedObject, match="ends after"):
        pieces(data + pack("<HHI", 0xFFFE, 0xE000, 100) + b"short")


def test_a_missing_delimiter_is_forgiven_when_the_fragments_are_whole() -> None:
    assert pieces(encapsulated_image(1, [b"aa"], [])[:-8]) == [b"aa"]


@pytest.mark.parametrize(("limit", "accepted"), [(19, False), (20, True), (21, True)])
def test_fragments_over_the_limit_are_refused(limit: int, accepted: bool) -> None:
    data = encapsulated_image(1, [b"aa"] * 20, [])
    found = described(data, J2K)
    if accepted:
        assert len(frame_locations(data, found, Limits(elements=limit))[0]) == 20
    else:
        with pytest.raises(LimitExceeded, match="19 fragments"):
            frame_locations(data, found, Limits(elements=limit))


def test_what_follows_the_pixels_is_found() -> None:
    data = encapsulated_image(1, [b"aa"], [])
    trailing = element(0xFFFCFFFC, "OB", b"\0\0")
    assert after_fragments(data + trailing, described(data + trailing, J2K)) == len(data)

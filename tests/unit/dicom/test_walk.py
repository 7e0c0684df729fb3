"""The structural walk: everything real is taken, everything hostile is refused, cheaply and by name."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from struct import pack

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.filereader import data_element_generator

from negatoscope.dicom import uid
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.tags import ITEM, PIXEL_DATA, UNDEFINED_LENGTH
from negatoscope.dicom.walk import Buffer, Element, fragments_end, walk
from negatoscope.errors import InvalidObject, LimitExceeded, SequenceTooDeep, TruncatedObject
from unit.dicom.samples import (
    BIG,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    JPEG,
    SEQUENCE_END,
    SEQUENCES,
    datasets,
    element,
    item,
    mutated,
    nested,
    sequence,
)

SYNTAXES = pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG], ids=["explicit", "implicit", "big"])


def walked(data: Buffer, syntax: uid.TransferSyntax = EXPLICIT) -> list[Element]:
    return list(walk(data, syntax))


def shape(data: Buffer, syntax: uid.TransferSyntax = EXPLICIT) -> list[tuple[int, str, int]]:
    return [(e.tag, e.vr, e.depth) for e in walked(data, syntax)]


@SYNTAXES
def test_elements_are_found_where_they_lie(syntax: uid.TransferSyntax) -> None:
    data = element(0x00100020, "LO", b"ABCD", syntax=syntax) + element(PIXEL_DATA, "OW", b"123456", syntax=syntax)
    patient, pixels = walked(data, syntax)
    assert (patient.tag, patient.vr, patient.length, patient.depth, patient.start) == (0x00100020, "LO", 4, 0, 0)
    assert data[patient.offset : patient.end] == b"ABCD"
    assert (pixels.vr, data[pixels.offset : pixels.end]) == ("OW", b"123456")
    assert pixels.little_endian is syntax.little_endian


@SYNTAXES
@pytest.mark.parametrize("undefined", [False, True])
def test_nested_sequences_are_told_by_depth(syntax: uid.TransferSyntax, undefined: bool) -> None:
    order = "<" if syntax.little_endian else ">"
    inner = sequence(0x00081199, [item(b"", order=order)], undefined=undefined, syntax=syntax)
    first = item(element(0x00080050, "SH", b"A ", syntax=syntax) + inner, undefined=undefined, order=order)
    data = sequence(0x00400275, [first, item(b"", order=order)], undefined=undefined, syntax=syntax)
    data += element(0x00400254, "LO", b"", syntax=syntax)
    assert shape(data, syntax) == [
        (0x00400275, "SQ", 0),
        (ITEM, "", 1),
        (0x00080050, "SH", 1),
        (0x00081199, "SQ", 1),
        (ITEM, "", 2),
        (ITEM, "", 1),
        (0x00400254, "LO", 0),
    ]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
@given(data=st.data())
def test_random_data_sets_have_the_elements_that_pydicom_sees(syntax: uid.TransferSyntax, data: st.DataObject) -> None:
    # pydicom fails on character sets that are noise, so there are none here
    raw = data.draw(datasets(syntax))
    assume(b"\x08\0\x05\0" not in raw)
    ours = [(e.tag, raw[e.offset : e.end] if e.vr != "SQ" else None) for e in walk(raw, syntax) if not e.depth]
    read = data_element_generator(BytesIO(raw), not syntax.explicit, is_little_endian=True)
    theirs = [(int(e.tag), None if e.tag in SEQUENCES else (e.value or b"")) for e in read]
    assert ours == theirs


def test_encapsulated_pixel_data_is_one_element_around_its_fragments() -> None:
    fragments = item(b"") + item(b"JPEG") + item(b"more")
    data = element(PIXEL_DATA, "OB", fragments, length=UNDEFINED_LENGTH) + SEQUENCE_END + element(0xFFFCFFFC, "OB")
    pixels, padding = walked(data, JPEG)
    assert (pixels.length, data[pixels.offset : pixels.end]) == (UNDEFINED_LENGTH, fragments)
    assert padding.tag == 0xFFFCFFFC


def test_an_icon_may_be_encapsulated_too() -> None:
    icon = element(PIXEL_DATA, "OB", item(b""), length=UNDEFINED_LENGTH) + SEQUENCE_END
    assert shape(sequence(0x00880200, [item(icon)]), JPEG)[-1] == (PIXEL_DATA, "OB", 1)


@pytest.mark.parametrize(
    ("tail", "error"),
    [
        (b"", TruncatedObject),  # no delimiter
        (b"\xfe\xff\x00", TruncatedObject),
        (pack("<HHI", 0xFFFE, 0xE000, 99), TruncatedObject),
        (pack("<HHI", 0xFFFE, 0xE000, UNDEFINED_LENGTH), TruncatedObject),
        (pack("<HHI", 0x0008, 0xE000, 0), InvalidObject),
    ],
)
def test_broken_fragments_are_refused(tail: bytes, error: type[InvalidObject]) -> None:
    with pytest.raises(error):
        walked(element(PIXEL_DATA, "OB", item(b"") + tail, length=UNDEFINED_LENGTH), JPEG)


@pytest.mark.parametrize(("fragments", "taken"), [(1, True), (2, True), (3, False)])
def test_fragments_are_limited(fragments: int, taken: bool) -> None:
    data = item(b"") * fragments + SEQUENCE_END
    limits = replace(DEFAULT_LIMITS, elements=3)
    if taken:
        assert fragments_end(data, 0, len(data), True, limits) == 8 * fragments
    else:
        with pytest.raises(LimitExceeded):
            fragments_end(data, 0, len(data), True, limits)


def test_pixel_data_that_declares_four_gigabytes_and_has_two_bytes_is_truncated() -> None:
    with pytest.raises(TruncatedObject):
        walked(element(PIXEL_DATA, "OW", b"ab", length=0xFFFFFFFE))


def test_every_cut_of_a_data_set_is_seen_unless_it_is_between_elements() -> None:
    data = element(0x00080050, "SH", b"AB") + sequence(0x00400275, [item(element(0x00080050, "SH", b"AB"))])
    data += sequence(0x00540016, [item(b"", undefined=True)], undefined=True) + element(PIXEL_DATA, "OW", b"12")
    whole = {0} | {e.start for e in walked(data) if e.depth == 0} | {len(data)}
    for cut in range(len(data)):
        if cut in whole or not any(data[max(whole & set(range(cut + 1))) : cut]):
            continue
        with pytest.raises(TruncatedObject):
            walked(data[:cut])


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize(("depth", "taken"), [(63, True), (64, True), (65, False)])
def test_sequences_nest_64_deep_and_no_deeper(depth: int, taken: bool, undefined: bool) -> None:
    data = nested(depth, undefined=undefined)
    if taken:
        assert max(e.depth for e in walked(data)) == depth
    else:
        with pytest.raises(SequenceTooDeep):
            walked(data)


@SYNTAXES
def test_a_hundred_thousand_sequences_are_refused_at_once_and_in_little_memory(syntax: uid.TransferSyntax) -> None:
    data = nested(100_000, undefined=True, syntax=syntax if syntax.little_endian else EXPLICIT)
    tracemalloc.start()
    begun = time.monotonic()
    with pytest.raises(SequenceTooDeep):
        walked(data, syntax if syntax.little_endian else EXPLICIT)
    assert time.monotonic() - begun < 1
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(("count", "taken"), [(4, True), (5, True), (6, False)])
def test_elements_are_limited_at_all_depths_together(count: int, taken: bool) -> None:
    # the sequence and its item count for two
    data = sequence(0x00400275, [item(element(0x00080050, "SH") * (count - 2))])
    limits = replace(DEFAULT_LIMITS, elements=5)
    if taken:
        assert len(list(walk(data, EXPLICIT, limits))) == count
    else:
        with pytest.raises(LimitExceeded):
            list(walk(data, EXPLICIT, limits))


@pytest.mark.parametrize(("length", "taken"), [(9, True), (10, True), (11, False)])
def test_values_that_are_not_bulk_are_limited(length: int, taken: bool) -> None:
    limits = replace(DEFAULT_LIMITS, value=10)
    assert len(list(walk(element(PIXEL_DATA, "OW", bytes(length)), EXPLICIT, limits))) == 1
    data = element(0x00080119, "UC", b"x" * length)
    if taken:
        assert len(list(walk(data, EXPLICIT, limits))) == 1
    else:
        with pytest.raises(LimitExceeded):
            list(walk(data, EXPLICIT, limits))


def test_un_of_undefined_length_is_a_sequence_in_implicit_little_endian() -> None:
    inner = element(0x00080050, "SH", b"A ", syntax=IMPLICIT)
    for syntax in (EXPLICIT, BIG):
        head = element(0x00091001, "UN", length=UNDEFINED_LENGTH, syntax=syntax)
        data = head + item(inner) + SEQUENCE_END + element(0x00100020, "LO", b"x ", syntax=syntax)
        elements = walked(data, syntax)
        assert [(e.tag, e.vr, e.depth) for e in elements] == [
            (0x00091001, "SQ", 0),
            (ITEM, "", 1),
            (0x00080050, "SH", 1),
            (0x00100020, "LO", 0),
        ]
        assert (elements[2].explicit, elements[2].little_endian) == (False, True)
        assert elements[3].explicit


def test_items_of_such_a_sequence_that_are_explicit_after_all_are_read() -> None:
    """One maker of mammography units writes them so."""
    inner = element(0x00080100, "SH", b"CODE")
    data = element(0x00091001, "UN", length=UNDEFINED_LENGTH) + item(inner, undefined=True) + SEQUENCE_END
    found = walked(data)[-1]
    assert (found.tag, found.vr, data[found.offset : found.end]) == (0x00080100, "SH", b"CODE")


def test_private_elements_of_implicit_data_sets_are_unknown_or_sequences() -> None:
    data = element(0x00090010, "LO", b"MAKER ", syntax=IMPLICIT) + element(0x00091001, "", b"12", syntax=IMPLICIT)
    data += sequence(0x00091002, [item(b"")], undefined=True, syntax=IMPLICIT, vr="UN")
    assert shape(data, IMPLICIT) == [
        (0x00090010, "LO", 0),
        (0x00091001, "UN", 0),
        (0x00091002, "SQ", 0),
        (ITEM, "", 1),
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (pack("<HH2sHI", 0x0018, 0x9999, b"ZZ", 0, 2) + b"ab", (0x00189999, "UN", 12)),  # a VR to come
        (pack("<HH2sH", 0x0018, 0x9999, b"??", 2) + b"ab", (0x00189999, "UN", 8)),
        (pack("<HHI", 0x0018, 0x9999, 2) + b"ab", (0x00189999, "UN", 8)),  # implicit by mistake
        (pack("<HHI", 0x0018, 0x9999, 0), (0x00189999, "UN", 8)),
        (pack("<HH2sH", 0x0000, 0x0000, b"UL", 4) + b"\1\0\0\0", (0x00000000, "UL", 8)),  # group 0000
        (pack("<HH2sH", 0x0002, 0x0010, b"UI", 2) + b"1\0", (0x00020010, "UI", 8)),  # group 0002
        (pack("<HH2sH", 0x0018, 0x9999, b"LO", 3) + b"abc", (0x00189999, "LO", 8)),  # odd
        (pack("<HH2sH", 0x0028, 0x0010, b"LO", 2) + b"ab", (0x00280010, "LO", 8)),  # not its VR
    ],
)
def test_what_real_senders_get_wrong_is_taken(data: bytes, expected: tuple[int, str, int]) -> None:
    found = walked(data + element(0x00100020, "LO", b"x "))
    assert (found[0].tag, found[0].vr, found[0].offset) == expected
    assert found[1].tag == 0x00100020


def test_zeros_after_the_last_element_are_padding() -> None:
    data = element(0x00100020, "LO", b"x ")
    for zeros in (1, 7, 8, 9, 200_000):
        assert len(walked(data + bytes(zeros))) == 1
    with pytest.raises(TruncatedObject):
        walked(data + b"\0\0\0\1")
    assert walked(b"") == []


def test_an_item_delimiter_too_many_is_harmless() -> None:
    data = sequence(0x00400275, [item(element(0x00080050, "SH") + ITEM_END)]) + ITEM_END + element(0x00400254, "LO")
    assert [e.tag for e in walked(data) if e.vr] == [0x00400275, 0x00080050, 0x00400254]


@pytest.mark.parametrize(
    "data",
    [
        SEQUENCE_END,
        item(b""),
        pack("<HHI", 0xFFFE, 0xE00D, 4),
        element(0x00080050, "LO", length=0) + pack("<HHI", 0xFFFE, 0xE123, 0),
        sequence(0x00400275, [element(0x00080050, "SH")]),  # no item in it
        sequence(0x00400275, [SEQUENCE_END]),  # delimiter in a defined length
        element(0x00081032, "UR", length=UNDEFINED_LENGTH),
        sequence(0x00400275, [item(sequence(0x00540016, [item(b"")]))[:-8] + item(b"1234567")[:15]]),
        sequence(0x00400275, [pack("<HHI", 0xFFFE, 0xE000, 16)])
        + element(0x00080050, "SH") * 4,  # item over its sequence
    ],
)
def test_no_data_set_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidObject):
        walked(data)


def test_a_header_cut_in_its_long_length_is_truncated() -> None:
    with pytest.raises(TruncatedObject):
        walked(element(PIXEL_DATA, "OB")[:10])


def test_a_deflated_data_set_must_be_inflated_first() -> None:
    with pytest.raises(InvalidObject, match="inflated"):
        walked(b"", uid.TRANSFER_SYNTAXES[uid.DEFLATED_LITTLE_ENDIAN])


@settings(max_examples=300)
@given(data=st.binary(max_size=300), syntax=st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_random_bytes_raise_nothing_but_invalid_object(data: bytes, syntax: uid.TransferSyntax) -> None:
    try:
        elements = walked(data, syntax)
    except InvalidObject:
        return
    assert all(0 <= e.start < e.offset <= len(data) and e.end <= len(data) for e in elements)


@settings(max_examples=300)
@given(data=st.data(), syntax=st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_mutants_raise_nothing_but_invalid_object(data: st.DataObject, syntax: uid.TransferSyntax) -> None:
    raw = data.draw(mutated(datasets(syntax)))
    try:
        elements = walked(raw, syntax)
    except InvalidObject:
        return
    assert all(later.start > earlier.start for earlier, later in pairwise(elements))
    assert walked(memoryview(raw), syntax) == elements

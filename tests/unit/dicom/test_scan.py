"""The scan of a received data set: what it returns, and that its fast path is the walk."""

from __future__ import annotations

import mmap
import tempfile
import zlib
from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negatoscope.dicom import fast_walk, uid
from negatoscope.dicom.fast_walk import Unusual, find_fast, swapped
from negatoscope.dicom.levels import INSTANCE_LEVEL, SERIES_LEVEL, STUDY_LEVEL
from negatoscope.dicom.limits import DEFAULT_LIMITS, KIB
from negatoscope.dicom.scan import Parents, Scanned, find, find_by_walk, scan
from negatoscope.dicom.tags import PIXEL_DATA, UNDEFINED_LENGTH, vr_of
from negatoscope.errors import InvalidObject, LimitExceeded, MismatchedObject, SequenceTooDeep, TruncatedObject
from unit.dicom.samples import (
    BIG,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    JPEG,
    SEQUENCE_END,
    UIDS,
    datasets,
    element,
    instance,
    item,
    mutated,
    nested,
    sequence,
)

CT = {
    0x00080005: ("CS", b"ISO_IR 100"),
    0x00080020: ("DA", b"20260131"),
    0x00080030: ("TM", b"101112.5"),
    0x00080050: ("SH", b"A-17"),
    0x00080060: ("CS", b"CT"),
    0x0008103E: ("LO", "Crâne ".encode("latin_1")),
    0x00100010: ("PN", "L\xe9o^Zo\xeb=\xe9".encode("latin_1")),
    0x00100020: ("LO", b"0042 "),
    0x00100021: ("LO", b"CHU A "),
    0x00100030: ("DA", b"19700101"),
    0x00100040: ("CS", b"F "),
    0x00200011: ("IS", b"3 "),
    0x00200013: ("IS", b"17"),
    0x00280004: ("CS", b"MONOCHROME2 "),
    0x00280008: ("IS", b"2 "),
}
SHORTS = {0x00280002: 1, 0x00280006: 0, 0x00280010: 512, 0x00280011: 256, 0x00280100: 16, 0x00280101: 12}
SHORTS |= {0x00280102: 11, 0x00280103: 1}


def ct(syntax: uid.TransferSyntax) -> bytes:
    order = "little" if syntax.little_endian else "big"
    shorts = {tag: ("US", number.to_bytes(2, order)) for tag, number in SHORTS.items()}  # type: ignore[arg-type]  # a Literal
    return instance(CT | shorts | {PIXEL_DATA: ("OW", bytes(64))}, syntax)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG], ids=["explicit", "implicit", "big"])
def test_a_ct_slice_is_read_alike_in_every_encoding(syntax: uid.TransferSyntax) -> None:
    data = ct(syntax)
    scanned = scan(data, syntax.uid)
    assert scanned == Scanned(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3",
        study_uid="1.2.4",
        series_uid="1.2.5",
        patient_identifier="0042",
        instance_number=17,
        rows=512,
        columns=256,
        number_of_frames=2,
        higher=scanned.higher,
    )
    assert scanned.parents() == Parents(
        issuer="CHU A",
        patient_name="Léo^Zoë=é",
        birth_date="19700101",
        sex="F",
        study_date="20260131",
        study_time="101112.5",
        accession_number="A-17",
        modality="CT",
        series_number=3,
        study_attributes={
            "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
            "00080020": {"vr": "DA", "Value": ["20260131"]},
            "00080030": {"vr": "TM", "Value": ["101112.5"]},
            "00080050": {"vr": "SH", "Value": ["A-17"]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Léo^Zoë", "Ideographic": "é"}]},
            "00100020": {"vr": "LO", "Value": ["0042"]},
            "00100021": {"vr": "LO", "Value": ["CHU A"]},
            "00100030": {"vr": "DA", "Value": ["19700101"]},
            "00100040": {"vr": "CS", "Value": ["F"]},
            "0020000D": {"vr": "UI", "Value": ["1.2.4"]},
        },
        series_attributes={
            "00080060": {"vr": "CS", "Value": ["CT"]},
            "0008103E": {"vr": "LO", "Value": ["Crâne"]},
            "0020000E": {"vr": "UI", "Value": ["1.2.5"]},
            "00200011": {"vr": "IS", "Value": [3]},
        },
    )


def test_what_is_absent_is_empty() -> None:
    scanned = scan(instance(), EXPLICIT.uid)
    parents = scanned.parents()
    assert (parents.patient_name, scanned.patient_identifier, parents.modality) == ("", "", "")
    assert (scanned.rows, scanned.instance_number, parents.series_number) == (None, None, None)
    assert parents.series_attributes == {"0020000E": {"vr": "UI", "Value": ["1.2.5"]}}


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [(0x00200013, "IS", b"abc"), (0x00280010, "US", b""), (0x00100010, "PN", b"^^"), (0x00100010, "LO", b""),
     (0x00080050, "SH", b"\\ "), (0x00280010, "US", b"\1")],
)  # fmt: skip
def test_malformed_optional_attributes_lose_no_image(tag: int, vr: str, value: bytes) -> None:
    scanned = scan(instance({tag: (vr, value)}), EXPLICIT.uid)
    parents = scanned.parents()
    assert (scanned.rows, scanned.instance_number, parents.patient_name, parents.accession_number) == (
        None,
        None,
        "",
        "",
    )


def test_a_name_in_the_wrong_representation_is_no_name() -> None:
    assert scan(instance({0x00100010: ("LO", b"A^B ")}), EXPLICIT.uid).parents().patient_name == ""


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG], ids=["explicit", "big"])
def test_attributes_written_as_unknown_are_read_by_the_dictionary(syntax: uid.TransferSyntax) -> None:
    data = instance({0x00100020: ("UN", b"0042"), 0x00280010: ("UN", b"\0\2"), 0x0020000E: ("UN", b"1.2.5\0")}, syntax)
    scanned = scan(data, syntax.uid)
    assert (scanned.patient_identifier, scanned.rows, scanned.series_uid) == ("0042", 512, "1.2.5")
    assert scanned.parents().study_attributes["00100020"] == {"vr": "LO", "Value": ["0042"]}


@pytest.mark.parametrize("tag", UIDS)
@pytest.mark.parametrize("value", [None, b"", b"1.02.3", b"1.2/../x", b"1." * 40, b"1.2\\1.3", b"abc "])
def test_a_missing_or_malformed_uid_is_a_mismatch(tag: int, value: bytes | None) -> None:
    elements = {t: v for t, v in UIDS.items() if t != tag} | ({} if value is None else {tag: value})
    data = b"".join(element(t, "UI", v) for t, v in sorted(elements.items()))
    with pytest.raises(MismatchedObject):
        scan(data, EXPLICIT.uid)


def test_a_uid_that_is_a_sequence_is_a_mismatch() -> None:
    data = instance().replace(element(0x0020000E, "UI", UIDS[0x0020000E]), sequence(0x0020000E, []))
    with pytest.raises(MismatchedObject):
        scan(data, EXPLICIT.uid)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT], ids=["explicit", "implicit"])
def test_sequences_of_the_index_keep_their_items_and_character_set(syntax: uid.TransferSyntax, undefined: bool) -> None:
    order_item = item(
        element(0x00321060, "LO", "Crâne".encode() + b" ", syntax=syntax)
        + sequence(0x00321064, [item(b"", undefined=undefined)], undefined=undefined, syntax=syntax),
        undefined=undefined,
    )
    data = instance({0x00080005: ("CS", b"ISO_IR 192")}, syntax)
    data += sequence(0x00400275, [order_item], undefined=undefined, syntax=syntax)
    data += element(0x00400280, "ST", b"after ", syntax=syntax)
    expected = {
        "vr": "SQ",
        "Value": [{"00321060": {"vr": "LO", "Value": ["Crâne"]}, "00321064": {"vr": "SQ", "Value": [{}]}}],
    }
    assert scan(data, syntax.uid).parents().series_attributes["00400275"] == expected


def test_a_sequence_at_the_very_end_is_kept_too() -> None:
    data = instance(syntax=BIG) + sequence(0x00400275, [], syntax=BIG)
    assert scan(data, BIG.uid).parents().series_attributes["00400275"] == {"vr": "SQ"}


@pytest.mark.parametrize(("length", "kept"), [(64 * KIB - 2, True), (64 * KIB, True), (64 * KIB + 2, False)])
def test_a_value_over_64_kib_stays_out_of_the_index(length: int, kept: bool) -> None:
    data = instance({0x00104000: ("LT", b"x" * length)}, IMPLICIT)
    assert ("00104000" in scan(data, IMPLICIT.uid).parents().study_attributes) is kept


def test_of_an_element_sent_twice_the_first_counts() -> None:
    for data in (element(0x00100020, "LO", b"A ") + instance() + element(0x00100020, "LO", b"B "),):
        assert scan(data, EXPLICIT.uid).patient_identifier == "A"
        assert scan(data + b"\0", EXPLICIT.uid).patient_identifier == "A"  # by the walk


def test_encapsulated_pixel_data_is_passed_over() -> None:
    data, after = instance(), element(0xFFFCFFFC, "OB", b"padding.")
    pixels = element(PIXEL_DATA, "OB", item(b"") + item(b"JPEG"), length=UNDEFINED_LENGTH) + SEQUENCE_END
    assert scan(data + pixels + after, JPEG.uid) == scan(data, JPEG.uid)
    with pytest.raises(InvalidObject):
        scan(data + pixels[:-9] + after, JPEG.uid)


def test_a_deflated_data_set_is_inflated_within_bounds() -> None:
    deflater = zlib.compressobj(wbits=-15)
    deflated = deflater.compress(ct(EXPLICIT)) + deflater.flush()
    assert scan(deflated, uid.DEFLATED_LITTLE_ENDIAN) == scan(ct(EXPLICIT), EXPLICIT.uid)
    assert scan(deflated, uid.DEFLATED_LITTLE_ENDIAN).parents() == scan(ct(EXPLICIT), EXPLICIT.uid).parents()
    with pytest.raises(LimitExceeded):
        scan(deflated, uid.DEFLATED_LITTLE_ENDIAN, replace(DEFAULT_LIMITS, inflated=100))


def test_pixel_bytes_are_not_touched() -> None:
    """The data set is a file with a hole of a gigabyte: reading it would take memory, time and disk."""
    head = instance() + element(PIXEL_DATA, "OW", length=1 << 30)
    with tempfile.TemporaryFile() as file:
        file.write(head)
        file.truncate(len(head) + (1 << 30))
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert scan(mapped, EXPLICIT.uid).series_uid == "1.2.5"
            with memoryview(mapped) as view:
                assert scan(view, EXPLICIT.uid).study_uid == "1.2.4"
        file.seek(len(head) + (1 << 29))
        assert file.read(16) == bytes(16)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (instance() + element(PIXEL_DATA, "OW", b"ab", length=0xFFFFFFFE), TruncatedObject),
        (instance() + nested(65, undefined=True), SequenceTooDeep),
        (instance() + nested(65, undefined=False), SequenceTooDeep),
        (instance()[:-1], TruncatedObject),
        (instance() + sequence(0x00400275, [element(0x00080050, "SH")]), InvalidObject),
    ],
)
def test_a_broken_data_set_is_refused_by_its_kind(data: bytes, error: type[InvalidObject]) -> None:
    with pytest.raises(error):
        scan(data, EXPLICIT.uid)


def test_sequences_64_deep_are_taken_on_the_fast_path() -> None:
    for undefined in (False, True):
        for syntax in (EXPLICIT, IMPLICIT):
            data = instance(syntax=syntax) + nested(64, undefined=undefined, syntax=syntax)
            assert 0x00400275 in find_fast(data, syntax.explicit, {swapped(0x00400275): 0x00400275}, DEFAULT_LIMITS)
            with pytest.raises(Unusual):
                find_fast(nested(65, undefined=undefined, syntax=syntax), syntax.explicit, {}, DEFAULT_LIMITS)


def test_levels_do_not_overlap_and_are_in_the_dictionary() -> None:
    assert not set(STUDY_LEVEL) & set(SERIES_LEVEL)
    for level in (STUDY_LEVEL, SERIES_LEVEL, INSTANCE_LEVEL):
        assert list(level) == sorted(set(level))
        assert all(vr_of(tag) != "UN" for tag in level)


# The fast path is the walk ------------------------------------------------------------------------


def agree(data: bytes, syntax: uid.TransferSyntax) -> bool:
    """Whether the fast path answered; if so, the walk must say the same."""
    try:
        fast = find_fast(data, syntax.explicit, {swapped(tag): tag for tag in WANTED}, DEFAULT_LIMITS)
    except Unusual:
        return False
    assert fast == find_by_walk(data, syntax, frozenset(WANTED), DEFAULT_LIMITS)
    return True


WANTED = {*STUDY_LEVEL, *SERIES_LEVEL, 0x00091001, PIXEL_DATA}


@settings(max_examples=150)
@given(data=st.data(), syntax=st.sampled_from([EXPLICIT, IMPLICIT]))
def test_the_fast_path_takes_what_is_well_formed_and_finds_what_the_walk_finds(
    data: st.DataObject, syntax: uid.TransferSyntax
) -> None:
    raw = data.draw(datasets(syntax))
    assert agree(raw + element(0x00400254, "LO", b"end.", syntax=syntax), syntax)


@settings(max_examples=300)
@given(data=st.data(), syntax=st.sampled_from([EXPLICIT, IMPLICIT]))
def test_the_fast_path_never_takes_what_the_walk_refuses(data: st.DataObject, syntax: uid.TransferSyntax) -> None:
    agree(data.draw(mutated(datasets(syntax))), syntax)


UN_SEQUENCE = element(0x00091001, "UN", item(b""), length=UNDEFINED_LENGTH) + SEQUENCE_END
LATER = element(0x00400254, "LO", b"end.")


@pytest.mark.parametrize(
    "data",
    [
        element(0x00100020, "LO"),  # a last element without room for a long length
        UN_SEQUENCE + LATER,
        element(0x00081190, "UR", length=UNDEFINED_LENGTH) + LATER,
        element(0x00080119, "UC", b"x" * 11),
        element(0x00189999, "??", b"") + LATER,
        sequence(0x00400275, [item(element(0x00189999, "??", b""))]) + LATER,
        sequence(0x00400275, [item(UN_SEQUENCE)]) + LATER,
        sequence(0x00400275, [item(element(0x00080119, "UC", b"x" * 11))]) + LATER,
        sequence(0x00400275, [item(ITEM_END)]) + LATER,
        sequence(0x00400275, [item(element(PIXEL_DATA, "OB")[:10])]) + LATER,
        sequence(0x00400275, [item(element(PIXEL_DATA, "OB", b"1", length=2))]) + LATER,
        sequence(0x00400275, [item(b"123")]) + LATER,
        sequence(0x00400275, [b"1234567"]) + LATER,
        element(0x00400275, "SQ", b"12345678", length=99),
        ITEM_END + LATER,
        LATER + element(PIXEL_DATA, "OW", b"1", length=3),
        LATER + element(0x00400275, "SQ", item(b""), length=UNDEFINED_LENGTH),
        element(PIXEL_DATA, "OB", item(b""), length=UNDEFINED_LENGTH),
        element(0xFFFEE00D, "LO", b"") + LATER,
        element(0xFFFEE00D, "OB", b"") + LATER,
    ],
)
def test_what_is_unusual_is_left_to_the_walk(data: bytes) -> None:
    with pytest.raises(Unusual):
        find_fast(data, True, {}, replace(DEFAULT_LIMITS, value=10, elements=9))


@pytest.mark.parametrize(
    "data",
    [
        b"1234567",
        element(0x00100020, "LO", length=UNDEFINED_LENGTH, syntax=IMPLICIT),
        element(0x00100020, "LO", b"x" * 11, syntax=IMPLICIT),
        bytes(16),
        ITEM_END,
        element(0x00100020, "LO", b"x", length=2, syntax=IMPLICIT),
    ],
)
def test_what_is_unusual_in_implicit_vr_is_left_to_the_walk(data: bytes) -> None:
    with pytest.raises(Unusual):
        find_fast(data, False, {}, replace(DEFAULT_LIMITS, value=10, elements=9))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_the_fast_path_counts_elements_itself(syntax: uid.TransferSyntax) -> None:
    """A bomb of elements is walked once, not twice."""
    data = element(0x00100020, "LO", b"1234", syntax=syntax)
    for count in (8, 9):
        find_fast(data * count, syntax.explicit, {}, replace(DEFAULT_LIMITS, elements=9))
    with pytest.raises(LimitExceeded):
        find_fast(data * 10, syntax.explicit, {}, replace(DEFAULT_LIMITS, elements=9))


def test_long_private_and_pixel_values_are_usual_in_implicit_vr() -> None:
    data = element(0x00091001, "UN", b"x" * 20, syntax=IMPLICIT) + element(PIXEL_DATA, "OW", b"x" * 20, syntax=IMPLICIT)
    data += sequence(0x00091002, [item(b"")], undefined=True, syntax=IMPLICIT, vr="UN")
    found = find_fast(data, False, {swapped(PIXEL_DATA): PIXEL_DATA}, replace(DEFAULT_LIMITS, value=10))
    assert found == {PIXEL_DATA: ("OW", 36, 20, True)}


@settings(max_examples=150)
@given(data=st.data(), syntax=st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_mutants_are_scanned_or_refused_and_what_is_scanned_can_be_kept(
    data: st.DataObject, syntax: uid.TransferSyntax
) -> None:
    raw = instance(syntax=syntax) + data.draw(mutated(datasets(syntax)))
    try:
        scanned = scan(raw, syntax.uid)
    except InvalidObject:
        return
    parents = scanned.parents()
    kept = orjson.dumps([parents.study_attributes, parents.series_attributes])
    assert b"\\u0000" not in kept  # PostgreSQL has no NUL in text
    assert "\0" not in parents.patient_name + scanned.patient_identifier + parents.accession_number


def test_the_fast_path_is_the_one_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a slower server would be the only sign."""
    for syntax in (EXPLICIT, IMPLICIT):
        assert agree(ct(syntax), syntax)
        assert find(ct(syntax), syntax, DEFAULT_LIMITS).keys() >= UIDS.keys()
    assert not hasattr(fast_walk, "walk")


def test_a_delimiter_with_a_length_is_no_delimiter_on_either_path() -> None:
    """Found by search: half of the length of an explicit item delimiter stands where elements have their VR."""
    items = bytes.fromhex("feff00e0fffffffffeff0de000000000feff00e0fffffffffeff0de001000000")
    data = b"\xff\xff\xff\xffSQ\0\0" + len(items).to_bytes(4, "little") + items
    with pytest.raises(InvalidObject):
        find_by_walk(data, EXPLICIT, frozenset(WANTED), DEFAULT_LIMITS)
    with pytest.raises(Unusual):
        find_fast(data, True, {}, DEFAULT_LIMITS)

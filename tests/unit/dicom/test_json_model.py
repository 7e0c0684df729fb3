"""DICOM JSON: values of every representation, bulk data by reference, and back again."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from struct import pack
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negatoscope.dicom import uid
from negatoscope.dicom.json_model import BULK_FROM, find_bulk, from_json, read_bulk, to_json
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.tags import PIXEL_DATA, UNDEFINED_LENGTH
from negatoscope.dicom.values import element_json, little_endian_bytes
from negatoscope.dicom.writer import decimal_string
from negatoscope.errors import InvalidObject, LimitExceeded, NotFound, SequenceTooDeep
from unit.dicom.samples import (
    BIG,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    SEQUENCE_END,
    datasets,
    element,
    item,
    mutated,
    nested,
    sequence,
)


def as_json(data: bytes, syntax: uid.TransferSyntax = EXPLICIT) -> dict[str, Any]:
    return to_json(data, syntax.uid, lambda path: path)


def no_bulk(uri: str) -> bytes:
    raise AssertionError(f"no bulk data was to be asked for, but {uri}")


@pytest.mark.parametrize(
    ("vr", "raw", "values"),
    [
        ("AE", b" ME  ", ["ME"]),
        ("AS", b"042Y", ["042Y"]),
        ("AT", b"\x10\x00\x20\x00\x28\x00\x10\x00", ["00100020", "00280010"]),
        ("AT", b"\x10\x00\x20\x00\x28", ["00100020"]),
        ("CS", b" A \\ B\\\\C ", ["A", "B", None, "C"]),
        ("CS", b"\\ ", []),
        ("DA", b"20200101\0\0", ["20200101"]),
        ("DS", b" 1.50 \\+2\\-.5\\abc\\\\007\\1.", [1.5, 2, -0.5, "abc", None, 7, 1.0]),
        ("DS", b"1e400", ["1e400"]),  # no JSON number
        ("DS", b"1234567890.1234567", ["1234567890.1234567"]),  # would lose digits
        ("DS", b"nan ", ["nan"]),
        ("DT", b"20200101+0100 ", ["20200101+0100"]),
        ("FD", pack("<dd", 0.1, 1e300), [0.1, 1e300]),
        ("FL", pack("<ffff", 0.5, float("nan"), float("inf"), float("-inf")), [0.5, "NaN", "inf", "-inf"]),
        ("IS", b"007", [7]),
        ("IS", b"-1\\+2\\\\1.5\\99999999999999999999", [-1, 2, None, "1.5", "99999999999999999999"]),
        ("LO", b"  a  b  ", ["a  b"]),
        ("LO", b"a\0b ", ["ab"]),
        ("LT", b"  a\\b  ", ["  a\\b"]),
        ("LT", b"  ", []),
        ("PN", b"A^B=\xc3\xa9= ", [{"Alphabetic": "A^B", "Ideographic": "é"}]),
        ("PN", b"=I^^^\\A^^^^=", [{"Ideographic": "I"}, {"Alphabetic": "A"}]),
        ("PN", b"a=b=c=d\\", [{"Alphabetic": "a", "Ideographic": "b", "Phonetic": "c"}, None]),
        ("PN", b"^^=", []),
        ("SH", "é\\b".encode(), ["é", "b"]),
        ("SL", pack("<i", -5), [-5]),
        ("SS", pack("<hh", -5, 6), [-5, 6]),
        ("SV", pack("<q", -(1 << 63)), [-(1 << 63)]),
        ("UI", b"1.2.3\0", ["1.2.3"]),
        ("UL", pack("<I", 1 << 31), [1 << 31]),
        ("UR", b" http://x/a\\b ", [" http://x/a\\b"]),
        ("US", b"\1\0\2", [1]),
        ("UV", pack("<Q", (1 << 64) - 1), [(1 << 64) - 1]),
    ],
)
def test_values_of_each_representation(vr: str, raw: bytes, values: list[Any]) -> None:
    expected = {"vr": vr, "Value": values} if values else {"vr": vr}
    shown = element_json(vr, raw, (), True)
    assert shown == expected
    assert [type(v) for v in shown.get("Value", [])] == [type(v) for v in values]
    assert orjson.loads(orjson.dumps(shown)) == expected


@pytest.mark.parametrize(
    ("vr", "raw", "swapped"),
    [
        ("OB", b"123", b"123"),
        ("OW", b"12345", b"21435"),
        ("OF", b"1234", b"4321"),
        ("OL", b"12345678", b"43218765"),
        ("OD", b"12345678", b"87654321"),
        ("OV", b"12345678", b"87654321"),
        ("UN", b"1234", b"1234"),
    ],
)
def test_binary_values_are_given_in_little_endian(vr: str, raw: bytes, swapped: bytes) -> None:
    assert little_endian_bytes(vr, raw, True) == raw
    assert little_endian_bytes(vr, raw, False) == swapped
    assert element_json(vr, raw, (), False) == {"vr": vr, "InlineBinary": b64encode(swapped).decode()}
    assert element_json(vr, b"", (), False) == {"vr": vr}


def test_numbers_of_big_endian_data_sets() -> None:
    data = element(0x00280010, "US", b"\2\0", syntax=BIG) + element(0x00280009, "AT", b"\x00\x18\x10\x63", syntax=BIG)
    assert as_json(data, BIG) == {
        "00280009": {"vr": "AT", "Value": ["00181063"]},
        "00280010": {"vr": "US", "Value": [512]},
    }


def test_keys_ascend_and_of_two_the_first_counts() -> None:
    data = element(0x00100020, "LO", b"A ") + element(0x00080050, "SH", b"1 ") + element(0x00100020, "LO", b"B ")
    data += sequence(0x00400275, [item(element(0x00100020, "LO", b"X "))])
    data += sequence(0x00400275, [item(element(0x00100020, "LO", b"Y "))])
    shown = as_json(data)
    assert list(shown) == ["00080050", "00100020", "00400275"]
    assert shown["00100020"]["Value"] == ["A"]
    assert shown["00400275"]["Value"] == [{"00100020": {"vr": "LO", "Value": ["X"]}}]


def test_group_lengths_are_left_out() -> None:
    data = element(0x00080000, "UL", bytes(4)) + sequence(0x00400275, [item(element(0x00080000, "UL", bytes(4)))])
    assert as_json(data) == {"00400275": {"vr": "SQ", "Value": [{}]}}


def test_text_is_unicode_whatever_it_was_and_items_may_have_their_own_set() -> None:
    greek = item(element(0x00080005, "CS", b"ISO_IR 126") + element(0x00080050, "SH", b"\xe1 "))
    data = element(0x00080005, "CS", b"ISO_IR 100") + sequence(
        0x00400275, [greek, item(element(0x00080050, "SH", b"\xe1 "))]
    )
    data += element(0x00400254, "LO", b"\xe1 ")
    utf8 = {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert as_json(data) == {
        "00080005": utf8,
        "00400254": {"vr": "LO", "Value": ["á"]},
        "00400275": {
            "vr": "SQ",
            "Value": [
                {"00080005": utf8, "00080050": {"vr": "SH", "Value": ["α"]}},
                {"00080050": {"vr": "SH", "Value": ["á"]}},
            ],
        },
    }


@pytest.mark.parametrize(("representation", "vr", "value"), [(0, "US", 65535), (1, "SS", -1)])
def test_pixel_values_of_implicit_data_sets_have_the_sign_of_the_pixels(
    representation: int, vr: str, value: int
) -> None:
    data = element(0x00280103, "US", pack("<H", representation), syntax=IMPLICIT)
    data += element(0x00280106, "US", b"\xff\xff", syntax=IMPLICIT)
    table = item(element(0x00283002, "US", b"\xff\xff" * 3, syntax=IMPLICIT))
    data += sequence(0x00283010, [table], syntax=IMPLICIT)
    shown = as_json(data, IMPLICIT)
    assert shown["00280106"] == {"vr": vr, "Value": [value]}
    assert shown["00283010"]["Value"][0]["00283002"] == {"vr": vr, "Value": [value] * 3}


def test_an_attribute_of_the_standard_written_as_unknown_is_shown_as_what_it_is() -> None:
    for syntax in (EXPLICIT, BIG):
        data = element(0x00280010, "UN", b"\0\2", syntax=syntax) + element(0x00100020, "UN", b"A ", syntax=syntax)
        data += element(0x00400275, "UN", item(b""), syntax=syntax) + element(0x00091001, "UN", b"12", syntax=syntax)
        assert as_json(data, syntax) == {
            "00091001": {"vr": "UN", "InlineBinary": "MTI="},
            "00100020": {"vr": "LO", "Value": ["A"]},
            "00280010": {"vr": "US", "Value": [512]},
            "00400275": {"vr": "UN", "InlineBinary": b64encode(item(b"")).decode()},
        }


# Bulk data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vr", ["OB", "OD", "OF", "OL", "OV", "OW", "UN", "UT"])
@pytest.mark.parametrize(("length", "inline"), [(BULK_FROM - 8, True), (BULK_FROM, True), (BULK_FROM + 8, False)])
def test_long_values_are_given_by_reference(vr: str, length: int, inline: bool) -> None:
    shown = as_json(element(0x00091001, vr, b"x" * length))["00091001"]
    assert ("BulkDataURI" not in shown) is inline
    assert inline or shown == {"vr": vr, "BulkDataURI": "00091001"}
    assert "BulkDataURI" not in to_json(element(0x00091001, vr, b"x" * length), EXPLICIT.uid, None)["00091001"]


def test_pixel_data_is_always_given_by_reference() -> None:
    assert as_json(element(PIXEL_DATA, "OW", b"12")) == {"7FE00010": {"vr": "OW", "BulkDataURI": "7FE00010"}}
    assert as_json(element(PIXEL_DATA, "OW")) == {"7FE00010": {"vr": "OW"}}
    encapsulated = element(PIXEL_DATA, "OB", item(b""), length=UNDEFINED_LENGTH) + SEQUENCE_END
    assert as_json(encapsulated, JPEG)["7FE00010"] == {"vr": "OB", "BulkDataURI": "7FE00010"}
    for data in (element(PIXEL_DATA, "OW", b"12"), encapsulated):
        assert "BulkDataURI" not in to_json(data, JPEG.uid, None)["7FE00010"]


DEEP = sequence(
    0x00540016,
    [
        item(b""),
        item(
            sequence(0x00540300, [item(element(0x00091001, "OB", b"a" * 2000))])
            + element(0x00091002, "OB", b"b" * 2000)
        ),
    ],
) + element(0x00091003, "OW", b"c" * 2000)


def test_paths_lead_to_the_values_they_were_given_for() -> None:
    shown = as_json(DEEP)
    second = shown["00540016"]["Value"][1]
    paths = {
        "a": second["00540300"]["Value"][0]["00091001"]["BulkDataURI"],
        "b": second["00091002"]["BulkDataURI"],
        "c": shown["00091003"]["BulkDataURI"],
    }
    assert paths == {"a": "00540016/1/00540300/0/00091001", "b": "00540016/1/00091002", "c": "00091003"}
    for letter, path in paths.items():
        offset, length = find_bulk(DEEP, EXPLICIT.uid, path)
        assert DEEP[offset : offset + length] == letter.encode() * 2000
        assert read_bulk(DEEP, EXPLICIT.uid, path) == letter.encode() * 2000


@pytest.mark.parametrize(
    "path",
    ["", "00091004", "00540016", "00540016/0/00091002", "00540016/2/00091002", "00540016/1/00540300", "../x", "0009100",
     "00091003/0", "00540016/-1/00091002", "00091003\n", "00540300/0/00091001"],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        find_bulk(DEEP, EXPLICIT.uid, path)


def test_bulk_data_are_read_as_the_web_wants_them() -> None:
    big = element(0x00091001, "OW", b"ab" * 600, syntax=BIG)
    assert read_bulk(big, BIG.uid, "00091001") == b"ba" * 600
    text = element(0x00080005, "CS", b"ISO_IR 100") + element(0x00091001, "UT", b"\xe9" * 2000 + b"  ")
    assert read_bulk(text, EXPLICIT.uid, "00091001").decode() == "é" * 2000
    inner = item(element(0x00080005, "CS", b"ISO_IR 126") + element(0x00091001, "UT", b"\xe1" * 2000))
    data = element(0x00080005, "CS", b"ISO_IR 100") + sequence(0x00540016, [inner])
    assert read_bulk(data, EXPLICIT.uid, "00540016/0/00091001").decode() == "α" * 2000
    fragments = item(b"") + item(b"JPEG")
    encapsulated = element(PIXEL_DATA, "OB", fragments, length=UNDEFINED_LENGTH) + SEQUENCE_END
    assert read_bulk(encapsulated, JPEG.uid, "7FE00010") == fragments


def test_deflated_data_sets_are_read_through() -> None:
    deflater = zlib.compressobj(wbits=-15)
    deflated = deflater.compress(DEEP) + deflater.flush()
    assert to_json(deflated, uid.DEFLATED_LITTLE_ENDIAN, str) == to_json(DEEP, EXPLICIT.uid, str)
    assert read_bulk(deflated, uid.DEFLATED_LITTLE_ENDIAN, "00091003") == b"c" * 2000
    offset, length = find_bulk(deflated, uid.DEFLATED_LITTLE_ENDIAN, "00091003")
    assert DEEP[offset : offset + length] == b"c" * 2000


# Hostile and random -------------------------------------------------------------------------------


def test_64_levels_are_shown_and_65_refused() -> None:
    text = orjson.dumps(as_json(nested(64, undefined=True)))
    assert text.count(b"00400275") == 64
    with pytest.raises(SequenceTooDeep):
        as_json(nested(65, undefined=True))


@settings(max_examples=150)
@given(data=st.data(), syntax=st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_mutants_are_shown_or_refused_and_every_bulk_path_can_be_followed(
    data: st.DataObject, syntax: uid.TransferSyntax
) -> None:
    raw = data.draw(mutated(datasets(syntax)))
    paths: list[str] = []

    def remember(path: str) -> str:
        paths.append(path)
        return path

    try:
        shown = to_json(raw, syntax.uid, remember)
    except InvalidObject:
        return
    assert b"\\u0000" not in orjson.dumps(shown)
    for path in paths:
        read_bulk(raw, syntax.uid, path)


# From JSON ----------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(data=st.data(), syntax=st.sampled_from([EXPLICIT, IMPLICIT, BIG]))
def test_what_is_shown_can_be_stored_and_is_shown_the_same(data: st.DataObject, syntax: uid.TransferSyntax) -> None:
    raw = data.draw(datasets(syntax))
    shown = to_json(raw, syntax.uid, None)
    again = to_json(from_json(shown, no_bulk), EXPLICIT.uid, None)
    declared = {"vr": "CS", "Value": ["ISO_IR 192"]}

    def without_meta(dataset: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in dataset.items() if not k.startswith("0002") and k != "00080005" and v["vr"] != "SQ"}

    def settled(dataset: dict[str, Any]) -> dict[str, Any]:
        # an odd binary value is padded, once
        return json.loads(json.dumps(to_json(from_json(dataset, no_bulk), EXPLICIT.uid, None)))  # type: ignore[no-any-return]  # JSON

    assert settled(again) == again
    binary = {k for k, v in shown.items() if "InlineBinary" in v}
    first, second = without_meta(shown), without_meta(again)
    assert {k: v for k, v in first.items() if k not in binary} == {k: v for k, v in second.items() if k not in binary}
    assert again.get("00080005", declared) == declared


def test_an_object_is_made_of_metadata_and_bulk_data() -> None:
    metadata = {
        "7FE00010": {"vr": "OW", "BulkDataURI": "cid:pixels"},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Zoë^A", "Phonetic": "p"}, "plain", None]},
        "00280009": {"vr": "AT", "Value": ["00181063"]},
        "00280010": {"vr": "US", "Value": [2]},
        "00281050": {"vr": "DS", "Value": [1.5, 0.1 + 0.2, None, "7"]},
        "00200013": {"vr": "IS", "Value": [7]},
        "00189073": {"vr": "FD", "Value": [1.5, "NaN", "-inf"]},
        "00020010": {"vr": "UI", "Value": ["1.2"]},
        "00080000": {"vr": "UL", "Value": [1]},
        "00091001": {"vr": "OB", "InlineBinary": "YWJj"},
        "00091002": {"vr": "OB"},
        "00400275": {"vr": "SQ", "Value": [{"0040000a": {"vr": "SH", "Value": ["x"]}}, None]},
    }
    data = from_json(metadata, {"cid:pixels": b"12345678"}.__getitem__)
    assert data.startswith(element(0x00080005, "CS", b"ISO_IR 192") + element(0x00091001, "OB", b"abc\0"))
    assert data.endswith(element(PIXEL_DATA, "OW", b"12345678"))
    assert element(0x00100010, "PN", "Zoë^A==p\\plain\\".encode()) in data
    assert element(0x00281050, "DS", b"1.5\\0.3\\\\7") in data
    assert element(0x00280009, "AT", b"\x18\x00\x63\x10") in data
    assert sequence(0x00400275, [item(element(0x0040000A, "SH", b"x ")), item(b"")]) in data
    assert b"\2\0\x10\0" not in data


def test_text_in_ascii_needs_no_character_set_but_a_declared_one_becomes_unicode() -> None:
    plain = {"00100020": {"vr": "LO", "Value": ["A"]}}
    assert from_json(plain, no_bulk) == element(0x00100020, "LO", b"A ")
    declared = {"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}} | plain
    assert from_json(declared, no_bulk).startswith(element(0x00080005, "CS", b"ISO_IR 192"))
    inner = {"00400275": {"vr": "SQ", "Value": [{"00400007": {"vr": "LO", "Value": ["é"]}}]}}
    assert from_json(inner, no_bulk).startswith(element(0x00080005, "CS", b"ISO_IR 192"))


def test_frames_become_fragments() -> None:
    def frames(uri: str) -> Sequence[bytes]:
        return [b"one", b"four"]

    data = from_json({"7FE00010": {"vr": "OB", "BulkDataURI": "x"}}, frames)
    fragments = item(b"") + item(b"one\0") + item(b"four")
    assert data == element(PIXEL_DATA, "OB", fragments, length=UNDEFINED_LENGTH) + SEQUENCE_END


def test_a_value_too_long_for_its_representation_is_written_as_unknown() -> None:
    for length, vr in ((65534, "LT"), (65536, "UN")):
        data = from_json({"00104000": {"vr": "LT", "Value": ["x" * length]}}, no_bulk)
        assert data == element(0x00104000, vr, b"x" * length)


class FourGigabytes(bytes):
    """A value that says it is that long."""

    def __len__(self) -> int:
        return 1 << 32


def test_a_value_that_no_length_can_say_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        from_json({"7FE00010": {"vr": "OW", "BulkDataURI": "x"}}, lambda uri: FourGigabytes())


@pytest.mark.parametrize(
    "dataset",
    [
        [],
        {"0010": {"vr": "LO"}},
        {"0010002G": {"vr": "LO"}},
        {"FFFEE000": {"vr": "LO"}},
        {"00100020": []},
        {"00100020": {}},
        {"00100020": {"vr": "ZZ"}},
        {"00100020": {"vr": ["LO"]}},
        {"00100020": {"vr": "LO", "Value": "A"}},
        {"00100020": {"vr": "LO", "Value": [{}]}},
        {"00100020": {"vr": "LO", "Value": [True]}},
        {"00100010": {"vr": "PN", "Value": [3]}},
        {"00100010": {"vr": "LO", "Value": ["\ud800"]}},
        {"00280010": {"vr": "US", "Value": [65536]}},
        {"00280010": {"vr": "US", "Value": ["x"]}},
        {"00280010": {"vr": "US", "Value": [[]]}},
        {"00280009": {"vr": "AT", "Value": ["xyz"]}},
        {"00280009": {"vr": "AT", "Value": [7]}},
        {"00189073": {"vr": "FL", "Value": [1e300]}},
        {"00281050": {"vr": "DS", "Value": [float("nan")]}},
        {"00091001": {"vr": "OB", "Value": ["a"]}},
        {"00091001": {"vr": "OB", "InlineBinary": "not base64"}},
        {"00091001": {"vr": "OB", "InlineBinary": 7}},
        {"00400275": {"vr": "SQ", "Value": ["x"]}},
    ],
)
def test_what_is_no_dicom_json_is_refused(dataset: Any) -> None:
    with pytest.raises(InvalidObject):
        from_json(dataset, no_bulk)


@pytest.mark.parametrize(("depth", "taken"), [(63, True), (64, True), (65, False)])
def test_json_nests_64_deep_and_no_deeper(depth: int, taken: bool) -> None:
    dataset: dict[str, Any] = {}
    for _ in range(depth):
        dataset = {"00400275": {"vr": "SQ", "Value": [dataset]}}
    if taken:
        assert from_json(dataset, no_bulk) == nested(depth, undefined=False)
    else:
        with pytest.raises(SequenceTooDeep):
            from_json(dataset, no_bulk)


@pytest.mark.parametrize(("count", "taken"), [(2, True), (3, True), (4, False)])
def test_elements_of_json_are_limited(count: int, taken: bool) -> None:
    dataset = {f"{0x00091000 + n:08X}": {"vr": "OB"} for n in range(count)}
    limits = replace(DEFAULT_LIMITS, elements=3)
    if taken:
        assert len(from_json(dataset, no_bulk, limits)) == 12 * count
    else:
        with pytest.raises(LimitExceeded):
            from_json(dataset, no_bulk, limits)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["vr", "Value", "00400275"]), inner),
    max_leaves=10,
)


@given(
    key=st.sampled_from(["00100010", "00280010", "00400275", "00091001", "x"]),
    vr=st.sampled_from(["PN", "US", "SQ", "OB", "LO", "DS", "IS", "FL", "AT", "ZZ"]),
    name=st.sampled_from(["Value", "InlineBinary", "other"]),
    content=JSON,
)
def test_any_json_is_encoded_or_refused(key: str, vr: str, name: str, content: Any) -> None:
    try:
        data = from_json({key: {"vr": vr, name: content}}, no_bulk)
    except InvalidObject:
        return
    to_json(data, EXPLICIT.uid, None)


@given(st.floats(-1e300, 1e300))
def test_a_decimal_string_has_16_characters_and_is_close(number: float) -> None:
    text = decimal_string(number)
    assert len(text) <= 16
    assert float(text) == pytest.approx(number, rel=1e-8)
    assert float(text) == number or len(repr(number)) > 16

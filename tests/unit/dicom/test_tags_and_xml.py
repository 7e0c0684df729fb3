"""The data dictionary, and the Native DICOM Model."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, keyword_for_tag

from negatoscope.dicom.json_model import to_xml
from negatoscope.dicom.tags import keyword_of, tag_text, vr_of


@pytest.mark.parametrize(
    ("tag", "vr", "keyword"),
    [
        (0x00100010, "PN", "PatientName"),
        (0x7FE00010, "OW", "PixelData"),
        (0x00280106, "US", "SmallestImagePixelValue"),
        (0x00283006, "OW", "LUTData"),
        (0x00080000, "UL", ""),
        (0x00090000, "UL", ""),
        (0x00090010, "LO", ""),
        (0x000900FF, "LO", ""),
        (0x00090001, "UN", ""),
        (0x00091001, "UN", ""),
        (0x60003000, "OW", "OverlayData"),
        (0x60020010, "US", "OverlayRows"),
        (0x50040010, "US", "NumberOfPoints"),
        (0x50002600, "SQ", "CurveReferencedOverlaySequence"),
        (0x60009999, "UN", ""),
        (0x60010010, "LO", ""),
        (0x00189999, "UN", ""),
    ],
)
def test_representation_and_keyword_of_tags(tag: int, vr: str, keyword: str) -> None:
    assert (vr_of(tag), keyword_of(tag)) == (vr, keyword)


@given(st.integers(0, 0xFFFFFFFF))
def test_the_dictionary_is_the_standards(tag: int) -> None:
    if tag & 0x10000 or tag & 0xFFFF == 0 or tag >> 24 not in (0x00, 0x50, 0x60, 0x7F):
        return
    try:
        theirs = dictionary_VR(tag)
    except KeyError:
        assert vr_of(tag) == "UN"
    else:
        assert vr_of(tag) in theirs or (tag >> 16) in (0x0020, 0x0028)
        assert keyword_of(tag) in (keyword_for_tag(tag), "")


def test_a_tag_is_shown_as_the_standard_writes_it() -> None:
    assert tag_text(0x7FE00010) == "(7FE0,0010)"


def parsed(dataset: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(to_xml(dataset))


def test_every_kind_of_content_has_its_form() -> None:
    root = parsed(
        {
            "00080008": {"vr": "CS", "Value": ["A", None, "B"]},
            "00090010": {"vr": "LO", "Value": ["MAKER & SONS"]},
            "00091001": {"vr": "OB", "InlineBinary": "YWJj"},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B^^Dr", "Phonetic": "p"}, None]},
            "00111001": {"vr": "UN"},
            "00280010": {"vr": "US", "Value": [512]},
            "00400275": {"vr": "SQ", "Value": [{}, {"00080050": {"vr": "SH", "Value": ["<&>"]}}]},
            "7FE00010": {"vr": "OW", "BulkDataURI": "/x?a=1&b=2"},
        }
    )
    assert root.tag == "NativeDicomModel"
    attributes = {a.attrib["tag"]: a for a in root}
    assert list(attributes) == [
        "00080008", "00090010", "00090001", "00100010", "00110001", "00280010", "00400275", "7FE00010",
    ]  # fmt: skip
    assert [v.text for v in attributes["00080008"]] == ["A", None, "B"]
    assert attributes["00080008"].attrib == {"tag": "00080008", "vr": "CS", "keyword": "ImageType"}
    assert attributes["00090001"].attrib == {"tag": "00090001", "vr": "OB", "privateCreator": "MAKER & SONS"}
    assert attributes["00110001"].attrib == {"tag": "00110001", "vr": "UN"}
    assert attributes["00090001"].findtext("InlineBinary") == "YWJj"
    first, second = attributes["00100010"]
    assert [(e.tag, e.text) for e in first.iter() if not len(e)] == [
        ("FamilyName", "A"), ("GivenName", "B"), ("NamePrefix", "Dr"), ("FamilyName", "p"),
    ]  # fmt: skip
    assert (first.attrib, len(second)) == ({"number": "1"}, 0)
    items = list(attributes["00400275"])
    assert ([i.tag for i in items], [len(i) for i in items]) == (["Item", "Item"], [0, 1])
    assert items[1].findtext("DicomAttribute/Value") == "<&>"
    bulk = attributes["7FE00010"].find("BulkData")
    assert bulk is not None
    assert bulk.attrib == {"uri": "/x?a=1&b=2"}


def test_line_ends_come_back_as_they_were() -> None:
    value = parsed({"00104000": {"vr": "LT", "Value": ["a\r\nb\tc"]}}).findtext("DicomAttribute/Value")
    assert value == "a\r\nb\tc"


@given(text=st.text(max_size=20), creator=st.text(max_size=10))
def test_any_text_makes_well_formed_xml(text: str, creator: str) -> None:
    root = parsed(
        {
            "00090010": {"vr": "LO", "Value": [creator]},
            "00091001": {"vr": "LO", "Value": [text]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": text}]},
            "7FE00010": {"vr": "OW", "BulkDataURI": creator},
        }
    )
    assert len(root) == 4

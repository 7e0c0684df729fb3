"""QIDO-RS query parameters, PS3.18 8.3.4: one row a requirement, read without a server."""

from __future__ import annotations

from typing import Any

import pytest

from negatoscope.archive.query_rows import ALL
from negatoscope.dicom.matching import Kind, matches
from negatoscope.errors import BadRequest
from negatoscope.web.qido_parameters import MAX_DEPTH, MAX_OFFSET, MAX_VALUE, Asked, parse_search


def read(query: str) -> Asked:
    return parse_search([tuple(part.partition("=")[::2]) for part in query.split("&") if part])  # type: ignore[misc]  # two of the three parts


# id, query, key, kind, values
KEYS: list[tuple[str, str, str, Kind, tuple[str, ...]]] = [
    ("8.3.4.1 keyword", "StudyDescription=x", "00081030", Kind.SINGLE, ("x",)),
    ("8.3.4.1 tag", "00081030=x", "00081030", Kind.SINGLE, ("x",)),
    ("8.3.4.1 tag in small letters", "0020000d=1.2", "0020000D", Kind.UID_LIST, ("1.2",)),
    ("8.3.4.1 private tag", "00091001=x", "00091001", Kind.SINGLE, ("x",)),
    ("8.3.4.1 empty value is universal", "PatientName=", "00100010", Kind.UNIVERSAL, ()),
    ("8.3.4.1 list of UIDs by comma", "StudyInstanceUID=1.2,1.3", "0020000D", Kind.UID_LIST, ("1.2", "1.3")),
    ("8.3.4.1 list of UIDs by backslash", "0020000D=1.2\\1.3", "0020000D", Kind.UID_LIST, ("1.2", "1.3")),
    ("UIDs as several parameters", "0020000D=1.2&0020000D=1.3", "0020000D", Kind.UID_LIST, ("1.2", "1.3")),
    ("8.3.4.1 wild card", "PatientID=a*b?", "00100020", Kind.WILD_CARD, ("a*b?",)),
    ("8.3.4.1 range", "StudyDate=20240101-20240131", "00080020", Kind.RANGE, ()),
    ("a comma is a character", "StudyDescription=a,b", "00081030", Kind.SINGLE, ("a,b",)),
    ("multiple values by comma", "multiplevaluematching=true&Modality=CT,MR", "00080060", Kind.SINGLE, ("CT", "MR")),
    ("multiple values by backslash", "ModalitiesInStudy=CT\\MR", "00080061", Kind.SINGLE, ("CT", "MR")),
    ("empty value asked for", 'emptyvaluematching=true&StudyID=""', "00200010", Kind.EMPTY, ()),
    ("empty value not asked for", 'StudyID=""', "00200010", Kind.SINGLE, ('""',)),
    ("empty value refused", 'emptyvaluematching=false&StudyID=""', "00200010", Kind.SINGLE, ('""',)),
]  # fmt: skip


@pytest.mark.parametrize(("query", "key", "kind", "values"), [row[1:] for row in KEYS], ids=[row[0] for row in KEYS])
def test_a_key_is_read_as_the_standard_means_it(query: str, key: str, kind: Kind, values: tuple[str, ...]) -> None:
    asked = read(query)
    assert list(asked.matches) == [key]
    assert asked.matches[key].kind is kind
    if kind is not Kind.RANGE:
        assert asked.matches[key].values == values


def test_paths_through_one_sequence_are_one_item() -> None:
    asked = read("RequestAttributesSequence.RequestedProcedureID=A&00400275.ScheduledProcedureStepID=B")
    (match,) = asked.matches.values()

    def item(procedure: str, step: str) -> dict[str, Any]:
        return {
            "00401001": {"vr": "SH", "Value": [procedure]},
            "00400009": {"vr": "SH", "Value": [step]},
        }

    assert matches(match, {"vr": "SQ", "Value": [item("A", "B")]})
    assert not matches(match, {"vr": "SQ", "Value": [item("A", "C"), item("D", "B")]})
    deeper = read("ProcedureCodeSequence.ContextGroupIdentificationSequence.CodeValue=1").matches["00081032"]
    inner = {"00080123": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["1"]}}]}}
    assert deeper.kind is Kind.SEQUENCE
    assert not matches(deeper, {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["1"]}}]})
    assert matches(deeper, {"vr": "SQ", "Value": [inner]})


def test_fields_are_included_by_keyword_tag_list_repetition_or_all() -> None:
    assert read("includefield=StudyDescription,00081048&includefield=PatientAge,").include == frozenset(
        {0x00081030, 0x00081048, 0x00101010}
    )
    assert read("includefield=RequestAttributesSequence.RequestedProcedureID").include == frozenset({0x00400275})
    assert read("includefield=StudyDate&includefield=all").include is ALL
    assert read("includefield=all").include_with(frozenset({1})) is ALL
    assert read("includefield=StudyDate&PatientAge=").include_with(frozenset({0x00080060})) == frozenset(
        {0x00080020, 0x00101010, 0x00080060}
    )


def test_options_have_defaults_and_are_read_in_any_order() -> None:
    asked = read("")
    assert (asked.matches, asked.include, asked.fuzzy, asked.limit, asked.offset) == ({}, frozenset(), False, 500, 0)
    asked = read("offset=7&PatientName=x&limit=3&fuzzymatching=TRUE&accept=application/json&charset=utf-8")
    assert (list(asked.matches), asked.fuzzy, asked.limit, asked.offset) == (["00100010"], True, 3, 7)


@pytest.mark.parametrize(("limit", "granted"), [(0, 0), (499, 499), (500, 500), (501, 500), (999_999_999, 500)])
def test_a_limit_is_lowered_to_ours(limit: int, granted: int) -> None:
    assert read(f"limit={limit}").limit == granted


REFUSED = [
    ("unknown keyword", "PatientNom=x"),
    ("unknown even tag", "00080002=x"),
    ("not an attribute", "orderby=x"),
    ("unknown field", "includefield=Nonsense"),
    ("key twice", "PatientName=a&PatientName=b"),
    ("key twice by tag", "PatientName=a&00100010=b"),
    ("path through no sequence", "PatientName.StudyDate=1"),
    ("sequence both key and path", "00091001=x&00091001.StudyID=y"),
    ("path with nothing", "RequestAttributesSequence.=x"),
    ("negative limit", "limit=-1"),
    ("limit no number", "limit=many"),
    ("limit twice", "limit=1&limit=2"),
    ("limit in other digits", "limit=\u0663"),
    ("offset no number", "offset=x"),
    ("flag no flag", "fuzzymatching=1"),
    ("date no date", "StudyDate=yesterday"),
    ("number no number", "NumberOfStudyRelatedInstances=many"),
]


@pytest.mark.parametrize("query", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_not_well_formed_is_refused(query: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(query)
    value = query.partition("=")[2]
    assert len(value) < 4 or value not in str(caught.value)  # a value may be a person's name


BOUNDS = [
    ("depth of a path", lambda n: ".".join(["RequestAttributesSequence"] * (n - 1) + ["StudyID"]) + "=x", MAX_DEPTH),
    ("offset", lambda n: f"offset={n}", MAX_OFFSET),
    ("length of a value", lambda n: "PatientName=" + "a" * n, MAX_VALUE),
    ("wild cards", lambda n: "PatientName=" + "a?" * n, 8),
]


@pytest.mark.parametrize(("query", "limit"), [row[1:] for row in BOUNDS], ids=[row[0] for row in BOUNDS])
@pytest.mark.parametrize("over", [-1, 0, 1])
def test_each_limit_holds_at_its_value(query: Any, limit: int, over: int) -> None:
    if over < 1:
        read(query(limit + over))
    else:
        with pytest.raises(BadRequest):
            read(query(limit + over))

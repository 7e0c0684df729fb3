"""C-FIND with DCMTK's findscu: every model and level, every kind of matching, every character set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_charset_files, get_testdata_file
from pydicom.dataset import Dataset

from dimse_archive import FINDER, FOREIGNER, READER, STORER, TITLE, Archive, archive, run
from negatoscope.db import EmbeddedPostgreSQL

FINDSCU = Path("/usr/bin/findscu")
pytestmark = pytest.mark.skipif(not FINDSCU.exists(), reason="DCMTK is not installed (apt install dcmtk)")
FILES = ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "rtplan.dcm", "JPEG2000.dcm")
CHARSETS = ("chrFren", "chrGerm", "chrArab", "chrGreek", "chrHbrw", "chrRuss", "chrX1", "chrX2", "chrH31", "chrI2")


@pytest.fixture(scope="module")
def here(postgresql: EmbeddedPostgreSQL) -> Iterator[Archive]:
    with archive(postgresql) as made:
        for name in FILES:
            made.keep_file(str(get_testdata_file(name)))
        made.keep_file(str(get_testdata_file("CT_small.dcm")), SOPInstanceUID="1.2.3.9.1", InstanceNumber=2)
        for number, name in enumerate(CHARSETS):
            study = f"2.25.7{number}"
            made.keep_file(
                str(get_charset_files(f"{name}.dcm")[0]),
                StudyInstanceUID=study,
                SeriesInstanceUID=f"{study}.1",
                SOPInstanceUID=f"{study}.1.1",
                PatientID=name,
            )
        made.keep_file(str(get_testdata_file("CT_small.dcm")), "B", StudyInstanceUID="2.25.999", PatientID="ELSEWHERE")
        yield made


class Found:
    def __init__(self, output: str, folder: Path) -> None:
        self.output = output
        self.datasets = [pydicom.dcmread(file, force=True) for file in sorted(folder.glob("rsp*.dcm"))]

    @property
    def final(self) -> str:
        """Status of the last response, four hexadecimal digits."""
        found = re.findall(r"DIMSE Status\s*: 0x([0-9a-f]{4})", self.output)
        assert found, self.output
        return str(found[-1])

    def statuses(self) -> list[str]:
        return re.findall(r"DIMSE Status\s*: 0x([0-9a-f]{4})", self.output)

    def values(self, name: str) -> list[str]:
        return sorted(str(dataset.get(name, "")) for dataset in self.datasets)


def find(here: Archive, folder: Path, *options: str, title: str = READER) -> Found:
    """``options``: those of findscu, and keys, told by their equals sign."""
    words = [
        word for option in options for word in (("-k", option) if "=" in option or option[0].isupper() else (option,))
    ]
    for old in folder.glob("rsp*.dcm"):
        old.unlink()
    done = run([FINDSCU, "-d", "-X", "-od", folder, "-aet", title, "-aec", TITLE, *words, "127.0.0.1", here.port])
    return Found(done.stdout + done.stderr, folder)


CT = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
STUDY, SERIES = str(CT.StudyInstanceUID), str(CT.SeriesInstanceUID)
NAMED = {
    "PATIENT": [f"PatientID={CT.PatientID}"],
    "STUDY": [f"StudyInstanceUID={STUDY}"],
    "SERIES": [f"SeriesInstanceUID={SERIES}"],
    "IMAGE": [f"SOPInstanceUID={CT.SOPInstanceUID}"],
}
ABOVE = {
    "-P": ["PATIENT", "STUDY", "SERIES", "IMAGE"],
    "-S": ["STUDY", "SERIES", "IMAGE"],
    "-O": ["PATIENT", "STUDY"],
}


@pytest.mark.parametrize("syntax", ["-xb", "-xi"])
@pytest.mark.parametrize(("model", "level"), [(model, level) for model, levels in ABOVE.items() for level in levels])
def test_every_level_of_every_model_finds_what_is_named(
    here: Archive, tmp_path: Path, model: str, level: str, syntax: str
) -> None:
    above = ABOVE[model][: ABOVE[model].index(level) + 1]
    keys = [key for one in above for key in NAMED[one]]
    found = find(here, tmp_path, model, syntax, f"QueryRetrieveLevel={level}", "PatientName", *keys)
    assert found.statuses()[-2:] == ["ff00", "0000"], found.output
    [dataset] = found.datasets
    assert dataset.QueryRetrieveLevel == level
    assert dataset.RetrieveAETitle == TITLE
    assert dataset.PatientName == "CompressedSamples^CT1"
    for key in keys:
        name, _, value = key.partition("=")
        assert dataset[name].value == value


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["PatientName=CompressedSamples^CT1"], {"1CT1"}),
        (["PatientName=compressedsamples^ct1"], {"1CT1"}),
        (["PatientName=Compressed*"], {"1CT1", "4MR1", "8NM1"}),
        (["PatientName=compressed*^?R?"], {"4MR1"}),
        (["PatientID=1CT?"], {"1CT1"}),
        (["PatientID=1CT1\\4MR1"], {"1CT1", "4MR1"}),
        (["StudyDate=20040119", "PatientID=1CT1"], {"1CT1"}),
        (["StudyDate=20040826", "PatientID=4MR1"], {"4MR1"}),
        (["StudyDate=20040101-20040201"], {"1CT1"}),
        (["StudyDate=-20030101"], set()),
        (["StudyDate=20040119-", "StudyTime=072730-072731"], {"1CT1"}),
        (["ModalitiesInStudy=CT"], {"1CT1"}),
        (["ModalitiesInStudy=CT\\MR"], {"1CT1", "4MR1"}),
        ([f"StudyInstanceUID={STUDY}\\1.2.3.4"], {"1CT1"}),
        (["PatientID=ELSEWHERE"], set()),
        (["StudyInstanceUID=2.25.999"], set()),
    ],
)
def test_every_kind_of_matching(here: Archive, tmp_path: Path, keys: list[str], expected: set[str]) -> None:
    named = {key.partition("=")[0] for key in keys}
    more = [key for key in ("PatientID", "StudyInstanceUID") if key not in named]
    found = find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", *keys, *more)
    assert found.final == "0000"
    assert {str(one.PatientID) for one in found.datasets} - set(CHARSETS) == expected


def test_counts_modalities_and_availability_are_answered_when_asked_for(here: Archive, tmp_path: Path) -> None:
    counts = [
        "ModalitiesInStudy",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "InstanceAvailability",
    ]
    [study] = find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}", *counts).datasets
    assert study.ModalitiesInStudy == "CT"
    assert study.NumberOfStudyRelatedSeries == 1
    assert study.NumberOfStudyRelatedInstances == 2
    assert study.InstanceAvailability == "ONLINE"
    keys = [f"StudyInstanceUID={STUDY}", "SeriesInstanceUID", "NumberOfSeriesRelatedInstances", "Modality"]
    [series] = find(here, tmp_path, "-S", "QueryRetrieveLevel=SERIES", *keys).datasets
    assert (series.NumberOfSeriesRelatedInstances, series.Modality) == (2, "CT")
    keys = ["PatientID=1CT1", "NumberOfPatientRelatedStudies", "NumberOfPatientRelatedInstances"]
    [patient] = find(here, tmp_path, "-P", "QueryRetrieveLevel=PATIENT", *keys).datasets
    assert (patient.NumberOfPatientRelatedStudies, patient.NumberOfPatientRelatedInstances) == (1, 2)


def test_images_answer_what_only_their_data_sets_hold(here: Archive, tmp_path: Path) -> None:
    keys = [f"StudyInstanceUID={STUDY}", f"SeriesInstanceUID={SERIES}", "SOPInstanceUID", "SOPClassUID", "Rows"]
    more = ["InstanceNumber=2", "ImagePositionPatient", "SliceThickness", "BitsAllocated"]
    [image] = find(here, tmp_path, "-S", "QueryRetrieveLevel=IMAGE", *keys, *more).datasets
    assert image.SOPInstanceUID == "1.2.3.9.1"
    assert (image.Rows, image.BitsAllocated, image.SliceThickness) == (128, 16, CT.SliceThickness)
    assert image.ImagePositionPatient == CT.ImagePositionPatient


def test_only_what_was_asked_for_is_answered(here: Archive, tmp_path: Path) -> None:
    [study] = find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}", "StudyID").datasets
    assert {element.keyword for element in study} == {
        "QueryRetrieveLevel", "RetrieveAETitle", "StudyInstanceUID", "StudyID",
    }  # fmt: skip


def test_keys_that_are_not_supported_are_left_out_and_said_so(here: Archive, tmp_path: Path) -> None:
    keys = [f"StudyInstanceUID={STUDY}", "SOPClassesInStudy", "PatientState"]
    found = find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", *keys)
    assert found.statuses()[-2:] == ["ff01", "0000"]
    [study] = found.datasets
    assert "SOPClassesInStudy" not in study
    assert "PatientState" not in study


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["-S", "PatientID=1CT1"], "no level"),
        (["-S", "QueryRetrieveLevel=PATIENT", "PatientID=1CT1"], "not a level of Study Root"),
        (["-O", "QueryRetrieveLevel=SERIES", "PatientID=1CT1", f"StudyInstanceUID={STUDY}"], "too deep for the model"),
        (["-S", "QueryRetrieveLevel=WARD"], "no such level"),
        (["-S", "QueryRetrieveLevel=SERIES", "Modality=CT"], "no study"),
        (["-S", "QueryRetrieveLevel=SERIES", "StudyInstanceUID"], "any study"),
        (["-S", "QueryRetrieveLevel=SERIES", f"StudyInstanceUID={STUDY}\\1.2"], "two studies"),
        (["-S", "QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={STUDY}"], "no series"),
        (["-P", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}"], "no patient"),
        (["-P", "QueryRetrieveLevel=STUDY", "PatientID=1CT*", f"StudyInstanceUID={STUDY}"], "any patient"),
        (["-S", "QueryRetrieveLevel=STUDY", "StudyDate=yesterday"], "no date"),
        (["-S", "QueryRetrieveLevel=STUDY", "PatientName=*a*b*c*d*e*f*g*h*i*"], "too many wild cards"),
    ],
)
def test_an_identifier_that_does_not_fit_is_refused(
    here: Archive, tmp_path: Path, options: list[str], why: str
) -> None:
    found = find(here, tmp_path, *options)
    assert found.statuses() == ["a900"], why
    assert found.datasets == []


# Character sets ------------------------------------------------------------------------------------

PLAIN = {
    "chrFren": "buc*",
    "chrGerm": "aneas*",
    "chrX1": "wang*",
    "chrX2": "wang*",
    "chrH31": "yamada*",
    "chrI2": "hong*",
}


def original(name: str) -> Dataset:
    return pydicom.dcmread(str(get_charset_files(f"{name}.dcm")[0]))


@pytest.mark.parametrize(("name", "key"), PLAIN.items())
def test_names_are_found_without_case_and_accents_and_answered_in_unicode(
    here: Archive, tmp_path: Path, name: str, key: str
) -> None:
    keys = ["QueryRetrieveLevel=STUDY", f"PatientName={key}", f"PatientID={name}"]
    found = find(here, tmp_path, "-S", *keys)
    [study] = found.datasets
    assert study.SpecificCharacterSet == "ISO_IR 192"
    assert str(study.PatientName).rstrip("=") == str(original(name).PatientName).rstrip("=")


@pytest.mark.parametrize(
    ("name", "character_set", "answered"),
    [
        ("chrFren", "ISO_IR 100", "ISO_IR 100"),
        ("chrFren", "ISO_IR 192", "ISO_IR 192"),
        ("chrFren", "ISO 2022 IR 100", "ISO 2022 IR 100"),
        ("chrFren", "GB18030", "GB18030"),
        ("chrFren", "ISO_IR 144", "ISO_IR 192"),
        ("chrRuss", "ISO_IR 144", "ISO_IR 144"),
        ("chrRuss", "ISO_IR 100", "ISO_IR 192"),
        ("chrGreek", "ISO_IR 126", "ISO_IR 126"),
        ("chrArab", "ISO_IR 127", "ISO_IR 127"),
        ("chrHbrw", "ISO_IR 138", "ISO_IR 138"),
        ("chrX2", "GB18030", "GB18030"),
        ("chrH31", "\\ISO 2022 IR 87", "ISO_IR 192"),
        ("chrH31", "ISO_IR 13", "ISO_IR 192"),
    ],
)
def test_answers_come_in_the_character_set_of_the_query_if_it_can_hold_them(
    here: Archive, tmp_path: Path, name: str, character_set: str, answered: str
) -> None:
    keys = ["QueryRetrieveLevel=STUDY", f"PatientID={name}", "PatientName", f"SpecificCharacterSet={character_set}"]
    [study] = find(here, tmp_path, "-S", *keys).datasets
    assert study.SpecificCharacterSet == answered
    study.decode()
    assert str(study.PatientName).rstrip("=") == str(original(name).PatientName).rstrip("=")


def test_plain_answers_to_a_plain_query_name_no_character_set(here: Archive, tmp_path: Path) -> None:
    [study] = find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", "PatientID=1CT1", "PatientName").datasets
    assert "SpecificCharacterSet" not in study


# Who may -------------------------------------------------------------------------------------------


def test_another_establishment_finds_its_own_and_nothing_else(here: Archive, tmp_path: Path) -> None:
    found = find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientID", title=FOREIGNER)
    assert found.values("PatientID") == ["ELSEWHERE"]


def test_who_may_not_query_gets_no_context(here: Archive, tmp_path: Path) -> None:
    found = find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID", title=STORER)
    assert "No presentation context" in found.output or "No Acceptable Presentation Contexts" in found.output
    assert found.datasets == []
    assert len(find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", "PatientID=1CT1", title=FINDER).datasets) == 1


def test_every_query_is_in_the_audit_trail_without_what_was_asked_for(here: Archive, tmp_path: Path) -> None:
    before = len(here.events("110112"))
    find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", "PatientName=Compressed*", "StudyDate=2004-")
    find(here, tmp_path, "-S", "QueryRetrieveLevel=STUDY", "PatientName=Compressed*", "StudyDate")
    events = here.events("110112")[before:]
    assert [event["detail"] for event in events] == [{"level": "STUDY", "keys": "00100010", "answers": 3}]
    assert events[0]["actor_name"] == READER
    assert events[0]["door"] == "dimse"
    assert "ompressed" not in str(events)

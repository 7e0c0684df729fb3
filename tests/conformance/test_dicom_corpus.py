"""Real files of many makers: what is read of them, and that no mutant of one does harm."""

from __future__ import annotations

import random
import tracemalloc
import warnings
from pathlib import Path

import orjson
import pytest
from pydicom import dcmread

from negatoscope.dicom.fast_walk import Unusual, find_fast, swapped
from negatoscope.dicom.json_model import inflated, read_bulk, to_json, to_xml
from negatoscope.dicom.levels import SERIES_LEVEL, STUDY_LEVEL
from negatoscope.dicom.limits import DEFAULT_LIMITS, MIB
from negatoscope.dicom.scan import find_by_walk, scan
from negatoscope.dicom.tags import PIXEL_DATA
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.dicom.walk import walk
from negatoscope.errors import InvalidObject, MismatchedObject, TruncatedObject
from unit.dicom.samples import need_corpus, read

pytestmark = pytest.mark.corpus

# Cut short, most of them on purpose.
TRUNCATED = {
    "MR_truncated.dcm",
    "rtplan_truncated.dcm",
    "DICOMDIR-nooffset",
    "emri_small_jpeg_2k_lossless_too_short.dcm",
    "philips/anatomical/002/008.dcm",
}
NO_DICOM = {"meta_missing_tsyntax.dcm"}  # begins with a tag that nobody knows, and does not say how it is written


def is_one_of(path: Path, names: set[str]) -> bool:
    return any(path.as_posix().endswith("/" + name) for name in names)


def readable() -> list[Path]:
    return [path for path in need_corpus() if not is_one_of(path, TRUNCATED | NO_DICOM)]


def test_every_whole_file_is_walked_and_every_cut_one_is_seen_to_be_cut() -> None:
    for path in need_corpus():
        if is_one_of(path, NO_DICOM):
            continue
        data, syntax = inflated(*read(path))
        if is_one_of(path, TRUNCATED):
            with pytest.raises(TruncatedObject):
                list(walk(data, syntax))
        else:
            assert sum(1 for _ in walk(data, syntax)) > 0, path


def test_the_fast_path_answers_for_nearly_all_and_is_never_wrong() -> None:
    wanted = frozenset((*STUDY_LEVEL, *SERIES_LEVEL, PIXEL_DATA))
    fast = slow = 0
    for path in readable():
        data, syntax = inflated(*read(path))
        if not syntax.little_endian:
            continue
        try:
            found = find_fast(data, syntax.explicit, {swapped(tag): tag for tag in wanted}, DEFAULT_LIMITS)
        except Unusual:
            slow += 1
        else:
            fast += 1
            assert found == find_by_walk(data, syntax, wanted, DEFAULT_LIMITS), path
    assert fast > 8 * slow


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_the_scan_says_what_pydicom_says(step: int) -> None:
    scanned = 0
    for path in readable()[::step]:
        data, syntax_uid = read(path)
        try:
            ours = scan(data, syntax_uid)
        except MismatchedObject:
            continue  # palettes, DICOMDIRs, fragments made for tests
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = dcmread(path, force=True, stop_before_pixels=True)
            text = {
                name: str(theirs.get(keyword) or "").strip()
                for name, keyword in {
                    "study_uid": "StudyInstanceUID",
                    "series_uid": "SeriesInstanceUID",
                    "sop_instance_uid": "SOPInstanceUID",
                    "sop_class_uid": "SOPClassUID",
                    "patient_identifier": "PatientID",
                    "modality": "Modality",
                    "study_date": "StudyDate",
                    "accession_number": "AccessionNumber",
                    "sex": "PatientSex",
                }.items()
            }
        parents = ours.parents()
        found = {name: getattr(ours if hasattr(ours, name) else parents, name) for name in text}
        assert found == text, path
        assert (ours.rows, ours.columns) == (theirs.get("Rows"), theirs.get("Columns")), path
        scanned += 1
    assert scanned > 500 / step


def mutated(data: bytes, chance: random.Random) -> bytes:
    """``data`` with bytes changed, lengths blown up, parts cut, doubled and swapped."""
    mutant = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        # headers are where the trouble is
        where = chance.randrange(min(len(mutant), chance.choice([200, 2000, 20_000, 150_000])) or 1)
        match chance.randrange(7):
            case 0:
                mutant[where : where + 1] = bytes([chance.randrange(256)])
            case 1:
                mutant[where : where + 4] = chance.choice([b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", bytes(4)])
            case 2:
                del mutant[where : where + chance.randint(1, 64)]
            case 3:
                mutant[where:where] = mutant[where : where + chance.randint(1, 200)]
            case 4:
                mutant[where:where] = chance.choice([b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"SQ", b"UN"])
            case 5:
                del mutant[where:]
            case _:
                mutant[where : where + 2] = chance.choice([b"SQ", b"UN", b"OB", b"PN", b"DS", b"AT", b"??"])
    return bytes(mutant)


def mutants(seed: int, count: int) -> list[tuple[str, bytes, str]]:
    """``count`` mutants of small files."""
    chance = random.Random(seed)
    sources = [path for path in readable() if path.stat().st_size < 150_000]
    made = []
    for number in range(count):
        path = chance.choice(sources)
        data, syntax_uid = read(path)
        made.append((f"{path.name} {seed}/{number}", mutated(data, chance), syntax_uid))
    return made


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.soak)])
def test_mutants_of_real_files_are_read_or_refused_by_name(count: int) -> None:
    for label, data, syntax_uid in mutants(20261122, count):
        try:
            judge(data, syntax_uid)
        except InvalidObject:
            continue
        except Exception as error:
            raise AssertionError(f"{label}: {type(error).__name__}") from error


def judge(data: bytes, syntax_uid: str) -> None:
    """All that the server does with a data set, short of its pixels."""
    tracemalloc.start()
    try:
        paths: list[str] = []

        def remember(path: str) -> str:
            paths.append(path)
            return path

        shown = to_json(data, syntax_uid, remember)
        assert b"\\u0000" not in orjson.dumps(shown)
        to_xml(shown)
        for path in paths[:3]:
            read_bulk(data, syntax_uid, path)
        scan(data, syntax_uid).parents()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 * MIB


def test_a_transfer_syntax_that_is_not_the_true_one_does_no_harm() -> None:
    for path in readable()[::10]:
        data, true = read(path)
        for claimed in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"):
            if claimed != true and not transfer_syntax(true).deflated:
                try:
                    scan(data, claimed).parents()
                except InvalidObject:
                    continue

"""DICOM JSON and XML against DCMTK's own, over real files.

Differences that are meant, each with its reason, are in ``is_meant``. Where DCMTK gives up (it keeps no
compressed pixel data in JSON, and knows less of ISO 2022) the file is compared without its pixels, or not.
"""

from __future__ import annotations

import json
import math
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from negatoscope.dicom.json_model import read_bulk, to_json, to_xml
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.dicom.tags import BINARY_VRS
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, transfer_syntax
from negatoscope.dicom.walk import walk
from negatoscope.errors import InvalidObject
from unit.dicom.samples import need_corpus, read

pytestmark = pytest.mark.corpus

DCM2JSON, DCM2XML = Path("/usr/bin/dcm2json"), Path("/usr/bin/dcm2xml")
STEPS = pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])


def sampled(step: int, tool: Path) -> list[Path]:
    if not tool.exists():
        pytest.skip(f"{tool} is not installed (Debian package dcmtk)")
    return need_corpus()[::step]


def without_compressed_pixels(path: Path, folder: Path) -> tuple[Path, bytes, str]:
    """File, data set and syntax; encapsulated pixel data and what follows them are cut off."""
    data, syntax_uid = read(path)
    syntax = transfer_syntax(syntax_uid)
    if not syntax.encapsulated:
        return path, data, syntax_uid
    pixels = [e for e in walk(data, syntax) if e.tag == 0x7FE00010 and not e.depth]
    data = data[: pixels[0].start] if pixels else data
    file = folder / "cut.dcm"
    file.write_bytes(write_file_meta("1.2", "1.2.3", EXPLICIT_LITTLE_ENDIAN) + data)
    return file, data, EXPLICIT_LITTLE_ENDIAN


def inlined(dataset: dict[str, Any], data: bytes, syntax_uid: str) -> None:
    """Put bulk data where DCMTK has them."""
    for element in dataset.values():
        path = element.pop("BulkDataURI", None)
        if path is not None:
            value = read_bulk(data, syntax_uid, path)
            if element["vr"] == "UT":
                element["Value"] = [value.decode()]
            else:
                element["InlineBinary"] = b64encode(value).decode()
        if element["vr"] == "SQ":
            for item in element.get("Value", []):
                inlined(item, data, syntax_uid)


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in sorted(ours.keys() | theirs.keys()):
            found += differences(ours.get(key), theirs.get(key), f"{path}/{key}")
        return [] if is_meant(ours, theirs, path) else found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [d for n, pair in enumerate(zip(ours, theirs, strict=True)) for d in differences(*pair, f"{path}/{n}")]
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return [] if math.isclose(ours, theirs, rel_tol=1e-7) else [path]
    return [] if ours == theirs else [path]


def is_meant(ours: dict[str, Any], theirs: dict[str, Any], path: str) -> bool:
    if ours.get("vr") == "UN" != theirs.get("vr"):
        return True  # DCMTK has a dictionary of private elements; UN is what the data set says
    if theirs.get("vr") == "UN" != ours.get("vr"):
        return True  # of elements of the standard that were written as UN we show what they are
    if path.endswith("/00080005") and path.count("/") > 1:
        return True  # DCMTK leaves the character set of items, and their text, as it was
    if path.startswith("/00321064/Value/0/00100010"):
        return True  # the text of such an item
    binary = ours.get("InlineBinary"), theirs.get("InlineBinary")
    if all(isinstance(b, str) for b in binary):  # DCMTK pads odd values
        return len(str(binary[0])) <= len(str(binary[1])) and str(binary[1]).startswith(str(binary[0]).rstrip("=")[:-1])
    return False


@STEPS
def test_json_is_that_of_dcm2json(step: int, tmp_path: Path) -> None:
    compared = 0
    for path in sampled(step, DCM2JSON):
        try:
            file, data, syntax_uid = without_compressed_pixels(path, tmp_path)
            ours = to_json(data, syntax_uid, lambda bulk: bulk)
        except InvalidObject:
            continue  # cut files: test_dicom_corpus names them
        done = subprocess.run([DCM2JSON, "-q", "-fc", "-ee", file], capture_output=True, check=False)
        if done.returncode:
            continue
        inlined(ours, data, syntax_uid)
        assert not differences(ours, json.loads(done.stdout.decode(errors="replace"), strict=False)), path
        compared += 1
    assert compared > 600 / step


def xml_summary(root: ElementTree.Element) -> list[tuple[str, str, list[str]]]:
    """Tag, VR and values of each top-level attribute; binary values and empty ones left out."""
    rows = []
    for attribute in root.findall("DicomAttribute"):
        if attribute.attrib["vr"] in {"SQ", "UT"} | BINARY_VRS or attribute.attrib["tag"].endswith("0000"):
            continue
        values = [(e.text or "").strip() for e in attribute.iter() if e.tag not in ("DicomAttribute", "PersonName")]
        values = [number(v) if attribute.attrib["vr"] in ("DS", "IS", "FL", "FD") else v for v in values if v]
        if attribute.attrib["vr"] == "PN":
            values = sorted(set(values))  # DCMTK repeats the group before an empty one
        rows.append((attribute.attrib["tag"], attribute.attrib["vr"], values))
    return rows


def number(text: str) -> str:
    try:
        return f"{float(text) + 0:.7g}"  # of two zeros one
    except ValueError:
        return text


@pytest.mark.parametrize("step", [24, pytest.param(1, marks=pytest.mark.slow)])
def test_xml_is_that_of_dcm2xml(step: int) -> None:
    compared = 0
    for path in sampled(step, DCM2XML):
        try:
            data, syntax_uid = read(path)
            ours = ElementTree.fromstring(to_xml(to_json(data, syntax_uid, lambda bulk: bulk)))
        except InvalidObject:
            continue
        done = subprocess.run([DCM2XML, "-q", "-nat", "+U8", path], capture_output=True, check=False)
        try:
            theirs = ElementTree.fromstring(done.stdout)
        except ElementTree.ParseError:
            continue  # control characters, character sets
        if done.returncode or "IM1.dcm" in path.name:
            continue  # the latter has private elements that DCMTK has in its dictionary
        unknown = {a.attrib["tag"] for a in theirs.iter("DicomAttribute") if a.attrib["vr"] == "UN"}
        skip = {"00080005"} | unknown
        rows = [[row for row in xml_summary(root) if row[0] not in skip] for root in (ours, theirs)]
        assert rows[0] == rows[1], path
        compared += 1
    assert compared > 500 / step

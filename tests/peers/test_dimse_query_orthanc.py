"""Debian's Orthanc as a workstation: it queries us and has studies moved to itself."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from dimse_archive import READING, TITLE, Archive, archive
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.sharing import COMMAND_LINE

ORTHANC = Path("/usr/sbin/Orthanc")
pytestmark = pytest.mark.skipif(not ORTHANC.exists(), reason="Orthanc is not installed (apt install orthanc)")
FILES = ("CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "rtplan.dcm")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def call(port: int, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=data, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def here(postgresql: EmbeddedPostgreSQL) -> Iterator[Archive]:
    with archive(postgresql) as made:
        for name in FILES:
            made.keep_file(
                str(get_testdata_file(name)),
                PatientID="ORTHANC",
                PatientName="Élan^Zoé",
                SpecificCharacterSet="ISO_IR 100",
            )
        yield made


@pytest.fixture(scope="module")
def orthanc(here: Archive, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of its HTTP server; its DICOM door is the move destination ORTHANC."""
    folder, port, dicom = tmp_path_factory.mktemp("orthanc"), free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [],
        "HttpPort": port,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "AuthenticationEnabled": False,
        "DicomModalities": {"ours": [TITLE, *here.address]},
    }
    here.built.accounts.add_entity("ORTHANC", "A", list(READING), "127.0.0.1", dicom, by=COMMAND_LINE)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [str(ORTHANC), str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                call(port, "/system")
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, "Orthanc ended"
                assert time.monotonic() < deadline, "Orthanc does not answer"
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def query(orthanc: int, level: str, **keys: str) -> tuple[str, list[dict[str, Any]]]:
    """The path of the query and what it found."""
    asked = call(orthanc, "/modalities/ours/query", {"Level": level, "Query": keys})
    path = asked["Path"]
    answers = call(orthanc, f"{path}/answers")
    return path, [call(orthanc, f"{path}/answers/{number}/content?simplify") for number in answers]


@pytest.mark.parametrize(("name", "found"), [("elan*", 4), ("ÉLAN^zo?", 4), ("Elan^Zoe", 4), ("nobody", 0)])
def test_orthanc_finds_studies(orthanc: int, name: str, found: int) -> None:
    _, studies = query(orthanc, "Study", PatientName=name, PatientID="")
    assert len(studies) == found
    assert {study["PatientName"] for study in studies} <= {"Élan^Zoé"}


@pytest.mark.parametrize("level", ["Patient", "Study", "Series", "Instance"])
def test_orthanc_finds_at_every_level(orthanc: int, here: Archive, level: str) -> None:
    _, [study] = query(orthanc, "Study", PatientID="ORTHANC", ModalitiesInStudy="CT")
    keys = {"PatientID": "ORTHANC"}
    if level != "Patient":
        keys["StudyInstanceUID"] = study["StudyInstanceUID"]
    if level == "Instance":
        _, [series] = query(orthanc, "Series", **keys)
        keys["SeriesInstanceUID"] = series["SeriesInstanceUID"]
    _, found = query(orthanc, level, **keys)
    assert len(found) == 1


def test_orthanc_has_every_study_moved_to_itself(orthanc: int, here: Archive) -> None:
    path, studies = query(orthanc, "Study", PatientID="ORTHANC")
    assert len(studies) == len(FILES)
    call(orthanc, f"{path}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
    assert call(orthanc, "/statistics")["CountInstances"] == len(FILES)
    syntaxes = {
        call(orthanc, f"/instances/{one}/metadata?expand")["TransferSyntax"] for one in call(orthanc, "/instances")
    }
    assert syntaxes >= {"1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.91"}

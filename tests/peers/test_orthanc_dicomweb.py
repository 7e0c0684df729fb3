"""Debian's Orthanc as DICOMweb client: its plugin stores to us, searches and retrieves, with a bearer token."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dimse_peers import sample
from peers.corpus import Archive
from system import System, free_port, system

ORTHANC = Path("/usr/sbin/Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ORTHANC.exists() and PLUGIN.exists()), reason="Orthanc's DICOMweb plugin is not installed"),
]
FILES = ["CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_gdcm.dcm", "rtplan.dcm", "reportsi.dcm"]


@dataclass(frozen=True)
class Pair:
    """A server of ours, and an Orthanc that knows it as ``ours`` (with a token) and ``closed`` (with a wrong one)."""

    built: System
    port: int
    archive: Archive

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    with system(NEGATOSCOPE_QUIET_S="86400") as built:
        built.start()
        token = built.token("reader", "--ttl", "1h")
        settings = {
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": port,
            "DicomServerEnabled": False,
            "AuthenticationEnabled": False,
            "DicomWeb": {
                "Enable": True,
                "Servers": {
                    "ours": server(built, token),
                    "closed": server(built, "nobody"),
                },
            },
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log)
        with Archive(built.url, token) as archive:
            found = Pair(built, port, archive)
            try:
                wait_for(found, process)
                yield found
            finally:
                process.terminate()
                process.wait(20)


def server(built: System, token: str) -> dict[str, Any]:
    return {
        "Url": f"{built.url}/dicom-web/",
        "HttpHeaders": {"Authorization": f"Bearer {token}"},
        "HasDelete": False,
        "ChunkedTransfers": True,
        "HasWadoRsUniversalTransferSyntax": True,
    }


def wait_for(pair: Pair, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            pair.ask("/system")
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "Orthanc ended"
            assert time.monotonic() < until
            time.sleep(0.1)


def stored(pair: Pair) -> dict[str, str]:
    """The files in Orthanc: its identifier of each."""
    return {name: pair.ask("/instances", sample(name).read_bytes())["ID"] for name in FILES}


def test_orthanc_stores_to_us_and_the_objects_are_those_it_has(pair: Pair) -> None:
    done = pair.ask("/dicom-web/servers/ours/stow", {"Resources": list(stored(pair).values()), "Synchronous": True})
    assert int(done["InstancesCount"]) == len(FILES)
    for name in FILES:
        ours, theirs = served(pair, name), dcmread(sample(name))
        assert ours.file_meta.TransferSyntaxUID == theirs.file_meta.TransferSyntaxUID
        theirs.pop(0xFFFCFFFC, None)
        ours.pop(0xFFFCFFFC, None)
        assert ours == theirs, name


def served(pair: Pair, name: str) -> Any:
    from io import BytesIO

    dataset = dcmread(sample(name))
    at = f"/dicom-web/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
    answer = pair.archive.get(f"{at}/instances/{dataset.SOPInstanceUID}", "application/dicom; transfer-syntax=*")
    assert answer.status_code == 200, answer.text
    return dcmread(BytesIO(answer.content))


def test_orthanc_is_refused_without_a_right_token(pair: Pair) -> None:
    with pytest.raises(urllib.error.HTTPError):
        pair.ask("/dicom-web/servers/closed/stow", {"Resources": list(stored(pair).values()), "Synchronous": True})
    with pytest.raises(urllib.error.HTTPError):
        pair.ask("/dicom-web/servers/closed/qido", {"Uri": "/studies"})


def test_orthanc_searches_us(pair: Pair) -> None:
    dataset = dcmread(sample("CT_small.dcm"))
    found = pair.ask("/dicom-web/servers/ours/qido", {"Uri": "/studies", "Arguments": {"PatientID": dataset.PatientID}})
    [study] = found
    assert study["0020000D"]["Value"] == dataset.StudyInstanceUID  # Orthanc takes it out of its list
    assert study["00100010"]["Value"] == str(dataset.PatientName)
    uri = f"/studies/{dataset.StudyInstanceUID}/instances"
    [instance] = pair.ask("/dicom-web/servers/ours/qido", {"Uri": uri})
    assert instance["00080018"]["Value"] == dataset.SOPInstanceUID


def test_orthanc_retrieves_from_us(pair: Pair) -> None:
    """What it deleted comes back from us by WADO-RS: study, series or instance."""
    for level, name in (("Study", "CT_small.dcm"), ("Series", "MR_small_RLE.dcm"), ("Instance", "JPEG2000.dcm")):
        identifier = stored(pair)[name]
        pair.ask(f"/instances/{identifier}", method="DELETE")
        dataset = dcmread(sample(name))
        resource = {"Study": dataset.StudyInstanceUID}
        if level != "Study":
            resource["Series"] = dataset.SeriesInstanceUID
        if level == "Instance":
            resource["Instance"] = dataset.SOPInstanceUID
        done = pair.ask("/dicom-web/servers/ours/retrieve", {"Resources": [resource], "Synchronous": True})
        assert int(done["ReceivedInstancesCount"]) == 1, level
        tags = pair.ask(f"/instances/{identifier}/simplified-tags")
        assert tags["SOPInstanceUID"] == dataset.SOPInstanceUID


def test_orthanc_reads_our_metadata_and_frames_by_get(pair: Pair) -> None:
    dataset = dcmread(sample("CT_small.dcm"))
    uri = f"/studies/{dataset.StudyInstanceUID}/metadata"
    [document] = pair.ask(
        "/dicom-web/servers/ours/get", {"Uri": uri, "HttpHeaders": {"Accept": "application/dicom+json"}}
    )
    assert document["00080018"]["Value"] == [dataset.SOPInstanceUID]


def test_nothing_went_wrong_unseen(pair: Pair) -> None:
    log = pair.built.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert " ERROR " not in log

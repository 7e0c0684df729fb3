"""Orthanc as destination by C-STORE and by STOW-RS, as commitment peer in both roles, and storescp of DCMTK."""

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

from dimse_archive import TITLE
from dimse_peers import sample
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.model.actor import Right
from negatoscope.routing import State
from negatoscope.sending import commitment_service, duties, echo
from negatoscope.servers.dicom import DicomServer
from negatoscope.sharing import COMMAND_LINE
from sending_bench import QUICK, Bench, bench, free_port, wait

ORTHANC, STORESCP = Path("/usr/sbin/Orthanc"), Path("/usr/bin/storescp")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
FILES = ["CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_gdcm.dcm", "rtplan.dcm", "reportsi.dcm"]
JPEG_LS, RLE, IMPLICIT = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2"
pytestmark = pytest.mark.slow


@dataclass
class Pair:
    made: Bench
    http: int
    dicom: int

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def text(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=60) as answer:
            return str(answer.read().decode())

    def held(self) -> list[str]:
        """SOP Instance UIDs."""
        found = self.ask("/instances?expand")
        return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in found)

    def empty(self) -> None:
        for patient in self.ask("/patients"):
            self.ask(f"/patients/{patient}", method="DELETE")


@pytest.fixture(scope="module")
def pair(postgresql: EmbeddedPostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if not (ORTHANC.exists() and PLUGIN.exists()):
        pytest.skip("Orthanc and its DICOMweb plugin are not installed")
    folder, http, dicom = tmp_path_factory.mktemp("orthanc"), free_port(), free_port()
    with bench(postgresql) as made:
        built = made.archive.built
        server = DicomServer(
            ("127.0.0.1", 0),
            TITLE,
            built.store,
            lambda calling, called, address, *more: built.accounts.actor_of_title(calling, address, called),
            operations=(commitment_service(built), made.archive.operations),
        )
        server.start()
        built.accounts.add_entity("ORTHANC", "A", [Right.STORE, Right.QUERY], "127.0.0.1", dicom, by=COMMAND_LINE)
        settings = {
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": http,
            "DicomPort": dicom,
            "DicomAet": "ORTHANC",
            "AuthenticationEnabled": False,
            "DicomModalities": {"ours": [TITLE, "127.0.0.1", server.address[1]]},
            "DicomWeb": {"Enable": True},
            "OverwriteInstances": True,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([str(ORTHANC), str(folder / "orthanc.json")], stdout=log, stderr=log)
        found = Pair(made, http, dicom)
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    found.ask("/system")
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None, "Orthanc ended"
                    assert time.monotonic() < until
                    time.sleep(0.1)
            made.node(dicom, "ORTHANC", commitment=True)
            made.web_node(f"http://127.0.0.1:{http}/dicom-web")
            made.deliverer()
            yield found
        finally:
            process.terminate()
            process.wait(20)
            server.stop()


def node(pair: Pair, name: str) -> int:
    return next(one.node_id for one in pair.made.parts.nodes.listed(by=COMMAND_LINE) if one.name == name)


def test_orthanc_answers_by_both_ways(pair: Pair) -> None:
    for name in ("ORTHANC", "WEB"):
        assert echo(pair.made.archive.built, pair.made.parts, node(pair, name), COMMAND_LINE) == ""


@pytest.mark.parametrize("way", ["ORTHANC", "WEB"])
def test_orthanc_gets_every_object_of_real_files(pair: Pair, way: str) -> None:
    made = pair.made
    pair.empty()
    datasets = [made.archive.keep_file(sample(name)) for name in FILES]
    asked = [made.ask(node(pair, way), str(dataset.StudyInstanceUID)) for dataset in datasets]
    asker = duties(made.archive.built, made.parts, QUICK)[1][1].run
    for delivery in asked:
        made.until(delivery, State.DONE, State.COMMITTING)
    assert pair.held() == sorted(str(dataset.SOPInstanceUID) for dataset in datasets)
    if way == "ORTHANC":  # Orthanc promises to keep what it has, on an association of its own
        while asker():
            pass
        for delivery in asked:
            made.until(delivery, State.DONE)


@pytest.mark.parametrize("way", ["ORTHANC", "WEB"])
def test_orthanc_gets_the_transfer_syntax_that_a_rule_asks_for(pair: Pair, way: str) -> None:
    """What is compressed already, or has no pixels, leaves as it is stored."""
    made = pair.made
    pair.empty()
    expected = {"CT_small.dcm": JPEG_LS, "MR_small_RLE.dcm": RLE, "rtplan.dcm": IMPLICIT}
    uids = {}
    for name in expected:
        dataset = made.archive.keep_file(sample(name))
        uids[str(dataset.SOPInstanceUID)] = name
        delivery = made.ask(node(pair, way), str(dataset.StudyInstanceUID), hold=True)
        made.sql("UPDATE delivery SET syntax = %s WHERE delivery_id = %s", JPEG_LS, delivery)  # as a rule makes it
        made.parts.queue.release(delivery, by=COMMAND_LINE)
        made.until(delivery, State.DONE, State.COMMITTING, State.DEAD)
    held = {
        uids[one["MainDicomTags"]["SOPInstanceUID"]]: pair.text(f"/instances/{one['ID']}/metadata/TransferSyntax")
        for one in pair.ask("/instances?expand")
    }
    assert held == expected


def test_orthanc_asks_us_for_storage_commitment_and_is_told_what_we_keep(pair: Pair) -> None:
    made = pair.made
    dataset = made.archive.keep_file(sample("CT_small.dcm"))
    references = [
        [str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)],
        [str(dataset.SOPClassUID), "2.25.404"],
    ]
    asked = pair.ask("/modalities/ours/storage-commitment", {"DicomInstances": references})
    reporter = duties(made.archive.built, made.parts, QUICK)[1][0].run

    def answered() -> bool:
        reporter()
        return bool(pair.ask(asked["Path"])["Status"] != "Pending")

    wait(answered)
    report = pair.ask(asked["Path"])
    assert [one["SOPInstanceUID"] for one in report["Success"]] == [str(dataset.SOPInstanceUID)]
    assert [(one["SOPInstanceUID"], one["FailureReason"]) for one in report["Failures"]] == [("2.25.404", 0x0112)]


@pytest.mark.skipif(not STORESCP.exists(), reason="DCMTK is not installed")
def test_storescp_that_takes_no_compressed_objects_gets_them_decoded(
    postgresql: EmbeddedPostgreSQL, tmp_path: Path
) -> None:
    port = free_port()
    # +xi: implicit little endian only
    command = [str(STORESCP), "+xi", "-od", str(tmp_path), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with bench(postgresql) as made:
            datasets = [made.archive.keep_file(sample(name)) for name in ("CT_small.dcm", "MR_small_RLE.dcm")]
            asked = [made.ask(made.node(port, "SHELF"), str(datasets[0].StudyInstanceUID))]
            asked.append(made.ask(node_of(made), str(datasets[1].StudyInstanceUID)))
            made.deliverer()
            for delivery in asked:
                made.until(delivery, State.DONE)
    finally:
        process.terminate()
        process.wait(10)
    assert len(list(tmp_path.iterdir())) == 2


def node_of(made: Bench) -> int:
    return made.parts.nodes.listed(by=COMMAND_LINE)[0].node_id

"""DICOM over TLS with peers that are not ours, in both directions, on the server as a user starts it."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dimse_peers import sample
from negatoscope.servers.dicom_tls import LOOK_S
from system import System, free_port, prepare

DCMTK = Path("/usr/bin/storescu")
ORTHANC = Path("/usr/sbin/Orthanc")
TITLE = "NEGATOSCOPE"
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
PEERS = ("CT_A", "CT_B", "DESTINATION", "ORTHANC", "PYNET", "LOST")
needs_dcmtk = pytest.mark.skipif(not DCMTK.exists(), reason="DCMTK is not installed (apt install dcmtk)")
needs_orthanc = pytest.mark.skipif(not ORTHANC.exists(), reason="Orthanc is not installed (apt install orthanc)")


@dataclass
class Here:
    system: System
    tls_port: int
    ports: dict[str, int]  # where peers listen

    @property
    def pki(self) -> Path:
        return self.system.data.parent / "peers"

    @property
    def authorities(self) -> str:
        return str(self.system.data / "tls" / "authorities.pem")

    def own(self, name: str) -> tuple[str, str]:
        """Key and certificate."""
        return str(self.pki / f"{name}.key.pem"), str(self.pki / f"{name}.pem")

    def dcmtk(
        self, program: str, title: str, *more: str, own: str = "", port: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """One of its users of services over TLS, with the certificate of ``own`` (that of ``title``)."""
        command = [
            f"/usr/bin/{program}", "-v", "+tls", *self.own(own or title), "+cf", self.authorities,
            "-aet", title, "-aec", TITLE, "127.0.0.1", str(port or self.tls_port), *more,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=60)

    def context(self, name: str, side: ssl._SSLMethod) -> ssl.SSLContext:
        made = ssl.SSLContext(side)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_REQUIRED
        key, certificate = self.own(name)
        made.load_cert_chain(certificate, key)
        made.load_verify_locations(self.authorities)
        return made

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.system.url}/metrics", timeout=10) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    tls_port, ports = free_port(), {name: free_port() for name in PEERS}
    with tempfile.TemporaryDirectory(prefix="negatoscope-") as folder:
        built = System(
            Path(folder) / "data",
            NEGATOSCOPE_DICOM_TLS=f"127.0.0.1:{tls_port}",
            NEGATOSCOPE_TLS_REVOCATIONS="tls/authority/revocations.pem",
        )
        one = Here(built, tls_port, ports)
        prepare_without_server(one)
        try:
            built.start()
            yield one
        finally:
            built.stop()


def prepare_without_server(here: Here) -> None:
    run = here.system.run
    made = run("pki", "init", "--host", "127.0.0.1", "--host", "localhost").stdout.split()
    assert len(made[-1]) == 64
    prepare(here.system)
    for name in PEERS:
        issued = run("pki", "issue", name, "--out", str(here.pki), "--host", "127.0.0.1").stdout.split()
        where = ("--host", "127.0.0.1", "--port", str(here.ports[name]), "--tls") if name != "CT_A" else ()
        # Given as a file, and as a fingerprint.
        known = issued[0] if name == "CT_B" else issued[-1]
        run("ae", "add", name, "--establishment", "HX", "--certificate", known, *where)


@needs_dcmtk
def test_dcmtk_echoes_stores_and_finds_over_tls(here: Here) -> None:
    assert here.dcmtk("echoscu", "CT_A").returncode == 0
    stored = here.dcmtk("storescu", "CT_A", *(str(sample(name)) for name in ("CT_small.dcm", "MR_small.dcm")))
    assert stored.returncode == 0, stored.stderr
    assert stored.stderr.count("Received Store Response (Success)") == 2
    found = here.dcmtk(
        "findscu", "CT_A", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", "-k", "PatientID"
    )
    assert found.returncode == 0
    assert str(pydicom.dcmread(sample("CT_small.dcm")).StudyInstanceUID) in found.stdout + found.stderr


@needs_dcmtk
@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_is_understood_in_each_of_its_profiles_of_bcp_195(here: Here, profile: str) -> None:
    assert here.dcmtk("echoscu", "CT_A", profile).returncode == 0


@needs_dcmtk
@pytest.mark.parametrize("profile", ["+pa", "+pn"])
def test_dcmtk_is_refused_in_its_retired_profiles(here: Here, profile: str) -> None:
    assert "handshake failure" in here.dcmtk("echoscu", "CT_A", profile).stderr


@needs_dcmtk
def test_dcmtk_with_the_certificate_of_another_title_is_nobody_and_it_is_audited(here: Here) -> None:
    refused = here.dcmtk("echoscu", "CT_A", own="CT_B")
    assert refused.returncode != 0
    assert "Calling AE Title Not Recognized" in refused.stderr
    assert here.dcmtk("echoscu", "MODALITY", own="CT_A").returncode != 0  # it has no certificate: not over TLS
    log = here.system.log.read_text()
    assert "title and certificate do not belong together" in log


@needs_dcmtk
def test_dcmtk_without_a_certificate_is_refused(here: Here) -> None:
    command = [
        "/usr/bin/echoscu", "-v", "+tla", "+cf", here.authorities, "-aet", "CT_A", "-aec", TITLE,
        "127.0.0.1", str(here.tls_port),
    ]  # fmt: skip
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode != 0
    assert "no TLS with 127.0.0.1: peer did not return a certificate" in here.system.log.read_text()


@needs_dcmtk
def test_a_title_with_a_certificate_is_nobody_in_plain_text_and_another_is_served(here: Here) -> None:
    for title, port, served in (
        ("CT_A", here.system.dicom_port, False),
        ("MODALITY", here.system.dicom_port, True),
        ("CT_A", here.tls_port, False),
    ):
        command = ["/usr/bin/echoscu", "-to", "5", "-ta", "5", "-aet", title, "-aec", TITLE, "127.0.0.1", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode == 0) == served, (title, port, done.stderr)


@needs_dcmtk
def test_what_is_moved_leaves_over_tls_for_the_bound_certificate_alone(here: Here, tmp_path: Path) -> None:
    path = sample("CT_small.dcm")
    assert here.dcmtk("storescu", "CT_A", str(path)).returncode == 0
    study = str(pydicom.dcmread(path).StudyInstanceUID)
    with storescp(here, "DESTINATION", tmp_path):
        assert move(here, study, "DESTINATION") == 0
    (received,) = tmp_path.iterdir()
    assert pydicom.dcmread(received).PixelData == pydicom.dcmread(path).PixelData
    received.unlink()
    with storescp(here, "CT_B", tmp_path, port=here.ports["DESTINATION"]):  # good, and another's
        assert move(here, study, "DESTINATION") != 0
    assert list(tmp_path.iterdir()) == []
    plain = ["/usr/bin/storescp", "-od", str(tmp_path), str(here.ports["DESTINATION"])]
    with listening(subprocess.Popen(plain, stderr=subprocess.DEVNULL), here.ports["DESTINATION"]):
        assert move(here, study, "DESTINATION") != 0
    assert list(tmp_path.iterdir()) == []


def calling(here: Here) -> Association:
    """pynetdicom, with us, over TLS (DCMTK's movescu has none)."""
    user = AE("PYNET")
    user.requested_contexts = [build_context(CT, [EXPLICIT]), build_context(MOVE)]
    tls = (here.context("PYNET", ssl.PROTOCOL_TLS_CLIENT), "localhost")
    association = user.associate("127.0.0.1", here.tls_port, ae_title=TITLE, tls_args=tls)
    assert association.is_established
    return association


def move(here: Here, study: str, destination: str) -> int:
    """The last status of C-MOVE."""
    association = calling(here)
    identifier = pydicom.Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", study
    try:
        return [int(status.Status) for status, _ in association.send_c_move(identifier, destination, MOVE)][-1]
    finally:
        association.release()


@contextlib.contextmanager
def storescp(here: Here, own: str, folder: Path, port: int = 0) -> Iterator[None]:
    port = port or here.ports[own]
    command = [
        "/usr/bin/storescp", "+tls", *here.own(own), "+cf", here.authorities, "-rc", "-od", str(folder), str(port),
    ]  # fmt: skip
    with listening(subprocess.Popen(command, stderr=subprocess.DEVNULL), port):
        yield


@contextlib.contextmanager
def listening(process: subprocess.Popen[bytes], port: int) -> Iterator[None]:
    try:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=2).close()
                break
            assert process.poll() is None, "the peer ended"
            assert time.monotonic() < until, "the peer does not listen"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_pynetdicom_stores_over_tls_and_is_sent_to(here: Here) -> None:
    dataset = pydicom.dcmread(sample("CT_small.dcm"))
    heard: list[Any] = []
    provider = AE("PYNET")
    provider.add_supported_context(CT, [EXPLICIT])

    def stored(event: evt.Event) -> int:
        heard.append(event.dataset.SOPInstanceUID)
        return 0

    server = provider.start_server(
        ("127.0.0.1", here.ports["PYNET"]), block=False, ssl_context=here.context("PYNET", ssl.PROTOCOL_TLS_SERVER),
        evt_handlers=[(evt.EVT_C_STORE, stored)],
    )  # fmt: skip
    try:
        association = calling(here)
        assert association.send_c_store(dataset).Status == 0
        association.release()
        assert move(here, str(dataset.StudyInstanceUID), "PYNET") == 0
        assert heard == [dataset.SOPInstanceUID]
    finally:
        if server is not None:
            server.shutdown()


@pytest.fixture(scope="module")
def orthanc(here: Here, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of its HTTP server."""
    folder, http = tmp_path_factory.mktemp("orthanc"), free_port()
    key, certificate = here.own("ORTHANC")
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [],
        "HttpPort": http,
        "DicomServerEnabled": True,
        "DicomPort": here.ports["ORTHANC"],
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "AuthenticationEnabled": False,
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": certificate,
        "DicomTlsPrivateKey": key,
        "DicomTlsTrustedCertificates": here.authorities,
        "DicomTlsRemoteCertificateRequired": True,
        "DicomModalities": {"ours": {"AET": TITLE, "Host": "127.0.0.1", "Port": here.tls_port, "UseDicomTls": True}},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [str(ORTHANC), str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with listening(process, http), listening_too(here.ports["ORTHANC"]):
        yield http


@contextlib.contextmanager
def listening_too(port: int) -> Iterator[None]:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            break
        time.sleep(0.05)
    yield


def call(port: int, path: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=body, timeout=60) as answer:
        return json.load(answer)


@needs_orthanc
def test_orthanc_stores_over_tls_and_has_its_images_back(here: Here, orthanc: int) -> None:
    assert call(orthanc, "/modalities/ours/echo", b"{}") == {}
    kept = call(orthanc, "/instances", sample("MR_small.dcm").read_bytes())["ID"]
    assert call(orthanc, "/modalities/ours/store", json.dumps([kept]).encode())["FailedInstancesCount"] == 0
    delete = urllib.request.Request(f"http://127.0.0.1:{orthanc}/instances/{kept}", method="DELETE")
    urllib.request.urlopen(delete, timeout=30).close()
    study = str(pydicom.dcmread(sample("MR_small.dcm")).StudyInstanceUID)
    wanted = {"Level": "STUDY", "Query": {"StudyInstanceUID": study}}
    query = call(orthanc, "/modalities/ours/query", json.dumps(wanted).encode())["ID"]
    call(orthanc, f"/queries/{query}/retrieve", b'{"TargetAet": "ORTHANC", "Synchronous": true}')
    assert call(orthanc, "/instances") == [kept]


@needs_dcmtk
def test_a_certificate_that_is_revoked_opens_nothing_a_moment_later(here: Here) -> None:
    assert here.dcmtk("echoscu", "LOST").returncode == 0
    here.system.run("pki", "revoke", here.own("LOST")[1])
    time.sleep(LOOK_S + 0.2)
    refused = here.dcmtk("echoscu", "LOST")
    assert refused.returncode != 0
    assert "no TLS with 127.0.0.1: certificate revoked" in here.system.log.read_text()
    assert here.dcmtk("echoscu", "CT_A").returncode == 0


@needs_dcmtk
def test_a_certificate_is_renewed_without_a_gap(here: Here) -> None:
    run = here.system.run
    renewed = run("pki", "issue", "CT_B", "--out", str(here.pki / "new"), "--host", "127.0.0.1").stdout.split()
    assert here.dcmtk("echoscu", "CT_B", own="new/CT_B").returncode != 0
    run("ae", "secure", "CT_B", "--establishment", "HX", "--bind", renewed[0])
    for own in ("CT_B", "new/CT_B"):
        assert here.dcmtk("echoscu", "CT_B", own=own).returncode == 0
    run("ae", "secure", "CT_B", "--establishment", "HX", "--unbind", here.own("CT_B")[1])
    assert here.dcmtk("echoscu", "CT_B").returncode != 0
    assert here.dcmtk("echoscu", "CT_B", own="new/CT_B").returncode == 0


def test_the_end_of_our_certificate_is_a_metric(here: Here) -> None:
    (line,) = [line for line in here.metrics().splitlines() if line.startswith("negatoscope_tls_certificate_days ")]
    assert 364 < float(line.split()[1]) <= 365


def test_without_its_files_nothing_starts_and_the_file_is_named(here: Here, tmp_path: Path) -> None:
    lonely = System(tmp_path / "data")
    done = lonely.run("serve", "--dicom-tls", f"127.0.0.1:{free_port()}", check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "data" / "tls" / "certificate.pem") in done.stderr

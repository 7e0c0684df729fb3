"""Debian's Orthanc as sender."""

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

from dimse_fakes import TITLE, Door, door
from dimse_peers import same, sample

ORTHANC = Path("/usr/sbin/Orthanc")
pytestmark = pytest.mark.skipif(not ORTHANC.exists(), reason="Orthanc is not installed (apt install orthanc)")
FILES = ["CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_gdcm.dcm", "rtplan.dcm"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    assert isinstance(port, int)
    return port


def call(port: int, path: str, body: bytes | None = None) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=body, timeout=30) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def here() -> Iterator[Door]:
    with door() as one:
        yield one


@pytest.fixture(scope="module")
def orthanc(here: Door, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of its HTTP server; it knows us as `ours`, and as `wrong` under another title."""
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "DicomAet": "ORTHANC",
        "AuthenticationEnabled": False,
        "DicomModalities": {"ours": [TITLE, *here.address], "wrong": ["OTHER", *here.address]},
    }
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


def test_orthanc_echoes(orthanc: int) -> None:
    assert call(orthanc, "/modalities/ours/echo", b"{}") == {}


def test_orthanc_hears_that_the_title_is_wrong(orthanc: int) -> None:
    with pytest.raises(urllib.error.HTTPError):
        call(orthanc, "/modalities/wrong/echo", b"{}")


def test_orthanc_sends_every_file_as_it_has_it(orthanc: int, here: Door) -> None:
    stored = {name: call(orthanc, "/instances", sample(name).read_bytes())["ID"] for name in FILES}
    done = call(orthanc, "/modalities/ours/store", json.dumps(list(stored.values())).encode())
    assert done["FailedInstancesCount"] == 0
    assert done["InstancesCount"] == len(FILES)
    assert len(here.receiver.kept) == len(FILES)
    for name in FILES:
        assert any(same(kept, sample(name)) for kept in here.receiver.kept), name

"""curl, as anybody would use it: store, search, retrieve, a range, and no entry without a token."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dimse_peers import sample
from negatoscope.dicom.part10 import read_file_meta
from system import System, system

CURL = Path("/usr/bin/curl")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CURL.exists(), reason="curl is not installed")]
FILE = sample("CT_small.dcm")
DATASET = dcmread(FILE)
STUDY = f"/dicom-web/studies/{DATASET.StudyInstanceUID}"
INSTANCE = f"{STUDY}/series/{DATASET.SeriesInstanceUID}/instances/{DATASET.SOPInstanceUID}"


@pytest.fixture(scope="module")
def built() -> Iterator[System]:
    with system(NEGATOSCOPE_QUIET_S="86400") as one:
        one.start()
        yield one


@pytest.fixture(scope="module")
def token(built: System) -> str:
    return built.token("reader", "--ttl", "1h")


def curl(*arguments: str) -> tuple[int, bytes]:
    """Status and body. curl itself must be content."""
    done = subprocess.run(
        [CURL, "-sS", "-w", "\n%{http_code}", *arguments], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


@pytest.fixture(scope="module")
def stored(built: System, token: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Authorization header with which the file was stored, as multipart and once more alone."""
    header = f"Authorization: Bearer {token}"
    body = tmp_path_factory.mktemp("curl") / "body"
    body.write_bytes(b"--XX\r\nContent-Type: application/dicom\r\n\r\n" + FILE.read_bytes() + b"\r\n--XX--\r\n")
    for content, kind in (
        (body, 'multipart/related; type="application/dicom"; boundary=XX'),
        (FILE, "application/dicom"),
    ):
        for more in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"], ["--http1.0"]):
            status, answer = curl(
                "-X", "POST", "-H", header, "-H", f"Content-Type: {kind}", "-H", "Accept: application/dicom+json",
                *more, "--data-binary", f"@{content}", f"{built.url}/dicom-web/studies",
            )  # fmt: skip
            assert status == 200, answer
            [kept] = json.loads(answer)["00081199"]["Value"]
            assert kept["00081155"]["Value"] == [DATASET.SOPInstanceUID]
    return header


def test_curl_searches(built: System, stored: str) -> None:
    status, body = curl("-H", stored, f"{built.url}/dicom-web/studies?PatientID={DATASET.PatientID}&limit=5")
    assert status == 200
    [study] = json.loads(body)
    assert study["0020000D"]["Value"] == [DATASET.StudyInstanceUID]
    assert curl("-H", stored, f"{built.url}/dicom-web/studies?PatientID=NOBODY")[0] in (200, 204)


def test_curl_retrieves_what_it_stored(built: System, stored: str) -> None:
    status, body = curl("-H", stored, "-H", "Accept: application/dicom; transfer-syntax=*", f"{built.url}{INSTANCE}")
    assert status == 200
    sent = FILE.read_bytes()
    assert body[read_file_meta(body)[1] :] == sent[read_file_meta(sent)[1] :]


def test_curl_gets_metadata_picture_and_zip(built: System, stored: str, tmp_path: Path) -> None:
    status, body = curl("-H", stored, "--compressed", f"{built.url}{STUDY}/metadata")
    assert (status, json.loads(body)[0]["00080060"]["Value"]) == (200, ["CT"])
    status, body = curl("-H", stored, "-H", "Accept: image/png", f"{built.url}{INSTANCE}/rendered")
    assert (status, body[:4]) == (200, b"\x89PNG")
    status, body = curl("-H", stored, "-H", "Accept: application/zip", f"{built.url}{STUDY}")
    assert (status, body[:2]) == (200, b"PK")


def test_curl_goes_on_with_a_range_where_it_was_cut(built: System, stored: str) -> None:
    pixels = f"{built.url}{INSTANCE}/bulkdata/7FE00010"
    accept = ["-H", "Accept: application/octet-stream"]
    status, whole = curl("-H", stored, *accept, pixels)
    assert (status, whole) == (200, DATASET.PixelData)
    status, part = curl("-H", stored, *accept, "-r", "1000-1999", pixels)
    assert (status, part) == (206, whole[1000:2000])
    status, end = curl("-H", stored, *accept, "-r", "-100", pixels)
    assert (status, end) == (206, whole[-100:])
    assert curl("-H", stored, *accept, "-r", f"{len(whole)}-", pixels)[0] == 416


def test_curl_is_told_not_modified(built: System, stored: str) -> None:
    address = f"{built.url}{INSTANCE}/rendered"
    done = subprocess.run(
        [CURL, "-sS", "-D", "-", "-o", "/dev/null", "-H", stored, address], capture_output=True, check=True
    )
    [tag] = [line.split(": ")[1] for line in done.stdout.decode().splitlines() if line.lower().startswith("etag")]
    assert curl("-H", stored, "-H", f"If-None-Match: {tag}", address) == (304, b"")


@pytest.mark.parametrize("header", [[], ["-H", "Authorization: Bearer nonsense"], ["-u", "reader:reader"]])
def test_curl_without_a_token_gets_401_and_learns_nothing(built: System, stored: str, header: list[str]) -> None:
    for path in (INSTANCE, STUDY, "/dicom-web/studies", "/dicom-web/studies/1.2.3", "/wado?requestType=WADO"):
        status, body = curl(*header, f"{built.url}{path}")
        assert status == 401
        assert str(DATASET.PatientName).encode() not in body
    assert curl(*header, "-X", "POST", "--data-binary", f"@{FILE}", f"{built.url}/dicom-web/studies")[0] == 401


def test_curl_reads_head_without_body(built: System, stored: str) -> None:
    done = subprocess.run(
        [CURL, "-sSI", "-H", stored, f"{built.url}{INSTANCE}"], capture_output=True, check=True, timeout=20
    )
    assert done.stdout.startswith(b"HTTP/1.1 200")

"""dicomweb-client and curl, which we did not write, against the real server: thirty operations."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from harness import synthetic
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.part10 import read_file_meta, write_file_meta
from negatoscope.dicom.pixels.transcode import transcode
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from web_harness import SERIES, STUDY, WebBench, data_set_of, running, web_bench

CT = "1.2.840.10008.5.1.4.1.1.2"
J2K, JPEG_LS, RLE = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
PIXELS = bytes(range(16)) * 512
HERE: dict[str, Any] = {"study_instance_uid": STUDY, "series_instance_uid": SERIES}


@pytest.fixture(scope="module")
def web(postgresql: EmbeddedPostgreSQL) -> Iterator[WebBench]:
    with web_bench(postgresql) as bench:
        for number in (1, 2, 3):
            bench.archive.keep(synthetic(sop=f"2.25.{number}", number=number, pixels=PIXELS), EXPLICIT_LITTLE_ENDIAN)
        compressed = synthetic(sop="2.25.4", number=4, pixels=PIXELS)
        bench.archive.keep(b"".join(transcode(compressed, EXPLICIT_LITTLE_ENDIAN, J2K)), J2K)
        yield bench


@pytest.fixture(scope="module")
def port(web: WebBench) -> Iterator[int]:
    with running(web.app) as port:
        yield port


@pytest.fixture(scope="module")
def client(web: WebBench, port: int) -> DICOMwebClient:
    session = requests.Session()
    session.headers.update(web.bearer())
    return DICOMwebClient(f"http://127.0.0.1:{port}/dicom-web", session=session)


def instance(number: int = 1) -> dict[str, Any]:
    return {**HERE, "sop_instance_uid": f"2.25.{number}"}


# Objects


def test_retrieve_study(client: DICOMwebClient) -> None:
    assert [str(one.SOPInstanceUID) for one in client.retrieve_study(STUDY)] == [f"2.25.{n}" for n in (1, 2, 3, 4)]


def test_retrieve_series(client: DICOMwebClient) -> None:
    assert len(client.retrieve_series(**HERE)) == 4


def test_iterate_over_a_study_as_it_comes(client: DICOMwebClient) -> None:
    assert sum(1 for _ in client.iter_study(STUDY)) == 4


def test_iterate_over_a_series_as_it_comes(client: DICOMwebClient) -> None:
    assert sum(1 for _ in client.iter_series(**HERE)) == 4


def test_retrieve_instance(client: DICOMwebClient) -> None:
    assert client.retrieve_instance(**instance()).PixelData == PIXELS


def test_retrieve_instance_as_stored(client: DICOMwebClient) -> None:
    media = (("application/dicom", "*"),)
    assert client.retrieve_instance(**instance(4), media_types=media).file_meta.TransferSyntaxUID == J2K


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE_ENDIAN, J2K, JPEG_LS, RLE])
def test_retrieve_instance_transcoded(client: DICOMwebClient, syntax: str) -> None:
    found = client.retrieve_instance(**instance(), media_types=(("application/dicom", syntax),))
    assert found.file_meta.TransferSyntaxUID == syntax


# Metadata and bulk data


def test_retrieve_study_metadata(client: DICOMwebClient) -> None:
    assert len(client.retrieve_study_metadata(STUDY)) == 4


def test_retrieve_series_metadata(client: DICOMwebClient) -> None:
    assert [item["00200013"]["Value"] for item in client.retrieve_series_metadata(**HERE)] == [[1], [2], [3], [4]]


def test_retrieve_instance_metadata(client: DICOMwebClient) -> None:
    assert client.retrieve_instance_metadata(**instance())["00100020"]["Value"] == ["P1"]


def test_retrieve_bulk_data(client: DICOMwebClient, port: int) -> None:
    address = client.retrieve_instance_metadata(**instance())["7FE00010"]["BulkDataURI"]
    assert client.retrieve_bulkdata(f"http://127.0.0.1:{port}{address}") == [PIXELS]


def test_retrieve_bulk_data_by_range(client: DICOMwebClient, port: int) -> None:
    address = client.retrieve_instance_metadata(**instance())["7FE00010"]["BulkDataURI"]
    found = client.retrieve_bulkdata(f"http://127.0.0.1:{port}{address}", byte_range=(4, 9))
    assert found[0] == PIXELS[4:10]


# Frames


def test_retrieve_frames(client: DICOMwebClient) -> None:
    assert client.retrieve_instance_frames(**instance(), frame_numbers=[1]) == [PIXELS]


def test_retrieve_frames_of_a_compressed_object_without_compression(client: DICOMwebClient) -> None:
    media = (("application/octet-stream", EXPLICIT_LITTLE_ENDIAN),)
    assert client.retrieve_instance_frames(**instance(4), frame_numbers=[1], media_types=media) == [PIXELS]


def test_retrieve_frames_as_stored(client: DICOMwebClient) -> None:
    (frame,) = client.retrieve_instance_frames(**instance(4), frame_numbers=[1], media_types=(("image/jp2", J2K),))
    assert frame.startswith(b"\xff\x4f\xff\x51")


@pytest.mark.parametrize(("media", "syntax"), [("image/jls", JPEG_LS), ("image/jp2", J2K), ("image/dicom-rle", RLE)])
def test_retrieve_frames_encoded(client: DICOMwebClient, media: str, syntax: str) -> None:
    (frame,) = client.retrieve_instance_frames(**instance(), frame_numbers=[1], media_types=((media, syntax),))
    assert len(frame) > 0


def test_iterate_over_frames_as_they_come(client: DICOMwebClient) -> None:
    assert list(client.iter_instance_frames(**instance(), frame_numbers=[1])) == [PIXELS]


# Pictures


@pytest.mark.parametrize("media", ["image/jpeg", "image/png", "image/gif"])
def test_retrieve_rendered_instance(client: DICOMwebClient, media: str) -> None:
    picture = client.retrieve_instance_rendered(**instance(), media_types=(media,))
    assert Image.open(BytesIO(picture)).size == (512, 8)


def test_retrieve_rendered_instance_with_a_window(client: DICOMwebClient) -> None:
    plain, windowed = (
        client.retrieve_instance_rendered(**instance(), media_types=("image/png",), params=params)
        for params in ({}, {"window": "1000,100,linear"})
    )
    assert plain != windowed


def test_retrieve_rendered_instance_in_a_viewport(client: DICOMwebClient) -> None:
    picture = client.retrieve_instance_rendered(**instance(), media_types=("image/png",), params={"viewport": "64,32"})
    assert Image.open(BytesIO(picture)).size == (64, 32)


def test_retrieve_rendered_frames(client: DICOMwebClient) -> None:
    picture = client.retrieve_instance_frames_rendered(**instance(), frame_numbers=[1], media_types=("image/png",))
    assert Image.open(BytesIO(picture)).size == (512, 8)


# Store


def sent(number: int) -> Any:
    file = write_file_meta(CT, f"2.25.90.{number}", EXPLICIT_LITTLE_ENDIAN)
    return dcmread(BytesIO(file + synthetic(sop=f"2.25.90.{number}", study="2.25.190", series="2.25.290")))


def test_store_instances(client: DICOMwebClient) -> None:
    answer = client.store_instances([sent(1), sent(2)])
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == ["2.25.90.1", "2.25.90.2"]
    assert len(client.retrieve_study("2.25.190")) == 2


def test_store_instances_of_one_study(client: DICOMwebClient) -> None:
    answer = client.store_instances([sent(3)], study_instance_uid="2.25.190")
    assert answer.RetrieveURL.endswith("/dicom-web/studies/2.25.190")


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm", "US1_J2KR.dcm"])
def test_public_samples_go_in_and_come_out_the_same(client: DICOMwebClient, name: str) -> None:
    path = get_testdata_file(name)
    if not isinstance(path, str):
        pytest.skip(f"{name} is in the pydicom-data wheel, which is not installed")
    original = dcmread(path)
    client.store_instances([original])
    back = client.retrieve_instance(
        original.StudyInstanceUID, original.SeriesInstanceUID, original.SOPInstanceUID,
        media_types=(("application/dicom", "*"),),
    )  # fmt: skip
    assert back == original


# Refusals


def test_what_is_not_there_is_404(client: DICOMwebClient) -> None:
    with pytest.raises(requests.HTTPError, match="404"):
        client.retrieve_study("2.25.404")


def test_without_a_token_nothing_is_served(port: int) -> None:
    with pytest.raises(requests.HTTPError, match="401"):
        DICOMwebClient(f"http://127.0.0.1:{port}/dicom-web").retrieve_study(STUDY)


# curl


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_stores_a_large_file_and_gets_it_back(web: WebBench, port: int, tmp_path: Path) -> None:
    """curl asks first (Expect: 100-continue), then sends in chunks of no declared length."""
    file = tmp_path / "large.dcm"
    stored = synthetic(sop="2.25.95", study="2.25.195", series="2.25.295", pixels=bytes(range(16)) * (4 << 16))
    file.write_bytes(write_file_meta(CT, "2.25.95", EXPLICIT_LITTLE_ENDIAN) + stored)
    back = tmp_path / "back.dcm"
    common = ["curl", "-sS", "-f", "-H", f"Authorization: {web.bearer()['Authorization']}"]
    base = f"http://127.0.0.1:{port}/dicom-web/studies"
    subprocess.run(
        [*common, "-X", "POST", "-T", str(file), "-H", "Content-Type: application/dicom", "-H",
         "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", base],
        check=True, capture_output=True,
    )  # fmt: skip
    address = f"{base}/2.25.195/series/2.25.295/instances/2.25.95"
    subprocess.run([*common, "-H", "Accept: application/dicom", "-o", str(back), address], check=True)
    assert data_set_of(back.read_bytes()) == stored
    assert read_file_meta(back.read_bytes())[0].sop_instance_uid == "2.25.95"

"""WADO-URI, PS3.18 chapter 9."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from urllib.parse import urlencode

import pytest
from harness import synthetic
from PIL import Image

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from web_harness import SERIES, STUDY, WebBench, data_set_of, read, web_bench

PIXELS = bytes(range(16)) * 8
OBJECT = {"requestType": "WADO", "studyUID": STUDY, "seriesUID": SERIES, "objectUID": "2.25.1"}


@pytest.fixture(scope="module")
def web(postgresql: EmbeddedPostgreSQL) -> Iterator[WebBench]:
    with web_bench(postgresql) as bench:
        bench.archive.keep(synthetic(pixels=PIXELS), EXPLICIT_LITTLE_ENDIAN)
        yield bench


def address(**changes: str) -> str:
    return "//wado?" + urlencode(OBJECT | changes)


def test_an_image_comes_as_jpeg_unless_said_otherwise(web: WebBench) -> None:
    response = web.get(address())
    assert response.headers["content-type"] == "image/jpeg"
    assert Image.open(BytesIO(response.content)).size == (8, 8)


def test_the_object_comes_as_it_is_kept(web: WebBench) -> None:
    response = web.get(address(contentType="application/dicom"))
    assert response.headers["content-type"] == "application/dicom"
    assert data_set_of(response.content) == synthetic(pixels=PIXELS)


def test_the_object_comes_in_the_syntax_asked_for(web: WebBench) -> None:
    syntax = "1.2.840.10008.1.2.4.80"
    response = web.get(address(contentType="application/dicom", transferSyntax=syntax))
    assert read(response.content).file_meta.TransferSyntaxUID == syntax


def test_size_and_region_are_those_asked_for(web: WebBench) -> None:
    response = web.get(address(contentType="image/png", rows="16", columns="24", region="0.25,0,0.75,0.5"))
    assert Image.open(BytesIO(response.content)).size == (24, 16)


def test_a_window_changes_the_picture(web: WebBench) -> None:
    narrow = web.get(address(contentType="image/png", windowCenter="1000", windowWidth="10"))
    wide = web.get(address(contentType="image/png", windowCenter="1000", windowWidth="4000"))
    assert narrow.content != wide.content


@pytest.mark.parametrize(
    "changes",
    [
        {"requestType": "OTHER"},
        {"studyUID": ""},
        {"windowCenter": "1"},
        {"windowCenter": "1", "windowWidth": "0"},
        {"frameNumber": "0"},
        {"frameNumber": "x"},
        {"rows": "0"},
        {"region": "0,0,2,1"},
        {"region": "0.5,0,0.5,1"},
        {"imageQuality": "101"},
    ],
)
def test_requests_that_make_no_sense_are_400(web: WebBench, changes: dict[str, str]) -> None:
    assert web.get(address(**changes)).status_code == 400


@pytest.mark.parametrize("changes", [{"objectUID": "2.25.9"}, {"studyUID": "x"}, {"frameNumber": "2"}])
def test_what_is_not_there_is_404(web: WebBench, changes: dict[str, str]) -> None:
    assert web.get(address(**changes)).status_code == 404


def test_absent_and_not_yours_answer_alike(web: WebBench) -> None:
    assert web.get(address(), code="B").content == web.get(address(objectUID="2.25.9")).content


def test_a_media_type_that_cannot_be_had_is_406(web: WebBench) -> None:
    assert web.get(address(contentType="text/html")).status_code == 406


def test_a_stranger_is_not_told_what_is_wrong(web: WebBench) -> None:
    assert web.client.get("/wado").status_code == 401

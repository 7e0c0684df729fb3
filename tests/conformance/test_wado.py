"""WADO-RS, PS3.18 10.4: what was kept is what comes back, in the form that was asked for."""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Iterator
from io import BytesIO

import pytest
from harness import synthetic

from negatoscope.archive.packing import Packer
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.dicom.pixels.transcode import transcode
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.model.stored import Container
from negatoscope.storage.packs import Packs
from web_harness import SERIES, STUDY, WebBench, data_set_of, parts_of, read, web_bench

JPEG_LS, RLE = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"
INSTANCE = f"/studies/{STUDY}/series/{SERIES}/instances/2.25.1"
PIXELS = bytes(range(16)) * 8  # no bit above Bits Stored
_numbers = itertools.count(1)
LARGE = bytes(range(16)) * (6 << 16)  # 6 MiB: over what is read at once


def fill(bench: WebBench) -> None:
    """Three instances of one series: plain, JPEG-LS, and one of several MiB."""
    bench.archive.keep(synthetic(sop="2.25.1", number=2, pixels=PIXELS), EXPLICIT_LITTLE_ENDIAN)
    compressed = b"".join(transcode(synthetic(sop="2.25.2", number=1), EXPLICIT_LITTLE_ENDIAN, JPEG_LS))
    bench.archive.keep(compressed, JPEG_LS)
    bench.archive.keep(synthetic(sop="2.25.3", number=3, pixels=LARGE), EXPLICIT_LITTLE_ENDIAN)


@pytest.fixture(scope="module")
def web(postgresql: EmbeddedPostgreSQL) -> Iterator[WebBench]:
    """For tests that change nothing."""
    with web_bench(postgresql) as bench:
        fill(bench)
        yield bench


@pytest.fixture
def own_web(postgresql: EmbeddedPostgreSQL) -> Iterator[WebBench]:
    """For tests that store or damage something."""
    with web_bench(postgresql) as bench:
        fill(bench)
        yield bench


# Objects


def test_a_study_comes_back_byte_for_byte_in_the_order_of_instance_numbers(web: WebBench) -> None:
    response = web.get(f"/studies/{STUDY}", 'multipart/related; type="application/dicom"')
    assert response.status_code == 200
    parts = parts_of(response)
    assert [read(data).SOPInstanceUID for _, data in parts] == ["2.25.2", "2.25.1", "2.25.3"]
    assert data_set_of(parts[1][1]) == synthetic(sop="2.25.1", number=2, pixels=PIXELS)
    assert data_set_of(parts[2][1]) == synthetic(sop="2.25.3", number=3, pixels=LARGE)
    assert parts[0][0]["content-type"] == f"application/dicom; transfer-syntax={JPEG_LS}"
    assert parts[1][0]["content-location"] == "/dicom-web" + INSTANCE
    assert int(response.headers["content-length"]) == len(response.content)


def test_the_preamble_is_zero_and_the_file_meta_ours(web: WebBench) -> None:
    """CVE-2019-11687: a received preamble can be a program."""
    file = web.get(INSTANCE, "application/dicom").content
    assert file[:128] == bytes(128)
    meta = read(file).file_meta
    assert meta.MediaStorageSOPInstanceUID == "2.25.1"
    assert meta.TransferSyntaxUID == EXPLICIT_LITTLE_ENDIAN


def test_an_instance_comes_multipart_by_default_and_bare_when_asked(web: WebBench) -> None:
    assert web.get(INSTANCE).headers["content-type"].startswith('multipart/related; type="application/dicom"')
    bare = web.get(INSTANCE, "application/dicom")
    assert bare.headers["content-type"] == f"application/dicom; transfer-syntax={EXPLICIT_LITTLE_ENDIAN}"
    assert bare.headers["content-disposition"] == 'attachment; filename="2.25.1.dcm"'
    assert data_set_of(bare.content) == synthetic(sop="2.25.1", number=2, pixels=PIXELS)


def test_an_instance_is_transcoded_only_when_asked(web: WebBench) -> None:
    wanted = f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}'
    ((headers, file),) = parts_of(web.get(INSTANCE, wanted))
    assert headers["content-type"] == f"application/dicom; transfer-syntax={JPEG_LS}"
    assert read(file).file_meta.TransferSyntaxUID == JPEG_LS
    assert (
        read(file).pixel_array.tobytes() == read(web.get(INSTANCE, "application/dicom").content).pixel_array.tobytes()
    )


def test_a_series_of_mixed_syntaxes_comes_whole_in_one_that_was_asked_for(web: WebBench) -> None:
    wanted = f'multipart/related; type="application/dicom"; transfer-syntax={EXPLICIT_LITTLE_ENDIAN}'
    parts = parts_of(web.get(f"/studies/{STUDY}/series/{SERIES}", wanted))
    assert {read(file).file_meta.TransferSyntaxUID for _, file in parts} == {EXPLICIT_LITTLE_ENDIAN}
    assert len(parts) == 3


@pytest.mark.parametrize(
    "accept",
    ["text/html", "application/dicom", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.3.4'],
)
def test_what_cannot_be_had_is_406_before_any_byte(web: WebBench, accept: str) -> None:
    response = web.get(f"/studies/{STUDY}", accept)
    assert response.status_code == 406
    assert response.headers["content-type"] == "application/problem+json"


def test_a_zip_holds_dicom_files_named_by_uid_alone(web: WebBench) -> None:
    response = web.get(f"/studies/{STUDY}", "application/zip")
    with zipfile.ZipFile(BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{SERIES}/2.25.{n}.dcm" for n in (2, 1, 3)]
        assert data_set_of(archive.read(f"{SERIES}/2.25.3.dcm")) == synthetic(sop="2.25.3", number=3, pixels=LARGE)


def test_head_says_what_get_would_send_and_sends_nothing(web: WebBench) -> None:
    response = web.client.head(f"/dicom-web{INSTANCE}", headers=web.bearer() | {"Accept": "application/dicom"})
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-length"] == str(len(web.get(INSTANCE, "application/dicom").content))


@pytest.mark.parametrize("path", [INSTANCE, f"/studies/{STUDY}", INSTANCE + "/metadata", INSTANCE + "/frames/1"])
def test_a_representation_the_client_has_is_304(web: WebBench, path: str) -> None:
    tag = web.get(path).headers["etag"]
    again = web.get(path, if_none_match=f'"other", {tag}')
    assert (again.status_code, again.content) == (304, b"")
    assert web.get(path, if_none_match='"other"').status_code == 200


def test_the_tag_of_a_series_changes_when_an_instance_comes_in(own_web: WebBench) -> None:
    path = f"/studies/{STUDY}/series/{SERIES}/metadata"
    before = own_web.get(path).headers["etag"]
    own_web.archive.keep(synthetic(sop="2.25.4", number=4), EXPLICIT_LITTLE_ENDIAN)
    assert own_web.get(path, if_none_match=before).status_code == 200


# Who


@pytest.mark.parametrize("path", [f"/studies/{STUDY}", INSTANCE, INSTANCE + "/frames/1", INSTANCE + "/rendered"])
def test_absent_and_not_yours_answer_alike(web: WebBench, path: str) -> None:
    absent, foreign = web.get(path.replace(STUDY, "2.25.999")), web.get(path, code="B")
    assert absent.status_code == foreign.status_code == 404
    assert absent.content == foreign.content


def test_a_stranger_is_asked_for_credentials(web: WebBench) -> None:
    response = web.client.get(f"/dicom-web/studies/{STUDY}", headers={"Authorization": "Bearer nobody"})
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_an_audit_event_is_committed_before_the_bytes_leave(web: WebBench) -> None:
    web.get(INSTANCE)
    with web.archive.world.database.unit(None) as unit:
        rows = unit.execute("SELECT event FROM audit_event WHERE study_uid = %s", (STUDY,)).fetchall()
    assert any('"110104"' in row["event"] and '"R"' in row["event"] for row in rows)


@pytest.mark.parametrize("uid", ["1..2", "a", "1.02", "9" * 65, "..%2f..%2fetc"])
def test_what_is_no_uid_is_not_there(web: WebBench, uid: str) -> None:
    assert web.get(f"/studies/{uid}").status_code == 404


def test_clinical_data_are_never_cached_and_never_sniffed(web: WebBench) -> None:
    headers = web.get(INSTANCE).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


# Integrity


def damage(web: WebBench, sop: str, at: int) -> None:
    """Flip one bit of a stored data set on the disk."""
    holding = web.services.retrieval.locate(web.archive.world.scope("A"), STUDY, SERIES, sop)[0]
    place = holding.instances[0].location
    path = web.archive.containers.path(Container.SEGMENT, place.container_id)
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.seek(place.offset + at)
        byte = file.read(1)[0]
        file.seek(place.offset + at)
        file.write(bytes([byte ^ 1]))


def test_altered_bytes_are_never_served(own_web: WebBench) -> None:
    damage(own_web, "2.25.1", 400)
    for path in (INSTANCE, INSTANCE + "/frames/1", INSTANCE + "/metadata", INSTANCE + "/rendered"):
        response = own_web.get(path)
        assert response.status_code == 500
        assert json.loads(response.content)["type"].endswith("corrupt-object")


def test_damage_is_recorded_and_alerted_once(own_web: WebBench) -> None:
    damage(own_web, "2.25.1", 400)
    for _ in range(3):
        own_web.get(INSTANCE)
    with own_web.archive.world.database.unit(None) as unit:
        (row,) = unit.execute("SELECT kind, sop_instance_uid FROM damage").fetchall()
        alerts = unit.execute("SELECT event FROM audit_event WHERE event LIKE '%%integrity%%'").fetchall()
    assert row == {"kind": "altered", "sop_instance_uid": "2.25.1"}
    assert len(alerts) == 1
    assert own_web.services.metrics.collect()["unverified_total"] == 3


# Metadata


def test_metadata_list_every_instance_with_bulk_data_by_reference(web: WebBench) -> None:
    response = web.get(f"/studies/{STUDY}/metadata")
    assert response.headers["content-type"] == "application/dicom+json"
    items = json.loads(response.content)
    assert [item["00080018"]["Value"] for item in items] == [["2.25.2"], ["2.25.1"], ["2.25.3"]]
    assert items[1]["7FE00010"]["BulkDataURI"] == f"/dicom-web{INSTANCE}/bulkdata/7FE00010"
    assert items[1]["00100010"]["Value"] == [{"Alphabetic": "SYNTHETIQUE^Élodie"}]


def test_metadata_of_a_large_object_do_not_read_its_pixels(own_web: WebBench) -> None:
    damage(own_web, "2.25.3", 5 << 20)
    item = json.loads(own_web.get(f"/studies/{STUDY}/series/{SERIES}/instances/2.25.3/metadata").content)[0]
    assert item["7FE00010"]["vr"] == "OW"
    assert item["00280010"]["Value"] == [1024]


def test_metadata_come_as_xml_one_document_an_instance(web: WebBench) -> None:
    parts = parts_of(web.get(f"/studies/{STUDY}/metadata", 'multipart/related; type="application/dicom+xml"'))
    assert len(parts) == 3
    assert all(data.startswith(b"<?xml") and b"NativeDicomModel" in data for _, data in parts)


# Bulk data


def test_a_bulk_value_comes_multipart_or_bare_or_by_range(web: WebBench) -> None:
    path = INSTANCE + "/bulkdata/7FE00010"
    ((headers, data),) = parts_of(web.get(path))
    assert data == PIXELS
    assert headers["content-location"] == "/dicom-web" + path
    bare = web.get(path, "application/octet-stream")
    assert bare.content == PIXELS
    part = web.get(path, "application/octet-stream", range="bytes=5-9")
    assert (part.status_code, part.content) == (206, PIXELS[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(PIXELS)}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-", (0, 128)),
        ("bytes=127-", (127, 128)),
        ("bytes=-1", (127, 128)),
        ("bytes=-500", (0, 128)),
        ("bytes=100-999", (100, 128)),
    ],
)
def test_ranges_are_read_as_rfc_9110_says(web: WebBench, header: str, expected: tuple[int, int]) -> None:
    response = web.get(INSTANCE + "/bulkdata/7FE00010", "application/octet-stream", range=header)
    assert (response.status_code, response.content) == (206, PIXELS[slice(*expected)])


@pytest.mark.parametrize("header", ["bytes=128-", "bytes=500-600", "bytes=-0"])
def test_a_range_outside_of_the_value_is_416(web: WebBench, header: str) -> None:
    assert web.get(INSTANCE + "/bulkdata/7FE00010", range=header).status_code == 416


@pytest.mark.parametrize("header", ["bytes=5-1", "bytes=1-2,4-5", "items=1-2", "bytes=a-b"])
def test_a_range_that_is_none_gets_everything(web: WebBench, header: str) -> None:
    response = web.get(INSTANCE + "/bulkdata/7FE00010", "application/octet-stream", range=header)
    assert (response.status_code, response.content) == (200, PIXELS)


@pytest.mark.parametrize("path", ["7FE00011", "00400275/0/00400007", "xyz", "7FE00010/0", "../../../etc"])
def test_bulk_data_that_are_not_there_are_404(web: WebBench, path: str) -> None:
    assert web.get(f"{INSTANCE}/bulkdata/{path}").status_code == 404


def test_bulk_data_of_a_large_object_come_without_reading_it_all(own_web: WebBench) -> None:
    damage(own_web, "2.25.3", 3 << 20)
    path = f"/studies/{STUDY}/series/{SERIES}/instances/2.25.3/bulkdata/7FE00010"
    response = own_web.get(path, "application/octet-stream", range="bytes=-4")
    assert response.content == LARGE[-4:]


# Frames


def test_a_native_frame_comes_as_it_lies(web: WebBench) -> None:
    ((headers, data),) = parts_of(web.get(INSTANCE + "/frames/1"))
    assert data == PIXELS
    assert headers["content-type"] == f"application/octet-stream; transfer-syntax={EXPLICIT_LITTLE_ENDIAN}"


def test_a_compressed_frame_comes_decoded_when_the_client_says_nothing(web: WebBench) -> None:
    path = f"/studies/{STUDY}/series/{SERIES}/instances/2.25.2/frames/1"
    ((headers, data),) = parts_of(web.get(path))
    assert data == bytes(128)
    assert headers["content-type"] == f"application/octet-stream; transfer-syntax={EXPLICIT_LITTLE_ENDIAN}"


def test_any_transfer_syntax_means_the_stored_one(web: WebBench) -> None:
    path = f"/studies/{STUDY}/series/{SERIES}/instances/2.25.2/frames/1"
    accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    ((headers, data),) = parts_of(web.get(path, accept))
    assert headers["content-type"] == f"application/octet-stream; transfer-syntax={JPEG_LS}"
    assert data.startswith(b"\xff\xd8\xff")
    ((headers, same),) = parts_of(web.get(path, 'multipart/related; type="image/jls"'))
    assert headers["content-type"] == f"image/jls; transfer-syntax={JPEG_LS}"
    assert same == data


@pytest.mark.parametrize("media", ["image/jls", "image/jp2", "image/jphc", "image/dicom-rle", "image/x-jls"])
def test_a_native_frame_is_encoded_when_asked(web: WebBench, media: str) -> None:
    ((headers, data),) = parts_of(web.get(INSTANCE + "/frames/1", f'multipart/related; type="{media}"'))
    assert headers["content-type"].startswith(media.replace("x-jls", "jls"))
    assert data


def test_a_frame_may_come_bare(web: WebBench) -> None:
    response = web.get(INSTANCE + "/frames/1", "application/octet-stream")
    assert response.content == PIXELS


@pytest.mark.parametrize(("frames", "status"), [("2", 404), ("0", 400), ("1,x", 400), ("-1", 400), ("1,2", 404)])
def test_frames_that_are_not_there_are_told_from_lists_that_are_none(web: WebBench, frames: str, status: int) -> None:
    assert web.get(f"{INSTANCE}/frames/{frames}").status_code == status


@pytest.mark.parametrize(("count", "status"), [(9_999, 404), (10_000, 404), (10_001, 400)])
def test_lists_of_frames_are_bounded(web: WebBench, count: int, status: int) -> None:
    assert web.get(f"{INSTANCE}/frames/{','.join(['2'] * count)}").status_code == status


def multiframe(web: WebBench, syntax: str = EXPLICIT_LITTLE_ENDIAN) -> tuple[str, list[bytes]]:
    """Store an object of five frames in a study of its own; gives its UID and its frames."""
    sop = f"2.25.50.{next(_numbers)}"
    frames = [bytes([number, 1]) * 64 for number in range(5)]
    meta = write_file_meta("1.2.840.10008.5.1.4.1.1.2", sop, EXPLICIT_LITTLE_ENDIAN)
    dataset = read(meta + synthetic(sop=sop, study="2.25.105", series="2.25.205", pixels=b"".join(frames)))
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 8, 8, 5
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    stored = data_set_of(out.getvalue())
    if syntax != EXPLICIT_LITTLE_ENDIAN:
        stored = b"".join(transcode(stored, EXPLICIT_LITTLE_ENDIAN, syntax))
    web.archive.keep(stored, syntax)
    return sop, frames


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE_ENDIAN, RLE, JPEG_LS])
def test_many_frames_come_in_one_request_in_the_order_of_the_list(web: WebBench, syntax: str) -> None:
    sop, frames = multiframe(web, syntax)
    path = f"/studies/2.25.105/series/2.25.205/instances/{sop}/frames/5,1,3,3"
    parts = parts_of(web.get(path))
    assert [data for _, data in parts] == [frames[4], frames[0], frames[2], frames[2]]
    assert [headers["content-location"].rsplit("/", 1)[1] for headers, _ in parts] == ["5", "1", "3", "3"]


def test_pixel_data_come_whole_one_part_an_instance(web: WebBench) -> None:
    sop, frames = multiframe(web)
    ((_, data),) = parts_of(web.get(f"/studies/2.25.105/series/2.25.205/instances/{sop}/pixeldata"))
    assert data == b"".join(frames)


# Pictures


@pytest.mark.parametrize(
    ("accept", "magic"),
    [("image/jpeg", b"\xff\xd8"), ("image/png", b"\x89PNG"), ("image/gif", b"GIF8"), (None, b"\xff")],
)
def test_an_instance_is_rendered_as_asked(web: WebBench, accept: str | None, magic: bytes) -> None:
    response = web.get(INSTANCE + "/rendered", accept)
    assert response.headers["content-type"] == accept or "image/jpeg"
    assert response.content.startswith(magic)


def test_window_viewport_quality_and_annotation_change_the_picture(web: WebBench) -> None:
    base = f"/studies/{STUDY}/series/{SERIES}/instances/2.25.3/rendered"
    seen = [
        web.get(base + query)
        for query in ("", "?window=40,400", "?quality=10", "?viewport=64,64", "?annotation=patient")
    ]
    assert [response.status_code for response in seen] == [200] * 5
    assert len({response.content for response in seen}) == 5


@pytest.mark.parametrize(
    "query",
    ["window=1", "window=a,b", "window=1,0", "window=nan,1", "window=1,2,cubic", "viewport=0,1", "viewport=1,2,3",
     "quality=0", "quality=101", "annotation=password", "viewport=99999,1"],
)  # fmt: skip
def test_parameters_that_make_no_picture_are_400(web: WebBench, query: str) -> None:
    assert web.get(f"{INSTANCE}/rendered?{query}").status_code == 400


def test_a_series_is_rendered_one_part_an_image(web: WebBench) -> None:
    parts = parts_of(web.get(f"/studies/{STUDY}/series/{SERIES}/rendered"))
    assert len(parts) == 3
    assert all(headers["content-type"] == "image/jpeg" for headers, _ in parts)


@pytest.mark.parametrize(
    "level", [f"/studies/{STUDY}", f"/studies/{STUDY}/series/{SERIES}", INSTANCE, INSTANCE + "/frames/1"]
)
def test_thumbnails_exist_at_every_level(web: WebBench, level: str) -> None:
    response = web.get(level + "/thumbnail")
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/jpeg"


# Closed series


def test_a_closed_series_serves_the_same_bytes_and_metadata(own_web: WebBench) -> None:
    before = [parts_of(own_web.get(f"/studies/{STUDY}"))[n][1] for n in range(3)]
    metadata = json.loads(own_web.get(f"/studies/{STUDY}/metadata").content)
    packer = Packer(
        own_web.archive.world.database, own_web.archive.containers, Packs(own_web.archive.folder / "packs"), syntax=""
    )
    with own_web.archive.world.database.unit(None) as unit:
        ids = [row["series_id"] for row in unit.execute("SELECT series_id FROM series").fetchall()]
    assert all(packer.pack(series_id) for series_id in ids)
    assert [data for _, data in parts_of(own_web.get(f"/studies/{STUDY}"))] == before
    assert json.loads(own_web.get(f"/studies/{STUDY}/metadata").content) == metadata
    packed = own_web.client.get(
        f"/dicom-web/studies/{STUDY}/series/{SERIES}/metadata",
        headers=own_web.bearer() | {"Accept-Encoding": "gzip"},
    )
    assert packed.headers["content-encoding"] == "gzip"
    assert json.loads(packed.content) == metadata
    for _ in range(2):  # the second time from the manifest this process remembers
        assert data_set_of(own_web.get(INSTANCE, "application/dicom").content) == data_set_of(before[1])

"""STOW-RS, PS3.18 10.5: each object has its own answer, and success means kept."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from harness import synthetic
from pydicom import dcmread

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.json_model import to_json
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.dicom.pixels.transcode import transcode
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.dicom.xml_model import to_xml
from negatoscope.errors import OutOfResources
from web_harness import WebBench, data_set_of, multipart, running, web_bench

CT = "1.2.840.10008.5.1.4.1.1.2"
JPEG_LS = "1.2.840.10008.1.2.4.80"
OBJECTS = 'multipart/related; type="application/dicom"; boundary=bnd'
METADATA = 'multipart/related; type="application/dicom+json"; boundary=bnd'
METADATA_XML = 'multipart/related; type="application/dicom+xml"; boundary=bnd'
PIXELS = bytes(range(16)) * 8
FAILED, KEPT = "00081198", "00081199"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def web(postgresql: EmbeddedPostgreSQL) -> Iterator[WebBench]:
    with web_bench(postgresql) as bench:
        yield bench


class Ids:
    """UIDs nobody else uses."""

    def __init__(self) -> None:
        number = next(_numbers)
        self.study, self.series, self.sop = f"2.25.{number}.1", f"2.25.{number}.2", f"2.25.{number}.3"

    def file(self, extra: str = "", pixels: bytes = PIXELS, **fields: Any) -> bytes:
        sop = self.sop + extra
        meta = write_file_meta(CT, sop, EXPLICIT_LITTLE_ENDIAN)
        return meta + synthetic(sop=sop, study=self.study, series=self.series, pixels=pixels, **fields)

    def stored(self, web: WebBench, extra: str = "") -> Any:
        path = f"/studies/{self.study}/series/{self.series}/instances/{self.sop}{extra}"
        return web.get(path, "application/dicom")


def parts(*files: bytes) -> bytes:
    return multipart([({"Content-Type": "application/dicom"}, file) for file in files])


def uids(answer: dict[str, Any], sequence: str) -> list[str]:
    return [(item["00081155"].get("Value") or [""])[0] for item in answer.get(sequence, {}).get("Value", [])]


# Objects


def test_objects_are_kept_and_answered_in_the_order_of_the_request(web: WebBench) -> None:
    ids = Ids()
    response = web.post("/studies", parts(*(ids.file(f".{n}") for n in range(9))), OBJECTS)
    answer = json.loads(response.content)
    assert response.status_code == 200
    assert uids(answer, KEPT) == [f"{ids.sop}.{n}" for n in range(9)]
    assert answer["00081190"]["Value"] == [f"/dicom-web/studies/{ids.study}"]
    assert answer[KEPT]["Value"][0]["00081190"]["Value"][0].endswith(f"/instances/{ids.sop}.0")
    assert data_set_of(ids.stored(web, ".8").content) == data_set_of(ids.file(".8"))


def test_a_bare_object_is_taken(web: WebBench) -> None:
    ids = Ids()
    assert web.post(f"/studies/{ids.study}", ids.file(), "application/dicom").status_code == 200
    assert ids.stored(web).status_code == 200


def test_an_object_larger_than_any_buffer_comes_back_the_same(web: WebBench) -> None:
    ids = Ids()
    file = ids.file(pixels=bytes(range(16)) * (3 << 16))
    assert web.post("/studies", parts(file, ids.file(".2")), OBJECTS).status_code == 200
    assert data_set_of(ids.stored(web).content) == data_set_of(file)


def test_storing_again_is_idempotent(web: WebBench) -> None:
    ids = Ids()
    statuses = [web.post("/studies", parts(ids.file()), OBJECTS).status_code for _ in range(2)]
    assert statuses == [200, 200]


def test_a_conflicting_object_is_kept_aside_and_the_answer_warns(web: WebBench) -> None:
    ids = Ids()
    web.post("/studies", parts(ids.file()), OBJECTS)
    response = web.post("/studies", parts(ids.file(pixels=bytes(128))), OBJECTS)
    (item,) = json.loads(response.content)[KEPT]["Value"]
    assert response.status_code == 202
    assert item["00081196"] == {"vr": "US", "Value": [0xB000]}
    assert data_set_of(ids.stored(web).content) == data_set_of(ids.file()), "the first is served"
    with web.archive.world.database.unit(None) as unit:
        rows = unit.execute("SELECT 1 FROM quarantine WHERE sop_instance_uid = %s", (ids.sop,)).fetchall()
    assert len(rows) == 1


def test_one_bad_object_spoils_nothing_but_itself(web: WebBench) -> None:
    ids = Ids()
    bad = ids.file(".2")[:-20]
    response = web.post("/studies", parts(ids.file(".1"), bad, b"no DICOM at all", ids.file(".4")), OBJECTS)
    answer = json.loads(response.content)
    assert response.status_code == 202
    assert uids(answer, KEPT) == [f"{ids.sop}.1", f"{ids.sop}.4"]
    assert uids(answer, FAILED) == [f"{ids.sop}.2", ""]
    assert [item["00081197"]["Value"] for item in answer[FAILED]["Value"]] == [[0xC002], [0xC000]]


def test_when_nothing_is_kept_the_status_says_so(web: WebBench) -> None:
    ids = Ids()
    response = web.post("/studies", parts(ids.file()[:-20]), OBJECTS)
    assert response.status_code == 409
    assert uids(json.loads(response.content), FAILED) == [ids.sop]
    assert ids.stored(web).status_code == 404


def test_an_object_of_another_study_is_refused(web: WebBench) -> None:
    ids = Ids()
    response = web.post("/studies/2.25.4711", parts(ids.file()), OBJECTS)
    assert response.status_code == 409
    assert json.loads(response.content)[FAILED]["Value"][0]["00081197"]["Value"] == [0xA900]


def test_the_answer_may_be_xml(web: WebBench) -> None:
    response = web.post("/studies", parts(Ids().file()), OBJECTS, accept="application/dicom+xml")
    assert response.headers["content-type"].startswith("application/dicom+xml")
    assert b"NativeDicomModel" in response.content


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("text/plain", 415),
        ("", 415),
        ("multipart/form-data; boundary=bnd", 415),
        ('multipart/related; type="image/jpeg"; boundary=bnd', 415),
        ('multipart/related; type="application/dicom"', 400),
        ('multipart/related; type="application/dicom"; boundary="a b "', 400),
        ("application/dicom+json", 415),
    ],
)
def test_bodies_of_other_kinds_are_refused(web: WebBench, content_type: str, status: int) -> None:
    assert web.post("/studies", parts(Ids().file()), content_type).status_code == status


@pytest.mark.parametrize("body", [b"", b"--bnd--", b"nothing here", b"--bnd"])
def test_a_body_without_an_object_is_400(web: WebBench, body: bytes) -> None:
    assert web.post("/studies", body, OBJECTS).status_code == 400


def test_a_body_that_stops_within_an_object_keeps_what_came_before(web: WebBench) -> None:
    ids = Ids()
    body = parts(ids.file(".1"), ids.file(".2"))
    response = web.post("/studies", body[: body.rindex(b"\r\n--bnd--") - 5], OBJECTS)
    answer = json.loads(response.content)
    assert (uids(answer, KEPT), uids(answer, FAILED)) == ([f"{ids.sop}.1"], [""])
    assert ids.stored(web, ".1").status_code == 200
    assert ids.stored(web, ".2").status_code == 404


def test_a_part_of_another_kind_is_refused_alone(web: WebBench) -> None:
    ids = Ids()
    body = multipart([({"Content-Type": "image/jpeg"}, b"x"), ({"Content-Type": "application/dicom"}, ids.file())])
    response = web.post("/studies", body, OBJECTS)
    assert response.status_code == 202
    assert len(json.loads(response.content)[FAILED]["Value"]) == 1


def test_a_compressed_body_is_refused(web: WebBench) -> None:
    assert web.post("/studies", parts(Ids().file()), OBJECTS, content_encoding="gzip").status_code == 415


def test_what_one_establishment_stores_is_its_own(web: WebBench) -> None:
    ids = Ids()
    assert web.post("/studies", parts(ids.file()), OBJECTS, code="B").status_code == 200
    assert ids.stored(web).status_code == 404
    path = f"/studies/{ids.study}/series/{ids.series}/instances/{ids.sop}"
    assert web.get(path, code="B").status_code == 200


def test_a_stranger_stores_nothing(web: WebBench) -> None:
    ids = Ids()
    response = web.client.post("/dicom-web/studies", content=parts(ids.file()), headers={"Content-Type": OBJECTS})
    assert response.status_code == 401


@pytest.mark.parametrize(("count", "status"), [(9_999, 409), (10_000, 409), (10_001, 413)])
def test_parts_are_counted(web: WebBench, count: int, status: int) -> None:
    """Parts that are no objects: what is counted is the parts."""
    assert web.post("/studies", b"--bnd\r\n\r\nx\r\n" * count + b"--bnd--", OBJECTS).status_code == status


def test_a_full_store_is_507_and_the_next_request_is_taken(web: WebBench) -> None:
    ids = Ids()

    class Full:
        bytes = 0

        def begin(self, *_: object) -> Any:
            raise OutOfResources("the reserve of the store is reached")

        def batch(self) -> Full:
            return self

        def commit(self) -> list[Any]:
            return []

    from negatoscope.web.stow import store_instances

    services = replace(web.services, receiver=Full())
    response = asyncio.run(_call(store_instances, services, web, parts(ids.file())))
    assert response.status_code == 507
    assert json.loads(bytes(response.body))[FAILED]["Value"][0]["00081197"]["Value"] == [0xA700]
    assert web.post("/studies", parts(ids.file()), OBJECTS).status_code == 200


async def _call(endpoint: Any, services: Any, web: WebBench, body: bytes) -> Any:
    from starlette.requests import Request

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", OBJECTS.encode()), (b"authorization", web.bearer()["Authorization"].encode())]
    scope = {
        "type": "http", "method": "POST", "path": "/dicom-web/studies", "headers": headers, "query_string": b"",
        "path_params": {}, "app": web.app,
    }  # fmt: skip
    return await endpoint(services, Request(scope, receive))


# Large bodies, on a real connection: threads read them from its socket


def large(ids: Ids, count: int) -> list[bytes]:
    return [ids.file(f".{n}", pixels=bytes(range(n, n + 16)) * (3 << 14)) for n in range(count)]


def head_of(web: WebBench, body: bytes, content_type: str = OBJECTS) -> bytes:
    return (
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nAccept: application/dicom+json\r\n"
        f"Authorization: {web.bearer()['Authorization']}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()


def answer_on(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, json.loads(response.read())


def test_large_bodies_are_kept_whole_one_after_the_other_on_a_connection(web: WebBench) -> None:
    with running(web.app) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for _ in range(2):
            ids = Ids()
            files = [*large(ids, 9), ids.file(".9")[:-20], ids.file(".10")]
            body = parts(*files)
            connection.sendall(head_of(web, body) + body)
            status, answer = answer_on(connection)
            assert status == 202
            assert uids(answer, KEPT) == [f"{ids.sop}.{n}" for n in (*range(9), 10)]
            assert uids(answer, FAILED) == [f"{ids.sop}.9"]
            for n, file in enumerate(files[:9]):
                assert data_set_of(ids.stored(web, f".{n}").content) == data_set_of(file)


def test_a_large_bare_object_is_kept_whole(web: WebBench) -> None:
    ids = Ids()
    (file,) = large(ids, 1)
    with running(web.app) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head_of(web, file, "application/dicom") + file)
        assert answer_on(connection)[0] == 200
    assert data_set_of(ids.stored(web, ".0").content) == data_set_of(file)


def test_a_connection_cut_within_a_large_object_keeps_what_came_before(web: WebBench) -> None:
    ids = Ids()
    body = parts(*large(ids, 3))
    with running(web.app) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(head_of(web, body) + body[: 5 * len(body) // 6])
        until = time.monotonic() + 10
        while ids.stored(web, ".1").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert [ids.stored(web, f".{n}").status_code for n in range(3)] == [200, 200, 404]


def test_a_large_body_that_is_refused_halfway_leaves_the_connection_usable(web: WebBench) -> None:
    ids = Ids()
    files = large(ids, 4)
    body = parts(*files[:2]).replace(b"\r\n--bnd--", b"\r\n--bnd?no delimiter") + b"".join(files)
    with running(web.app) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head_of(web, body) + body)
        assert answer_on(connection)[0] == 400
        connection.sendall(head_of(web, parts(ids.file(".9"))) + parts(ids.file(".9")))
        assert answer_on(connection)[0] == 200


# Metadata and bulk data


def metadata_of(ids: Ids) -> dict[str, Any]:
    dataset = data_set_of(ids.file())
    return to_json(dataset, EXPLICIT_LITTLE_ENDIAN, lambda path: f"https://sender.example/bulk/{path}")


def stored_dataset(web: WebBench, ids: Ids) -> Any:
    return dcmread(BytesIO(ids.stored(web).content))


@pytest.mark.parametrize("bulk_first", [False, True])
@pytest.mark.parametrize("xml", [False, True])
def test_metadata_and_bulk_data_become_an_object(web: WebBench, bulk_first: bool, xml: bool) -> None:
    ids = Ids()
    document = to_xml(metadata_of(ids)) if xml else json.dumps([metadata_of(ids)]).encode()
    pieces = [
        ({"Content-Type": "application/dicom+xml" if xml else "application/dicom+json"}, document),
        (
            {"Content-Type": "application/octet-stream", "Content-Location": "https://sender.example/bulk/7FE00010"},
            PIXELS,
        ),
    ]
    body = multipart(pieces[::-1] if bulk_first else pieces)
    response = web.post("/studies", body, METADATA_XML if xml else METADATA)
    assert response.status_code == 200, response.content
    dataset, sent = stored_dataset(web, ids), dcmread(BytesIO(ids.file()))
    assert dataset == sent


def test_compressed_bulk_data_become_encapsulated_pixel_data(web: WebBench) -> None:
    ids = Ids()
    sent = data_set_of(ids.file())
    compressed = b"".join(transcode(sent, EXPLICIT_LITTLE_ENDIAN, JPEG_LS))
    start = compressed.index(b"\xff\xd8\xff")
    (length,) = (int.from_bytes(compressed[start - 4 : start], "little"),)
    frame = compressed[start : start + length]
    document = to_json(compressed, JPEG_LS, lambda path: "frame/1")
    body = multipart(
        [
            ({"Content-Type": "application/dicom+json"}, json.dumps([document]).encode()),
            ({"Content-Type": f"image/jls; transfer-syntax={JPEG_LS}", "Content-Location": "frame/1"}, frame),
        ]
    )
    assert web.post("/studies", body, METADATA).status_code == 200
    dataset = stored_dataset(web, ids)
    assert dataset.file_meta.TransferSyntaxUID == JPEG_LS
    assert web.get(f"/studies/{ids.study}/series/{ids.series}/instances/{ids.sop}/frames/1").content.count(PIXELS) == 1


def test_a_reference_that_leads_nowhere_refuses_that_object_alone(web: WebBench) -> None:
    first, second = Ids(), Ids()
    whole = metadata_of(second)
    whole["7FE00010"] = {"vr": "OW", "InlineBinary": "AAAA"}
    body = multipart([({"Content-Type": "application/dicom+json"}, json.dumps([metadata_of(first), whole]).encode())])
    answer = json.loads(web.post("/studies", body, METADATA).content)
    assert (uids(answer, FAILED), uids(answer, KEPT)) == ([first.sop], [second.sop])


@pytest.mark.parametrize("document", [b"{", b"[1]", b'[{"x": 1}]', b"null", b'[{"00080018": {"vr": "ZZ"}}]'])
def test_metadata_that_are_none_are_refused(web: WebBench, document: bytes) -> None:
    body = multipart([({"Content-Type": "application/dicom+json"}, document)])
    assert web.post("/studies", body, METADATA).status_code in (400, 409)


@pytest.mark.parametrize(
    "document",
    [
        b"<x/>",
        b"<NativeDicomModel>",
        b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><NativeDicomModel>&b;</NativeDicomModel>',
        b"<NativeDicomModel><Value>1</Value></NativeDicomModel>",
    ],
)
def test_xml_that_is_no_metadata_is_refused(web: WebBench, document: bytes) -> None:
    body = multipart([({"Content-Type": "application/dicom+xml"}, document)])
    assert web.post("/studies", body, METADATA_XML).status_code == 400


@pytest.mark.parametrize(("length", "status"), [(-1, 409), (0, 409), (1, 413)])
def test_metadata_are_bounded(web: WebBench, length: int, status: int) -> None:
    document = b"[{}" + b" " * (DEFAULT_LIMITS.json_body - 4 + length) + b"]"
    body = multipart([({"Content-Type": "application/dicom+json"}, document)])
    assert web.post("/studies", body, METADATA).status_code == status

"""web.app: what holds for every answer, whichever route gives it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from harness import synthetic
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.errors import Unavailable
from negatoscope.metrics import Metrics
from negatoscope.settings import Settings
from negatoscope.web.app import DEFAULT_HEADERS, build_app
from negatoscope.web.health import SILENCE_S, dicom_doors
from web_harness import WebBench, web_bench


@pytest.fixture(scope="module")
def web(postgresql: EmbeddedPostgreSQL) -> Iterator[WebBench]:
    with web_bench(postgresql) as bench:
        yield bench


async def body_length(request: Request) -> Response:
    return Response(str(len(await request.body())))


async def fails(request: Request) -> NoReturn:
    raise ValueError("Key (name)=(SYNTHETIQUE^Élodie) already exists")


async def own_policy(request: Request) -> Response:
    return Response("", headers={"content-security-policy": "default-src 'self'", "cache-control": "max-age=5"})


async def unavailable(request: Request) -> NoReturn:
    raise Unavailable("the index cannot be reached")


@pytest.fixture(scope="module")
def client(web: WebBench) -> Iterator[TestClient]:
    routes = [
        Route("/api/length", body_length, methods=["POST"]),
        Route("/api/fails", fails),
        Route("/page/own", own_policy),
        Route("/api/unavailable", unavailable),
    ]
    with TestClient(build_app(web.services, routes)) as client:
        yield client


@pytest.mark.parametrize("path", ["/health/live", "/dicom-web/studies/1.2", "/nowhere", "/api/fails"])
def test_every_answer_carries_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert {name: headers.get(name) for name in DEFAULT_HEADERS} == DEFAULT_HEADERS
    assert "unsafe-inline" not in headers["content-security-policy"]


def test_a_route_may_have_a_policy_of_its_own(client: TestClient) -> None:
    headers = client.get("/page/own").headers
    assert headers["content-security-policy"] == "default-src 'self'"
    assert headers["cache-control"] == "max-age=5"
    assert headers["x-content-type-options"] == "nosniff"


def test_an_unforeseen_error_says_nothing_and_logs_no_message(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Messages of a database quote values: they stay out of logs as well as out of answers."""
    with caplog.at_level(logging.ERROR):
        response = client.get("/api/fails")
    document = json.loads(response.content)
    assert response.status_code == 500
    assert set(document) == {"type", "title", "status", "instance"}
    assert document["instance"].removeprefix("urn:uuid:") in caplog.text
    assert "ValueError" in caplog.text
    assert "lodie" not in caplog.text + response.text


def test_errors_are_problem_documents_with_the_status_of_the_table(client: TestClient) -> None:
    response = client.get("/api/unavailable")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "5"
    assert json.loads(response.content)["type"] == "urn:negatoscope:problem:unavailable"


def test_an_address_that_is_not_served_is_404_and_a_method_405(client: TestClient) -> None:
    assert client.get("/nowhere").status_code == 404
    response = client.delete("/health/live")
    assert response.status_code == 405
    assert "GET" in response.headers["allow"]


@pytest.mark.parametrize(("extra", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_request_bodies_are_bounded(client: TestClient, extra: int, status: int) -> None:
    response = client.post("/api/length", content=bytes(DEFAULT_LIMITS.json_body + extra))
    assert response.status_code == status


def test_a_body_without_a_declared_length_is_bounded_too(client: TestClient) -> None:
    response = client.post("/api/length", content=(bytes(1 << 16) for _ in range(20)))
    assert response.status_code == 413


@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity"])
def test_compressed_bodies_are_refused(client: TestClient, coding: str) -> None:
    response = client.post("/api/length", content=b"x", headers={"Content-Encoding": coding})
    assert response.status_code == 415


def test_it_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/health/live").status_code == 200
    response = client.get("/health/ready")
    assert json.loads(response.content) == {"ready": True, "checks": {"database": True, "room": True}}


def test_without_its_database_it_is_alive_and_not_ready(postgresql: EmbeddedPostgreSQL) -> None:
    with web_bench(postgresql) as bench:
        bench.archive.world.database.close()
        assert bench.client.get("/health/live").status_code == 200
        response = bench.client.get("/health/ready")
        assert response.status_code == 503
        assert json.loads(response.content)["checks"]["database"] is False


def test_each_dicom_door_that_is_set_up_counts_for_readiness(tmp_path: Path) -> None:
    metrics, now = Metrics(tmp_path), 1000.0
    settings = Settings(data=tmp_path, dicom="127.0.0.1:104", dicom_tls="127.0.0.1:2762")
    checks = dicom_doors(settings, metrics, lambda: now)
    assert {name: check() for name, check in checks.items()} == {"dicom": False, "dicom_tls": False}
    metrics.gauge("dicom_door_seen_s", now, door="dicom")
    metrics.gauge("dicom_door_seen_s", now - 4, door="dicom_tls")
    assert {name: check() for name, check in checks.items()} == {"dicom": True, "dicom_tls": True}
    for silence, good in ((SILENCE_S - 1, True), (SILENCE_S, True), (SILENCE_S + 1, False)):
        now = 1000.0 + silence
        assert checks["dicom"]() is good
    assert dicom_doors(Settings(data=tmp_path, dicom="", dicom_tls="127.0.0.1:2762"), metrics).keys() == {"dicom_tls"}


def test_a_dicom_door_whose_process_is_gone_is_not_open(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from negatoscope.metrics import Metrics;"
        "Metrics(Path(sys.argv[1])).gauge('dicom_door_seen_s', time.monotonic(), door='dicom')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert not dicom_doors(Settings(data=tmp_path), Metrics(tmp_path))["dicom"]()


def test_quarantine_is_counted_in_the_metrics(postgresql: EmbeddedPostgreSQL) -> None:
    with web_bench(postgresql) as bench:
        assert "\nnegatoscope_quarantined_total 0\n" in bench.client.get("/metrics").text
        bench.archive.keep(synthetic(), EXPLICIT_LITTLE_ENDIAN)
        bench.archive.keep(synthetic(pixels=b"\1\0" * 64), EXPLICIT_LITTLE_ENDIAN)
        text = bench.client.get("/metrics").text
    assert "\nnegatoscope_quarantined_total 1\n" in text
    assert "# TYPE negatoscope_quarantined_total counter" in text

"""A web application on a real archive, for tests of the HTTP doors."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import psycopg
from harness import ArchiveBench, World, new_archive
from pydicom import dcmread
from pydicom.dataset import Dataset
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from negatoscope.archive.frames import FrameTables
from negatoscope.archive.retrieve import Retrieval
from negatoscope.audit.trail import Trail
from negatoscope.db import Database, EmbeddedPostgreSQL
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.metrics import Metrics
from negatoscope.model.actor import Right, Role
from negatoscope.servers.http import DEFAULT_BOUNDS, Bounds, serve
from negatoscope.servers.supervisor import listen
from negatoscope.settings import Settings
from negatoscope.sharing import COMMAND_LINE, Accounts
from negatoscope.web.app import build_app
from negatoscope.web.authentication import Authentication
from negatoscope.web.pixel_work import PixelsHere
from negatoscope.web.services import Services
from negatoscope.wire.multipart import MultipartReader, PartBegan, PartData, PartEnded, parse_content_type

STUDY, SERIES = "2.25.100", "2.25.200"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class WebBench:
    """Real archive, real accounts, real database: only the pixels are decoded in this process."""

    archive: ArchiveBench
    services: Services
    app: Starlette
    tokens: Mapping[str, str]  # of a radiologist, by establishment code
    client: TestClient  # sends nothing by itself

    def bearer(self, code: str = "A") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[code]}"}

    def get(self, path: str, accept: str | None = None, code: str = "A", **headers: str) -> Any:
        """A GET below ``/dicom-web``, or elsewhere when the path begins with two slashes."""
        address = path[1:] if path.startswith("//") else "/dicom-web" + path
        sent = self.bearer(code) | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(address, headers=sent | ({"Accept": accept} if accept else {}))

    def post(self, path: str, body: bytes, content_type: str, code: str = "A", **headers: str) -> Any:
        sent = self.bearer(code) | {"Content-Type": content_type}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post("/dicom-web" + path, content=body, headers=sent)


@contextlib.contextmanager
def web_bench(postgresql: EmbeddedPostgreSQL, limits: Limits = DEFAULT_LIMITS) -> Iterator[WebBench]:
    """Establishments A and B, one radiologist and one modality each, and the application before them."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="negatoscope-web-")))
        database = Database(stack.enter_context(_database(postgresql)), size=12)
        stack.callback(database.close)
        trail = stack.enter_context(Trail(database, window_s=300.0, monotonic=time.monotonic, on_death=_died))
        accounts = Accounts(database, trail, monotonic=time.monotonic)
        radiologists, modalities, tokens = {}, {}, {}
        for code, oid in (("A", "2.25.1001"), ("B", "2.25.1002")):
            accounts.add_establishment(code, f"Establishment {code}", oid, by=COMMAND_LINE)
            login = f"radiologist-{code.lower()}"
            radiologists[code] = accounts.add_user(login, Role.RADIOLOGIST, code, by=COMMAND_LINE)
            tokens[code] = accounts.create_token(login, 3600.0, by=COMMAND_LINE)
            modalities[code] = accounts.add_entity(f"CT_{code}", code, [Right.STORE], by=COMMAND_LINE)
        archive = new_archive(World(database, radiologists, modalities), folder, trail)
        stack.callback(archive.segments.close)
        metrics = Metrics()
        retrieval = Retrieval(
            database, archive.containers, trail, on_flaw=lambda flaw: metrics.count("unverified_total")
        )
        services = Services(
            settings=Settings(data=folder, reserve_bytes=0),
            database=database,
            receiver=archive.store,
            retrieval=retrieval,
            frame_tables=FrameTables(retrieval, limits),
            trail=trail,
            pixels=PixelsHere(),
            metrics=metrics,
            executor=stack.enter_context(ThreadPoolExecutor(8)),
            commits=stack.enter_context(ThreadPoolExecutor(8)),
            authentication=Authentication(accounts, secure=False, session_s=60.0),
            limits=limits,
        )
        app = build_app(services)
        client = stack.enter_context(TestClient(app))
        for name in ("accept", "accept-encoding"):
            client.headers.pop(name)
        yield WebBench(archive, services, app, tokens, client)


def _died(error: BaseException) -> None:
    raise error


@contextlib.contextmanager
def _database(postgresql: EmbeddedPostgreSQL) -> Iterator[str]:
    """As ``conftest.fresh_database``, for fixtures of a whole module."""
    name = f"web_{next(_numbers)}"
    admin = postgresql.url.replace("/negatoscope?", "/postgres?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE negatoscope".encode())
    yield postgresql.url.replace("/negatoscope?", f"/{name}?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextlib.contextmanager
def running(app: ASGIApp, bounds: Bounds = DEFAULT_BOUNDS) -> Iterator[int]:
    """The application behind the real server, in a thread; gives the port."""
    listener = listen("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    stops: list[Any] = []
    ready = threading.Event()

    def started(stop: Any) -> None:
        stops.append(stop)
        ready.set()

    thread = threading.Thread(target=serve, args=(app, listener), kwargs={"bounds": bounds, "started": started})
    thread.start()
    ready.wait(10)
    try:
        yield port
    finally:
        stops[0]()
        thread.join(15)
        assert not thread.is_alive(), "the server did not stop"


def parts_of(response: Any) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a multipart response; fails when it has no closing boundary."""
    _, parameters = parse_content_type(response.headers["content-type"])
    reader = MultipartReader(parameters["boundary"])
    parts: list[tuple[dict[str, str], bytes]] = []
    for event in reader.receive(response.content):
        match event:
            case PartBegan(headers):
                parts.append((dict(headers), b""))
            case PartData(data):
                parts[-1] = (parts[-1][0], parts[-1][1] + bytes(data))
            case PartEnded():
                pass
    assert reader.ended, "no closing boundary"
    return parts


def multipart(parts: list[tuple[dict[str, str], bytes]], boundary: str = "bnd") -> bytes:
    body = b""
    for headers, data in parts:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        body += f"--{boundary}\r\n{lines}\r\n".encode() + data + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


def data_set_of(file: bytes) -> bytes:
    """The bytes of a DICOM file after its file meta group."""
    assert file[128:132] == b"DICM"
    (length,) = (int.from_bytes(file[140:144], "little"),)
    return file[144 + length :]


def read(file: bytes) -> Dataset:
    return dcmread(BytesIO(file))

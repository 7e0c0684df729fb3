"""The two servers, each as a user would start it, on folders of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.clients import Target
from benchmarks.counting import MODALITY, RECEIVER
from negatoscope.db import EmbeddedPostgreSQL
from system import System, free_port, prepare

ORTHANC = Path("/usr/sbin/Orthanc")
DICOM_WEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
# Caps that a benchmark of queries runs into: a hundred askers on one address, and all 20,000 studies.
WIDE = {
    "NEGATOSCOPE_LIMIT_FIND_ANSWERS": "100000",
    "NEGATOSCOPE_LIMIT_ASSOCIATIONS_PER_TITLE": "200",
    "NEGATOSCOPE_LIMIT_ASSOCIATIONS_PER_ADDRESS": "200",
}
NO_DELAY = {"TCP_NODELAY": "1"}  # DCMTK of Debian leaves Nagle's algorithm on; both servers get it


def cpu_seconds(processes: Iterable[psutil.Process]) -> dict[int, float]:
    """User and system time by process; of those that have ended, nothing."""
    taken = {}
    for process in processes:
        try:
            times = process.cpu_times()
            taken[process.pid] = times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return taken


def spent(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def proportional_bytes(processes: Iterable[psutil.Process]) -> int:
    """Resident memory, what processes share counted once (PSS)."""
    total = 0
    for process in processes:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:")), 0)
    return total


class Ours:
    """Négatoscope with its default settings but for ``WIDE``. Series are packed when the benchmark says so."""

    name = "ours"
    title = "NEGATOSCOPE"

    def __init__(self, folder: Path, **settings: str) -> None:
        self._settings = {f"NEGATOSCOPE_{name.upper()}": value for name, value in settings.items()}
        self.system = System(folder / "negatoscope", **NO_DELAY, **WIDE, **self._settings, NEGATOSCOPE_QUIET_S="86400")
        prepare(self.system)
        self.receiver_port = free_port()  # of the destination of C-MOVE
        self.system.run("ae", "add", RECEIVER, "--establishment", "HX",
                        "--host", "127.0.0.1", "--port", str(self.receiver_port))  # fmt: skip
        self.system.run("user", "add", "person", "--role", "radiologist", "--establishment", "HX",
                        "--password-stdin", stdin="correct horse battery staple\n")  # fmt: skip
        self._token = self.system.token("reader", "--ttl", "7d")

    @property
    def dicom(self) -> tuple[str, int]:
        return self.system.dicom

    @property
    def web(self) -> Target:
        address = ("127.0.0.1", self.system.http_port)
        return Target(address, "/dicom-web", {"Authorization": f"Bearer {self._token}"})

    def start(self) -> None:
        self.system.start()

    def stop(self) -> None:
        self.system.stop()

    def restart(self, **environment: str) -> None:
        self.system.stop()
        self.system.environment |= environment
        self.system.start()

    def processes(self, *, database: bool = True) -> list[psutil.Process]:
        assert self.system.process is not None
        top = psutil.Process(self.system.process.pid)
        found = [top, *top.children(recursive=True)]
        return [process for process in found if database or "postgres" not in _name(process)]

    def database(self) -> psycopg.Connection[tuple[Any, ...]]:
        """As superuser."""
        return psycopg.connect(EmbeddedPostgreSQL(self.system.data).url, autocommit=True)

    def settle(self) -> tuple[float, float]:
        """Pack everything; seconds and CPU seconds that it took. Leaves the server with default settings."""
        self.restart(NEGATOSCOPE_QUIET_S="1")
        before, began = cpu_seconds(self.processes()), time.monotonic()
        while self.open_series():
            time.sleep(0.2)
        taken = time.monotonic() - began, spent(before, cpu_seconds(self.processes()))
        self.restart(NEGATOSCOPE_QUIET_S="30")
        return taken

    def open_series(self) -> int:
        with self.database() as connection:
            row = connection.execute("SELECT count(*) FROM series WHERE open").fetchone()
        return int(row[0]) if row else 0


class Orthanc:
    """Debian's Orthanc with its DICOMweb plugin, SQLite, otherwise as it comes."""

    name = "Orthanc"
    title = "ORTHANC"

    def __init__(self, folder: Path) -> None:
        self._http, self._dicom, self.receiver_port = free_port(), free_port(), free_port()
        self.folder = folder / "orthanc"
        self.folder.mkdir(parents=True)
        self._settings = self.folder / "orthanc.json"
        self._settings.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(self.folder / "db"),
                    "IndexDirectory": str(self.folder / "db"),
                    "Plugins": [str(DICOM_WEB)],
                    "HttpPort": self._http,
                    "DicomPort": self._dicom,
                    "DicomAet": self.title,
                    "AuthenticationEnabled": False,
                    "RemoteAccessAllowed": False,
                    "DicomAlwaysAllowEcho": True,
                    "DicomAlwaysAllowStore": True,
                    "DicomModalities": {
                        MODALITY: [MODALITY, "127.0.0.1", self.receiver_port],  # asks, and is never called
                        RECEIVER: [RECEIVER, "127.0.0.1", self.receiver_port],
                    },
                    "KeepAlive": True,
                    "TcpNoDelay": True,
                    "HttpCompressionEnabled": False,
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dicom(self) -> tuple[str, int]:
        return ("127.0.0.1", self._dicom)

    @property
    def web(self) -> Target:
        return Target(("127.0.0.1", self._http), "/dicom-web", {})

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(ORTHANC), str(self._settings)], stdout=log, stderr=log, env={**os.environ, **NO_DELAY}
            )
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._http}/system", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                if self._process.poll() is not None or time.monotonic() > until:
                    raise AssertionError("Orthanc does not start") from None
                time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def processes(self, *, database: bool = True) -> list[psutil.Process]:
        assert self._process is not None
        top = psutil.Process(self._process.pid)
        return [top, *top.children(recursive=True)]


Server = Ours | Orthanc


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""

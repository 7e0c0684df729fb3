"""The whole server as a user starts it: command line, processes, sockets. For peers, reliability, browser, benches."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "negatoscope.cli"]
READY_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class System:
    """One data folder and the server on it. ``environment``: settings, as ``NEGATOSCOPE_QUIET_S``."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.http_port, self.dicom_port = free_port(), free_port()
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data.parent / f"{data.name}.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicom(self) -> tuple[str, int]:
        return ("127.0.0.1", self.dicom_port)

    def run(self, *arguments: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """One command on this folder; its output is kept."""
        done = subprocess.run(
            [*COMMAND, *arguments, "--data", str(self.data)],
            capture_output=True,
            text=True,
            input=stdin,
            env=self.environment,
            check=False,
            timeout=300,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"negatoscope {arguments[0]}: {done.stderr}")
        return done

    def token(self, user: str, *more: str) -> str:
        return self.run("token", "create", "--user", user, *more).stdout.strip()

    def launch(self) -> None:
        """Start without waiting."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *COMMAND,
                    "serve",
                    "--data",
                    str(self.data),
                    "--http",
                    f"127.0.0.1:{self.http_port}",
                    "--dicom",
                    f"127.0.0.1:{self.dicom_port}",
                ],
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    def start(self) -> float:
        """Start and wait until both doors answer; how long it took, seconds."""
        began = time.monotonic()
        self.launch()
        self.wait_ready()
        return time.monotonic() - began

    def wait_ready(self, within_s: float = READY_S) -> float:
        began = time.monotonic()
        while time.monotonic() - began < within_s:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the server ended: {self.tail()}")
            if self.is_ready():
                return time.monotonic() - began
            time.sleep(0.02)
        raise AssertionError(f"not ready within {within_s} s: {self.tail()}")

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=2) as answer:
                if answer.status != 200:
                    return False
            socket.create_connection(self.dicom, timeout=2).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def children(self) -> dict[str, psutil.Process]:
        """The processes below the supervisor by kind: dicom, http, worker, postgres."""
        if self.process is None:
            return {}
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                words = child.cmdline()
            except (psutil.ZombieProcess, psutil.NoSuchProcess):
                continue  # it has just died; the supervisor is about to see it
            if "child" in words:
                found[words[words.index("child") + 1]] = child
            elif words and words[0].endswith("postgres"):
                found["postgres"] = child
        return found

    def child(self, kind: str, within_s: float = 10.0) -> psutil.Process:
        """The living process of that kind: one that has just died is being started again."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if found := self.children().get(kind):
                return found
            time.sleep(0.02)
        raise AssertionError(f"no process {kind}: {self.tail()}")

    def stop(self) -> float:
        """SIGTERM; how long it took to end, seconds."""
        began = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        self.process = None
        return time.monotonic() - began

    def kill_all(self) -> None:
        """Every process at once, as when the machine loses power (what the kernel holds stays)."""
        assert self.process is not None
        processes = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in processes:
            process.suspend()
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)
        self.process.wait()
        self.process = None


@contextmanager
def system(**environment: str) -> Iterator[System]:
    """A system on a temporary folder with establishment HX, a modality MODALITY and a radiologist ``reader``."""
    with tempfile.TemporaryDirectory(prefix="negatoscope-") as folder:
        built = System(Path(folder) / "data", **environment)
        prepare(built)
        try:
            yield built
        finally:
            built.stop()


def prepare(built: System) -> None:
    built.run("establishment", "add", "HX", "--name", "Hôpital X", "--oid", "2.25.5001")
    built.run("ae", "add", "MODALITY", "--establishment", "HX")
    built.run("user", "add", "reader", "--role", "radiologist", "--establishment", "HX")


def run_peer(command: Sequence[str], timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """A peer's program; its output, which can be millions of lines, goes to the result."""
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s)

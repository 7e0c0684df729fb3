"""The command-line contract, its part on processes: start, stop, death, and commands beside the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import synthetic

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.errors import NegatoscopeError
from negatoscope.servers.dicom_client import Proposal, associate
from negatoscope.settings import Settings
from reliability.traffic import CT
from system import COMMAND, System, prepare, system

pytestmark = pytest.mark.slow
ECHO = Proposal("NEGATOSCOPE", "MODALITY")
STORE = Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT_LITTLE_ENDIAN,)),))


@pytest.fixture
def built() -> Iterator[System]:
    with system() as one:
        yield one


def below(built: System) -> list[psutil.Process]:
    """The supervisor and everything under it."""
    assert built.process is not None
    top = psutil.Process(built.process.pid)
    return [top, *top.children(recursive=True)]


def using(folder: Path) -> list[int]:
    """Processes that name the folder in their command line or work in it."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words or (process.info["cwd"] or "").startswith(str(folder)):
            found.append(process.info["pid"])
    return found


def test_sigterm_ends_everything_in_order_within_ten_seconds(built: System) -> None:
    built.start()
    assert built.process is not None
    process, processes = built.process, below(built)
    assert {"dicom", "http", "worker", "postgres"} <= set(built.children())
    stop = threading.Event()
    sender = threading.Thread(target=send_until, args=(built, stop))
    sender.start()
    idle = associate(built.dicom, ECHO)  # an open association holds nothing up
    assert idle.echo() == 0
    assert built.stop() < 10.0
    stop.set()
    idle.abort()
    _, left = psutil.wait_procs(processes, timeout=0.5)
    sender.join()
    assert process.returncode == 0
    assert left == []
    assert using(built.data) == []


def send_until(built: System, stop: threading.Event) -> None:
    """C-STORE again and again; the server may go away."""
    number = 0
    while not stop.is_set():
        try:
            with associate(built.dicom, STORE) as sender:
                while not stop.is_set():
                    number += 1
                    sop = f"2.25.9{number}"
                    sender.store(CT, sop, EXPLICIT_LITTLE_ENDIAN, synthetic(sop=sop))
        except (NegatoscopeError, OSError):
            stop.wait(0.05)


def test_ctrl_c_ends_it_as_well(built: System) -> None:
    built.start()
    processes = below(built)
    processes[0].send_signal(signal.SIGINT)
    _, left = psutil.wait_procs(processes, timeout=10)
    assert left == []


def test_sigterm_while_it_starts_ends_it_too(built: System) -> None:
    for wait_s in (0.3, 0.8, 1.5):
        built.launch()
        assert built.process is not None
        time.sleep(wait_s)
        built.process.send_signal(signal.SIGTERM)
        assert built.process.wait(10) in (0, -signal.SIGTERM)
        assert using(built.data) == []


@pytest.mark.parametrize("kind", ["dicom", "http", "worker", "postgres"])
def test_a_killed_process_is_replaced_within_five_seconds(built: System, kind: str) -> None:
    built.start()
    victim = built.children()[kind]
    victim.send_signal(signal.SIGKILL)
    victim.wait(5)
    began = time.monotonic()
    while kind not in built.children() or not built.is_ready() or not echoes(built):
        assert time.monotonic() - began < 5.0, f"{kind} is not back"
        time.sleep(0.05)
    assert built.children()[kind].pid != victim.pid


def echoes(built: System) -> bool:
    try:
        with associate(built.dicom, ECHO) as sender:
            return sender.echo() == 0
    except NegatoscopeError:
        return False


def test_children_end_within_five_seconds_of_their_supervisor_and_it_starts_again(built: System) -> None:
    built.start()
    assert built.process is not None
    supervisor, *children = below(built)
    supervisor.kill()
    built.process.wait(5)
    _, left = psutil.wait_procs(children, timeout=5)
    assert left == []
    assert built.start() < 10.0


def test_serve_makes_its_folder_and_is_ready_on_loopback(tmp_path: Path) -> None:
    fresh = System(tmp_path / "not" / "there" / "yet")
    fresh.log = tmp_path / "log"
    fresh.start()
    try:
        doors = {
            connection.laddr.ip
            for process in below(fresh)
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert doors == {"127.0.0.1"}
        text = fresh.log.read_text()
        assert f"http://127.0.0.1:{fresh.http_port}" in text
        assert str(fresh.dicom_port) in text
    finally:
        fresh.stop()
    defaults = Settings(data=tmp_path)
    assert {one.split(":")[0] for one in (defaults.http, defaults.dicom, defaults.hl7)} == {"127.0.0.1"}


def test_a_second_server_on_the_same_folder_is_refused(built: System) -> None:
    built.start()
    second = System(built.data)
    command = [*COMMAND, "serve", "--data", str(built.data), "--http", f"127.0.0.1:{second.http_port}"]
    command += ["--dicom", f"127.0.0.1:{second.dicom_port}"]
    impatient = "import sys, negatoscope.bootstrap as b, negatoscope.cli as c; b.OWNER_WAIT_S = 1; sys.exit(c.main())"
    command[: len(COMMAND)] = [sys.executable, "-c", impatient]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == f"negatoscope: {built.data} is in use by another process\n"
    assert built.is_ready()


def test_a_taken_port_is_said_in_one_line(built: System) -> None:
    built.start()
    with tempfile.TemporaryDirectory() as folder:
        command = [*COMMAND, "serve", "--data", folder, "--http", f"127.0.0.1:{built.http_port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert using(Path(folder)) == []


COMMANDS: list[list[str]] = [
    ["establishment", "add", "HZ", "--name", "Z", "--oid", "2.25.7001"],
    ["ae", "add", "OTHER", "--establishment", "HX", "--rights", "store,query,retrieve,worklist"],
    ["user", "add", "somebody", "--role", "clinician", "--establishment", "HX"],
    ["token", "create", "--user", "reader", "--ttl", "30m"],
    ["quarantine", "list"],
    ["scrub"],
    ["verify-audit"],
]


@pytest.mark.parametrize("serving", [False, True], ids=["alone", "beside the server"])
def test_commands_work_alone_and_beside_the_server_and_leave_no_process(built: System, serving: bool) -> None:
    if serving:
        built.start()
    before = using(built.data)
    for command in COMMANDS:
        done = built.run(*command)
        assert done.returncode == 0
        assert done.stderr == ""
        assert using(built.data) == before, command
    if serving:
        assert built.is_ready()


def test_any_command_makes_a_folder_that_is_not_there(tmp_path: Path) -> None:
    fresh = System(tmp_path / "new" / "folder")
    assert fresh.run("quarantine", "list").stdout == ""
    assert fresh.data.is_dir()
    assert using(fresh.data) == []


def test_a_command_killed_halfway_leaves_no_process_and_no_harm(built: System) -> None:
    command = [*COMMAND, "scrub", "--data", str(built.data)]
    for wait_s in (0.2, 0.5, 0.8):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(wait_s)
        process.kill()
        process.wait()
        until = time.monotonic() + 5
        while using(built.data):
            assert time.monotonic() < until, "its database goes on without it"
            time.sleep(0.05)
    assert built.run("scrub").returncode == 0


def test_two_commands_at_once_both_succeed(built: System) -> None:
    commands = [["user", "add", f"user{n}", "--role", "secretary", "--establishment", "HX"] for n in range(4)]
    running = [
        subprocess.Popen(
            [*COMMAND, *words, "--data", str(built.data)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for words in commands
    ]
    outcomes = [(process.communicate(timeout=120)[1], process.returncode) for process in running]
    assert outcomes == [("", 0)] * 4
    for n in range(4):
        assert built.token(f"user{n}")


def test_another_postgresql_serves_as_well(tmp_path: Path) -> None:
    """``--database`` (or the setting): commands and server use it and start none of their own."""
    elsewhere = EmbeddedPostgreSQL(tmp_path / "elsewhere")
    assert elsewhere.own()
    elsewhere.start()
    try:
        built = System(tmp_path / "data", NEGATOSCOPE_DATABASE=elsewhere.url)
        prepare(built)
        built.start()
        assert "postgres" not in built.children()
        assert echoes(built)
        built.stop()
        done = subprocess.run(
            [*COMMAND, "verify-audit", "--data", str(built.data), "--database", elsewhere.url],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={key: value for key, value in os.environ.items() if not key.startswith("NEGATOSCOPE_")},
        )
        assert done.returncode == 0, done.stderr
    finally:
        elsewhere.stop()

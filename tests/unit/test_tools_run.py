"""``make run`` fills the folder once, becomes the server, and ends when told to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from negatoscope.settings import SettingsError, load

ROOT = Path(__file__).resolve().parents[2]

NEGATOSCOPE = """#!/bin/sh
# stands for the real one: notes what it is asked, with the process it is
echo "$$ $*" >> "$CALLS"
mkdir -p "$3"
if [ "$1" = demo ] && [ -n "$SLOW" ]; then exec sleep 30; fi
if [ "$1" = demo ]; then exit ${DEMO_EXIT:-0}; fi
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the real driver and a stand-in for the server."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "run.py", tmp_path / "tools")
    command = tmp_path / ".venv" / "bin" / "negatoscope"
    command.parent.mkdir(parents=True)
    command.write_text(NEGATOSCOPE)
    command.chmod(0o755)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path


def start(checkout: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(checkout / "tools" / "run.py"), "--data", str(checkout / "var"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def calls(checkout: Path) -> list[list[str]]:
    return [line.split() for line in (checkout / "calls").read_text().splitlines()]


def test_the_folder_is_filled_once_and_the_server_takes_the_place_of_the_driver(checkout: Path) -> None:
    data = str(checkout / "var")
    for round_ in (1, 2):
        process = start(checkout, "--http-port", "18080")
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "http://127.0.0.1:18080/" in said
        *earlier, serve = calls(checkout)
        assert serve[0] == str(process.pid)
        ports = ["--http", "127.0.0.1:18080", "--dicom", "127.0.0.1:11112", "--hl7", "127.0.0.1:2575"]
        assert serve[1:] == ["serve", "--data", data, *ports]
        assert len(earlier) == round_
    assert [call[1] for call in calls(checkout)] == ["demo", "serve", "serve"]


def test_a_filling_that_fails_starts_no_server_and_is_tried_again(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_EXIT", "3")
    for _ in range(2):
        process = start(checkout)
        process.communicate(timeout=20)
        assert process.returncode == 3
    assert [call[1] for call in calls(checkout)] == ["demo", "demo"]


def test_sigterm_while_filling_ends_the_filling_too(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLOW", "1")
    process = start(checkout)
    deadline = time.monotonic() + 10
    while not (checkout / "var").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    filling = int(calls(checkout)[0][0])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=5)
    assert process.returncode == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(filling, 0)


def test_the_variables_of_the_tools_are_no_settings_and_others_are_refused(tmp_path: Path) -> None:
    load(tmp_path, {}, {"NEGATOSCOPE_CACHE": "/x", "NEGATOSCOPE_CORPUS": "/y"})
    with pytest.raises(SettingsError, match="NEGATOSCOPE_CACHES"):
        load(tmp_path, {}, {"NEGATOSCOPE_CACHES": "/x"})

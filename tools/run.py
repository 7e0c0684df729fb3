"""What ``make run`` runs: fill the demonstration folder if it is not filled yet, then become the server.

Standard library only. The server replaces this process, so whoever signals this process, or its group,
signals the server.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
NEGATOSCOPE = ROOT / ".venv" / "bin" / "negatoscope"
MARK = ".demonstration"  # in the data folder, once it is filled; filling twice would only take time
PATIENCE_S = 8.0  # for the filling to end after SIGTERM, before it is killed


class Stopped(Exception):
    """A signal asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


def fill(data: Path) -> int:
    """Run ``negatoscope demo`` once for this folder; its exit code. SIGTERM is passed on to it."""
    if (data / MARK).exists():
        return 0
    print(f"filling {data} with the demonstration, once", flush=True)
    filling = subprocess.Popen([str(NEGATOSCOPE), "demo", "--data", str(data)])
    previous = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = filling.wait()
    except Stopped as stopped:
        filling.send_signal(stopped.number)
        try:
            filling.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            filling.kill()
        return 128 + stopped.number
    for number, handler in previous.items():
        signal.signal(number, handler)
    if code == 0:
        (data / MARK).touch()
    return code


def serve(data: Path, ports: dict[str, int]) -> NoReturn:
    """Say where everything is, and become the server."""
    command = [str(NEGATOSCOPE), "serve", "--data", str(data)]
    for door, port in ports.items():
        command += [f"--{door}", f"127.0.0.1:{port}"]
    print(
        f"pages and viewer  http://127.0.0.1:{ports['http']}/  (enter as the demonstration user demo)\n"
        f"DICOMweb          http://127.0.0.1:{ports['http']}/dicom-web"
        f"  (token: .venv/bin/negatoscope token create --data {data} --user demo)\n"
        f"DICOM             NEGATOSCOPE at 127.0.0.1:{ports['dicom']}\n"
        "Ctrl+C stops everything.",
        flush=True,
    )
    os.execv(command[0], command)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("var"))
    for door, port in (("http", 8080), ("dicom", 11112), ("hl7", 2575)):
        parser.add_argument(f"--{door}-port", type=int, default=port)
    options = parser.parse_args()
    code = fill(options.data)
    if code != 0:
        return code
    serve(options.data, {door: getattr(options, f"{door}_port") for door in ("http", "dicom", "hl7")})


if __name__ == "__main__":
    sys.exit(main())

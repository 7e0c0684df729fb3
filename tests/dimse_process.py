"""The DICOM door in a process of its own, so that its memory and descriptors can be watched.

``python -m dimse_process '{"artim_s": 3.0}'`` prints its port, then serves until its input ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from dimse_fakes import MemoryReceiver, door
from negatoscope.dicom.limits import DEFAULT_LIMITS


class Process:
    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.address = ("127.0.0.1", port)
        self._watched = psutil.Process(process.pid)

    def memory(self) -> int:
        """Resident bytes."""
        return int(self._watched.memory_info().rss)

    def descriptors(self) -> int:
        return int(self._watched.num_fds())

    def threads(self) -> int:
        return int(self._watched.num_threads())


@contextmanager
def served(**limits: float) -> Iterator[Process]:
    """A server with these limits changed; its receiver counts bytes and keeps none."""
    tests = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-m", "dimse_process", json.dumps(limits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tests)},
    )
    try:
        assert process.stdout is not None
        yield Process(process, int(process.stdout.readline()))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)
        assert process.returncode == 0


def main() -> None:
    with door(MemoryReceiver(keep_bytes=False), replace(DEFAULT_LIMITS, **json.loads(sys.argv[1]))) as here:
        print(here.port, flush=True)
        sys.stdin.read()
    assert threading.active_count() == 1, threading.enumerate()


if __name__ == "__main__":
    main()

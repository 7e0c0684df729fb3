"""Kill a process right before its n-th system call of a kind, seen and done by strace from outside.

A call that strace kills at its entry is not executed. So "right before call n + 1" is also "right after call n",
and calls that nobody outside the process can see (futex, getpid, epoll_wait) need no kill of their own.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from negatoscope.storage.segments import ClaimedSegment, claim, segment_ids

CHANGES = (
    *("openat", "write", "writev", "pwrite64", "pwritev", "pwritev2", "fsync", "fdatasync", "sync_file_range"),
    *("ftruncate", "fallocate", "flock", "fchmod", "close", "rename", "renameat", "renameat2", "link", "linkat"),
    *("unlink", "unlinkat", "mkdir", "mkdirat"),
)
"""What changes files, and what decides who may."""
TALKS = ("sendto", "sendmsg", "recvfrom", "recvmsg", "poll", "ppoll")
"""Messages to the database and to the peer, and the waits for theirs: the moments after a message has left."""
_RECEIVES = ("recvfrom", "recvmsg")
_CALL = re.compile(r"^(?:(\d+) +)?(?:\d[\d:.]+ )?(\w+)\((.*)")


@dataclass(frozen=True)
class Point:
    """Before the ``number``-th call of ``kind``, in the main thread or in another."""

    main: bool
    kind: str
    number: int  # from 1
    text: str  # what the call was when it was learned

    @property
    def essential(self) -> bool:
        """Files, the commit, the answer: where the promise is made."""
        if self.kind in TALKS:
            return self.kind.startswith("send") and ("COMMIT" in self.text or "<TCP:" in self.text)
        if self.kind == "openat":
            return "O_CREAT" in self.text
        return self.kind not in ("close", "flock") and ("/segments" in self.text or "/packs" in self.text)


def learn(pid: int, act: Callable[[], object], folder: Path) -> list[Point]:
    """Every call of CHANGES and TALKS that the process makes while ``act`` runs, as points to kill it at.

    strace counts in each thread, and the first thread that comes to ``n`` ends the process. Where the main thread
    receives too (an event loop, woken through a socket), it would always come first: of the others' messages
    only the waits are points then, which are the same moments.
    """
    log = folder / "learned"
    with _strace(pid, log, True, f"trace={','.join((*CHANGES, *TALKS))}", "-yy"):
        act()
        time.sleep(0.2)
    seen: dict[tuple[bool, str], dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for line in log.read_text(errors="replace").splitlines():
        if found := _CALL.match(line):
            thread = int(found[1] or pid)
            seen[thread == pid, found[2]][thread].append(found[3])
    points = []
    for (main, kind), by_thread in seen.items():
        if main or kind not in _RECEIVES or (True, kind) not in seen:
            longest = max(by_thread.values(), key=len)
            points += [Point(main, kind, n, text) for n, text in enumerate(longest, 1)]
    return points


@contextmanager
def killed_at(pid: int, point: Point, folder: Path) -> Iterator[None]:
    """The process dies at the point, if it comes to it while the block runs."""
    inject = f"inject={point.kind}:signal=SIGKILL:when={point.number}"
    with _strace(pid, folder / "killed", not point.main, f"trace={point.kind}", "-e", inject):
        yield


@contextmanager
def _strace(pid: int, log: Path, every_thread: bool, expression: str, *more: str) -> Iterator[None]:
    if shutil.which("strace") is None:
        pytest.skip("needs strace: make test installs it")
    command = ["strace", *(["-f"] if every_thread else []), "-p", str(pid), "-e", expression, *more]
    tracer = subprocess.Popen([*command, "-s", "64", "-o", str(log)], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    try:
        said = tracer.stderr.readline().decode()
        if "attached" not in said:
            pytest.skip(f"strace cannot attach here: {said.strip()}")
        time.sleep(0.05)  # it says so before the threads run on
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.wait(5)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()
        tracer.stderr.close()


def summary(points: Sequence[Point]) -> str:
    return " ".join(f"{kind}:{n}" for kind, n in sorted(Counter(point.kind for point in points).items()))


def torn_tails(segments: Path) -> list[int]:
    """Segments, of a server that has ended, in which something lies behind the last whole record."""
    torn = []
    for segment_id in segment_ids(segments):
        with claim(segments, segment_id) as segment:
            assert isinstance(segment, ClaimedSegment), "somebody still writes"
            end = 0
            for record in segment.records(0):
                end = record.offset + record.length + len(record.crcs)
            if (segments / f"{segment_id:012d}.seg").stat().st_size != end:
                torn.append(segment_id)
    return torn

"""D2: the process that stores is killed right before each system call of a store, one run each.

After each: what was acknowledged is there and whole; what was not is whole or absent, never half. It is sent
again, which succeeds, and then there is one copy. The list of calls is learned from the kernel each time, so
that a store that changes is still killed at each of its steps.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import pytest
from harness import synthetic

from negatoscope.dicom.part10 import read_file_meta
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.errors import NegatoscopeError
from negatoscope.servers.dicom_client import PeerUnavailable, Proposal, Sender, associate
from reliability.killpoints import Point, killed_at, learn, summary, torn_tails
from reliability.traffic import CT, Sent, part
from system import System, system

pytestmark = pytest.mark.slow
PROPOSAL = Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT_LITTLE_ENDIAN,)),))
RESTART_S = 10.0  # the promise is five; the machine may be busy


class DicomDoor:
    """C-STORE on one association, opened beforehand: its thread is there when strace looks."""

    kind = "dicom"

    def __init__(self, built: System) -> None:
        self._built = built
        self._sender: Sender | None = None

    def open(self) -> None:
        self.close()
        until = time.monotonic() + RESTART_S
        while self._sender is None:
            try:
                self._sender = associate(self._built.dicom, PROPOSAL)
            except (PeerUnavailable, OSError):
                assert time.monotonic() < until, self._built.tail()
                time.sleep(0.02)

    def send(self, sent: Sent) -> bool:
        """Whether it was acknowledged. Raises NegatoscopeError, OSError when the server is gone."""
        assert self._sender is not None
        return self._sender.store(CT, sent.sop, EXPLICIT_LITTLE_ENDIAN, sent.data).status == 0

    def close(self) -> None:
        if self._sender is not None:
            self._sender.abort()
            self._sender = None


class StowDoor:
    """STOW-RS on one kept connection."""

    kind = "http"

    def __init__(self, built: System, token: str) -> None:
        self._built, self._headers = built, {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(timeout=30, headers=self._headers)

    def open(self) -> None:
        self.close()
        self._client = httpx.Client(timeout=30, headers=self._headers)
        self._warm()

    def _warm(self) -> None:
        """The server answers again, and knows the token."""
        until = time.monotonic() + RESTART_S
        while True:
            with suppress(httpx.HTTPError):
                if self._client.get(f"{self._built.url}/dicom-web/studies", params={"limit": 1}).status_code < 300:
                    return
            assert time.monotonic() < until, self._built.tail()
            time.sleep(0.02)

    def send(self, sent: Sent) -> bool:
        answer = self._client.post(
            f"{self._built.url}/dicom-web/studies",
            content=part(sent),
            headers={
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
                "Accept": "application/dicom+json",
            },
        )
        return answer.status_code in (200, 202)

    def close(self) -> None:
        self._client.close()


Door = DicomDoor | StowDoor


@dataclass(frozen=True)
class Situation:
    """What is stored before, in the same process, and what is stored when the process is killed."""

    before: tuple[Sent, ...]
    then: Sent
    conflict: bool = False  # ``then`` has the UID of ``before[0]`` and other bytes: it goes to quarantine

    @property
    def served(self) -> Sent:
        """What must be found under the UID once ``then`` has been acknowledged."""
        return self.before[0] if self.conflict else self.then


def new_object(number: int, which: int, size: int = 20_000) -> Sent:
    """Object ``which`` of study ``number``."""
    study, series, sop = (f"2.25.7{number:05d}{kind}" for kind in ("1", "2", f"3{which}"))
    pixels = bytes([number % 251, which % 251]) * (size // 2)
    data = synthetic(sop=sop, study=study, series=series, patient=f"P{number}", number=which + 1, pixels=pixels)
    return Sent(study, series, sop, data)


def in_new_study(number: int) -> Situation:
    """The first object of a process: a new segment, a new patient, study and series."""
    return Situation((), new_object(number, 0))


def in_known_series(number: int) -> Situation:
    return Situation((new_object(number, 0),), new_object(number, 1))


def large(number: int) -> Situation:
    """Bytes go to the segment while they come; the header of the record is written last."""
    return Situation((new_object(number, 0),), new_object(number, 1, size=3_000_000 // 2048 * 2048))


def sent_again(number: int) -> Situation:
    """The second copy is cut off again."""
    one = new_object(number, 0)
    return Situation((one,), one)


def with_other_bytes(number: int) -> Situation:
    one = new_object(number, 0)
    return Situation((one,), replace(one, data=one.data[:-1] + bytes([one.data[-1] ^ 1])), conflict=True)


SITUATIONS: tuple[Callable[[int], Situation], ...] = (
    in_new_study,
    in_known_series,
    large,
    sent_again,
    with_other_bytes,
)


class Killing:
    """One server, killed again and again while it stores."""

    def __init__(self, built: System, door: Door, token: str, folder: Path, *, everything: bool = False) -> None:
        self._built, self._door, self._folder = built, door, folder
        self._everything = everything  # every process dies at that moment, the database too
        self._address = f"{built.url}/dicom-web/studies"
        self._reader = httpx.Client(timeout=30, headers={"Authorization": f"Bearer {token}"})
        self._numbers = iter(range(1, 100_000))
        self._tried: list[Situation] = []
        self.killed: list[Point] = []
        self.unreached: list[Point] = []
        self.states: Counter[str] = Counter()  # after a kill, of what had not been acknowledged

    def learn(self, situation: Callable[[int], Situation]) -> list[Point]:
        """The steps of a store that nobody disturbs, in a process that has just started."""
        case = situation(next(self._numbers))
        self._open(case)
        process = self._built.child(self._door.kind)
        points = learn(process.pid, lambda: self._door.send(case.then), self._folder)
        assert self._state(case.served) == "whole"
        self._tried.append(case)
        self._begin_anew(process)
        return points

    def at(self, situation: Callable[[int], Situation], point: Point) -> None:
        """One run: store, killed at the point, started again, looked at."""
        case = situation(next(self._numbers))
        self._open(case)
        process, acknowledged = self._built.child(self._door.kind), False
        with killed_at(process.pid, point, self._folder):
            with suppress(NegatoscopeError, OSError, httpx.HTTPError):
                acknowledged = self._door.send(case.then)
            died = ended(process, within_s=0.3 if acknowledged else 5.0)
        (self.killed if died else self.unreached).append(point)
        if self._everything or not died:
            self._begin_anew(process)
        self._door.open()
        self._look(case, point, acknowledged)
        self._tried.append(case)

    def _open(self, case: Situation) -> None:
        self._door.open()
        for sent in case.before:
            assert self._door.send(sent)

    def _begin_anew(self, process: psutil.Process) -> None:
        if self._everything:
            self._built.kill_all()
            self._built.launch()
        else:
            process.kill()
            assert ended(process, within_s=5.0)

    def _look(self, case: Situation, point: Point, acknowledged: bool) -> None:
        for sent in case.before:
            assert self._state(sent) == "whole", (point, "acknowledged before")
        if acknowledged:
            assert self._state(case.served) == "whole", (point, "acknowledged")
        elif not case.before or case.then.sop != case.before[0].sop:
            state = self._state(case.then)
            assert state in ("whole", "absent"), (point, state)
            self.states[state] += 1

    def finish(self) -> None:
        """Sent again, everything is acknowledged, whole and there once; nothing else is left of the killings."""
        self._door.open()
        for case in self._tried:
            assert self._door.send(case.then), (case.then.sop, "sent again")
            uids = {sent.sop for sent in (*case.before, case.then)}
            listed = self._reader.get(f"{self._address}/{case.then.study}/instances").json()
            assert sorted(one["00080018"]["Value"][0] for one in listed) == sorted(uids)
            found = self._reader.get(self._address, params={"StudyInstanceUID": case.then.study}).json()
            assert [one["00201206"]["Value"] + one["00201208"]["Value"] for one in found] == [[1, len(uids)]]
            for sent in (*case.before, case.served):
                assert self._state(sent) == "whole", sent.sop
        self._door.close()
        assert self._built.run("scrub").returncode == 0
        aside = [json.loads(line) for line in self._built.run("quarantine", "list").stdout.splitlines()]
        kept = sorted((row["sop_instance_uid"], row["sha256"]) for row in aside)
        assert kept == sorted((case.then.sop, case.then.sha256) for case in self._tried if case.conflict)
        self._reader.close()
        self._built.stop()
        assert torn_tails(self._built.data / "segments") == []

    def _state(self, sent: Sent) -> str:
        """``whole``, ``absent`` or ``corrupt``."""
        answer = self._reader.get(
            f"{self._address}/{sent.study}/series/{sent.series}/instances/{sent.sop}",
            headers={"Accept": "application/dicom; transfer-syntax=*"},
        )
        if answer.status_code == 404:
            return "absent"
        assert answer.status_code == 200, answer.text
        body = answer.content
        if body.startswith(b"--"):
            body = body[body.index(b"\r\n\r\n") + 4 : body.rindex(b"\r\n--")]
        return "whole" if body[read_file_meta(body)[1] :] == sent.data else "corrupt"

    def __str__(self) -> str:
        return (
            f"killed {len(self.killed)} ({summary(self.killed)}), not reached {len(self.unreached)};"
            f" not acknowledged: whole {self.states['whole']}, absent {self.states['absent']}"
        )


def ended(process: psutil.Process, within_s: float) -> bool:
    """Whether the process has died, and its parent has seen it."""
    try:
        process.wait(within_s)
    except psutil.TimeoutExpired:
        return False
    return True


@contextmanager
def killing(kind: str, folder: Path, *, everything: bool = False) -> Iterator[Killing]:
    with system(NEGATOSCOPE_QUIET_S="3600") as built:
        built.start()
        token = built.token("reader", "--ttl", "12h")
        door: Door = DicomDoor(built) if kind == "dicom" else StowDoor(built, token)
        yield Killing(built, door, token, folder, everything=everything)


@pytest.mark.parametrize("kind", ["dicom", "http"])
def test_a_store_killed_where_the_promise_is_made_is_whole_or_absent(kind: str, tmp_path: Path) -> None:
    """The short form: files, commits and answer of a first object."""
    with killing(kind, tmp_path) as trial:
        points = [point for point in trial.learn(in_new_study) if point.essential]
        assert {"openat", "fsync", "fdatasync", "sendto"} <= {point.kind for point in points}
        for point in points:
            trial.at(in_new_study, point)
        assert trial.unreached == []
        assert min(trial.states["absent"], trial.states["whole"]) >= 2
        trial.finish()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("kind", ["dicom", "http"])
def test_a_store_killed_at_any_system_call_is_whole_or_absent(
    kind: str, situation: Callable[[int], Situation], tmp_path: Path
) -> None:
    every_call(kind, situation, tmp_path, everything=False)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("situation", [in_new_study, in_known_series])
@pytest.mark.parametrize("kind", ["dicom", "http"])
def test_a_store_killed_with_its_database_at_any_system_call_is_whole_or_absent(
    kind: str, situation: Callable[[int], Situation], tmp_path: Path
) -> None:
    every_call(kind, situation, tmp_path, everything=True)


def every_call(kind: str, situation: Callable[[int], Situation], folder: Path, *, everything: bool) -> None:
    with killing(kind, folder, everything=everything) as trial:
        points = trial.learn(situation)
        for point in points:
            trial.at(situation, point)
        trial.finish()
        print(f"{kind} {situation.__name__} everything={everything}: {trial}")
        assert [point for point in trial.unreached if point.essential] == []
        # Which thread of a pool takes a step is not the same each time, so a last call may not come.
        assert len(trial.unreached) <= len(points) / 10

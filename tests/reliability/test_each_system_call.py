"""D2: the process that stores is killed right before each system call of a store, one run each.

After each: what was acknowledged is there and whole; what was not is whole or absent, never half. It is sent
again, which succeeds, and then there is one copy. The list of calls is learned from the kernel each time, so
that a store that changes is still killed at each of its steps.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import pytest

from negatoscope.errors import NegatoscopeError
from reliability.doors import DicomDoor, Door, Reader, StowDoor, ended, new_object
from reliability.killpoints import Point, killed_at, learn, summary, torn_tails
from reliability.traffic import Sent
from system import System, system

pytestmark = pytest.mark.slow


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
        self._reader = Reader(built, token)
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
        assert self._reader.state(case.served) == "whole"
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
            assert self._reader.state(sent) == "whole", (point, "acknowledged before")
        if acknowledged:
            assert self._reader.state(case.served) == "whole", (point, "acknowledged")
        elif not case.before or case.then.sop != case.before[0].sop:
            state = self._reader.state(case.then)
            assert state in ("whole", "absent"), (point, state)
            self.states[state] += 1

    def finish(self) -> None:
        """Sent again, everything is acknowledged, whole and there once; nothing else is left of the killings."""
        self._door.open()
        for case in self._tried:
            assert self._door.send(case.then), (case.then.sop, "sent again")
            uids = {sent.sop for sent in (*case.before, case.then)}
            self._reader.assert_one_copy(case.then.study, uids)
            for sent in (*case.before, case.served):
                assert self._reader.state(sent) == "whole", sent.sop
        self._door.close()
        assert self._built.run("scrub").returncode == 0
        aside = [json.loads(line) for line in self._built.run("quarantine", "list").stdout.splitlines()]
        kept = sorted((row["sop_instance_uid"], row["sha256"]) for row in aside)
        assert kept == sorted((case.then.sop, case.then.sha256) for case in self._tried if case.conflict)
        self._built.stop()
        assert torn_tails(self._built.data / "segments") == []

    def __str__(self) -> str:
        return (
            f"killed {len(self.killed)} ({summary(self.killed)}), not reached {len(self.unreached)};"
            f" not acknowledged: whole {self.states['whole']}, absent {self.states['absent']}"
        )


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

"""D2 for what happens after the acknowledgement: the worker is killed right before each system call of a packing.

At every moment the objects are whole for the reader; in the end they are packed, once, and what the killed
packings left behind is swept away.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from negatoscope.archive.upkeep import sweep_packs
from negatoscope.db import Database, EmbeddedPostgreSQL
from negatoscope.storage.packs import Packs
from reliability.doors import DicomDoor, Reader, ended, new_object
from reliability.killpoints import CHANGES, Point, killed_at, learn, summary
from reliability.traffic import Sent
from system import System, system

pytestmark = pytest.mark.slow
PACKED_WITHIN_S = 20.0


class Packing:
    """One server whose worker is killed again and again while it packs a series of three."""

    def __init__(self, built: System, token: str, folder: Path) -> None:
        self._built, self._folder = built, folder
        self._reader, self._door = Reader(built, token), DicomDoor(built)
        self._numbers = iter(range(1, 100_000))
        self._series: list[Sequence[Sent]] = []
        self._url = EmbeddedPostgreSQL(built.data).url
        self.killed: list[Point] = []
        self.unreached: list[Point] = []

    def learn(self) -> list[Point]:
        """What a packing that nobody disturbs does to files, and all that the worker says meanwhile."""
        return learn(self._worker().pid, self._pack_one, self._folder)

    def at(self, point: Point) -> None:
        worker, killed = self._worker(), False
        with killed_at(worker.pid, point, self._folder):
            objects = self._send()
            until = time.monotonic() + PACKED_WITHIN_S
            while not killed and not self._packed(objects):
                killed = ended(worker, within_s=0.05)
                assert time.monotonic() < until, (point, self._built.tail())
        (self.killed if killed else self.unreached).append(point)
        self._assert_whole(objects, point)
        self._wait_packed(objects)
        self._assert_whole(objects, point)

    def _worker(self) -> psutil.Process:
        """The worker, once it has been through its first round: it says nothing of that, so all is packed first."""
        self._pack_one()
        return self._built.child("worker")

    def _pack_one(self) -> None:
        self._wait_packed(self._send())

    def _send(self) -> Sequence[Sent]:
        number = next(self._numbers)
        objects = [new_object(number, which) for which in range(3)]
        self._door.open()
        for sent in objects:
            assert self._door.send(sent)
        self._series.append(objects)
        return objects

    def _packed(self, objects: Sequence[Sent]) -> bool:
        with psycopg.connect(self._url) as connection:
            row = connection.execute("SELECT open FROM series WHERE series_uid = %s", (objects[0].series,)).fetchone()
        return row == (False,)

    def _wait_packed(self, objects: Sequence[Sent]) -> None:
        until = time.monotonic() + PACKED_WITHIN_S
        while not self._packed(objects):
            assert time.monotonic() < until, self._built.tail()
            time.sleep(0.05)

    def _assert_whole(self, objects: Sequence[Sent], point: Point) -> None:
        for sent in objects:
            assert self._reader.state(sent) == "whole", point
        self._reader.assert_one_copy(objects[0].study, {sent.sop for sent in objects})

    def finish(self) -> None:
        """Swept of what the killed packings left, the store has one pack a series, and each object whole."""
        packs = Packs(self._built.data / "packs")
        left = len(list(packs.names())) - len(self._series)
        database = Database(self._url, size=1)
        assert sweep_packs(database, packs, lambda name: True) == left
        database.close()
        self._worker()  # which has swept unfinished packs at its start
        assert list((packs.folder / "incoming").iterdir()) == []
        assert len(list(packs.names())) == len(self._series)
        for objects in self._series:
            for sent in objects:
                assert self._reader.state(sent) == "whole"
        self._door.close()
        assert self._built.run("scrub").returncode == 0
        assert self._built.run("quarantine", "list").stdout == ""


@contextmanager
def packing(folder: Path) -> Iterator[Packing]:
    # Segments of one object each: they are reclaimed at once when the worker starts again.
    with system(NEGATOSCOPE_QUIET_S="0.4", NEGATOSCOPE_RETIRED_GRACE_S="0", NEGATOSCOPE_SEGMENT_BYTES="1") as built:
        built.start()
        yield Packing(built, built.token("reader", "--ttl", "12h"), folder)


def test_a_packing_killed_around_its_syncs_and_its_rename_loses_nothing(tmp_path: Path) -> None:
    """The short form."""
    with packing(tmp_path) as trial:
        points = [point for point in trial.learn() if point.kind in ("fsync", "rename", "renameat", "renameat2")]
        assert len(points) >= 3
        for point in points:
            trial.at(point)
        assert trial.unreached == []
        trial.finish()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("files", [True, False])
def test_a_packing_killed_at_any_system_call_loses_nothing(tmp_path: Path, files: bool) -> None:
    """Calls on files come at the same place each time. Messages to the database are mixed with other duties'."""
    with packing(tmp_path) as trial:
        points = [point for point in trial.learn() if (point.kind in CHANGES) is files]
        for point in points:
            trial.at(point)
        trial.finish()
        print(f"packing: killed {len(trial.killed)} ({summary(trial.killed)}), not reached {len(trial.unreached)}")
        assert len(trial.unreached) <= len(points) / 4

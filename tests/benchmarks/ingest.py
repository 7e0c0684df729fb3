"""Rows of what goes in: C-STORE, STOW-RS, and what they cost in CPU and memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import psutil

from benchmarks.clients import ClientFailed, Driven, drive, store, store_all, stow_all
from benchmarks.data import DataSet, DataSets
from benchmarks.measure import Bar, Log, Row
from benchmarks.servers import Orthanc, Ours, Server, cpu_seconds, proportional_bytes, spent

MB = 1e6
Send = Callable[[Server, int], Driven]


@dataclass
class Numbers:
    """Each run of each row gets UIDs of its own."""

    last: int = 0

    def next(self) -> int:
        self.last += 1
        return self.last


@dataclass
class Ingest:
    ours: Ours
    orthanc: Orthanc | None
    sets: DataSets
    runs: int
    log: Log
    numbers: Numbers = field(default_factory=Numbers)
    rows: list[Row] = field(default_factory=list)

    @property
    def servers(self) -> Sequence[Server]:
        return [self.ours] if self.orthanc is None else [self.ours, self.orthanc]

    def run(self, wanted: Callable[[str], bool]) -> list[Row]:
        """Every row whose name is wanted, the two servers in turn."""
        table: list[tuple[str, DataSet, float, Send]] = []
        for name, data, associations, bar in (
            ("C-STORE CT, 1 association", self.sets.ct, 1, 2.0),
            ("C-STORE CT, 4 associations", self.sets.ct, 4, 1.7),
            ("C-STORE MR, 1 association", self.sets.mr, 1, 1.8),
            ("C-STORE MR, 4 associations", self.sets.mr, 4, 2.5),
            ("C-STORE MG, 1 association", self.sets.mg, 1, 0.0),
            ("C-STORE US, 1 association", self.sets.us, 1, 0.0),
        ):
            table.append((name, data, bar, _dimse(data, associations)))
        for connections in (1, 4):
            name = f"STOW-RS CT, 25 a request, {connections} connection" + "s" * (connections > 1)
            table.append((name, self.sets.ct, 1.5, _stow(self.sets.ct, connections)))
        chosen = [row for row in table if wanted(row[0])]
        if chosen:
            self._warm()
        for row in chosen:
            self._measure(*row)
        return self.rows

    def _warm(self) -> None:
        """A first, untimed run of each kind; the memory of all processes is watched during it."""
        memory = Row("memory while ingesting CT (PSS, without PostgreSQL)", "MB", False, 300.0, Bar.VALUE)
        for server, figures in zip(self.servers, (memory.ours, memory.orthanc), strict=False):
            with Watch(partial(server.processes, database=False)) as watch:
                store_all(server.dicom, server.title, self.sets.ct, self.numbers.next(), 4)
                store_all(server.dicom, server.title, self.sets.mg, self.numbers.next(), 1)
            figures.append(watch.highest / MB)
        self.rows.append(memory)

    def _measure(self, name: str, data: DataSet, bar: float, send: Send) -> None:
        speed = Row(name, "MB/s", True, bar, Bar.RATIO if bar else Bar.NONE)
        cost = Row(f"server CPU, {name}", "s/GB", False, 2.0, Bar.RATIO)
        for _ in range(self.runs):
            for server in self.servers:
                before = cpu_seconds(server.processes())
                try:
                    driven = send(server, self.numbers.next())
                except ClientFailed as failure:
                    speed.note = f"{server.name}: {failure}"
                    self.log(f"{name}: {speed.note}")
                    continue
                used = spent(before, cpu_seconds(server.processes()))
                mine = server is self.ours
                (speed.ours if mine else speed.orthanc).append(driven.bytes / driven.seconds / MB)
                (cost.ours if mine else cost.orthanc).append(used / driven.bytes * 1e9)
                if mine:
                    speed.client.append(driven.client_cpu / driven.seconds)
                self.log(
                    f"{name}: {server.name} {driven.bytes / driven.seconds / MB:.0f} MB/s,"
                    f" {driven.count / driven.seconds:.0f} objects/s, server CPU {used / driven.bytes * 1e9:.2f} s/GB,"
                    f" client CPU {driven.client_cpu / driven.seconds:.2f}"
                )
        self.rows += [speed, cost]


def _dimse(data: DataSet, associations: int) -> Send:
    return lambda server, run: store_all(server.dicom, server.title, data, run, associations)


def _stow(data: DataSet, connections: int) -> Send:
    return lambda server, run: stow_all(server.web, data, run, connections)


class Watch:
    """The highest memory of processes while it lasts (PSS)."""

    def __init__(self, processes: Callable[[], list[psutil.Process]], every_s: float = 0.5) -> None:
        self._processes, self._every_s = processes, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.highest = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.highest = max(self.highest, proportional_bytes(self._processes()))
            if self._over.wait(self._every_s):
                return


def load_tiny(server: Server, data: DataSet, log: Log) -> float:
    """The small studies; objects a second."""
    began = time.monotonic()
    share = -(-len(data.items) // 4)
    driven = drive(
        store,
        [
            (server.dicom, server.title, data, 0, place * share, min((place + 1) * share, len(data.items)))
            for place in range(4)
        ],
    )
    log(f"{driven.count} small studies: {server.name} {driven.count / (time.monotonic() - began):.0f} a second")
    return driven.count / driven.seconds

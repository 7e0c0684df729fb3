"""What ``python -m tests.benchmarks`` does, row after row."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from benchmarks.check import served
from benchmarks.clients import ClientFailed, Target, store_all
from benchmarks.data import DataSet, DataSets, make_all
from benchmarks.ingest import Ingest, Watch, load_tiny
from benchmarks.measure import Bar, Row
from benchmarks.query_retrieve import Asking
from benchmarks.report import save, table, versions, write_document
from benchmarks.retrieval import Retrieving
from benchmarks.servers import ORTHANC, Orthanc, Ours
from benchmarks.storage import folder_bytes, index_bytes
from benchmarks.viewer import CHROMIUM, first_images

_began = time.monotonic()


def log(line: str) -> None:
    print(f"{time.monotonic() - _began:7.1f}  {line}", flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("what", nargs="?", choices=["bench", "scale"], default="bench")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data: to try the benchmark itself")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose name matches; writes no document")
    parser.add_argument("--alone", action="store_true", help="without Orthanc; writes no document")
    parser.add_argument("--data-sets", type=Path, help="keep generated data here, and use what is there")
    parser.add_argument("--studies", type=int, default=1_000_000, help="of scale: generated studies")
    options = parser.parse_args(arguments)
    if options.what == "scale":
        from benchmarks.scale import scale

        return scale(options.studies // (10 if options.quick else 1), options.quick, log)
    return bench(options)


def bench(options: argparse.Namespace) -> int:
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    measured = versions()
    rows: list[Row] = []
    checks: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="negatoscope-bench-")))
        sets = make_all((options.data_sets or folder) / ("quick" if options.quick else "full"), options.quick)
        log(f"data sets: {', '.join(f'{len(data.items)} {data.name}' for data in _each(sets))}; load {load}")
        ours = stack.enter_context(_running(Ours(folder)))
        orthanc = None
        if not options.alone and ORTHANC.exists():
            orthanc = stack.enter_context(_running(Orthanc(folder)))
        Bench(ours, orthanc, sets, options, folder, rows, checks).run()
    print(table(rows))
    for check in checks:
        print(f"checked: {check}")
    if not (options.only or options.alone):
        facts = {"quick": options.quick, "runs": options.runs, "load": load, "checks": checks}
        print(f"written: {save('bench', rows, facts, measured).name}")
        write_document()
    return 0


Started = TypeVar("Started", Ours, Orthanc)


@contextmanager
def _running(server: Started) -> Iterator[Started]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _each(sets: DataSets) -> list[DataSet]:
    return [sets.ct, sets.mr, sets.mg, sets.us, sets.enhanced, sets.tiny, sets.many, sets.long]


class Bench:
    """One run of everything, in an order that fills the servers as it goes."""

    def __init__(
        self,
        ours: Ours,
        orthanc: Orthanc | None,
        sets: DataSets,
        options: argparse.Namespace,
        folder: Path,
        rows: list[Row],
        checks: list[str],
    ) -> None:
        self.ours, self.orthanc, self.sets, self.options = ours, orthanc, sets, options
        self.folder, self.rows, self.checks = folder, rows, checks
        self.ingest = Ingest(ours, orthanc, sets, options.runs, log)
        self.only = re.compile(options.only, re.IGNORECASE)
        self.runs: dict[str, int] = {}

    def wanted(self, name: str) -> bool:
        return self.only.search(name) is not None

    def run(self) -> None:
        self.rows += self.ingest.run(self.wanted)
        self._fill()
        self._pack()
        self._retrieve()
        self._ask()
        self._view()

    def _fill(self) -> None:
        """What the reading rows read; checked before anything is timed."""
        sets = self.sets
        needed = {
            sets.ct: ("WADO", "metadata of 1", "rendered CT", "disk", "packing", "C-GET", "C-MOVE"),
            sets.mg: ("rendered MG",),
            sets.us: ("rendered US",),
            sets.enhanced: ("frame of an enhanced",),
            sets.many: ("metadata of 6", "first image of 6"),
            sets.long: ("first image of 2",),
        }
        for data, names in needed.items():
            if not any(self.wanted(name) for name in names):
                continue
            self.runs[data.name] = number = self.ingest.numbers.next()
            for server in self.ingest.servers:
                if data is sets.long and server is not self.ours:
                    continue
                store_all(server.dicom, server.title, data, number, 1)
                self._checked(f"{server.name} {data.name}", data, server.web)
        if any(self.wanted(name) for name in ("QIDO", "C-FIND", "index bytes")):
            self._load_tiny()

    def _checked(self, name: str, data: DataSet, target: Target) -> None:
        try:
            verdict = f"{name}: {served(target, data, self.runs[data.name] * 10)}"
        except ClientFailed as failure:
            verdict = f"{name}: {failure}"
        log(verdict)
        self.checks.append(verdict)

    def _load_tiny(self) -> None:
        row = Row("C-STORE of small studies, 4 associations", "studies/s")
        for server, figures in zip(self.ingest.servers, (row.ours, row.orthanc), strict=False):
            figures.append(load_tiny(server, self.sets.tiny, log))
        self.rows.append(row)

    def _pack(self) -> None:
        with self.ours.database() as connection:
            found = connection.execute("SELECT coalesce(sum(bytes), 0) FROM series WHERE open").fetchone()
        waiting = int(found[0]) if found else 0
        if not waiting:
            return
        seconds, cpu = self.ours.settle()
        log(f"packed {waiting / 1e9:.2f} GB in {seconds:.1f} s, {cpu:.1f} s CPU")
        self.rows.append(Row("packing, after ingest (as received)", "MB/s", True, ours=[waiting / seconds / 1e6]))
        self.rows.append(Row("CPU of packing", "s/GB", False, ours=[cpu / waiting * 1e9]))
        received = self._scalar("SELECT sum(bytes) FROM series WHERE pack_id IS NOT NULL")
        packed = folder_bytes(self.ours.system.data / "packs")
        self.rows.append(Row("disk bytes of packs / as received", "", False, ours=[packed / received]))
        if self.wanted("disk"):
            self._compressed()
        if self.wanted("index bytes"):
            with self.ours.database() as connection:
                sizes = index_bytes(connection)
            studies = self._scalar("SELECT count(*) FROM study")
            self.rows.append(
                Row("index bytes a closed study (nearly all of one image)", "bytes", False, 10_000, Bar.VALUE,
                    [sum(sizes.values()) / studies])
            )  # fmt: skip
            log("index bytes a study: " + ", ".join(f"{name} {size / studies:.0f}" for name, size in sizes.items()))

    def _scalar(self, statement: str) -> float:
        with self.ours.database() as connection:
            row = connection.execute(statement.encode()).fetchone()
        return float(row[0]) if row else 0.0

    def _compressed(self) -> None:
        """The CT series in a store that packs without loss, if that works already."""
        row = Row("disk bytes of a lossless-packed CT study / as received", "", False, 0.45, Bar.VALUE)
        folder = self.folder / "compressed"
        folder.mkdir()
        with _running(Ours(folder, pack_syntax="htj2k")) as other:
            store_all(other.dicom, other.title, self.sets.ct, 1, 1)
            other.settle()
            share = folder_bytes(other.system.data / "packs") / self.sets.ct.bytes
        if share < 0.95:
            row.ours.append(share)
        else:
            row.note = "the policy does nothing yet"
        self.rows.append(row)
        shutil.rmtree(folder, ignore_errors=True)

    def _retrieve(self) -> None:
        options, sets = self.options, self.sets
        reading = Retrieving(self.ours, self.orthanc, options.runs, options.quick, log, wanted=self.wanted)
        runs = {name: run * 10 for name, run in self.runs.items()}
        if self.wanted("QIDO"):
            reading.queries(sets.tiny)
        if "ct" in runs:
            reading.objects(sets.ct, runs["ct"])
            reading.metadata(sets.ct, runs["ct"], 20.0)
            reading.rendered("CT", sets.ct, runs["ct"], [1], 30)
        if "many" in runs:
            reading.metadata(sets.many, runs["many"], 100.0)
        if "mg" in runs:
            reading.rendered("MG", sets.mg, runs["mg"], [1], 8)
        if "us" in runs:
            reading.rendered("US", sets.us, runs["us"], [1], 8)
        if "enhanced" in runs:
            frames = list(range(1, sets.enhanced_frames + 1, max(1, sets.enhanced_frames // 10)))
            reading.rendered("frame of an enhanced CT", sets.enhanced, runs["enhanced"], frames, 1)
        self.rows += reading.rows
        for server in self.ingest.servers:
            with Watch(partial(server.processes, database=False)) as watch:
                time.sleep(0.1)
            row = Row("memory after the queries and retrievals (PSS, without PostgreSQL)", "MB", False)
            if server is self.ours:
                self.rows.append(row)
            (row.ours if server is self.ours else self.rows[-1].orthanc).append(watch.highest / 1e6)

    def _ask(self) -> None:
        options = self.options
        asking = Asking(self.ours, self.orthanc, options.runs, options.quick, log, wanted=self.wanted)
        if self.wanted("C-FIND"):
            asking.queries(self.sets.tiny)
        if "ct" in self.runs:
            asking.retrievals(self.sets.ct, self.runs["ct"] * 10)
        self.rows += asking.rows
        self.checks += asking.checks

    def _view(self) -> None:
        for data in (self.sets.long, self.sets.many):
            name = f"first image of {len(data.items):,} slices in the viewer, from the click"
            if data.name not in self.runs or not self.wanted(name) or not CHROMIUM.exists():
                continue
            taken = first_images(self.ours, data, self.runs[data.name] * 10, self.options.runs)
            self.rows.append(Row(name, "s", False, 2.0, Bar.VALUE, taken))
            log(f"{name}: {statistics.median(taken):.2f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

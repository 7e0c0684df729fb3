"""Rows of what goes out: QIDO-RS, WADO-RS, metadata, rendered images."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.check import PARTS, matches
from benchmarks.clients import ClientFailed, fetch_all, latencies
from benchmarks.data import DataSet, uid_of_run
from benchmarks.measure import Bar, Log, Row, percentile
from benchmarks.servers import Orthanc, Ours, Server

JSON = "application/dicom+json"
FRAME = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
JPEG = "image/jpeg"
MS = 1e3


@dataclass
class Retrieving:
    ours: Ours
    orthanc: Orthanc | None
    runs: int
    quick: bool
    log: Log
    rows: list[Row] = field(default_factory=list)
    wanted: Callable[[str], bool] = lambda name: True

    @property
    def servers(self) -> Sequence[Server]:
        return [self.ours] if self.orthanc is None else [self.ours, self.orthanc]

    # What is measured

    def queries(self, tiny: DataSet) -> None:
        """By identifier, and a page of a hundred, with all the small studies in the index."""
        dice = random.Random(1)
        total = len(tiny.items)
        asked = [f"PatientID=TINY0-{dice.randrange(total):07d}" for _ in range(30 if self.quick else 200)]
        for query in (asked[0], "limit=100"):
            counts = {server.name: matches(server.web, query) for server in self.servers}
            if len(set(counts.values())) != 1 or 0 in counts.values():
                self.log(f"match counts differ for {query}: {counts}")
        paths = [f"/studies?{query}" for query in asked]
        # Orthanc is asked less often: it would take minutes.
        few = paths[:30]
        label = f"{total:,} studies"
        self._latency(f"QIDO-RS by PatientID p50, {label}", paths, JSON, few=few, share=0.5)
        self._latency(f"QIDO-RS by PatientID p95, {label}", paths, JSON, few=few, share=0.95, bar=3.0)
        pages = [f"/studies?limit=100&offset={100 * page}" for page in range(20)]
        self._latency(f"QIDO-RS, 100 of {label}, p50", pages, JSON, few=pages[:10], share=0.5)

    def objects(self, ct: DataSet, run: int) -> None:
        """Series, instances and frames of one CT series."""
        series = f"/studies/{uid_of_run(ct.items[0].study, run)}/series/{uid_of_run(ct.items[0].series, run)}"
        instances = [f"{series}/instances/{uid_of_run(item.sop, run)}" for item in ct.items]
        random.Random(2).shuffle(instances)
        self._rate("WADO-RS series", [series], PARTS, 1, "MB/s", 1.0)
        self._rate("WADO-RS instance, 8 connections", instances, PARTS, 8, "requests/s", 20.0)
        self._rate("WADO-RS frame, 8 connections", [f"{one}/frames/1" for one in instances], FRAME, 8,
                   "requests/s", 20.0)  # fmt: skip

    def metadata(self, data: DataSet, run: int, bar: float) -> None:
        series = f"/studies/{uid_of_run(data.items[0].study, run)}/series/{uid_of_run(data.items[0].series, run)}"
        path = f"{series}/metadata"
        scaled = bar * len(data.items) / {20.0: 1000, 100.0: 6000}[bar] if self.quick else bar
        name = f"metadata of {len(data.items):,} instances"
        zipped = "Accept-Encoding: gzip\r\n"
        self._latency(f"{name}, gzip accepted", [path] * 5, JSON, bar=scaled, more=zipped)
        self._latency(f"{name}, not compressed", [path] * 5, JSON, bar=scaled)

    def rendered(self, name: str, data: DataSet, run: int, frames: Sequence[int], most: int) -> None:
        """JPEG of one frame, each time of another object (or another frame of the only one)."""
        paths = []
        for item in data.items[:most]:
            uids = [uid_of_run(uid, run) for uid in (item.study, item.series, item.sop)]
            paths += ["/studies/{}/series/{}/instances/{}".format(*uids) + f"/frames/{frame}" for frame in frames]
        self._latency(f"rendered {name}", [f"{path}/rendered" for path in paths], JPEG, ratio=2.0)
        if len(frames) > 1:
            self._latency(f"{name}, not rendered", paths, FRAME, ratio=2.0)

    # How

    def _latency(
        self,
        name: str,
        paths: Sequence[str],
        accept: str,
        *,
        few: Sequence[str] | None = None,
        share: float = 0.5,
        bar: float = 0.0,
        ratio: float = 0.0,
        more: str = "",
    ) -> None:
        if not self.wanted(name):
            return
        kind = Bar.VALUE if bar else Bar.RATIO if ratio else Bar.NONE
        row = Row(name, "ms", False, bar or ratio, kind)
        for attempt in range(self.runs + 1):  # the first warms both up
            for server in self.servers:
                mine = server is self.ours
                asked = paths if mine or few is None else few
                try:
                    taken = latencies(server.web, asked, accept, more=more)
                except (ClientFailed, OSError) as failure:
                    row.note = f"{server.name}: {failure}"
                    continue
                if attempt:
                    (row.ours if mine else row.orthanc).append(percentile(taken, share) * MS)
        self._keep(row)

    def _rate(self, name: str, paths: Sequence[str], accept: str, connections: int, unit: str, bar: float) -> None:
        if not self.wanted(name):
            return
        row = Row(name, unit, True, bar, Bar.RATIO)
        seconds = 1.0 if self.quick else 3.0
        for attempt in range(self.runs + 1):
            for server in self.servers:
                mine = server is self.ours
                try:
                    driven = fetch_all(server.web, paths, accept, connections, seconds)
                except (ClientFailed, OSError) as failure:
                    row.note = f"{server.name}: {failure}"
                    continue
                if attempt:
                    figure = driven.bytes / 1e6 if unit == "MB/s" else driven.count
                    (row.ours if mine else row.orthanc).append(figure / driven.seconds)
                    if mine:
                        row.client.append(driven.client_cpu / driven.seconds)
        self._keep(row)

    def _keep(self, row: Row) -> None:
        self.rows.append(row)
        figures = [
            f"{name} {statistics.median(f):.4g}" for name, f in (("ours", row.ours), ("Orthanc", row.orthanc)) if f
        ]
        self.log(f"{row.name}: {', '.join(figures)} {row.unit} {row.note}")

"""Whether queries stay flat and the index small: 20,000 real studies, then a million generated ones."""

from __future__ import annotations

import os
import random
import re
import tempfile
from pathlib import Path

import httpx

from benchmarks.check import matches
from benchmarks.clients import Target, latencies
from benchmarks.data import make
from benchmarks.generated import MEAN_INSTANCES, generate, identifier, size_of_lookup
from benchmarks.ingest import load_tiny
from benchmarks.measure import Bar, Log, Row, percentile
from benchmarks.report import save, table, versions, write_document
from benchmarks.servers import Ours
from benchmarks.storage import INDEX_TABLES
from negatoscope.demo.synthetic import tiny_studies

JSON = "application/dicom+json"


def scale(studies: int, quick: bool, log: Log) -> int:
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    measured = versions()
    tiny, rows = 2_000 if quick else 20_000, []
    with tempfile.TemporaryDirectory(prefix="negatoscope-scale-") as folder:
        data = make(Path(folder), "tiny", lambda: tiny_studies(tiny))
        ours = Ours(Path(folder))
        ours.start()
        try:
            load_tiny(ours, data, log)
            with ours.database() as connection:
                connection.execute("VACUUM (ANALYZE)")
            dice = random.Random(3)
            rows += queries(
                ours, [f"TINY0-{dice.randrange(tiny):07d}" for _ in range(300)], f"{tiny:,} studies received", log
            )
            with ours.database() as connection:
                before = _sizes(connection)
                found = connection.execute("SELECT establishment_id FROM establishment WHERE code = 'HX'").fetchone()
                assert found is not None
                generate(connection, found[0], studies, log)
                after = _sizes(connection)
            each = {name: (after[name] - before[name]) / studies for name in INDEX_TABLES}
            log("bytes a generated study: " + ", ".join(f"{name} {size:.0f}" for name, size in each.items() if size))
            ours.restart()
            known = [identifier(dice.randrange(studies // 3)) for _ in range(300)]
            rows += queries(ours, known, f"{studies:,} studies generated", log)
            rows.append(
                Row(f"index bytes a closed study of {MEAN_INSTANCES:.0f} instances in the mean, lookup included",
                    "bytes", False, 10_000, Bar.VALUE, [sum(each.values()) + size_of_lookup()])
            )  # fmt: skip
        finally:
            ours.stop()
    print(table(rows))
    save("scale", rows, {"quick": quick, "load": load, "studies": studies}, measured)
    write_document()
    return 0


def _sizes(connection: object) -> dict[str, int]:
    sizes = {}
    for name in INDEX_TABLES:
        row = connection.execute("SELECT pg_total_relation_size(%s)", (name,)).fetchone()  # type: ignore[attr-defined]  # psycopg
        sizes[name] = int(row[0])
    return sizes


def queries(ours: Ours, identifiers: list[str], label: str, log: Log) -> list[Row]:
    """By identifier over QIDO-RS, and pages of the worklist as a browser gets them."""
    found = matches(ours.web, f"PatientID={identifiers[0]}")
    if not found:
        raise AssertionError("a patient who is there is not found")
    paths = [f"/studies?PatientID={one}" for one in identifiers]
    latencies(ours.web, paths[:50], JSON)
    by_identifier = [latency * 1e3 for latency in latencies(ours.web, paths, JSON)]
    pages = [latency * 1e3 for latency in worklist_latencies(ours, 60)]
    figures = [
        Row(f"QIDO-RS by PatientID p50, {label}", "ms", False, ours=[percentile(by_identifier, 0.5)]),
        Row(f"QIDO-RS by PatientID p95, {label}", "ms", False, 5.0, Bar.VALUE, [percentile(by_identifier, 0.95)]),
        Row(f"worklist page p95, {label}", "ms", False, 100.0, Bar.VALUE, [percentile(pages, 0.95)]),
    ]
    for row in figures:
        log(f"{row.name}: {row.ours[0]:.2f} ms")
    return figures


def worklist_latencies(ours: Ours, count: int) -> list[float]:
    """Of the first page, of searches by name and of later pages, signed in with a session."""
    with httpx.Client(base_url=ours.system.url, follow_redirects=False) as client:
        page = client.get("/login").text
        token = re.search(r'name="csrf" value="([^"]*)"', page)
        form = {"name": "person", "password": "correct horse battery staple", "csrf": token[1] if token else ""}
        answer = client.post("/login", data=form, headers={"Origin": ours.system.url})
        if answer.status_code != 303:
            raise AssertionError(f"login: status {answer.status_code}")
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    target = Target(ours.web.address, "", {"Cookie": cookies})
    words = ["", "q=tiny", "q=generated", "q=synthetic", "modality=CT", "period=365", "q=GEN000000042"]
    paths = [f"/worklist?{words[n % len(words)]}" for n in range(count)]
    latencies(target, paths[: len(words)], "text/html")
    return latencies(target, paths, "text/html")

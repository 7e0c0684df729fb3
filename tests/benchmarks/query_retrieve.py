"""Rows of C-FIND, C-GET and C-MOVE, asked of both servers by the same lean peers."""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier

from benchmarks.clients import Address, ClientFailed, Driven, drive
from benchmarks.counting import FIND, GET, MOVE, RECEIVER, Receiver, ask, count_answers, open_for
from benchmarks.data import DataSet, uid_of_run
from benchmarks.measure import Bar, Log, Row, percentile
from benchmarks.servers import Orthanc, Ours, Server
from negatoscope.dicom.answers import AnswerWriter
from negatoscope.servers.dicom_client import PeerUnavailable
from negatoscope.wire.dimse.commands import C_FIND, C_GET, C_MOVE

MS = 1e3
AT_ONCE, ROUNDS = 100, 3
# Asked for besides the key. No ModalitiesInStudy and no counts: Orthanc reads the series of each study for them.
_RETURNED = {"00080020": "DA", "00080030": "TM", "00080050": "SH", "00081030": "LO", "00100010": "PN",
             "00100020": "LO", "00100030": "DA", "00100040": "CS", "0020000D": "UI", "00200010": "SH"}  # fmt: skip
_FAILURES = (ClientFailed, PeerUnavailable, OSError)


def identifier(level: str, keys: Mapping[str, tuple[str, str]]) -> bytes:
    """An identifier in explicit little endian. ``keys``: VR and value, "" for any, by tag."""
    elements: dict[str, dict[str, object]] = {"00080052": {"vr": "CS", "Value": [level]}}
    for tag, (vr, value) in keys.items():
        elements[tag] = {"vr": vr, "Value": [value]} if value else {"vr": vr}
    return AnswerWriter(explicit=True).encode(dict(sorted(elements.items())))


def studies_of(patient: str) -> bytes:
    """The studies of one patient, or of all: ""."""
    return identifier("STUDY", {tag: (vr, patient if tag == "00100020" else "") for tag, vr in _RETURNED.items()})


@dataclass
class Asking:
    """The rows; each server in turn."""

    ours: Ours
    orthanc: Orthanc | None
    runs: int
    quick: bool
    log: Log
    wanted: Callable[[str], bool] = lambda name: True
    rows: list[Row] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)

    @property
    def servers(self) -> Sequence[Server]:
        return [self.ours] if self.orthanc is None else [self.ours, self.orthanc]

    def queries(self, tiny: DataSet) -> None:
        """With all the small studies in the index: of one patient, by a hundred at once, of everybody."""
        total, dice = len(tiny.items), random.Random(4)
        asked = [studies_of(f"TINY0-{dice.randrange(total):07d}") for _ in range(30 if self.quick else 300)]
        label = f"{total:,} studies"
        self._measure(
            [
                Row(f"C-FIND by PatientID p50, {label}", "ms", False),
                Row(f"C-FIND by PatientID p95, {label}", "ms", False, 3.0, Bar.VALUE),
            ],
            lambda server: [percentile(taken := find_each(server, asked), 0.5) * MS, percentile(taken, 0.95) * MS],
        )
        self._measure(
            [Row(f"C-FIND by PatientID p95, {AT_ONCE} at once, each with an association", "ms", False)],
            lambda server: [percentile(find_at_once(server, asked), 0.95) * MS],
        )
        self._measure(
            [Row(f"C-FIND of all {label}", "s", False, 3.0, Bar.RATIO)], lambda server: [find_all(server, total)]
        )

    def retrievals(self, ct: DataSet, run: int) -> None:
        """One CT series, by C-GET and by C-MOVE; before they are timed, what comes is compared with what was sent."""
        series = identifier(
            "SERIES",
            {
                "0020000D": ("UI", uid_of_run(ct.items[0].study, run)),
                "0020000E": ("UI", uid_of_run(ct.items[0].series, run)),
            },
        )
        given, count = ct.items[0].sop_class, len(ct.items)
        speed = [Row(f"C-GET CT series of {count:,}", "MB/s", True, 1.0, Bar.RATIO)]
        if self.wanted(speed[0].name):
            for server in self.servers:
                with open_for(server.dicom, server.title, GET, given) as sender:
                    got = ask(sender, C_GET, series, checking=True)
                self._checked(f"{server.name} C-GET", ct, run, got.digests)
            self._measure(speed, lambda server: _rate(speed[0], get_series(server, given, series, count)))
        speed = [Row(f"C-MOVE CT series of {count:,}", "MB/s", True, 1.0, Bar.RATIO)]
        if self.wanted(speed[0].name):
            receivers = {server.name: Receiver(server.receiver_port) for server in self.servers}
            try:
                for server in self.servers:
                    receiver = receivers[server.name]
                    receiver.expect(checking=True)
                    with open_for(server.dicom, server.title, MOVE) as sender:
                        ask(sender, C_MOVE, series, RECEIVER)
                    self._checked(f"{server.name} C-MOVE", ct, run, receiver.tell().digests)
                self._measure(
                    speed,
                    lambda server: _rate(speed[0], move_series(server, receivers[server.name], series, count)),
                )
            finally:
                for receiver in receivers.values():
                    receiver.close()

    def _checked(self, name: str, data: DataSet, run: int, digests: Mapping[str, bytes]) -> None:
        same = sum(
            digests.get(sending.sop) == hashlib.sha256(b"".join(sending.data_set_pieces())).digest()
            for sending in data.sendings(run)
        )
        self.checks.append(f"{name}: {same} of {len(data.items)} byte for byte")
        self.log(self.checks[-1])

    def _measure(self, rows: Sequence[Row], figures: Callable[[Server], Sequence[float]]) -> None:
        """``figures``: one for each row. The first round warms both up."""
        if not any(self.wanted(row.name) for row in rows):
            return
        for attempt in range(self.runs + 1):
            for server in self.servers:
                mine = server is self.ours
                try:
                    found = figures(server)
                except _FAILURES as failure:
                    rows[0].note = f"{server.name}: {failure}"
                    continue
                for row, figure in zip(rows, found, strict=True):
                    if attempt:
                        (row.ours if mine else row.orthanc).append(figure)
        self.rows += rows
        for row in rows:
            both = (("ours", row.ours), ("Orthanc", row.orthanc))
            told = ", ".join(f"{name} {statistics.median(those):.4g}" for name, those in both if those)
            self.log(f"{row.name}: {told} {row.unit} {row.note}")


def _rate(row: Row, driven: Driven) -> list[float]:
    row.client.append(driven.client_cpu / driven.seconds)
    return [driven.bytes / driven.seconds / 1e6]


# C-FIND ----------------------------------------------------------------------------------------------


def find_each(server: Server, asked: Sequence[bytes]) -> list[float]:
    """Seconds from each request to its last response, one after the other on one association."""
    taken = []
    with open_for(server.dicom, server.title, FIND) as sender:
        for one in asked:
            began = time.perf_counter()
            counter = ask(sender, C_FIND, one)
            taken.append(time.perf_counter() - began)
            if counter.answers != 1:
                raise ClientFailed(f"{counter.answers} answers for one study")
    return taken


def find_at_once(server: Server, asked: Sequence[bytes]) -> list[float]:
    """Seconds from connecting to the last response, of a hundred who ask in the same moment, a few times over."""
    start = Barrier(AT_ONCE)

    def one(number: int) -> list[float]:
        taken = []
        for turn in range(ROUNDS):
            start.wait(600.0)
            began = time.perf_counter()
            with open_for(server.dicom, server.title, FIND) as sender:
                counter = ask(sender, C_FIND, asked[(number + turn) % len(asked)])
                taken.append(time.perf_counter() - began)
            if counter.answers != 1:
                raise ClientFailed(f"{counter.answers} answers for one study")
        return taken

    def guarded(number: int) -> list[float]:
        try:
            return one(number)
        except BaseException:
            start.abort()
            raise

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [latency for taken in pool.map(guarded, range(AT_ONCE)) for latency in taken]


def find_all(server: Server, total: int) -> float:
    """Seconds for every study."""
    with open_for(server.dicom, server.title, FIND) as sender:
        began = time.perf_counter()
        answers = count_answers(sender, C_FIND, studies_of(""))
        taken = time.perf_counter() - began
    if answers < total:
        raise ClientFailed(f"{answers} answers of {total}")
    return taken


# C-GET and C-MOVE ------------------------------------------------------------------------------------


def get_series(server: Server, given: str, series: bytes, count: int) -> Driven:
    return drive(_get, [(server.dicom, server.title, given, series, count)])


def _get(
    ready: Callable[[], float], address: Address, title: str, given: str, series: bytes, count: int
) -> tuple[int, int]:
    with open_for(address, title, GET, given) as sender:
        ready()
        counter = ask(sender, C_GET, series)
    if counter.objects != count:
        raise ClientFailed(f"{counter.objects} objects of {count}")
    return counter.objects, counter.size


def move_series(server: Server, receiver: Receiver, series: bytes, count: int) -> Driven:
    """Timed where it is asked for; what arrived is counted where it goes to."""
    receiver.expect(checking=False)
    with open_for(server.dicom, server.title, MOVE) as sender:
        began = time.monotonic()
        ask(sender, C_MOVE, series, RECEIVER)
        seconds = time.monotonic() - began
    received = receiver.tell()
    if received.objects != count:
        raise ClientFailed(f"{received.objects} objects of {count}")
    return Driven(seconds, received.cpu, received.objects, received.size)

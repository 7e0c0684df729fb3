"""Counters and gauges that any process can read for all processes.

Each process keeps its numbers in a mapped file of its own; whoever is asked for ``/metrics`` sums the files.
No lock crosses processes: a slot is eight aligned bytes with one writer. A killed process leaves its counters
behind (they stay in the sum) and its gauges are ignored. The supervisor calls :func:`clear` when it starts.

Labels are slugs chosen in our code (a door, a status), never received text.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RECORD = 128  # bytes of a slot: one double, then its name with labels, padded with zeros
SLOTS = 512  # a process; more are refused, so a label can never grow without end
DICOM_DOORS = (
    "dicom",
    "dicom_tls",
)  # settings that name an address of the DICOM server, and labels of its sign of life
_VALUE = struct.Struct("=d")
_PREFIX = "negatoscope_"


@dataclass(frozen=True, slots=True)
class Metric:
    kind: str  # counter or gauge
    help: str


METRICS: dict[str, Metric] = {
    "acknowledged_total": Metric("counter", "objects answered with success, durable, by door"),
    "refused_total": Metric("counter", "objects answered with a failure, by door and reason"),
    "quarantined_total": Metric("counter", "objects kept aside: conflicting UID, parents or patient"),
    "unverified_total": Metric("counter", "reads whose bytes did not match their checksum"),
    "damaged": Metric("gauge", "places found corrupt and not repaired"),
    "orphans": Metric("gauge", "packs that nothing referred to, at the last daily sweep"),
    "oldest_outbox_s": Metric("gauge", "age of the oldest series that waits for its pack, seconds"),
    "scrub_age_days": Metric("gauge", "age of the oldest verification of a pack, days"),
    "audit_head_age_s": Metric("gauge", "time since the newest audit event, seconds"),
    "http_requests_total": Metric("counter", "HTTP requests answered, by status class"),
    "http_errors_total": Metric("counter", "requests ended by an error that nobody foresaw"),
    "dicom_connections_total": Metric("counter", "connections taken by the DICOM door"),
    "dicom_unfinished_dropped_total": Metric("counter", "connections dropped unassociated to make room"),
    "dicom_associations_total": Metric("counter", "associations accepted"),
    "dicom_rejections_total": Metric("counter", "associations rejected"),
    "dicom_tls_associations_total": Metric("counter", "association requests to our title that came over TLS"),
    "dicom_tls_refused_total": Metric("counter", "connections without valid TLS: no, foreign or expired certificate"),
    "tls_certificate_days": Metric("gauge", "days until our certificate expires"),
    "dicom_door_seen_s": Metric(
        "gauge", "the machine's monotonic clock when the DICOM door was last seen open, by door"
    ),
    "dicom_violations_total": Metric("counter", "associations aborted because the peer broke PS3.8 or PS3.7"),
    "dicom_failures_total": Metric("counter", "associations ended by an error that nobody foresaw"),
    "dicom_acknowledged_total": Metric("counter", "C-STORE requests answered with success, durable"),
    "dicom_store_failures_total": Metric("counter", "C-STORE requests answered with a failure"),
    "dicom_received_bytes_total": Metric("counter", "bytes of data sets received by C-STORE"),
    "dicom_find_answers_total": Metric("counter", "answers to C-FIND"),
    "dicom_sent_total": Metric("counter", "objects sent by C-GET and C-MOVE"),
    "dicom_send_failures_total": Metric("counter", "objects that C-GET and C-MOVE could not send, or the peer refused"),
    "sent_total": Metric("counter", "objects of deliveries that a remote node acknowledged, by kind of node"),
    "sent_bytes_total": Metric("counter", "bytes of those objects, by kind of node"),
    "send_failures_total": Metric("counter", "times that a remote node did not answer a delivery, by kind of node"),
    "commitments_total": Metric("counter", "requests of storage commitment that we accepted"),
    "deliveries_waiting": Metric("gauge", "deliveries that wait, are sent, or await the promise of a node"),
    "deliveries_dead": Metric("gauge", "deliveries given up, with what is missing named"),
    "oldest_delivery_s": Metric("gauge", "age of the oldest delivery that is neither done nor held, seconds"),
    "received_bytes_total": Metric("counter", "bytes of data sets received, by door"),
    "served_bytes_total": Metric("counter", "bytes of data sets served, by door"),
}


def render_key(name: str, labels: dict[str, str]) -> str:
    """``name{a="1",b="2"}``, labels in order."""
    if name not in METRICS:
        raise ValueError(f"{name} is not in METRICS")
    inner = ",".join(f'{label}="{labels[label]}"' for label in sorted(labels))
    return f"{name}{{{inner}}}" if inner else name


class Metrics:
    """The numbers of this process. Thread-safe. Without a folder they stay in memory (tests, commands)."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._slots: dict[str, int] = {}
        self._memory: mmap.mmap | bytearray = bytearray(SLOTS * RECORD)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(folder / f"{os.getpid()}.metrics", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                os.ftruncate(fd, SLOTS * RECORD)
                self._memory = mmap.mmap(fd, SLOTS * RECORD)
            finally:
                os.close(fd)
            self._slots = {key: at for at, (key, _) in enumerate(_records(self._memory))}  # a process id used again

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            at = self._slot(render_key(name, labels))
            _VALUE.pack_into(self._memory, at, _VALUE.unpack_from(self._memory, at)[0] + amount)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            _VALUE.pack_into(self._memory, self._slot(render_key(name, labels)), value)

    def _slot(self, key: str) -> int:
        slot = self._slots.get(key)
        if slot is None:
            slot, name = len(self._slots), key.encode("ascii")
            if slot >= SLOTS or len(name) > RECORD - _VALUE.size:
                raise ValueError("too many metrics of one process, or too long a name")
            at = slot * RECORD
            self._memory[at + _VALUE.size : at + _VALUE.size + len(name)] = name
            self._slots[key] = slot
        return slot * RECORD

    def collect(self) -> dict[str, float]:
        """Sums over all processes of the folder, by key."""
        if self.folder is None:
            return dict(_records(self._memory))
        total: dict[str, float] = {}
        for path in sorted(self.folder.glob("*.metrics")):
            living = Path(f"/proc/{path.stem}").exists()
            for key, value in _records(path.read_bytes()):
                if living or METRICS[key.partition("{")[0]].kind == "counter":
                    total[key] = total.get(key, 0.0) + value
        return total


def _records(memory: mmap.mmap | bytearray | bytes) -> Iterator[tuple[str, float]]:
    for at in range(0, len(memory), RECORD):
        key = bytes(memory[at + _VALUE.size : at + RECORD]).rstrip(b"\0").decode("ascii")
        if not key:
            return
        yield key, _VALUE.unpack_from(memory, at)[0]


def clear(folder: Path) -> None:
    """Forget the processes of an earlier run. Only the supervisor calls this, before it starts any other."""
    for path in folder.glob("*.metrics"):
        path.unlink(missing_ok=True)


def exposition(values: dict[str, float]) -> str:
    """Prometheus text format 0.0.4. A metric without a value is left out, a counter starts at zero."""
    lines = []
    for name, metric in METRICS.items():
        mine = {key: value for key, value in sorted(values.items()) if key.partition("{")[0] == name}
        if not mine and metric.kind == "counter":
            mine = {name: 0.0}
        if mine:
            lines += [f"# HELP {_PREFIX}{name} {metric.help}", f"# TYPE {_PREFIX}{name} {metric.kind}"]
            lines += [f"{_PREFIX}{key} {value:.10g}" for key, value in mine.items()]
    return "\n".join(lines) + "\n"

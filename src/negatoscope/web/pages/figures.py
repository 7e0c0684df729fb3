"""Numbers of the administration's screens: what is kept, what is open, what the disk has left."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from negatoscope.archive.ports import Transactions
from negatoscope.queries import load_queries
from negatoscope.settings import Settings

QUERIES = load_queries("negatoscope.web.pages", "administration.sql")
FRESH_S = 10.0  # a screen asks every few seconds, and counting a large index is not free


@dataclass(frozen=True, slots=True)
class Figures:
    """Sizes in bytes. Those of containers and disk are zero for a referent: they are the platform's."""

    studies: int
    studies_day: int  # new in the last 24 hours
    series: int
    series_open: int
    instances: int
    bytes: int  # as received
    quarantine_open: int
    database_ms: int  # that these numbers took
    packs: int = 0
    pack_bytes: int = 0
    packs_scrubbed: int = 0  # verified within the interval
    scrub_age_days: int | None = None  # of the one longest not verified
    segments: int = 0
    segments_open: int = 0
    damage_open: int = 0
    database_bytes: int = 0
    disk_total: int = 0
    disk_free: int = 0
    reserve: int = 0
    scrub_interval_days: int = 0

    @property
    def disk_low(self) -> bool:
        """Within twice the reserve below which objects are refused."""
        return bool(self.disk_total) and self.disk_free < 2 * self.reserve


class Source(Protocol):
    """Where the numbers come from."""

    @property
    def settings(self) -> Settings: ...
    @property
    def database(self) -> Transactions: ...


class FigureReader:
    """Reads them, and keeps each answer for ``FRESH_S``. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int | None, tuple[float, Figures]] = {}

    def read(self, source: Source, establishment_id: int | None) -> Figures:
        """Numbers of one establishment, or with ``None`` of the platform. Raises ``Unavailable``."""
        with self._lock:
            at, kept = self._kept.get(establishment_id, (0.0, None))
            if kept is not None and time.monotonic() - at < FRESH_S:
                return kept
        figures = _read(source, establishment_id)
        with self._lock:
            self._kept[establishment_id] = (time.monotonic(), figures)
        return figures


def _read(source: Source, establishment_id: int | None) -> Figures:
    settings = source.settings
    started = time.monotonic()
    bounds = {"establishment_id": establishment_id}
    with source.database.unit(None) as unit:
        row = dict(unit.execute(QUERIES["holdings"], bounds).fetchone() or {})
        row |= unit.execute(QUERIES["open_work"], bounds).fetchone() or {}
        if establishment_id is None:
            row |= unit.execute(QUERIES["containers"], {"interval_s": settings.scrub_interval_s}).fetchone() or {}
    row["database_ms"] = round((time.monotonic() - started) * 1000)
    if establishment_id is None:
        disk = shutil.disk_usage(settings.data)
        row |= {
            "disk_total": disk.total,
            "disk_free": disk.free,
            "reserve": settings.reserve_bytes,
            "scrub_interval_days": round(settings.scrub_interval_s / 86400),
        }
    return Figures(**row)

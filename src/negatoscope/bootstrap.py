"""The only file that joins edges to use cases. Everything a process needs is built here, nothing is global."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from negatoscope.archive.commit import Committer
from negatoscope.archive.rebuild import Rebuilt, rebuild
from negatoscope.archive.recovery import Recovered, recover
from negatoscope.archive.retrieve import Flaw, Retrieval
from negatoscope.archive.scrub import Scrubber
from negatoscope.archive.segments import advance_segment, create_segment, pack_name, seal_segment
from negatoscope.archive.store import Store
from negatoscope.audit.trail import Trail
from negatoscope.db import Database, EmbeddedPostgreSQL, EmbeddedPostgreSQLError, migrate
from negatoscope.dicom.limits import Limits
from negatoscope.errors import Unavailable
from negatoscope.metrics import Metrics
from negatoscope.settings import Settings, build
from negatoscope.sharing import Accounts, Logins
from negatoscope.storage.filesystem import Containers
from negatoscope.storage.packs import Packs
from negatoscope.storage.segments import Segments, claim, segment_ids

if TYPE_CHECKING:
    from negatoscope.archive.packing import Packer, Transcode

OWNER_WAIT_S = 60.0  # how long a server waits for a command that is using the data folder


@dataclass(frozen=True, slots=True)
class Folders:
    """Where things are below the data folder."""

    segments: Path
    packs: Path
    metrics: Path
    log: Path

    @classmethod
    def of(cls, settings: Settings) -> Folders:
        data = settings.data
        return cls(data / "segments", data / "packs", data / "run" / "metrics", data / "log")


@dataclass(frozen=True, slots=True)
class Core:
    """Every use case of one process, on one database and one store."""

    settings: Settings
    limits: Limits
    folders: Folders
    metrics: Metrics
    database: Database
    trail: Trail
    accounts: Accounts
    logins: Logins
    segments: Segments
    committer: Committer
    store: Store
    containers: Containers
    packs: Packs
    retrieval: Retrieval

    def recover(self) -> Recovered:
        """Index what a dead process had synced and not committed."""
        return recover(
            self.database,
            self.committer,
            lambda segment_id: claim(self.folders.segments, segment_id),
            self.limits,
        )

    def packer(self, transcode: Transcode) -> Packer:
        """``transcode`` is used when the settings name a syntax to recompress into."""
        from negatoscope.archive.packing import Packer  # numpy comes with it: only the worker needs that

        return Packer(
            self.database,
            self.containers,
            self.packs,
            syntax=self.settings.pack_syntax,
            transcode=transcode,
            limits=self.limits,
        )

    def scrubber(self) -> Scrubber:
        return Scrubber(self.database, self.containers, self.packs, self.containers, self.trail)

    def rebuild(self, progress: Callable[[Rebuilt], None]) -> Rebuilt:
        """The index again, from the store alone."""
        folder = self.folders.segments
        return rebuild(
            self.database,
            self.committer,
            self.containers,
            self.packs,
            segment_ids(folder),
            lambda segment_id: claim(folder, segment_id),
            progress,
            self.limits,
        )


def die(error: BaseException) -> None:
    """The audit writer is gone: nothing may be disclosed any more, so this process ends."""
    del error
    os._exit(71)


@contextmanager
def core(settings: Settings, url: str, *, connections: int = 16, shared_metrics: bool = False) -> Iterator[Core]:
    """The use cases, closed in order on leaving: segments are sealed, events written, connections returned."""
    folders, limits = Folders.of(settings), settings.limits
    with ExitStack() as stack:
        metrics = Metrics(folders.metrics if shared_metrics else None)
        database = Database(url, size=connections)
        stack.callback(database.close)
        trail = stack.enter_context(
            Trail(database, window_s=settings.disclosure_window_s, monotonic=time.monotonic, on_death=die)
        )
        segments = Segments(
            folders.segments,
            create=lambda: create_segment(database),
            advance=lambda segment_id, end: advance_segment(database, segment_id, end),
            seal=lambda segment_id, end: seal_segment(database, segment_id, end),
            longest=settings.segment_bytes,
            reserve=settings.reserve_bytes,
        )
        stack.callback(segments.close)
        committer = Committer(database, trail, metrics.count)
        names: dict[int, str] = {}

        def name_of(pack_id: int) -> str:
            if pack_id not in names:
                if len(names) > 100_000:
                    names.clear()
                names[pack_id] = pack_name(database, pack_id)
            return names[pack_id]

        containers = Containers(folders.segments, folders.packs, name_of)

        def flawed(flaw: Flaw) -> None:
            metrics.count("unverified_total")

        yield Core(
            settings,
            limits,
            folders,
            metrics,
            database,
            trail,
            Accounts(database, trail, monotonic=time.monotonic),
            Logins(database, trail),
            segments,
            committer,
            Store(segments, committer, time.time, limits, metrics.count),
            containers,
            Packs(folders.packs),
            Retrieval(database, containers, trail, on_flaw=flawed),
        )


@contextmanager
def database_of(settings: Settings, *, own: bool = False) -> Iterator[tuple[str, EmbeddedPostgreSQL | None]]:
    """The URL of the database, started if need be and migrated.

    A command that finds the embedded PostgreSQL running is its guest, else it starts it, for as long as it and
    the guests that come meanwhile need. ``own``: the caller is the server: it must be the one who started it,
    and waits for no guest.

    Raises:
        EmbeddedPostgreSQLError: it cannot be started, or another server uses the data folder.
        Unavailable: the database that the settings name does not answer.
    """
    if settings.database:
        try:
            migrate(settings.database)
        except psycopg.OperationalError as error:
            raise Unavailable("the database does not answer") from error
        yield settings.database, None
        return
    settings.data.mkdir(parents=True, exist_ok=True)
    embedded = EmbeddedPostgreSQL(settings.data)
    until = time.monotonic() + OWNER_WAIT_S
    while True:
        if embedded.own():
            with _started(embedded, outlast=not own):
                yield embedded.url, embedded
            return
        if not own and _joined(embedded):
            try:
                yield embedded.url, None
            finally:
                embedded.leave()
            return
        if time.monotonic() > until:
            raise EmbeddedPostgreSQLError(f"{settings.data} is in use by another process")
        time.sleep(0.1)


@contextmanager
def _started(embedded: EmbeddedPostgreSQL, *, outlast: bool) -> Iterator[None]:
    try:
        embedded.start()
        migrate(embedded.url)
        try:
            yield
        finally:
            if outlast:
                embedded.outlast_guests()
    finally:
        embedded.stop()


def _joined(embedded: EmbeddedPostgreSQL) -> bool:
    """Whether the cluster that another process started is there for us."""
    if not embedded.join():
        return False
    try:
        if _answers(embedded.url):
            migrate(embedded.url)
            return True
    except psycopg.OperationalError:  # a server that is stopping does not wait for guests
        pass
    embedded.leave()
    return False


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def child_config(settings: Settings, url: str) -> dict[str, Any]:
    """What the supervisor hands to a child on standard input: it may hold a password, so no command line."""
    values = {name: getattr(settings, name) for name in settings.__slots__ if name not in ("data", "limits")}
    return {"url": url, "data": str(settings.data), "settings": values, "limits": asdict(settings.limits)}


def settings_of(config: Mapping[str, Any]) -> Settings:
    return build(Path(config["data"]), config["settings"], config["limits"])

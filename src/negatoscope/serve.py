"""``negatoscope serve`` and the processes below it.

A supervisor, and one process a door, so that what a peer can do to one of them stays there: dicom, http (one
or more), worker. PostgreSQL is the supervisor's when it is the embedded one.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from negatoscope import metrics, secure
from negatoscope.archive.upkeep import fold_lookups, reclaim_packs, reclaim_segments, sweep_packs
from negatoscope.audit import Refusals
from negatoscope.audit.heads import export_head
from negatoscope.bootstrap import Core, Folders, child_config, core, database_of, settings_of
from negatoscope.model.actor import Actor
from negatoscope.ordering import worklist_services
from negatoscope.sending import commitment_service
from negatoscope.servers.dicom import DicomServer
from negatoscope.servers.dicom_pixels import Transcoder
from negatoscope.servers.dicom_query import Archive
from negatoscope.servers.dicom_query_retrieve import QueryRetrieve
from negatoscope.servers.supervisor import ChildSpec, Supervisor, listen, listener_of
from negatoscope.servers.worker import Duty, Worker
from negatoscope.settings import Settings, SettingsError
from negatoscope.wire.dul.items import UserIdentity

if TYPE_CHECKING:
    from negatoscope.archive.packing import Packer

log = logging.getLogger(__name__)

SCRUB_BYTES = 1 << 30  # verified a minute at the most
SWEEP_AGE_S = 86_400.0  # a pack not in the index after this long never will be
READY_S = 60.0  # how long the start may take before the addresses are printed anyway


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT."""
    configure_logging(settings.log_level, "supervisor")
    if settings.objects:
        raise SettingsError("objects: only the file system is served yet; leave it empty")
    secure.check(settings)
    http_at = address(settings.http, "http")
    dicom_at = address(settings.dicom, "dicom") if settings.dicom else None
    tls_at = address(settings.dicom_tls, "dicom_tls") if settings.dicom_tls else None
    # A signal that comes while things start must end them in order too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = _listen("http", http_at)
    dicom_listener = _listen("dicom", dicom_at) if dicom_at else None
    tls_listener = _listen("dicom_tls", tls_at) if tls_at else None
    with database_of(settings, own=True) as (url, embedded):
        metrics.clear(Folders.of(settings).metrics)
        with core(settings, url, connections=2) as built:
            built.recover()
        config = child_config(settings, url)
        specs = [
            ChildSpec("dicom", "dicom", config, dicom_listener, tls_listener),
            *(ChildSpec(f"http-{n}", "http", config, listener) for n in range(max(1, settings.workers))),
            ChildSpec("worker", "worker", config),
            ChildSpec("sender", "sender", config),
        ]

        def announce() -> None:
            base = f"http://{http_at[0]}:{http_at[1]}"
            if _wait_ready(f"{base}/health/ready"):
                print(f"Négatoscope is ready: {base}/", flush=True)
                doors = [settings.dicom, f"{settings.dicom_tls} over TLS" if settings.dicom_tls else ""]
                print(
                    f"DICOM: {settings.title} at {', '.join(filter(None, doors))}; DICOMweb: {base}/dicom-web",
                    flush=True,
                )
            else:
                print("Négatoscope is not ready yet; see the log", file=sys.stderr, flush=True)

        Supervisor(specs, embedded).run(lambda: threading.Thread(target=announce, daemon=True).start())
    return 0


def child(kind: str, arguments: Sequence[str]) -> int:
    """One process of the supervisor: its settings come on standard input."""
    config = json.load(sys.stdin)
    settings = settings_of(config)
    configure_logging(settings.log_level, kind)
    with core(settings, config["url"], shared_metrics=True) as built:
        built.recover()  # of whoever held this place before us
        if kind == "dicom":
            _dicom(built, listener_of(arguments[0]), listener_of(arguments[1]))
        elif kind == "http":
            http_listener = listener_of(arguments[0])
            if http_listener is None:
                raise ValueError("HTTP needs a listener")
            _http(built, http_listener)
        elif kind == "worker":
            _worker(built)
        elif kind == "sender":
            _sender(built)
        else:
            raise ValueError(f"no such child: {kind}")
    return 0


def _dicom(built: Core, listener: socket.socket | None, tls_listener: socket.socket | None) -> None:
    settings = built.settings
    door, watch = None, None
    if tls_listener is not None:
        door, watch = secure.door(built, address(settings.dicom_tls, "dicom_tls"), tls_listener)

    def authenticate(calling: str, called: str, peer: str, identity: UserIdentity | None) -> Actor | None:
        return built.accounts.actor_of_title(calling, peer, called)

    with query_retrieve(built) as operations, Refusals(built.trail, time.monotonic) as refusals:
        server = DicomServer(
            address(settings.dicom, "dicom") if settings.dicom else None,
            settings.title,
            built.store,
            authenticate,
            built.limits,
            built.metrics.count,
            listener,
            (*worklist_services(built), commitment_service(built), operations),
            door,
            lambda title, reason, peer: refusals.note(title, reason, "dimse", peer),
        )
        stopped = _stop_signal()
        doors = [one for one in metrics.DICOM_DOORS if getattr(settings, one)]
        server.start()
        stop = False
        while not stop:
            if not server.alive:
                log.critical("dicom_door_died")
                os._exit(72)
            for one in doors:
                built.metrics.gauge("dicom_door_seen_s", time.monotonic(), door=one)
            if watch is not None:
                watch.look()
            stop = stopped.wait(0.5)
        server.stop()


@contextmanager
def query_retrieve(built: Core) -> Iterator[QueryRetrieve]:
    """Query/retrieve of the DICOM door; its pixel children, if any were needed, end on leaving."""
    settings = built.settings
    transcoder = Transcoder(
        built.retrieval, built.limits, settings.pixel_children, settings.pixel_memory, settings.pixel_cpu_s
    )
    try:
        yield QueryRetrieve(
            Archive(
                settings.title,
                built.database,
                built.retrieval,
                built.trail,
                built.accounts.destination_of,
                transcoder,
                built.limits,
                built.metrics.count,
                secure.Outgoing(settings),
            )
        )
    finally:
        transcoder.close()


def _http(built: Core, listener: socket.socket) -> None:
    from negatoscope.http_app import http_app  # heavy: only this process pays for it
    from negatoscope.servers import http

    with http_app(built) as app:
        http.serve(app, listener)


def _sender(built: Core) -> None:
    from negatoscope.sending import run_sender

    if not run_sender(built, _stop_signal()):
        log.critical("sender_died")
        os._exit(73)


def _worker(built: Core) -> None:
    from negatoscope.recompression import Recompression  # numpy comes with it

    with Recompression(built.settings) as recompression:
        _work(built, built.packer(recompression))


def _work(built: Core, packer: Packer) -> None:
    settings = built.settings
    built.packs.sweep()

    def pack() -> bool:
        found = packer.quiet_series(settings.quiet_s, most=16)
        return bool(found) and sum(packer.pack(series_id) for series_id in found) > 0

    scrubber = built.scrubber()

    def scrub() -> bool:
        """A little at a time: the whole store within the interval, without getting in anybody's way."""
        report = scrubber.oldest(settings.scrub_interval_s, SCRUB_BYTES)
        return report.packs + report.objects > 0

    def reclaim() -> bool:
        grace = settings.retired_grace_s
        reclaim_segments(built.database, built.containers.delete_segment, grace)
        reclaim_packs(built.database, built.packs, grace)
        return False

    def sweep() -> bool:
        swept = sweep_packs(built.database, built.packs, built.packs.older_than(time.time() - SWEEP_AGE_S))
        built.metrics.gauge("orphans", swept)
        return False

    def fold() -> bool:
        return fold_lookups(built.database) > 0

    def heads() -> bool:
        export_head(built.database, settings.data)
        return False

    def forget() -> bool:
        built.accounts.forget_old()
        built.logins.forget_old()
        return False

    worker = Worker(
        [
            Duty("pack", min(2.0, max(0.1, settings.quiet_s / 2)), pack),
            Duty("reclaim", 30.0, reclaim),
            Duty("fold-lookups", 30.0, fold),
            Duty("scrub", 60.0, scrub),
            Duty("sweep-packs", 86_400.0, sweep),
            Duty("audit-head", 60.0, heads),
            Duty("forget-old", 3600.0, forget),
        ],
        time.monotonic,
    )
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: worker.stop())
    worker.run()


def _listen(name: str, where: tuple[str, int]) -> socket.socket:
    """Taken by the supervisor, so that a port that cannot be had ends the start with one line."""
    try:
        return listen(*where)
    except OSError as error:
        raise SettingsError(f"{name}: cannot listen on {where[0]}:{where[1]}: {error.strerror}") from error


def _stop_signal() -> threading.Event:
    stopped = threading.Event()
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: stopped.set())
    return stopped


def address(text: str, name: str) -> tuple[str, int]:
    """``host:port`` taken apart. Raises SettingsError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"{name}: host:port, not {text!r}")
    return host.strip("[]"), int(port)


def _wait_ready(url: str) -> bool:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own address
                if answer.status == 200:
                    return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    return False


def configure_logging(level: str, process: str) -> None:
    """One line an event on standard error: time, level, process, message. Ids, never names."""
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s {process} %(name)s %(message)s",
        force=True,
    )
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # it repeats what we answer with Unavailable
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote values of the data set

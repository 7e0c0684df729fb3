"""Is it alive, is it ready, how is it doing. Open to whoever reaches the port; says nothing of any patient."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial

import orjson
import psycopg
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from negatoscope.errors import NegatoscopeError
from negatoscope.metrics import DICOM_DOORS, Metrics, exposition, render_key
from negatoscope.queries import load_queries
from negatoscope.settings import Settings
from negatoscope.web.services import Services

log = logging.getLogger(__name__)

QUERIES = load_queries("negatoscope.web", "health.sql")
SILENCE_S = 5.0  # a DICOM door that gave no sign of life for longer is not open
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def health_routes(services: Services) -> list[BaseRoute]:
    """``/health/live``, ``/health/ready`` and ``/metrics``."""

    async def live(request: Request) -> Response:
        """200 as long as the process answers."""
        return PlainTextResponse("alive\n")

    async def ready(request: Request) -> Response:
        """200 when objects can be received and read; 503 and the names of what fails otherwise."""
        checks = await services.run(run_checks, services)
        good = all(checks.values())
        return Response(
            orjson.dumps({"ready": good, "checks": checks}), 200 if good else 503, media_type="application/json"
        )

    async def metrics(request: Request) -> Response:
        """Prometheus text format."""
        values = await services.run(collect, services)
        return Response(exposition(values), media_type=_TEXT)

    return [
        Route("/health/live", live, name="health-live"),
        Route("/health/ready", ready, name="health-ready"),
        Route("/metrics", metrics, name="metrics"),
    ]


def dicom_doors(
    settings: Settings, metrics: Metrics, monotonic: Callable[[], float] = time.monotonic
) -> dict[str, Callable[[], bool]]:
    """A check for each DICOM door that the settings name: its process, which is another than ours, says it is open.

    The listening sockets are the supervisor's: that one can connect says nothing of who answers. Linux has one
    monotonic clock for all processes, so an age can be told across them.
    """

    def seen(door: str) -> bool:
        at = metrics.collect().get(render_key("dicom_door_seen_s", {"door": door}))
        return at is not None and monotonic() - at <= SILENCE_S

    return {door: partial(seen, door) for door in DICOM_DOORS if getattr(settings, door)}


def run_checks(services: Services) -> dict[str, bool]:
    """Each check by name. One that raises has failed."""
    checks: dict[str, Callable[[], bool]] = {
        "database": lambda: _database_answers(services),
        "room": lambda: _has_room(services),
        **services.ready,
    }
    found = {}
    for name, check in checks.items():
        try:
            found[name] = check()
        except (NegatoscopeError, OSError, psycopg.Error):
            log.warning("not_ready check=%s", name)
            found[name] = False
    return found


def _database_answers(services: Services) -> bool:
    with services.database.unit(None) as unit:
        return unit.execute(QUERIES["ping"]).fetchone() is not None


def _has_room(services: Services) -> bool:
    """The segments' folder can be written and is above the reserve."""
    folder = services.settings.data
    room = os.statvfs(folder)
    return os.access(folder, os.W_OK) and room.f_bavail * room.f_frsize >= services.settings.reserve_bytes


def collect(services: Services) -> dict[str, float]:
    """Counters of all processes, and what the index alone knows (left out while it cannot be reached)."""
    values = services.metrics.collect()
    try:
        with services.database.unit(None) as unit:
            row = unit.execute(QUERIES["state"]).fetchone()
    except (NegatoscopeError, psycopg.Error):
        return values
    return values | {name: float(value) for name, value in (row or {}).items() if value is not None}

"""The web application joined to its use cases: the HTTP half of ``bootstrap``, apart to keep other processes small."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from starlette.applications import Starlette

from negatoscope.archive.frames import FrameTables
from negatoscope.archive.quarantine import Quarantine
from negatoscope.audit import Refusals
from negatoscope.bootstrap import Core
from negatoscope.sending_pages import web_sending
from negatoscope.servers.pixels import PixelPool
from negatoscope.web.app import build_app
from negatoscope.web.authentication import Authentication
from negatoscope.web.health import dicom_doors
from negatoscope.web.nodes import node_routes
from negatoscope.web.openapi import capabilities_routes, document_route
from negatoscope.web.orders import order_routes
from negatoscope.web.pages import PageServices, error_response, language_of, page_routes
from negatoscope.web.qido import qido_routes
from negatoscope.web.services import Services
from negatoscope.web.ups import ups_routes
from negatoscope.web.viewer import viewer_routes

PROGRAMS = ("/dicom-web", "/wado", "/api", "/health", "/metrics")  # what the OpenAPI document describes
THREADS = 16  # of short work; as many again wait for commits


@contextmanager
def http_app(built: Core) -> Iterator[Starlette]:
    """The application; its threads and pixel children end on leaving."""
    settings = built.settings
    with ExitStack() as stack:
        authentication = Authentication(
            built.accounts,
            secure=settings.secure_cookies,
            session_s=settings.session_s,
            trusted_proxies=settings.trusted_proxies,
        )
        services = Services(
            settings=settings,
            database=built.database,
            receiver=built.store,
            retrieval=built.retrieval,
            frame_tables=FrameTables(built.retrieval, built.limits),
            trail=built.trail,
            pixels=stack.enter_context(PixelPool(settings.pixel_children, settings.pixel_memory, settings.pixel_cpu_s)),
            metrics=built.metrics,
            executor=stack.enter_context(ThreadPoolExecutor(THREADS, thread_name_prefix="work")),
            commits=stack.enter_context(ThreadPoolExecutor(THREADS, thread_name_prefix="commit")),
            authentication=authentication,
            limits=built.limits,
            ready=dicom_doors(settings, built.metrics) if built.metrics.folder else {},  # no folder: we are alone
        )
        parts = web_sending(built)
        app = build_app(
            services,
            [
                *qido_routes(services),
                *order_routes(services),
                *ups_routes(services),
                *node_routes(services, parts),
                *page_routes,
                *viewer_routes(language=language_of),
            ],
            error_page=error_response,
        )
        programs = [route for route in app.routes if getattr(route, "path", "").startswith(PROGRAMS)]
        app.router.routes += capabilities_routes(
            [route for route in programs if getattr(route, "path", "").startswith("/dicom-web")],
            authentication.actor_of,
        )
        app.router.routes.append(document_route(programs))
        app.state.refusals = stack.enter_context(Refusals(built.trail, time.monotonic))
        app.state.sending = parts
        app.state.pages = PageServices(
            settings,
            built.database,
            built.retrieval,
            built.trail,
            built.accounts,
            built.logins,
            Quarantine(built.database, built.containers, built.trail),
        )
        yield app

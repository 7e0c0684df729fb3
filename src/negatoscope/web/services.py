"""What the routes are given. Built by ``bootstrap``; nothing here is global."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from starlette.requests import Request

from negatoscope.archive.frames import FrameTables
from negatoscope.archive.ports import BatchReceiver, Transactions
from negatoscope.archive.retrieve import Retrieval
from negatoscope.audit.trail import Trail
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.metrics import Metrics
from negatoscope.model.actor import Right, Scope
from negatoscope.settings import Settings
from negatoscope.sharing import policy
from negatoscope.web.authentication import Authentication
from negatoscope.web.pixel_work import PixelWork
from negatoscope.web.sending import Room

P = ParamSpec("P")
R = TypeVar("R")

DOOR = "dicomweb"  # in audit events and metrics


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases and the means to run them.

    Everything here blocks: call it on ``executor`` through :meth:`run`.
    """

    settings: Settings
    database: Transactions
    receiver: BatchReceiver
    retrieval: Retrieval
    frame_tables: FrameTables
    trail: Trail
    pixels: PixelWork
    metrics: Metrics
    executor: Executor  # short work: locate, read, render
    commits: Executor  # waits for commits of received objects
    authentication: Authentication
    limits: Limits = DEFAULT_LIMITS
    room: Room = field(default_factory=Room)  # what responses may hold
    ready: Mapping[str, Callable[[], bool]] = field(default_factory=dict)  # checks of /health/ready

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``function`` on a worker thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, lambda: function(*args, **kwargs))

    def scope(self, request: Request, right: Right) -> Scope:
        """Who asks, within what bounds. Raises Unauthenticated, Forbidden."""
        return policy.scope(self.authentication.actor_of(request), right)

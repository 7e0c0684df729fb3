"""What the routes are given. Built by ``bootstrap``; nothing here is global."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from starlette.requests import Request

from negatoscope.archive.ports import Receiver, Transactions
from negatoscope.archive.retrieve import Retrieval
from negatoscope.audit.trail import Trail
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.metrics import Metrics
from negatoscope.model.actor import Actor
from negatoscope.settings import Settings
from negatoscope.web.pixel_work import PixelWork

P = ParamSpec("P")
R = TypeVar("R")

DOOR = "dicomweb"  # in audit events and metrics


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases and the means to run them.

    ``authenticate`` and everything else here blocks: call it on ``executor`` through :meth:`run`.
    """

    settings: Settings
    database: Transactions
    receiver: Receiver
    retrieval: Retrieval
    trail: Trail
    pixels: PixelWork
    metrics: Metrics
    executor: Executor  # short work: locate, read, render
    commits: Executor  # waits for commits of received objects
    authenticate: Callable[[Request], Actor]  # raises Unauthenticated
    limits: Limits = DEFAULT_LIMITS
    ready: Mapping[str, Callable[[], bool]] = field(default_factory=dict)  # checks of /health/ready

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """``function`` on a worker thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, lambda: function(*args, **kwargs))


def address_of(request: Request) -> str:
    """Network address of the peer, for the audit trail; "" when there is none."""
    return request.client.host if request.client else ""

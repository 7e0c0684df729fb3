"""Instances located for many requests at once: one statement for all that came while the last one ran.

The policy is asked for every request, by a statement that begins after the request came. A viewer asks for
the images of one series over several connections: each would have a round trip of its own for the same row.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from starlette.requests import Request

from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import Forbidden
from negatoscope.model.actor import Right, Scope
from negatoscope.model.stored import SeriesHolding
from negatoscope.sharing import policy
from negatoscope.web.delivery import Found
from negatoscope.web.services import Services


class _Key(NamedTuple):
    """What one statement asks about."""

    loop: asyncio.AbstractEventLoop
    scope: Scope
    study_uid: str
    series_uid: str


_Waiting = list[tuple[str, "asyncio.Future[SeriesHolding | None]"]]  # SOP Instance UID, who asks


class Locator:
    """Belongs to the event loop: nothing here blocks."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting: dict[_Key, _Waiting] = {}  # a key is there as long as a task asks for it
        self._tasks: set[asyncio.Task[None]] = set()

    async def instance_of(self, request: Request) -> Found | None:
        """The instance that a request names by its path.

        None: ask in the ordinary way, which says why it cannot be had, or has what must be waited for.
        """
        path = request.path_params
        actor = self._services.authentication.known_actor_of(request)
        if actor is None or not all(
            is_valid_uid(path[name]) for name in ("study_uid", "series_uid", "sop_instance_uid")
        ):
            return None
        try:
            scope = policy.scope(actor, Right.RETRIEVE)
        except Forbidden:
            return None
        holding = await self._locate(scope, path["study_uid"], path["series_uid"], path["sop_instance_uid"])
        return None if holding is None else Found(scope, [holding], prompt=True)

    async def _locate(
        self, scope: Scope, study_uid: str, series_uid: str, sop_instance_uid: str
    ) -> SeriesHolding | None:
        loop = asyncio.get_running_loop()
        key = _Key(loop, scope, study_uid, series_uid)
        future: asyncio.Future[SeriesHolding | None] = loop.create_future()
        if key in self._waiting:
            self._waiting[key].append((sop_instance_uid, future))
        else:
            self._waiting[key] = [(sop_instance_uid, future)]
            task = loop.create_task(self._ask(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _ask(self, key: _Key) -> None:
        """Until nobody waits for this key."""
        asked: _Waiting = []
        try:
            while asked := self._waiting[key]:
                self._waiting[key] = []
                found = await self._found(key, list({uid for uid, _ in asked}))
                for uid, future in asked:
                    if not future.done():
                        future.set_result(found.get(uid))
        finally:
            for _, future in [*asked, *self._waiting.pop(key)]:
                future.cancel()  # only when this task was cancelled; those that are done stay as they are

    async def _found(self, key: _Key, uids: list[str]) -> dict[str, SeriesHolding]:
        services = self._services
        try:
            return await key.loop.run_in_executor(
                services.executor, services.retrieval.locate_instances, key.scope, key.study_uid, key.series_uid, uids
            )
        except Exception:  # noqa: BLE001 - each asks alone, and is told what is wrong
            return {}

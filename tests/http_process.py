"""A server in a process of its own that sends one stored object to whoever asks: what it holds can be measured.

Run as ``python http_process.py FOLDER MIB``; prints its port. Everything from the socket to the verified
read is the product's; only the index is left out.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from starlette.types import Receive, Scope, Send

from negatoscope.archive.ports import Unit
from negatoscope.archive.retrieve import Retrieval
from negatoscope.errors import Unavailable
from negatoscope.model import actor
from negatoscope.model.checksum import BLOCK, block_crcs
from negatoscope.model.event import AuditEvent
from negatoscope.model.stored import Container, InstanceRecord, Location
from negatoscope.servers.http import bound_heaps, serve
from negatoscope.servers.supervisor import listen
from negatoscope.storage.filesystem import Containers
from negatoscope.storage.segments import segment_path
from negatoscope.web.sending import Body, Room, Span, VerifiedResponse


class NoDatabase:
    def unit(self, establishments: Sequence[int] | None) -> AbstractContextManager[Unit]:
        raise Unavailable("no database")

    def statements(self, establishments: Sequence[int] | None) -> AbstractContextManager[Unit]:
        raise Unavailable("no database")

    def reading(self, scope: actor.Scope) -> AbstractContextManager[Unit]:
        raise Unavailable("no database")


class NoTrail:
    def record(self, events: Sequence[AuditEvent]) -> None:
        raise Unavailable("no trail")

    def append(self, unit: Unit, events: Sequence[AuditEvent]) -> None:
        raise Unavailable("no trail")


def no_pack(pack_id: int) -> str:
    raise NotImplementedError


def stored(folder: Path, blocks: int) -> InstanceRecord:
    """An object of ``blocks`` MiB in segment 1."""
    block = bytes(range(256)) * (BLOCK // 256)
    with segment_path(folder, 1).open("wb") as file:
        for _ in range(blocks):
            file.write(block)
    location = Location(Container.SEGMENT, 1, 0, blocks * BLOCK, block_crcs(block) * blocks)
    return InstanceRecord("1.2", "1.3", "1.2.840.10008.1.2.1", 1, 1, 1, 1, b"", location)


def main() -> None:
    bound_heaps()
    folder, blocks = Path(sys.argv[1]), int(sys.argv[2])
    record = stored(folder, blocks)
    retrieval = Retrieval(NoDatabase(), Containers(folder, folder, no_pack), NoTrail())
    executor, room = ThreadPoolExecutor(16), Room()

    def answer() -> VerifiedResponse:
        body = Body(
            [b"head", Span(record, 0, record.location.length)],
            lambda span, buffer, wait: retrieval.read_into(span.record, span.offset, span.length, buffer, wait=wait),
            lambda span, step: retrieval.read_steps(span.record, span.offset, span.length, step),
            room,
        )
        return VerifiedResponse(body, executor, headers={})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await asyncio.get_running_loop().run_in_executor(executor, answer)
        await response(scope, receive, send)

    listener = listen("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    serve(app, listener)


if __name__ == "__main__":
    main()

"""A whole archive with its queue, in this process, and receivers that keep count of what they are sent."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness import synthetic
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts

from dimse_archive import Archive, archive
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.model.actor import Actor
from negatoscope.routing import DeliveryRow, NewNode, NodeKind, State
from negatoscope.sending import Sending, deliverer, sending
from negatoscope.servers.sender import Deliverer, Timing
from negatoscope.sharing import COMMAND_LINE

EXPLICIT = "1.2.840.10008.1.2.1"
QUICK = Timing(lease_s=2.0, beat_s=0.05, look_s=0.02, retry_s=0.1, longest_retry_s=0.4)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Shelf:
    """A storage SCP of pynetdicom that counts each SOP Instance UID it is sent."""

    port: int = field(default_factory=free_port)
    title: str = "SHELF"
    status: Callable[[str], int] = lambda uid: 0x0000
    delay_s: float = 0.0
    arrived: list[str] = field(default_factory=list)
    server: Any = None

    def start(self) -> Shelf:
        entity = AE(ae_title=self.title)
        for context in AllStoragePresentationContexts:
            assert context.abstract_syntax is not None
            entity.add_supported_context(context.abstract_syntax, [EXPLICIT, "1.2.840.10008.1.2"])
        entity.add_supported_context("1.2.840.10008.1.1")
        self.server = entity.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        return self

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server = None

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.arrived)

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        if self.delay_s:
            time.sleep(self.delay_s)
        status = self.status(uid)
        if status == 0x0000:
            self.arrived.append(uid)
        return status


@dataclass
class Bench:
    archive: Archive
    parts: Sending
    stack: ExitStack

    def hand(self, code: str = "A") -> Actor:
        return self.parts.hand(code)

    def fill(self, objects: int, study: str = "2.25.500", code: str = "A", pixels: int = 128) -> list[str]:
        """Keep one series of this many invented objects; their SOP Instance UIDs."""
        uids = [f"{study}.1.{number}" for number in range(1, objects + 1)]
        for number, uid in enumerate(uids, 1):
            data = synthetic(sop=uid, study=study, series=f"{study}.1", number=number, pixels=bytes(pixels))
            self.archive.keep(data, EXPLICIT, code)
        return uids

    def node(self, port: int, name: str = "SHELF", code: str = "A", **more: Any) -> int:
        new = NewNode(establishment=code, name=name, title=name, host="127.0.0.1", port=port, **more)
        return self.parts.nodes.add(new, by=COMMAND_LINE)

    def web_node(self, url: str, name: str = "WEB", code: str = "A", **more: Any) -> int:
        new = NewNode(establishment=code, name=name, kind=NodeKind.DICOMWEB, url=url, **more)
        return self.parts.nodes.add(new, by=COMMAND_LINE)

    def ask(self, node_id: int, study: str = "2.25.500", code: str = "A", **more: Any) -> int:
        return self.parts.queue.ask(self.parts.nodes.of_id(node_id), study, by=self.hand(code), **more)

    def deliverer(self, timing: Timing = QUICK) -> Deliverer:
        return self.stack.enter_context(deliverer(self.archive.built, self.parts, timing))

    def row(self, delivery_id: int) -> DeliveryRow:
        return self.parts.queue.get(delivery_id, by=COMMAND_LINE)

    def until(self, delivery_id: int, *states: State, within_s: float = 15.0) -> DeliveryRow:
        """Wait for one of these states."""
        end = time.monotonic() + within_s
        while (row := self.row(delivery_id)).state not in states:
            assert time.monotonic() < end, row
            time.sleep(0.02)
        return row

    def sql(self, statement: str, *values: object) -> list[dict[str, Any]]:
        with self.archive.built.database.unit(None) as unit:
            cursor = unit.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def bench(postgresql: EmbeddedPostgreSQL) -> Iterator[Bench]:
    with archive(postgresql) as kept, ExitStack() as stack:
        yield Bench(kept, sending(kept.built), stack)


@contextmanager
def shelf(**more: Any) -> Iterator[Shelf]:
    made = Shelf(**more).start()
    try:
        yield made
    finally:
        made.stop()


def wait(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)

"""What a delivery under way and those who carry it say to one another."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from negatoscope.dicom.uid import transfer_syntax
from negatoscope.errors import NegatoscopeError
from negatoscope.model.stored import InstanceRecord
from negatoscope.routing import Became, Claimed, Node, Note, Wanted

MOST_LOSSES = 3  # associations that may end over one object before it is named as the cause


class Stopped(Exception):
    """Stop between two objects; ``str()`` is why, as a slug."""


class NodeSilent(Exception):
    """The node does not answer, or not as a node of its kind does; ``str()`` is how, as a slug."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One object on its way out."""

    wanted: Wanted
    record: InstanceRecord
    study_uid: str


def preferred(record: InstanceRecord, wanted: str) -> str:
    """The transfer syntax ``wanted`` where an object is worth encoding for it, else "".

    What is compressed already is not compressed anew, and what has no pixels has nothing to gain.
    """
    stored = record.transfer_syntax_uid
    if wanted == stored or not record.rows or transfer_syntax(stored).encapsulated:
        return ""
    return wanted


class Carrier(Protocol):
    """Takes objects to nodes of one kind."""

    def deliver(self, node: Node, parcels: Sequence[Parcel], run: Run) -> None:
        """Send each, and tell ``run`` what became of it. Raises Stopped, NodeSilent."""
        ...

    def echo(self, node: Node) -> None:
        """Ask whether it is there. Raises NodeSilent."""
        ...


class Notes(Protocol):
    def put(self, note: Note) -> None:
        """Will be durable soon; see ``Progress``."""
        ...


class Run:
    """One delivery under way. ``stop`` is set by another thread; the rest belongs to the sending one."""

    def __init__(self, claimed: Claimed, notes: Notes) -> None:
        self.claimed, self._notes = claimed, notes
        self.stop = ""  # why to stop between two objects, "" to go on
        self.connected = threading.Event()  # the node answered at least once
        self.acknowledged_objects = self.refused_objects = self.sent_bytes = 0

    def check(self) -> None:
        """Between two objects. Raises Stopped."""
        if self.stop:
            raise Stopped(self.stop)

    def acknowledged(self, parcel: Parcel) -> None:
        """The node has it."""
        self.acknowledged_objects += 1
        self.sent_bytes += parcel.wanted.bytes
        self._note(parcel, Became.ACKNOWLEDGED)

    def refused(self, parcel: Parcel, reason: str) -> None:
        """The node does not want it, or it cannot be sent."""
        self.refused_objects += 1
        self._note(parcel, Became.REFUSED, reason)

    def lost(self, parcels: Iterable[Parcel]) -> None:
        """The connection ended while these were on their way: whether they arrived is not known."""
        for parcel in parcels:
            if parcel.wanted.losses + 1 >= MOST_LOSSES:
                self.refused_objects += 1
                self._note(parcel, Became.REFUSED, "connection-lost", lost=True)
            else:
                self._note(parcel, Became.TO_SEND, lost=True)

    def _note(self, parcel: Parcel, became: Became, reason: str = "", *, lost: bool = False) -> None:
        self._notes.put(Note(self.claimed.delivery_id, parcel.wanted.position, became, reason, lost))


class NoteWriter(Protocol):
    def note(self, notes: Iterable[Note]) -> None: ...


class Progress:
    """Writes notes as they come, many in one commit: what a killed process forgets is one commit's time.

    A database that is away does not end a transfer: notes wait, and :meth:`settled` says whether they are written.
    """

    def __init__(self, writer: NoteWriter, retry_s: float = 0.5) -> None:
        self._writer, self._retry_s = writer, retry_s
        self._waiting: list[Note] = []
        self._condition = threading.Condition()
        self._writing = self._closing = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def put(self, note: Note) -> None:
        with self._condition:
            self._waiting.append(note)
            self._condition.notify_all()

    def settled(self, within_s: float) -> bool:
        """Wait until all notes so far are durable; whether they are."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._waiting and not self._writing, within_s)

    def close(self) -> None:
        """Write what waits, if the database takes it now, and end."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join(5.0)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                batch, self._waiting, self._writing = self._waiting, [], True
            kept: list[Note] = []
            try:
                self._writer.note(batch)
            except NegatoscopeError:
                kept = batch
            with self._condition:
                self._waiting = kept + self._waiting
                self._writing = False
                self._condition.notify_all()
                if kept:
                    if self._closing:
                        return
                    self._condition.wait(self._retry_s)

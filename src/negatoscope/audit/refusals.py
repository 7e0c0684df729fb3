"""Who was turned away, in the trail, without a flood of them filling it (PS3.15 A.5.3.11 Security Alert).

A peer's first refusal is written at once, those of the minute after it as one event with their count. Whoever
refuses only leaves a note in memory: a thread of our own waits for the trail.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from negatoscope.audit.events import refused
from negatoscope.errors import Unavailable
from negatoscope.model.actor import Actor
from negatoscope.model.event import AuditEvent

log = logging.getLogger(__name__)

EVERY_S = 60.0  # an event a peer at most this often
PEERS = 512  # told apart at a time; refusals of further ones are counted together


class Recorder(Protocol):
    """The part of ``Trail`` that is used here."""

    def record(self, events: Sequence[AuditEvent]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Peer:
    door: str
    address: str
    actor_id: int | None


@dataclass(slots=True)
class _Note:
    """What is not written yet of one peer. ``name`` and ``reason`` are those of its last refusal."""

    due: float
    name: str
    reason: str
    actor: Actor | None
    count: int = 0


class Refusals:
    """Thread-safe. :meth:`note` never waits; the thread starts with the first of them."""

    def __init__(
        self, trail: Recorder, monotonic: Callable[[], float], *, every_s: float = EVERY_S, peers: int = PEERS
    ) -> None:
        self._trail, self._monotonic, self._every_s, self._peers = trail, monotonic, every_s, peers
        self._notes: dict[_Peer, _Note] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def __enter__(self) -> Refusals:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def note(self, name: str, reason: str, door: str, address: str, actor: Actor | None = None) -> None:
        """Somebody was turned away. ``name`` as it was given; ``actor`` when the credentials were good."""
        peer = _Peer(door, address, actor.actor_id if actor else None)
        with self._changed:
            if peer not in self._notes and len(self._notes) >= self._peers:
                peer, name, actor = _Peer(door, "", None), "", None  # a flood from everywhere: one entry a door
            note = self._notes.setdefault(peer, _Note(self._monotonic(), name, reason, actor))
            note.count += 1
            note.name, note.reason, note.actor = name, reason, actor
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="refusals", daemon=True)
                self._thread.start()
            self._changed.notify()

    def write_due(self, *, all_of_them: bool = False) -> None:
        """Write what is due. What cannot be written now is kept, and tried again when it is next due."""
        now = self._monotonic()
        with self._changed:
            due = {peer: note for peer, note in self._notes.items() if all_of_them or note.due <= now}
            for peer, note in due.items():
                del self._notes[peer]
                if note.count:  # a quiet minute forgets the peer
                    self._notes[peer] = _Note(now + self._every_s, note.name, note.reason, note.actor)
        written = {peer: note for peer, note in due.items() if note.count}
        try:
            self._trail.record([_event(peer, note) for peer, note in written.items()])
        except Unavailable:
            log.warning("refusals_not_written peers=%d", len(written))
            with self._changed:
                for peer, note in written.items():
                    kept = self._notes.setdefault(peer, _Note(now + self._every_s, note.name, note.reason, note.actor))
                    kept.count += note.count

    def close(self) -> None:
        """Write what is left, end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self.write_due(all_of_them=True)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closing:
                    due = min((note.due for note in self._notes.values()), default=None)
                    wait = None if due is None else due - self._monotonic()
                    if wait is not None and wait <= 0:
                        break
                    self._changed.wait(wait)
                if self._closing:
                    return
            self.write_due()


def _event(peer: _Peer, note: _Note) -> AuditEvent:
    return refused(note.name, note.reason, peer.door, peer.address, actor=note.actor, count=note.count)

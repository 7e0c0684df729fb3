"""What the worklist needs from the outside. ``db`` and ``audit`` are the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from psycopg import Connection
from psycopg.rows import DictRow

from negatoscope.model.actor import Scope
from negatoscope.model.event import AuditEvent

Unit = Connection[DictRow]  # one open transaction; rows are dicts


class Transactions(Protocol):
    """The part of ``archive.ports.Transactions`` that is used here."""

    def unit(self, establishments: Sequence[int] | None) -> AbstractContextManager[Unit]:
        """One transaction. Raises ``Unavailable`` when the database cannot be reached."""
        ...

    def reading(self, scope: Scope) -> AbstractContextManager[Unit]:
        """Single statements behind the wall of the scope's establishment."""
        ...


class Journal(Protocol):
    """The audit trail: event and change share one commit; a query's event is committed before its answer."""

    def append(self, unit: Unit, events: Sequence[AuditEvent]) -> None: ...

    def record(self, events: Sequence[AuditEvent]) -> None: ...


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, within what bounds, by which door."""

    scope: Scope
    door: str  # dimse, api, page, cli
    address: str = ""

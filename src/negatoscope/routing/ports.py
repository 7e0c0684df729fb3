"""What routing needs from the outside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from psycopg import Connection
from psycopg.rows import DictRow

from negatoscope.model.event import AuditEvent

Unit = Connection[DictRow]


class Units(Protocol):
    """The part of ``archive.ports.Transactions`` that is used here."""

    def unit(self, establishments: Sequence[int] | None) -> AbstractContextManager[Unit]:
        """One transaction. Raises ``Unavailable`` when the database cannot be reached."""
        ...


class Journal(Protocol):
    """The part of ``archive.ports.AuditTrail`` that is used here: event and action share one commit."""

    def append(self, unit: Unit, events: Sequence[AuditEvent]) -> None: ...

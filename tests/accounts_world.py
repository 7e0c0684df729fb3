"""What tests of accounts and logins share."""

from __future__ import annotations

import json

from argon2 import PasswordHasher

from negatoscope.db import Database
from negatoscope.model.actor import Actor, Role
from negatoscope.sharing import COMMAND_LINE, Accounts

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # the parameters are not what is tested
PASSWORD = "correct horse battery"


class Clock:
    """Monotonic seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def add(accounts: Accounts, login: str, role: Role = Role.RADIOLOGIST, code: str = "A") -> Actor:
    return accounts.add_user(login, role, code, PASSWORD, by=COMMAND_LINE)


def journal(database: Database) -> list[tuple[str, str, str]]:
    """(actor, what, subject or reason) of every event."""
    with database.unit(None) as unit:
        events = [json.loads(row["event"]) for row in unit.execute("SELECT event FROM audit_event ORDER BY sequence")]
    return [
        (e["actor_name"], e["detail"]["what"], e["detail"].get("subject", e["detail"].get("reason"))) for e in events
    ]

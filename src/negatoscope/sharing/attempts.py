"""How often somebody may try to sign in: counted in the database, so it holds across processes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from negatoscope.queries import load_queries
from negatoscope.sharing.ports import Unit

QUERIES = load_queries("negatoscope.sharing")
WINDOW_S = 900.0  # attempts older than this are forgotten
LOGIN_LIMIT = 10  # failed attempts for one login in the window
ADDRESS_LIMIT = 50  # failed attempts from one address (IPv6: /64) in the window


class Verdict(Enum):
    ALLOWED = "allowed"
    TRIPPED = "tripped"  # this attempt is the first over the limit: worth an alert, once
    REFUSED = "refused"


def reserve(unit: Unit, limits: Sequence[tuple[str, int]]) -> Verdict:
    """Count an attempt against each (subject, limit) before its password is looked at.

    Counting first and giving back on success (:func:`succeeded`) leaves no gap for attempts made at once.
    Refused attempts do not count, so a lock ends by itself.
    """
    verdict = Verdict.ALLOWED
    for subject, limit in sorted(limits):  # one order, so that two attempts never wait for each other
        unit.execute(QUERIES["lock_name"], {"name": subject})
        row = unit.execute(QUERIES["attempts"], {"subject": subject, "window_s": WINDOW_S}).fetchone()
        count = row["count"] if row else 0
        if count > limit:
            return Verdict.REFUSED
        if count == limit:
            verdict = Verdict.TRIPPED
            unit.execute(QUERIES["add_attempt"], {"subject": subject})
    if verdict is Verdict.ALLOWED:
        for subject, _ in limits:
            unit.execute(QUERIES["add_attempt"], {"subject": subject})
    return verdict


def succeeded(unit: Unit, login_subject: str, address_subject: str) -> None:
    """The login starts afresh; the address gets this attempt back and no more, or one account would free it."""
    unit.execute(QUERIES["clear_attempts"], {"subject": login_subject})
    unit.execute(QUERIES["clear_one_attempt"], {"subject": address_subject})

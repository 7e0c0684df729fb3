"""Signing in with a password: bounded attempts, one answer for every failure, the same time for each."""

from __future__ import annotations

from negatoscope.errors import Forbidden, TooManyRequests, Unauthenticated
from negatoscope.model.actor import Actor
from negatoscope.model.event import EventOutcome
from negatoscope.queries import load_queries
from negatoscope.sharing import attempts, journal
from negatoscope.sharing.addresses import counted
from negatoscope.sharing.attempts import ADDRESS_LIMIT, LOGIN_LIMIT, Verdict
from negatoscope.sharing.passwords import Passwords
from negatoscope.sharing.people import actor_of, is_login
from negatoscope.sharing.ports import Journal, Units

QUERIES = load_queries("negatoscope.sharing")
NOBODY = "unknown login"  # what is typed there may be a password: it is not written down


class Logins:
    """Thread-safe; one a process."""

    def __init__(self, units: Units, trail: Journal, passwords: Passwords | None = None) -> None:
        self._units, self._trail = units, trail
        self._passwords = passwords or Passwords()

    def sign_in(self, login: str, password: str, address: str) -> Actor:
        """The user, whose session is then to be opened (``Accounts.open_session``).

        An unknown login, a wrong password, an account without password and a disabled one are answered
        alike and take the time of one password hash.

        Raises:
            Unauthenticated: no.
            TooManyRequests: too many failures for this login or from this address, whoever asks.
            Unavailable: the database or the audit trail cannot be reached.
        """
        known_form = is_login(login)
        login_subject = f"login:{login}" if known_form else "login:"
        address_subject = f"address:{counted(address)}"
        with self._units.unit(None) as unit:
            verdict = attempts.reserve(unit, [(login_subject, LOGIN_LIMIT), (address_subject, ADDRESS_LIMIT)])
            row = unit.execute(QUERIES["user_by_login"], {"login": login if known_form else ""}).fetchone()
            name = row["name"] if row else NOBODY
            if verdict is Verdict.TRIPPED:
                event = journal.login_failed(name, address, "too-many-attempts", EventOutcome.SERIOUS_FAILURE)
                self._trail.append(unit, [event])
        if verdict is not Verdict.ALLOWED:
            raise TooManyRequests("too many failed logins; try again in some minutes")
        kept = row["password_hash"] if row and not row["disabled"] else None
        if not self._passwords.verify(kept, password) or row is None or kept is None:
            with self._units.unit(None) as unit:
                event = journal.login_failed(name, address, "refused", EventOutcome.MINOR_FAILURE)
                self._trail.append(unit, [event])
            raise Unauthenticated("unknown login or wrong password")
        renewed = self._passwords.hash(password) if self._passwords.is_outdated(kept) else kept
        actor = actor_of(row)
        with self._units.unit(None) as unit:
            attempts.succeeded(unit, login_subject, address_subject)
            if renewed != kept:
                values = {"actor_id": actor.actor_id, "password_hash": renewed}
                unit.execute(QUERIES["set_password"], values)
            self._trail.append(unit, [journal.login_succeeded(actor, address)])
        return actor

    def enter_demonstration(self, login: str, address: str) -> Actor:
        """One-click login of a demonstration account in a demonstration folder.

        Raises:
            Forbidden: it is not one, or this folder is not one.
        """
        with self._units.unit(None) as unit:
            folder = unit.execute(QUERIES["is_demonstration"]).fetchone()
            row = unit.execute(QUERIES["user_by_login"], {"login": login if is_login(login) else ""}).fetchone()
            if not (folder and folder["demonstration"] and row and row["demonstration"] and not row["disabled"]):
                raise Forbidden("no such demonstration account")
            actor = actor_of(row)
            self._trail.append(unit, [journal.login_succeeded(actor, address)])
        return actor

    def forget_old(self) -> None:
        """Delete attempts that no longer count. For the worker, now and then."""
        with self._units.unit(None) as unit:
            unit.execute(QUERIES["forget_attempts"], {"window_s": attempts.WINDOW_S})

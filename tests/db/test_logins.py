"""Signing in on a real PostgreSQL: bounded attempts, one answer for every failure."""

from __future__ import annotations

import threading
import time

import pytest
from argon2 import PasswordHasher

from accounts_world import PASSWORD, add, journal
from negatoscope.audit import Trail
from negatoscope.db import Database
from negatoscope.errors import BadRequest, Forbidden, NotFound, TooManyRequests, Unauthenticated
from negatoscope.model.actor import Role
from negatoscope.sharing import COMMAND_LINE, Accounts, Logins, Passwords
from negatoscope.sharing import attempts as attempts_module
from negatoscope.sharing.attempts import ADDRESS_LIMIT, LOGIN_LIMIT


def test_the_right_password_signs_in(accounts: Accounts, logins: Logins, database: Database) -> None:
    actor = add(accounts, "dr")
    assert logins.sign_in("dr", PASSWORD, "192.0.2.1") == actor
    assert journal(database)[-1] == ("dr", "login", "dr")


def test_every_failure_is_answered_alike_and_recorded_without_what_was_typed(
    accounts: Accounts, logins: Logins, database: Database
) -> None:
    add(accounts, "dr")
    accounts.add_user("tokens-only", Role.CLINICIAN, "A", by=COMMAND_LINE)
    add(accounts, "gone")
    accounts.set_disabled("gone", True, by=COMMAND_LINE)
    answers = set()
    for login, password in (
        ("dr", "wrong"),
        ("dr", ""),
        ("nobody", PASSWORD),
        ("tokens-only", PASSWORD),
        ("gone", PASSWORD),
        ("hunter2 in the wrong field", "x"),
        ("\0", "x"),
    ):
        with pytest.raises(Unauthenticated) as refused:
            logins.sign_in(login, password, "192.0.2.1")
        answers.add(str(refused.value))
    assert len(answers) == 1
    actors = [name for name, what, reason in journal(database) if (what, reason) == ("login", "refused")]
    assert actors == ["dr", "dr", "unknown login", "tokens-only", "gone", "unknown login", "unknown login"]


def test_an_unknown_login_takes_the_time_of_a_password_hash(
    accounts: Accounts, database: Database, trail: Trail
) -> None:
    checker = Passwords()
    checker.prepare()
    slow = Logins(database, trail, checker)
    accounts.add_user("dr", Role.CLINICIAN, "A", PASSWORD, by=COMMAND_LINE)
    with database.unit(None) as unit:
        unit.execute("UPDATE user_account SET password_hash = %s", (checker.hash(PASSWORD),))

    def took(login: str) -> float:
        started = time.thread_time()
        with pytest.raises(Unauthenticated):
            slow.sign_in(login, "wrong password", "192.0.2.1")
        return time.thread_time() - started

    known, unknown = min(took("dr") for _ in range(3)), min(took("nobody") for _ in range(3))
    assert 0.5 < unknown / known < 2


@pytest.mark.parametrize(
    ("failures", "allowed"), [(LOGIN_LIMIT - 1, True), (LOGIN_LIMIT, False), (LOGIN_LIMIT + 1, False)]
)
def test_a_login_is_closed_after_its_limit_of_failures_from_wherever(
    accounts: Accounts, logins: Logins, database: Database, failures: int, allowed: bool
) -> None:
    add(accounts, "dr")
    for number in range(failures):
        with pytest.raises((Unauthenticated, TooManyRequests)):
            logins.sign_in("dr", "wrong", f"192.0.2.{number}")
    if allowed:
        logins.sign_in("dr", PASSWORD, "198.51.100.1")
        for number in range(failures):  # success gave all attempts back
            with pytest.raises(Unauthenticated):
                logins.sign_in("dr", "wrong", f"192.0.2.{number}")
    else:
        for _ in range(3):
            with pytest.raises(TooManyRequests):
                logins.sign_in("dr", PASSWORD, "198.51.100.1")
        alerts = [event for event in journal(database) if event[2] == "too-many-attempts"]
        assert alerts == [("dr", "login", "too-many-attempts")]  # once, not once an attempt


@pytest.mark.parametrize(
    ("failures", "allowed"), [(ADDRESS_LIMIT - 1, True), (ADDRESS_LIMIT, False), (ADDRESS_LIMIT + 1, False)]
)
def test_an_address_is_closed_after_its_limit_of_failures_for_whomever(
    accounts: Accounts, logins: Logins, failures: int, allowed: bool
) -> None:
    add(accounts, "dr")
    for number in range(failures):
        with pytest.raises((Unauthenticated, TooManyRequests)):
            logins.sign_in(f"guess{number}", "wrong", f"2001:db8:1:2::{number:x}")
    if allowed:
        logins.sign_in("dr", PASSWORD, "2001:db8:1:2::ffff")
        with pytest.raises(Unauthenticated):  # one's own success does not free the address
            logins.sign_in("guess", "wrong", "2001:db8:1:2::1")
        with pytest.raises(TooManyRequests):
            logins.sign_in("dr", PASSWORD, "2001:db8:1:2::1")
    else:
        with pytest.raises(TooManyRequests):
            logins.sign_in("dr", PASSWORD, "2001:db8:1:2::ffff")
        logins.sign_in("dr", PASSWORD, "2001:db8:1:3::1")


def test_a_closed_login_opens_by_itself(
    accounts: Accounts, logins: Logins, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(accounts, "dr")
    for _ in range(LOGIN_LIMIT + 2):
        with pytest.raises((Unauthenticated, TooManyRequests)):
            logins.sign_in("dr", "wrong", "192.0.2.1")
    with database.unit(None) as unit:
        unit.execute("UPDATE login_attempt SET at = at - make_interval(secs => %s)", (attempts_module.WINDOW_S,))
    assert logins.sign_in("dr", PASSWORD, "192.0.2.1")
    logins.forget_old()
    with database.unit(None) as unit:
        assert unit.execute("SELECT 1 FROM login_attempt").fetchall() == []


def test_attempts_made_at_once_are_all_counted(accounts: Accounts, logins: Logins) -> None:
    add(accounts, "dr")
    outcomes: list[type[Exception]] = []

    def attempt() -> None:
        try:
            logins.sign_in("dr", "wrong", "192.0.2.1")
        except (Unauthenticated, TooManyRequests) as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=attempt) for _ in range(LOGIN_LIMIT + 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(Unauthenticated) == LOGIN_LIMIT
    assert outcomes.count(TooManyRequests) == 5


def test_a_password_hashed_with_old_parameters_is_hashed_anew_at_login(
    accounts: Accounts, database: Database, trail: Trail
) -> None:
    add(accounts, "dr")
    renewed = Passwords(PasswordHasher(time_cost=2, memory_cost=8, parallelism=1))
    Logins(database, trail, renewed).sign_in("dr", PASSWORD, "192.0.2.1")
    with database.unit(None) as unit:
        row = unit.execute("SELECT password_hash FROM user_account").fetchone()
    assert row is not None
    assert not renewed.is_outdated(row["password_hash"])
    assert Logins(database, trail, renewed).sign_in("dr", PASSWORD, "192.0.2.1")


def test_a_new_password_ends_all_sessions_and_needs_the_current_one(accounts: Accounts, logins: Logins) -> None:
    actor, other = add(accounts, "dr"), add(accounts, "other")
    secret = accounts.open_session(actor, 60)
    assert accounts.actor_of_secret(secret)
    for by, current in ((actor, None), (actor, "wrong"), (other, PASSWORD)):
        with pytest.raises(Forbidden):
            accounts.set_password("dr", "another long password", by=by, current=current)
    with pytest.raises(BadRequest):
        accounts.set_password("dr", "short", by=actor, current=PASSWORD)
    accounts.set_password("dr", "another long password", by=actor, current=PASSWORD)
    assert accounts.actor_of_secret(secret) is None
    assert logins.sign_in("dr", "another long password", "192.0.2.1") == actor
    with pytest.raises(NotFound):
        accounts.set_password("nobody", "another long password", by=COMMAND_LINE)

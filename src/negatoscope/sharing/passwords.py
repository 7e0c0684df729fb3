"""Passwords: what is asked of one, and argon2id (RFC 9106) off the hot path."""

from __future__ import annotations

import threading
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from negatoscope.errors import BadRequest, TooManyRequests

MIN_LENGTH = 12  # characters
MAX_LENGTH = 256  # characters; bounds what a stranger can make us hash
AT_ONCE = 2  # hashes computed at a time: each takes 64 MiB and one core for some 50 ms
WAIT_S = 10.0  # who waits longer for their turn is sent away


def check_policy(login: str, password: str) -> None:
    """Raises ``BadRequest`` naming what is wrong; there is no default password and no composition rule."""
    if len(password) < MIN_LENGTH:
        raise BadRequest(f"a password has at least {MIN_LENGTH} characters")
    if len(password) > MAX_LENGTH:
        raise BadRequest(f"a password has at most {MAX_LENGTH} characters")
    if password.casefold().strip() == login.casefold() or len(set(password)) < 4:
        raise BadRequest("this password is too easy to guess")


class Passwords:
    """Hashes and verifies. Thread-safe; memory is bounded by ``AT_ONCE``."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    def hash(self, password: str) -> str:
        """The argon2id string to keep. Raises ``TooManyRequests`` when too many wait."""
        with _Turn(self._turns):
            return self._hasher.hash(_bytes(password))

    def verify(self, kept: str | None, password: str) -> bool:
        """Whether ``password`` is the one of ``kept``. Takes the same time when there is none (``None``).

        Raises:
            TooManyRequests: too many wait.
        """
        with _Turn(self._turns):
            try:
                self._hasher.verify(kept or self._nobody, _bytes(password[:MAX_LENGTH]))
            except (VerificationError, InvalidHashError):
                return False
            return kept is not None and len(password) <= MAX_LENGTH

    def is_outdated(self, kept: str) -> bool:
        """Whether ``kept`` was made with parameters we no longer use."""
        return self._hasher.check_needs_rehash(kept)

    def prepare(self) -> None:
        """Compute now what the first login of an unknown user would have to."""
        _ = self._nobody

    @cached_property
    def _nobody(self) -> str:
        """A hash of no account, verified when the login is unknown, so that time does not tell."""
        return self._hasher.hash("no account has this password")


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")  # whatever a form sent has bytes


class _Turn:
    def __init__(self, turns: threading.BoundedSemaphore) -> None:
        self._turns = turns

    def __enter__(self) -> None:
        if not self._turns.acquire(timeout=WAIT_S):
            raise TooManyRequests("too many logins at once")

    def __exit__(self, *_: object) -> None:
        self._turns.release()

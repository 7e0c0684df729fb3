"""Secrets of tokens and sessions: 256 random bits behind a prefix that says what they are; only the SHA-256 is kept.

A plain digest is enough: nobody can search 2^256 values, so there is nothing for a slow hash to slow down.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from negatoscope.model.actor import Actor

_FORM = re.compile(r"ng[ts]_[A-Za-z0-9_-]{43}")
REMEMBERED = 10_000  # secrets; over it all are asked for again


class SecretKind(StrEnum):
    TOKEN = "token"  # noqa: S105 - the name of a kind
    SESSION = "session"


_PREFIX = {SecretKind.TOKEN: "ngt_", SecretKind.SESSION: "ngs_"}


def new_secret(kind: SecretKind) -> str:
    return _PREFIX[kind] + secrets.token_urlsafe(32)


def kind_of(secret: str) -> SecretKind | None:
    """What ``secret`` claims to be; ``None`` when it cannot be one of ours (then no query is made)."""
    if not _FORM.fullmatch(secret):
        return None
    return SecretKind.TOKEN if secret.startswith(_PREFIX[SecretKind.TOKEN]) else SecretKind.SESSION


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()


@dataclass(frozen=True, slots=True)
class _Known:
    actor: Actor
    until: float  # monotonic seconds


class KnownSecrets:
    """Actors by digest for at most ``keep_s``. Thread-safe.

    Another process learns of a revocation when its copy ends; this one at once, because :meth:`forget`
    also keeps out whatever a query that began before it brings back.
    """

    def __init__(self, monotonic: Callable[[], float], keep_s: float) -> None:
        self._monotonic, self._keep_s = monotonic, keep_s
        self._known: dict[bytes, _Known] = {}
        self._generation = 0
        self._lock = threading.Lock()

    @property
    def generation(self) -> int:
        """To be read before the query whose answer is put here."""
        return self._generation

    def get(self, digest: bytes) -> Actor | None:
        known = self._known.get(digest)
        return known.actor if known is not None and self._monotonic() < known.until else None

    def put(self, digest: bytes, actor: Actor, left_s: float, generation: int) -> None:
        """Remember ``actor``, whose secret is good for ``left_s`` more seconds."""
        until = self._monotonic() + min(self._keep_s, left_s)
        with self._lock:
            if generation != self._generation:
                return
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[digest] = _Known(actor, until)

    def forget(self) -> None:
        """Ask the database again, for everybody. Call it after the commit that revoked something."""
        with self._lock:
            self._generation += 1
            self._known.clear()

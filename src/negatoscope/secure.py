"""TLS of the DICOM door as the settings want it: files found, peers judged, the end of our certificate watched."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from negatoscope.bootstrap import Core
from negatoscope.model.actor import Actor
from negatoscope.model.certificate import Certificate
from negatoscope.servers.dicom_client import PeerUnavailable
from negatoscope.servers.dicom_tls import WARN_DAYS, Secured, SecureDoor, TlsFiles, TlsKeys, TlsUnusable
from negatoscope.settings import Settings, SettingsError
from negatoscope.wire.dul.items import UserIdentity

log = logging.getLogger(__name__)

WATCH_S = 60.0  # between two looks at the end of our certificate
SAY_S = 86_400.0  # a word in the log at most this often
REMEMBERED = 1_000  # certificates of which something was said


def files_of(settings: Settings) -> TlsFiles:
    """Names in the settings are below the data folder, unless they are absolute."""

    def at(name: str) -> Path:
        return settings.data / name

    return TlsFiles(
        at(settings.tls_certificate),
        at(settings.tls_key),
        at(settings.tls_authorities),
        at(settings.tls_revocations) if settings.tls_revocations else None,
    )


def check(settings: Settings) -> None:
    """Before anything starts. Raises SettingsError with one line that names the file."""
    if not settings.dicom_tls:
        return
    try:
        TlsKeys(files_of(settings))
    except TlsUnusable as error:
        raise SettingsError(f"dicom_tls: {error}") from error


class Reached(Protocol):
    """What is to be called, as ``sharing.Destination`` is one."""

    @property
    def tls(self) -> bool: ...
    @property
    def certificates(self) -> frozenset[str]: ...


class Outgoing:
    """How peers that want TLS are called. The files are read when the first of them is."""

    def __init__(self, settings: Settings) -> None:
        self._files = files_of(settings)
        self._lock = threading.Lock()
        self._keys: TlsKeys | None = None

    def __call__(self, reached: Reached) -> Secured | None:
        """None: plain text. Raises PeerUnavailable when our certificate cannot be used: never plain text instead."""
        if not reached.tls:
            return None
        with self._lock:
            if self._keys is None:
                try:
                    self._keys = TlsKeys(self._files)
                except TlsUnusable as error:
                    log.error("no TLS towards peers: %s", error)
                    raise PeerUnavailable("TLS towards peers is not set up here") from error
            return Secured(self._keys, reached.certificates)


class Expiry:
    """Says in the log, now and then, which certificates are about to end."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def look(self, whose: str, certificate: Certificate) -> float:
        """Days left."""
        now = self._now()
        days = certificate.days_left(now)
        if days < WARN_DAYS:
            with self._lock:
                due = now - self._said.get(certificate.fingerprint, now - SAY_S) >= SAY_S
                if due:
                    if len(self._said) >= REMEMBERED:
                        self._said.clear()
                    self._said[certificate.fingerprint] = now
            if due:
                log.warning("the certificate of %s ends in %.0f days: %s", whose, days, certificate.fingerprint)
        return days


@dataclass(slots=True)
class Watch:
    """Our certificate, as a metric."""

    keys: TlsKeys
    expiry: Expiry
    gauge: Callable[[str, float], None]
    monotonic: Callable[[], float] = time.monotonic
    due: float = 0.0

    def look(self) -> None:
        """Call it often; it does something once in a while."""
        if self.monotonic() >= self.due:
            self.due = self.monotonic() + WATCH_S
            self.gauge("tls_certificate_days", self.expiry.look("this server", self.keys.certificate))


def door(built: Core, address: tuple[str, int], listener: socket.socket) -> tuple[SecureDoor, Watch]:
    """The secure door of a server. Raises SettingsError."""
    try:
        keys = TlsKeys(files_of(built.settings))
    except TlsUnusable as error:
        raise SettingsError(f"dicom_tls: {error}") from error
    expiry = Expiry()

    def authenticate(
        calling: str, called: str, peer: str, identity: UserIdentity | None, certificate: Certificate
    ) -> Actor | None:
        actor = built.accounts.actor_of_title(calling, peer, called, certificate.fingerprint)
        if actor is None:  # somebody we trust to be somebody says to be somebody else; the server notes the refusal
            log.warning("title and certificate do not belong together: certificate %s", certificate.fingerprint)
            return None
        expiry.look(f"{actor.name} in {actor.establishment_code}", certificate)
        return actor

    return SecureDoor(address, keys, authenticate, listener), Watch(keys, expiry, built.metrics.gauge)

"""Certificates, good and bad, and a DICOM door over TLS that keeps objects in memory."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from dimse_fakes import TITLE, MemoryReceiver, actor
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.model.actor import Actor, Right
from negatoscope.model.certificate import Certificate
from negatoscope.pki import Authority, Issued
from negatoscope.servers.dicom import DicomServer
from negatoscope.servers.dicom_tls import Secured, SecureDoor, TlsFiles, TlsKeys
from negatoscope.wire.dul.items import UserIdentity

LOCAL = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class World:
    """What peers hold. ``ct_a`` is good; the others are so too unless their names say otherwise."""

    folder: Path
    authority: Authority
    server: Issued
    ct_a: Issued
    ct_b: Issued
    rsa: Issued
    elsewhere: Issued  # of a host that is not this one
    expired: Issued
    revoked: Issued
    foreign: Issued  # of another authority
    alone: Issued  # signed by itself

    def files(self, own: Issued | None = None, revocations: bool = True) -> TlsFiles:
        own = own or self.server
        return TlsFiles(
            own.certificate, own.key, self.authority.certificate, self.authority.revocations if revocations else None
        )

    def secured(self, own: Issued, *expected: Issued) -> Secured:
        """How a sender of ours with the certificate ``own`` calls."""
        return Secured(TlsKeys(self.files(own)), frozenset(one.known_as.fingerprint for one in expected))


@cache
def world() -> World:
    """Made once for a run of tests: openssl takes its time."""
    folder = Path(mkdtemp(prefix="negatoscope-tls-"))
    authority, other = Authority(folder / "authority"), Authority(folder / "other")
    authority.create("Test authority")
    other.create("Other authority")
    made = World(
        folder,
        authority,
        authority.issue("server", folder, LOCAL),
        authority.issue("CT_A", folder, LOCAL),
        authority.issue("CT_B", folder, LOCAL),
        authority.issue("RSA", folder, LOCAL, algorithm="RSA"),
        authority.issue("elsewhere", folder, ["elsewhere.example", "192.0.2.1"]),
        authority.issue("expired", folder, LOCAL, days=-1),
        authority.issue("revoked", folder, LOCAL),
        other.issue("CT_A", folder, LOCAL, stem="foreign"),
        _alone(folder, authority.issue("alone", folder, LOCAL)),
    )
    authority.revoke(made.revoked.certificate)
    return made


def _alone(folder: Path, issued: Issued) -> Issued:
    certificate = folder / "alone.self.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-new", "-key", str(issued.key), "-subj", "/CN=CT_A", "-days", "30",
         "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return Issued(certificate, issued.key, issued.known_as)


@dataclass
class SecureServer:
    server: DicomServer
    receiver: MemoryReceiver
    counts: Counter[str]
    address: tuple[str, int]
    keys: TlsKeys

    @property
    def port(self) -> str:
        return str(self.address[1])


@contextmanager
def secure_server(
    limits: Limits = DEFAULT_LIMITS,
    files: TlsFiles | None = None,
    receiver: MemoryReceiver | None = None,
    titles: dict[str, Issued] | None = None,
) -> Iterator[SecureServer]:
    """Listens for TLS alone. ``titles``: whose certificate is bound to which; CT_A and CT_B to theirs."""
    here = world()
    bound = titles or {"CT_A": here.ct_a, "CT_B": here.ct_b, "RSA": here.rsa}
    receiver = receiver or MemoryReceiver()
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def count(name: str, amount: float) -> None:
        with lock:
            counts[name] += int(amount)

    def plain(calling: str, called: str, address: str, identity: UserIdentity | None) -> Actor | None:
        raise AssertionError("asked as if it were plain text")

    def who(
        calling: str, called: str, address: str, identity: UserIdentity | None, certificate: Certificate
    ) -> Actor | None:
        known = bound.get(calling)
        return actor(*Right, name=calling) if known and known.known_as == certificate else None

    keys = TlsKeys(files or here.files())
    door = SecureDoor(("127.0.0.1", 0), keys, who)
    server = DicomServer(None, TITLE, receiver, plain, limits, count, secure=door)
    server.start()
    try:
        yield SecureServer(server, receiver, counts, server.secure_address, keys)
    finally:
        server.stop()

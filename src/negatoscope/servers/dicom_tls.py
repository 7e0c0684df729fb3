"""TLS below DICOM, as BCP 195 (RFC 8996, RFC 9325) and PS3.15 B.12 want it: both sides show a certificate.

The TLS machine reads and writes memory; the socket below stays ours. So a handshake is a few steps of the thread
that holds all unassociated connections and none of it holds a thread, the kernel's timeouts go on to bound
whoever is slow, and nothing can leave in plain text.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from negatoscope.archive.ports import Buffer
from negatoscope.model.actor import Actor
from negatoscope.model.certificate import Certificate, of_der, of_pem
from negatoscope.wire.dul.items import UserIdentity

log = logging.getLogger(__name__)

CHUNK = 1 << 16  # bytes of TLS read at once
STEP = 32 << 10  # bytes encrypted at once, and so what a reader that does not read costs: two records
RECORD = 16 << 10  # most plain text of one record, RFC 8446 5.1
LOOK_S = 5.0  # files are looked at for changes at most this often
WARN_DAYS = 30.0  # an end of validity nearer than this is worth a word
REMEMBERED = 1_000  # peers that were warned of
DONT_WAIT = socket.MSG_DONTWAIT
# RFC 9325 4.2: forward secrecy and authenticated encryption alone. TLS 1.3 has nothing else.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
_STRENGTH = "@SECLEVEL=2"  # RSA of 2,048 bits or more, no SHA-1 in signatures


class TlsUnusable(Exception):
    """Key, certificate, authorities or revocation list cannot be used; the message says which."""


class TlsRefused(OSError):
    """This connection is not, or no longer, secure. The message is the reason; nothing of the peer is in it."""


class Connection(Protocol):
    """What the DICOM door and its sender use of a socket: a plain one has it, and so has a secure one."""

    def fileno(self) -> int: ...
    def recv(self, size: int, flags: int = ..., /) -> bytes: ...
    def recv_into(self, buffer: mmap.mmap | Buffer, /) -> int: ...
    def send(self, data: Buffer, /) -> int: ...
    def sendall(self, data: Buffer, /) -> None: ...
    def sendmsg(
        self, buffers: Sequence[Buffer], ancillary: Sequence[tuple[int, int, bytes]] = ..., flags: int = ..., /
    ) -> int: ...
    def setblocking(self, flag: bool, /) -> None: ...
    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. ``revocations`` None: nothing is said to be revoked."""

    certificate: Path  # ours, with what lies between it and its authority
    key: Path
    authorities: Path  # who may sign the peers' certificates
    revocations: Path | None = None

    def all(self) -> tuple[Path, ...]:
        four = (self.certificate, self.key, self.authorities, self.revocations)
        return tuple(path for path in four if path is not None)


@dataclass(frozen=True, slots=True)
class _Loaded:
    server: ssl.SSLContext
    client: ssl.SSLContext
    naming: ssl.SSLContext  # as client, and compares the host's name with those in the certificate
    certificate: Certificate
    seen: tuple[tuple[int, int, int], ...]


class TlsKeys:
    """What both sides of TLS are made from. Files that change take effect with the next connection."""

    def __init__(self, files: TlsFiles, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises TlsUnusable."""
        self._files, self._monotonic = files, monotonic
        self._lock = threading.Lock()
        self._loaded = _load(files)
        self._looked = monotonic()

    @property
    def certificate(self) -> Certificate:
        """Ours."""
        return self._fresh().certificate

    def server(self) -> ssl.SSLContext:
        return self._fresh().server

    def client(self, *, by_name: bool) -> ssl.SSLContext:
        """It verifies who signed, and ``by_name`` that the certificate names the host."""
        loaded = self._fresh()
        return loaded.naming if by_name else loaded.client

    def _fresh(self) -> _Loaded:
        with self._lock:
            now = self._monotonic()
            if now - self._looked >= LOOK_S:
                self._looked = now
                try:
                    if _seen(self._files) != self._loaded.seen:
                        self._loaded = _load(self._files)
                        log.info("TLS files read again")
                except TlsUnusable as error:  # those that are loaded go on
                    log.error("TLS files changed and cannot be used: %s", error)
            return self._loaded


def _load(files: TlsFiles) -> _Loaded:
    seen = _seen(files)
    try:
        certificate = of_pem(files.certificate.read_text(encoding="ascii", errors="replace"))
    except (OSError, ValueError) as error:
        raise TlsUnusable(f"{files.certificate}: {error}") from error
    server = _context(ssl.PROTOCOL_TLS_SERVER, files)
    client = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    naming = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    naming.check_hostname = True
    return _Loaded(server, client, naming, certificate, seen)


def _context(side: ssl._SSLMethod, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join((*CIPHERS, _STRENGTH)))
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_TICKET  # a resumed session would not look at the revocation list again
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if side is ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    try:
        context.load_cert_chain(files.certificate, files.key, password=b"")  # else it would ask the terminal
    except (OSError, ValueError) as error:
        raise TlsUnusable(f"{files.certificate}, {files.key}: {_reason(error)}") from error
    _trust(context, files.authorities)
    if files.revocations is not None:
        _trust(context, files.revocations)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _trust(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise TlsUnusable(f"{path}: {_reason(error)}") from error


def _seen(files: TlsFiles) -> tuple[tuple[int, int, int], ...]:
    found = []
    for path in files.all():
        try:
            status = os.stat(path)
        except OSError as error:
            raise TlsUnusable(f"{path}: {error.strerror}") from error
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not TLS").lower().replace("_", " ")
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


AuthenticateCertificate = Callable[[str, str, str, UserIdentity | None, Certificate], Actor | None]


@dataclass(frozen=True, slots=True)
class SecureDoor:
    """Where a DICOM server listens for TLS, and who a peer with a verified certificate is.

    ``authenticate`` is asked as that of a plain door is, and for the certificate: a title is believed only
    from the certificate that is bound to it.
    """

    address: tuple[str, int]
    keys: TlsKeys
    authenticate: AuthenticateCertificate
    listener: socket.socket | None = None


@dataclass(frozen=True, slots=True)
class Secured:
    """How an association of ours is secured.

    ``certificates``: fingerprints of which the peer must have one; empty: the host's name must be in its certificate.
    """

    keys: TlsKeys
    certificates: frozenset[str] = frozenset()


class SecureConnection:
    """TLS over a connected socket, with the calls of a socket that the door uses. Belongs to one thread at a time.

    Reading goes through the handshake by itself. What :meth:`sendmsg` has taken may still be on its way (at most
    ``STEP`` bytes): it leaves before anything is waited for.
    """

    def __init__(
        self, below: socket.socket, context: ssl.SSLContext, *, server_side: bool, host: str | None = None
    ) -> None:
        self._below = below
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=host)
        self._unsent = memoryview(b"")
        self._ahead = b""  # decrypted to see whether there is anything
        self._more = False  # there may be more to decrypt
        self._refused = False
        self.certificate: Certificate | None = None  # the peer's, once verified

    @property
    def secure(self) -> bool:
        """Whether the handshake is done."""
        return self.certificate is not None

    @property
    def parameters(self) -> tuple[str, str]:
        """Protocol version and cipher suite that were agreed upon."""
        cipher = self._tls.cipher()
        return self._tls.version() or "", cipher[0] if cipher else ""

    # ---- as a socket ------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._below.fileno()

    def setblocking(self, flag: bool) -> None:
        self._below.setblocking(flag)

    def setsockopt(self, level: int, name: int, value: int | bytes) -> None:
        self._below.setsockopt(level, name, value)

    def shutdown(self, how: int) -> None:
        """From any thread: wakes the one that reads."""
        self._below.shutdown(how)

    def close(self) -> None:
        """Say so to the peer, if it listens, and close."""
        with contextlib.suppress(OSError, ValueError):
            if self.secure and not self._refused:
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
                self._flush(DONT_WAIT)
        self._below.close()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As of a socket. TlsRefused by the handshake is raised once; what comes then is there to be thrown away."""
        if self._refused and not self.secure:
            return self._below.recv(size, flags)
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self._receive(memoryview(buffer), flags)])

    def recv_into(self, buffer: mmap.mmap | Buffer) -> int:
        """As of a socket: BlockingIOError when nothing came in time. 0: the peer has ended it, or the network has."""
        return self._receive(memoryview(buffer), 0)

    def send(self, data: Buffer) -> int:
        return self.sendmsg([data])

    def sendall(self, data: Buffer) -> None:
        self.sendmsg([data])

    def sendmsg(
        self, buffers: Sequence[Buffer], ancillary: Sequence[tuple[int, int, bytes]] = (), flags: int = 0
    ) -> int:
        """How many bytes were taken: all, unless it must not wait; BlockingIOError: none."""
        if not self._flush(flags):
            raise BlockingIOError
        taken, room = 0, STEP
        for buffer in buffers:
            view = memoryview(buffer)
            while view:
                piece = view[:room]
                self._tls.write(piece)
                taken, room, view = taken + len(piece), room - len(piece), view[len(piece) :]
                if not room:
                    room = STEP
                    if not self._flush(flags):
                        return taken
        self._flush(flags)
        return taken

    # ---- besides ----------------------------------------------------------------------------

    def pending(self) -> bool:
        """Whether bytes can be had that the socket below does not tell of."""
        if not self._ahead and self._more:
            buffer = bytearray(RECORD)
            try:
                self._ahead = bytes(buffer[: self._decrypt(memoryview(buffer)) or 0])
            except TlsRefused:
                return True  # whoever reads is told
        return bool(self._ahead)

    def handshake(self, within_s: float) -> None:
        """All of it, waiting. Raises TlsRefused and OSError. Leaves the socket with a timeout."""
        until = time.monotonic() + within_s
        while not self._established():
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise TlsRefused("no handshake in time")
            self._below.settimeout(left_s)
            if not self._feed(0):
                raise TlsRefused("connection closed during the handshake")

    # ---- inside -----------------------------------------------------------------------------

    def _receive(self, view: memoryview, flags: int) -> int:
        if self._ahead:
            size = min(len(view), len(self._ahead))
            view[:size], self._ahead = self._ahead[:size], self._ahead[size:]
            return size
        self._flush(flags)
        while True:
            if self._established():
                decrypted = self._decrypt(view)
                if decrypted is not None:
                    return decrypted
            if not self._feed(flags):
                return 0 if not self.secure else self._decrypt(view) or 0

    def _established(self) -> bool:
        """Go on with the handshake; whether it is done. Raises TlsRefused, with the peer told why."""
        if self.certificate is not None:
            return True
        try:
            self._tls.do_handshake()
            der = self._tls.getpeercert(binary_form=True)
            if der is None:
                raise TlsRefused("no certificate")  # never: it is required
            certificate = of_der(der)
        except ssl.SSLWantReadError:
            self._flush(DONT_WAIT)
            return False
        except (ssl.SSLError, ValueError) as error:
            self._refused = True
            with contextlib.suppress(OSError):
                self._flush(DONT_WAIT)  # the alert
            raise TlsRefused(_reason(error)) from error
        if certificate.days_left(time.time()) < 0:  # of a session that was resumed
            self._refused = True
            raise TlsRefused("certificate has expired")
        self.certificate = certificate
        self._flush(DONT_WAIT)
        return True

    def _decrypt(self, view: memoryview) -> int | None:
        """Fill ``view`` from what has arrived; None: nothing whole has; 0: it is over. Raises TlsRefused."""
        filled = 0
        self._more = True
        while filled < len(view):
            try:
                size = self._tls.read(len(view) - filled, view[filled:])
            except ssl.SSLWantReadError:
                self._more = False
                return filled or None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return filled
            except ssl.SSLError as error:
                self._refused = True
                with contextlib.suppress(OSError):
                    self._flush(DONT_WAIT)
                raise TlsRefused(_reason(error)) from error
            if not size:
                return filled
            filled += int(size)
        return filled

    def _feed(self, flags: int) -> bool:
        """Read from below; False: that has ended. BlockingIOError when nothing comes in time."""
        data = self._below.recv(CHUNK, flags)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        return bool(data)

    def _flush(self, flags: int) -> bool:
        """Send what is encrypted; False: it must not wait, and the kernel has no room."""
        if self._out.pending:
            self._unsent = memoryview(bytes(self._unsent) + self._out.read() if self._unsent else self._out.read())
        while self._unsent:
            try:
                sent = self._below.send(self._unsent, flags)
            except BlockingIOError:
                if flags & DONT_WAIT or not self._below.getblocking():
                    return False
                raise  # the kernel waited, and the peer took nothing
            self._unsent = self._unsent[sent:]
        return True


def connect(below: socket.socket, secured: Secured, host: str, within_s: float) -> SecureConnection:
    """TLS as client over a connected socket. Raises TlsRefused and OSError; then the socket is to be closed."""
    context = secured.keys.client(by_name=not secured.certificates)
    connection = SecureConnection(below, context, server_side=False, host=host)
    connection.handshake(within_s)
    shown = connection.certificate
    if secured.certificates and (shown is None or shown.fingerprint not in secured.certificates):
        raise TlsRefused("the certificate is not one that is bound to this application entity")
    return connection

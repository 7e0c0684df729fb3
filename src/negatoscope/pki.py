"""A small certificate authority for tests and first steps, made with the openssl program.

It is no substitute for the authority of an establishment: its key lies beside it without a password. What it makes
is what BCP 195 wants: P-256 keys, SHA-256 signatures, names of hosts in the certificate, a revocation list.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from negatoscope.model.certificate import Certificate, of_pem

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")  # commonName has 64 characters at most: RFC 5280 A.1
HOST = re.compile(r"[A-Za-z0-9*][A-Za-z0-9.*-]{0,252}")
AUTHORITY_DAYS, PEER_DAYS, LIST_DAYS = 3650, 365, 365
_LONGEST_S = 60.0  # of one call of openssl
_TIME = "%Y%m%d%H%M%SZ"
_CONFIGURATION = """\
[ca]
default_ca = here
[here]
database = index.txt
new_certs_dir = issued
serial = serial
crlnumber = crlnumber
certificate = certificate.pem
private_key = key.pem
default_md = sha256
default_crl_days = {list_days}
unique_subject = no
rand_serial = yes
policy = anything
[anything]
commonName = supplied
[req]
distinguished_name = subject
prompt = no
[subject]
commonName = {name}
[authority]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
"""
_PEER = """\
[peer]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


class PkiError(Exception):
    """The authority cannot do this; the message is one line that says why."""


@dataclass(frozen=True, slots=True)
class Issued:
    certificate: Path
    key: Path
    known_as: Certificate


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def revocations(self) -> Path:
        return self.folder / "revocations.pem"

    def create(self, name: str) -> None:
        """Raises PkiError, also when there is one already: a new key would make all that it has signed worthless."""
        _check(name, NAME, "a name")
        if self.certificate.exists():
            raise PkiError(f"{self.folder} holds an authority already")
        (self.folder / "issued").mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        (self.folder / "openssl.cnf").write_text(_CONFIGURATION.format(name=name, list_days=LIST_DAYS))
        (self.folder / "index.txt").write_text("")
        (self.folder / "crlnumber").write_text("01\n")
        self._openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem")
        self._openssl(
            "req", "-x509", "-new", "-key", "key.pem", "-sha256", "-days", str(AUTHORITY_DAYS),
            "-config", "openssl.cnf", "-extensions", "authority", "-out", "certificate.pem",
        )  # fmt: skip
        self._list()

    def issue(
        self, name: str, out: Path, hosts: Sequence[str] = (), days: float = PEER_DAYS, *, stem: str = "",
        algorithm: str = "EC",
    ) -> Issued:  # fmt: skip
        """A key and a certificate for ``name``, as ``STEM.key.pem`` and ``STEM.pem`` in ``out``.

        ``hosts``: names and addresses by which it is reached; ``localhost`` when there are none. ``days`` may be
        negative: a certificate that has expired, for tests. Raises PkiError.
        """
        _check(name, NAME, "a name")
        if not self.certificate.exists():
            raise PkiError(f"there is no authority in {self.folder}: negatoscope pki init")
        out.mkdir(parents=True, exist_ok=True)
        stem = stem or name.replace(" ", "_")
        key, certificate = (out / f"{stem}.key.pem").resolve(), (out / f"{stem}.pem").resolve()
        if key.exists() or certificate.exists():
            raise PkiError(f"{certificate} is there already")
        request, extensions = self.folder / "request.pem", self.folder / "extensions.cnf"
        extensions.write_text(_PEER.format(names=",".join(_alternatives(hosts or ("localhost",)))))
        kind = ("ec_paramgen_curve:P-256",) if algorithm == "EC" else ("rsa_keygen_bits:3072",)
        self._openssl("genpkey", "-algorithm", algorithm, "-pkeyopt", *kind, "-out", str(key))
        self._openssl(
            "req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-config", "openssl.cnf", "-out", "request.pem"
        )
        now = datetime.now(UTC)
        until = now + timedelta(days=days)
        since = min(now, until) - timedelta(days=1)  # clocks of modalities are late
        self._openssl(
            "ca", "-batch", "-notext", "-config", "openssl.cnf", "-in", "request.pem", "-out", str(certificate),
            "-extfile", "extensions.cnf", "-extensions", "peer",
            "-startdate", since.strftime(_TIME), "-enddate", until.strftime(_TIME),
        )  # fmt: skip
        request.unlink()
        extensions.unlink()
        return Issued(certificate, key, of_pem(certificate.read_text(encoding="ascii")))

    def revoke(self, certificate: Path) -> None:
        """It is in the revocation list from now on. Raises PkiError."""
        self._openssl("ca", "-config", "openssl.cnf", "-revoke", str(certificate.resolve()))
        self._list()

    def _list(self) -> None:
        """Written beside and moved: a server may be reading the one there is."""
        self._openssl("ca", "-config", "openssl.cnf", "-gencrl", "-out", "revocations.new")
        (self.folder / "revocations.new").replace(self.revocations)

    def _openssl(self, *arguments: str) -> None:
        program = shutil.which("openssl")
        if program is None:
            raise PkiError("the openssl program is not installed")
        try:
            done = subprocess.run(
                [program, *arguments], cwd=self.folder, capture_output=True, text=True, errors="replace",
                timeout=_LONGEST_S, stdin=subprocess.DEVNULL, check=False, umask=0o077,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise PkiError("openssl does not end") from error
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "rror" in line] or done.stderr.splitlines()
            raise PkiError(f"openssl {arguments[0]}: {said[0] if said else done.returncode}")


def _alternatives(hosts: Sequence[str]) -> list[str]:
    names = []
    for host in hosts:
        try:
            names.append(f"IP:{ip_address(host)}")
        except ValueError:
            _check(host, HOST, "a host")
            names.append(f"DNS:{host}")
    return names


def _check(text: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(text):
        raise PkiError(f"{text!r} cannot be {what} in a certificate")

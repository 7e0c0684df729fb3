"""A certificate by what we know it by: the SHA-256 of its bytes. Who signed it is TLS's to verify, not ours."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Certificate:
    fingerprint: str  # SHA-256 of its DER form, 64 hexadecimal digits in lower case
    not_after: float  # seconds since 1970, UTC

    def days_left(self, now: float) -> float:
        """Negative once it has expired. ``now``: seconds since 1970."""
        return (self.not_after - now) / DAY_S


def of_der(der: bytes) -> Certificate:
    """Raises ValueError when the end of its validity cannot be found (RFC 5280 4.1)."""
    try:
        return Certificate(sha256(der).hexdigest(), _not_after(der))
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("this is no X.509 certificate") from error


def of_pem(text: str) -> Certificate:
    """The first certificate of a PEM file, which is the holder's own. Raises ValueError."""
    found = _PEM.search(text)
    if found is None:
        raise ValueError("no certificate in PEM form")
    try:
        return of_der(binascii.a2b_base64(found[1], strict_mode=False))
    except binascii.Error as error:
        raise ValueError("this is no certificate in PEM form") from error


def fingerprint(text: str) -> str:
    """A SHA-256 fingerprint as people and tools write it, with colons and capitals, in our spelling. ValueError."""
    plain = text.strip().rpartition("=")[2].replace(":", "").replace(" ", "").lower()
    if not _FINGERPRINT.fullmatch(plain):
        raise ValueError("a fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits")
    return plain


def _not_after(der: bytes) -> float:
    _, at, _ = _element(der, 0, SEQUENCE)  # Certificate
    _, at, _ = _element(der, at, SEQUENCE)  # tbsCertificate
    if der[at] == VERSION:
        _, _, at = _element(der, at)
    for _ in range(3):  # serial number, signature algorithm, issuer
        _, _, at = _element(der, at)
    _, at, _ = _element(der, at, SEQUENCE)  # validity
    _, _, at = _element(der, at)  # notBefore
    kind, start, end = _element(der, at)
    return _time(kind, der[start:end].decode("ascii"))


def _element(der: bytes, at: int, expected: int | None = None) -> tuple[int, int, int]:
    """Tag, start and end of the contents of the element at ``at``, none of it believed to be inside ``der``."""
    kind, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        octets = length & 0x7F
        length, start = int.from_bytes(der[start : start + octets], "big"), start + octets
    if expected not in (None, kind) or start + length > len(der):
        raise ValueError("this is no X.509 certificate")
    return kind, start, start + length


def _time(kind: int, text: str) -> float:
    if kind == UTC_TIME:  # two digits of the year: RFC 5280 4.1.2.5.1
        text = ("19" if text[:2] >= "50" else "20") + text
    elif kind != GENERALIZED_TIME:
        raise ValueError("this is no X.509 certificate")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()

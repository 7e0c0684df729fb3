"""Application entities: which row a peer is (title and address), and where a move may go."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import DictRow

from negatoscope.errors import BadRequest
from negatoscope.model.actor import Right
from negatoscope.model.certificate import fingerprint
from negatoscope.sharing.addresses import Resolver, is_ip, normalised
from negatoscope.sharing.roles import AE_RIGHTS

_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")  # PS3.5 table 6.2-1, AE: no backslash, no control character
MOST_CERTIFICATES = 16  # bound to one application entity
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where C-MOVE sends to."""

    actor_id: int
    title: str
    host: str
    port: int
    tls: bool = False  # it is reached over TLS
    certificates: frozenset[str] = frozenset()  # fingerprints, one of which it must show; none: its host's name


@dataclass(frozen=True, slots=True)
class EntityRow:
    """An application entity as administration shows it."""

    actor_id: int
    title: str
    host: str | None  # None: any address, and no move destination
    port: int | None
    tls: bool  # it is reached over TLS
    certificates: list[str]  # fingerprints bound to it, oldest first: it calls over TLS with one of them, or not at all
    rights: frozenset[Right]
    disabled: bool
    last_seen_at: datetime | None
    establishment_id: int
    code: str  # of the establishment
    establishment_name: str


def check_title(title: str) -> str:
    """``title`` without the padding that is not significant. Raises ``BadRequest``."""
    title = title.strip(" ")
    if not _TITLE.fullmatch(title):
        raise BadRequest("an AE title has 1 to 16 characters of ASCII, no backslash")
    return title


def check_host(host: str | None, port: int | None) -> str | None:
    """``host`` normalised. Raises ``BadRequest`` on nonsense, or a port without a host to reach."""
    if port is not None and (host is None or not 1 <= port <= 65_535):
        raise BadRequest("a port is 1 to 65535 and needs a host")
    if host is None:
        return None
    host = normalised(host)
    if not is_ip(host) and not _HOST.fullmatch(host):
        raise BadRequest("a host is an IP address or a host name")
    return host


def check_rights(rights: Collection[Right]) -> list[str]:
    """Sorted for the database. Raises ``BadRequest`` when empty or not for application entities."""
    if not rights or not set(rights) <= AE_RIGHTS:
        raise BadRequest(f"rights of an application entity: {', '.join(sorted(AE_RIGHTS))}")
    return sorted(right.value for right in set(rights))


def check_certificates(fingerprints: Collection[str], tls: bool, port: int | None) -> list[str]:
    """Fingerprints in our spelling. Raises ``BadRequest``."""
    if tls and port is None:
        raise BadRequest("TLS towards an application entity needs its host and port")
    if len(fingerprints) > MOST_CERTIFICATES:
        raise BadRequest(f"at most {MOST_CERTIFICATES} certificates are bound to an application entity")
    try:
        return sorted({fingerprint(text) for text in fingerprints})
    except ValueError as error:
        raise BadRequest(str(error)) from error


def vouched(row: DictRow, certificate: str | None) -> bool:
    """Whether the title is believed from who shows ``certificate`` (``None``: plain text, nothing is shown).

    A bound certificate would bind nothing if the same title were believed without it.
    """
    return certificate in row["certificates"] if certificate is not None else not row["certificates"]


def matching(rows: Sequence[DictRow], address: str, resolve: Resolver) -> DictRow | None:
    """The row that a peer at ``address`` is: the one of its host, else the one for any address.

    A disabled row that names the peer's host answers for it: it is not let in by the wider one.
    """
    address = normalised(address)
    anywhere = None
    for row in rows:
        host = row["host"]
        if host is None:
            anywhere = row
        elif host == address or (not is_ip(host) and address in resolve(host)):
            return None if row["disabled"] else row
    return None if anywhere is None or anywhere["disabled"] else anywhere

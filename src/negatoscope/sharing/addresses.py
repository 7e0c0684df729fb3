"""Network addresses as they are compared and counted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

Resolver = Callable[[str], frozenset[str]]
REMEMBERED = 1_000  # host names of application entities; far more than one platform has


def normalised(address: str) -> str:
    """One spelling for one address: IPv4-mapped IPv6 as IPv4, no zone, shortest IPv6; other text in lower case."""
    try:
        ip = ip_address(address.split("%", 1)[0])
    except ValueError:
        return address.strip().rstrip(".").lower()
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ip)


def counted(address: str) -> str:
    """What attempts are counted by: the address, or the /64 of an IPv6 address (one household has them all)."""
    address = normalised(address)
    try:
        ip = ip_address(address)
    except ValueError:
        return address[:64]
    return str(ip_network(f"{ip}/64", strict=False)) if ip.version == 6 else address


def is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class HostNames:
    """The addresses of a host name, asked of the system at most once in ``keep_s``."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        keep_s: float = 60.0,
        ask: Callable[[str], frozenset[str]] | None = None,
    ) -> None:
        self._monotonic, self._keep_s, self._ask = monotonic, keep_s, ask or _ask_system
        self._known: dict[str, tuple[float, frozenset[str]]] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str) -> frozenset[str]:
        """Normalised addresses; empty when the name does not resolve."""
        now = self._monotonic()
        with self._lock:
            until, addresses = self._known.get(name, (0.0, frozenset()))
        if now < until:
            return addresses
        addresses = frozenset(map(normalised, self._ask(name)))
        with self._lock:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[name] = (now + self._keep_s, addresses)
        return addresses


def _ask_system(name: str) -> frozenset[str]:
    try:
        return frozenset(str(info[4][0]) for info in socket.getaddrinfo(name, None))
    except (OSError, UnicodeError):
        return frozenset()

"""What the pixel pool and its children say to each other over a Unix socket.

A message is a length, a JSON header, then the parts that its header announces. Never pickle: a child
may have been taken over by the file it decodes.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from struct import Struct
from typing import Any

Header = dict[str, Any]

_LENGTH = Struct("<L")
_MOST_HEADER = 16 << 20  # bytes; a million frame numbers fit
_MOST_DESCRIPTORS = 2  # the object, and where to write the answer


class Closed(Exception):
    """The other side is gone, or does not keep to the protocol."""


def send(connection: socket.socket, header: Header, parts: Sequence[bytes] = (), fds: Sequence[int] = ()) -> None:
    """One message; file descriptors travel with its first byte."""
    encoded = json.dumps({**header, "parts": [len(part) for part in parts]}).encode()
    message = _LENGTH.pack(len(encoded)) + encoded
    sent = socket.send_fds(connection, [message], list(fds)) if fds else 0
    connection.sendall(message[sent:])
    for part in parts:
        connection.sendall(part)


def receive(connection: socket.socket, most: int) -> tuple[Header, list[bytes], list[int]]:
    """One message: its header, parts and descriptors.

    Args:
        most: bytes that its parts may have together.

    Raises:
        Closed: the other side is gone, or announced more than it may.
        TimeoutError: nothing came within the socket's timeout.
    """
    first, fds, _, _ = socket.recv_fds(connection, _LENGTH.size, _MOST_DESCRIPTORS)
    if not first:
        raise Closed("the other side closed")
    prefix = first + exactly(connection, _LENGTH.size - len(first))
    (length,) = _LENGTH.unpack(prefix)
    if length > _MOST_HEADER:
        raise Closed(f"a header of {length} bytes")
    try:
        header = json.loads(exactly(connection, length))
        sizes = [int(size) for size in header.pop("parts")]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Closed("a header that is none") from error
    if any(size < 0 for size in sizes) or sum(sizes) > most:
        raise Closed(f"{sum(sizes)} bytes announced, {most} allowed")
    return header, [exactly(connection, size) for size in sizes], list(fds)


def exactly(connection: socket.socket, size: int) -> bytes:
    """``size`` bytes of the stream."""
    received = bytearray(size)
    view, filled = memoryview(received), 0
    while filled < size:
        count = connection.recv_into(view[filled:])
        if not count:
            raise Closed("the other side closed within a message")
        filled += count
    return bytes(received)

"""Data sets on their way out, straight from where they are read, holding little for a peer that is slow.

A peer that keeps up is sent a MiB at a time. When it does not take one within a moment, what it has not taken
is let go, and it is sent 64 KiB at a time, read again when there is room: so a slow reader costs 64 KiB.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from negatoscope.archive.ports import Buffer
from negatoscope.model.checksum import BLOCK
from negatoscope.servers.dicom_tls import Connection, SecureConnection
from negatoscope.wire.dul import Association

BATCH = 256  # buffers given to one sendmsg; the kernel takes 1,024
STEP = 64 << 10  # bytes held for a slow reader; even
PATIENCE_S = 0.25  # a reader that makes us wait longer is slow
QUICK_S = 0.005  # a step taken within this is no wait
QUICK_STEPS = 16  # so many of them in a row end the slowness: a MiB


class Stored:
    """A data set of known length that can be read again, its first bytes perhaps read already."""

    def __init__(self, length: int, read: Callable[[int, int], Buffer]) -> None:
        """``read(offset, size)`` gives verified bytes, or raises."""
        self.length, self.read = length, read
        self._first: Buffer | None = None

    def begin(self) -> None:
        """Read the first block. Raises as ``read``."""
        self._first = self.read(0, min(BLOCK, self.length))

    def forget(self) -> None:
        """Let go of what :meth:`begin` read; it will be read again."""
        self._first = None

    def take(self, offset: int, most: int) -> Buffer:
        """At most ``most`` bytes from ``offset``: one block at the most, and none across two."""
        first, self._first = self._first, None
        if offset == 0 and first is not None and len(first) <= most:
            return first
        return self.read(offset, min(most, self.length - offset, BLOCK - offset % BLOCK))


Content = Stored | Iterator[Buffer]  # what cannot be read again comes in pieces


def send_all(connection: Connection, buffers: Sequence[Buffer]) -> None:
    """``sendmsg`` until all is sent. Raises OSError, when the peer takes nothing for too long as well."""
    sent = connection.sendmsg(buffers)
    for buffer in buffers:
        if sent >= len(buffer):
            sent -= len(buffer)
        else:
            connection.sendall(memoryview(buffer)[sent:])
            sent = 0


def send_data(connection: Connection, machine: Association, context_id: int, pieces: Iterable[Buffer]) -> None:
    """A data set in pieces of any size but the last even. Raises OSError, and what ``pieces`` raises."""
    iterator = iter(pieces)
    held: Buffer | None = next(iterator, b"")
    while held is not None:
        following = next(iterator, None)
        buffers: list[Buffer] = []
        for pair in machine.data(context_id, held, command=False, last=following is None):
            buffers += pair
            if len(buffers) >= BATCH:
                send_all(connection, buffers)
                buffers = []
        if buffers:
            send_all(connection, buffers)
        held = following


def send_content(connection: Connection, machine: Association, context_id: int, content: Content) -> None:
    """A data set, whichever way it comes. Raises OSError, and whatever reading it raises."""
    if isinstance(content, Stored):
        _send_stored(connection, machine, context_id, content)
    else:
        send_data(connection, machine, context_id, content)


def _send_stored(connection: Connection, machine: Association, context_id: int, stored: Stored) -> None:
    offset, quick = 0, QUICK_STEPS  # steps in a row that were taken at once
    while True:
        most = BLOCK if quick >= QUICK_STEPS else STEP
        data = stored.take(offset, most)
        size = len(data)
        last = offset + size >= stored.length
        pairs = list(machine.data(context_id, data, command=False, last=last))
        if most == BLOCK:
            rest = _push(connection, pairs)
            if rest is not None:
                head, done, left = rest
                quick = 0
                del data, pairs
                connection.sendall(head)
                _finish_pdu(connection, stored, offset + done, left)
                size = done + left
                last = offset + size >= stored.length
        else:
            began = time.monotonic()
            send_all(connection, [buffer for pair in pairs for buffer in pair])
            quick = quick + 1 if time.monotonic() - began < QUICK_S else 0
        offset += size
        if last:
            return


def _push(connection: Connection, pairs: Sequence[tuple[bytes, memoryview]]) -> tuple[bytes, int, int] | None:
    """Send PDUs to a peer that keeps up.

    Returns:
        None: all is sent. Else, when it did not take them in time: the bytes of the header that it is in the middle
        of, how much of the payload was sent, and how much of it is left of the PDU that was begun.
    """
    buffers: list[Buffer] = [buffer for pair in pairs for buffer in pair]
    until = time.monotonic() + PATIENCE_S
    index, sent = 0, 0  # buffers sent whole, bytes sent of the next
    while index < len(buffers):
        group: list[Buffer] = buffers[index : index + BATCH]
        if sent:
            group[0] = memoryview(group[0])[sent:]
        try:
            taken = connection.sendmsg(group, (), socket.MSG_DONTWAIT)
        except BlockingIOError:
            left_s = until - time.monotonic()
            if left_s <= 0 or not writable(connection, left_s):
                return _where(pairs, index, sent)
            continue
        sent += taken
        while index < len(buffers) and sent >= len(buffers[index]):
            sent -= len(buffers[index])
            index += 1
    return None


def _where(pairs: Sequence[tuple[bytes, memoryview]], index: int, sent: int) -> tuple[bytes, int, int]:
    """See :func:`_push`; ``index`` counts buffers, two a PDU."""
    done = sum(len(payload) for _, payload in pairs[: index // 2])
    header, payload = pairs[index // 2]
    if index % 2:
        return b"", done + sent, len(payload) - sent
    if not sent:  # between two PDUs
        return b"", done, 0
    return header[sent:], done, len(payload)


def _finish_pdu(connection: Connection, stored: Stored, offset: int, left: int) -> None:
    """The payload of a PDU whose header is sent, a step at a time."""
    while left:
        data = stored.take(offset, min(STEP, left))
        connection.sendall(data)
        offset += len(data)
        left -= len(data)


def writable(connection: Connection, within_s: float) -> bool:
    return _ready(connection, select.POLLOUT, within_s)


def readable(connection: Connection, within_s: float) -> bool:
    if isinstance(connection, SecureConnection) and connection.pending():
        return True
    return _ready(connection, select.POLLIN, within_s)


def _ready(connection: Connection, event: int, within_s: float) -> bool:
    waiting = select.poll()
    waiting.register(connection, event)
    return bool(waiting.poll(max(within_s, 0.0) * 1000))

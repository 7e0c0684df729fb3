"""What a peer that is slow, or stops in the middle, gets and costs."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from struct import unpack_from

import pytest

from dimse_fakes import CT, EXPLICIT
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.model.checksum import BLOCK
from negatoscope.servers import dicom_sending
from negatoscope.servers.dicom_association import make_blocking
from negatoscope.servers.dicom_sending import STEP, Stored, send_content
from negatoscope.wire.dul import Association, Role
from negatoscope.wire.dul.items import ContextAnswer, PresentationContext, UserInformation
from negatoscope.wire.dul.pdu import AssociateAccept, AssociateRequest, encode_associate_request


def machine(maximum: int) -> Association:
    """An acceptor in the state of data transfer, its peer taking PDUs of that length."""
    made = Association(Role.ACCEPTOR, DEFAULT_LIMITS, 0.0)
    contexts = (PresentationContext(1, CT, (EXPLICIT,)),)
    made.receive(encode_associate_request(AssociateRequest("B", "A", contexts, UserInformation(maximum))), 0.0)
    made.accept(AssociateAccept((ContextAnswer(1, 0, EXPLICIT),)), 0.0)
    return made


def reassembled(stream: bytes, maximum: int) -> bytes:
    """The data set of a stream of P-DATA; its last fragment and nothing else says that it is the last."""
    data, at, ended = bytearray(), 0, False
    while at < len(stream):
        kind, length, size, context_id, control = unpack_from(">BxIIBB", stream, at)
        assert (kind, context_id, ended, length) == (4, 1, False, size + 4)
        assert length <= maximum
        data += stream[at + 12 : at + 6 + length]
        ended = control == 2
        at += 6 + length
    assert ended
    return bytes(data)


def taken(content: Stored, maximum: int, read: Callable[[socket.socket], bytes]) -> bytes:
    """What a peer gets that reads in its own way."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        make_blocking(ours, 5.0, 5.0)
        received = bytearray()

        def take() -> None:
            while data := read(theirs):
                received.extend(data)

        reader = threading.Thread(target=take)
        reader.start()
        send_content(ours, machine(maximum), 1, content)
        ours.shutdown(socket.SHUT_WR)
        reader.join(30)
        assert not reader.is_alive()
    return reassembled(bytes(received), maximum)


@pytest.mark.parametrize("maximum", [4096, 16_384, 131_071, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, STEP - 1, STEP + 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 12_345])
def test_any_reader_gets_what_was_kept(size: int, maximum: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_sending, "PATIENCE_S", 0.002)
    monkeypatch.setattr(dicom_sending, "QUICK_STEPS", 3)
    dice = random.Random(size + maximum)
    data = dice.randbytes(size)

    def unsteady(theirs: socket.socket) -> bytes:
        if dice.random() < 0.02:
            time.sleep(0.006)
        return theirs.recv(dice.choice((7, 4096, 60_000, 200_000)))

    content = Stored(size, lambda offset, length: data[offset : offset + length])
    if size % 2:
        content.begin()
    assert taken(content, maximum, unsteady) == data


def test_a_slow_reader_is_read_for_a_step_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_sending, "PATIENCE_S", 0.05)
    monkeypatch.setattr(dicom_sending, "QUICK_S", 0.0)
    asked: list[int] = []
    data = bytes(3 * BLOCK)

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        return data[offset : offset + size]

    slept: list[bool] = []

    def late(theirs: socket.socket) -> bytes:
        if not slept:
            slept.append(True)
            time.sleep(0.2)
        return theirs.recv(1 << 20)

    assert taken(Stored(len(data), read), 16_384, late) == data
    assert asked[0] == BLOCK
    assert max(asked[1:]) <= STEP


def test_a_reader_that_keeps_up_is_read_for_a_block_at_a_time() -> None:
    asked: list[int] = []

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    taken(Stored(3 * BLOCK + 10, read), 131_072, lambda theirs: theirs.recv(1 << 20))
    assert asked == [BLOCK, BLOCK, BLOCK, 10]


def test_what_was_read_ahead_can_be_let_go() -> None:
    asked: list[int] = []

    def read(offset: int, size: int) -> bytes:
        asked.append(size)
        return bytes(size)

    content = Stored(100, read)
    content.begin()
    content.forget()
    assert taken(content, 16_384, lambda theirs: theirs.recv(1 << 20)) == bytes(100)
    assert asked == [100, 100]


def test_a_reader_that_takes_nothing_ends_the_sending() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        make_blocking(ours, 0.3, 0.3)
        began = time.monotonic()
        with pytest.raises(OSError):
            send_content(ours, machine(16_384), 1, Stored(BLOCK, lambda offset, size: bytes(size)))
        assert time.monotonic() - began < 3

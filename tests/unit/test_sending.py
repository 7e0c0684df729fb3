"""web.sending: whole bodies to those who keep up, little memory for those who do not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.errors import CorruptObject
from negatoscope.model.checksum import BLOCK
from negatoscope.model.stored import Container, InstanceRecord, Location
from negatoscope.web import sending
from negatoscope.web.sending import AT_ONCE, BATCH, STEP, Body, Piece, ReadSpan, ReadSteps, Room, Span, VerifiedResponse

STORED = bytes(range(256)) * (3 * BLOCK // 256) + b"tail"


def record() -> InstanceRecord:
    location = Location(Container.SEGMENT, 1, 0, len(STORED), b"")
    return InstanceRecord("1.2", "1.3", "1.2.840.10008.1.2.1", 1, 1, 1, 1, b"", location)


def read(span: Span, buffer: memoryview, wait: bool) -> memoryview | None:
    assert span.offset // BLOCK == (span.offset + span.length - 1) // BLOCK, "a read stays within its block"
    assert len(buffer) == min(BLOCK, len(STORED) - span.offset // BLOCK * BLOCK), "and has room for it"
    buffer[: span.length] = STORED[span.offset : span.offset + span.length]
    return buffer[: span.length]


def from_disk(span: Span, buffer: memoryview, wait: bool) -> memoryview | None:
    """Nothing is in memory."""
    return read(span, buffer, wait) if wait else None


def span(offset: int, length: int) -> Span:
    return Span(record(), offset, length)


def steps(wanted: Span, step: int) -> Iterator[bytes]:
    for at in range(0, wanted.length, step):
        yield STORED[wanted.offset + at : wanted.offset + min(at + step, wanted.length)]


class Peer:
    """A connection whose buffer takes ``room`` bytes and is emptied when ``drain`` is called; before it a kernel
    that takes ``at_once`` bytes of what is pushed, then as many after each time it was found full."""

    def __init__(self, room: int = 1 << 62, pause_s: float = 0.0, at_once: int = 0) -> None:
        self.room, self.pause_s, self.at_once = room, pause_s, at_once
        self.kernel = at_once
        self.buffered = 0
        self.gone = False
        self.was_cut = False
        self.got = bytearray()

    @property
    def full(self) -> bool:
        return self.buffered >= self.room

    async def drained(self, timeout_s: float | None = None) -> bool:
        if not self.full:
            return True
        in_time = timeout_s is None or self.pause_s < timeout_s
        await asyncio.sleep(self.pause_s if timeout_s is None else min(self.pause_s, timeout_s))
        if in_time:
            self.buffered = 0
        return in_time

    def push(self, pieces: Sequence[bytes | memoryview]) -> int:
        if self.buffered >= self.room:
            return 0
        taken = b"".join(pieces)[: self.kernel]
        self.kernel = self.kernel - len(taken) or self.at_once if taken else self.at_once
        self.got += taken
        return len(taken)

    def cut(self) -> None:
        self.was_cut = True

    async def send(self, message: Any) -> None:
        assert not self.full, "the transport was written to although it is full"
        self.got += message.get("body", b"")
        self.buffered += len(message.get("body", b""))


def deliver(
    pieces: list[Piece],
    peer: Peer,
    reader: ReadSpan = read,
    method: str = "GET",
    room: Room | None = None,
    stepper: ReadSteps = steps,
) -> None:
    body = Body(pieces, reader, stepper, room or Room())
    with ThreadPoolExecutor(1) as executor:
        response = VerifiedResponse(body, executor, headers={})
        scope = {"type": "http", "method": method, "extensions": {sending.CONNECTION: peer}}
        asyncio.run(response(scope, None, peer.send))  # type: ignore[arg-type]  # nothing is received


PIECES: list[Piece] = [b"head", span(0, len(STORED)), b"between", span(BLOCK - 3, BLOCK + 7), b"", span(5, 1), b"end"]
WHOLE = b"head" + STORED + b"between" + STORED[BLOCK - 3 : 2 * BLOCK + 4] + STORED[5:6] + b"end"


@given(st.lists(st.sampled_from([1, 5, 1000, STEP, BATCH, BLOCK + 1, 1 << 40]), min_size=1))
def test_reading_in_any_steps_gives_the_same_bytes(budgets: list[int]) -> None:
    pieces: list[Piece] = [b"head", span(BLOCK - 3, 9), span(2, 5), b"end"]
    body, got = Body(pieces, read, steps, Room()), b""
    while (batch := body.fill(budgets[len(got) % len(budgets)])) and batch.length:
        assert batch.length == sum(map(len, batch.data))
        got += b"".join(batch.data)
        batch.release()
    assert got == b"head" + STORED[BLOCK - 3 : BLOCK + 6] + STORED[2:7] + b"end"
    assert len(got) == body.length


@pytest.mark.parametrize("at_once", [0, 300_001, BATCH + 1, 1 << 40])
@pytest.mark.parametrize("reader", [read, from_disk])
@pytest.mark.parametrize("room", [1 << 62, STEP, 3 * STEP])
def test_a_reader_that_keeps_up_gets_everything(room: int, reader: ReadSpan, at_once: int) -> None:
    peer = Peer(room, at_once=at_once)
    deliver(PIECES, peer, reader)
    assert bytes(peer.got) == WHOLE


def test_a_slow_reader_gets_everything_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PATIENCE_S", 0.001)
    monkeypatch.setattr(sending, "QUICK_S", 0.0)
    peer = Peer(STEP, pause_s=0.003)
    deliver(PIECES, peer)
    assert bytes(peer.got) == WHOLE


def taken_of(room: Room, most: int) -> int:
    """How many buffers can be had; they are given back."""
    buffers = [buffer for _ in range(most) if (buffer := room.take()) is not None]
    for buffer in buffers:
        room.give(buffer)
    return len(buffers)


def test_what_waits_for_a_slow_reader_is_let_go_and_read_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PATIENCE_S", 0.001)
    monkeypatch.setattr(sending, "QUICK_S", 0.0)
    monkeypatch.setattr(sending, "AT_ONCE", BATCH)
    lengths: list[int] = []
    room = Room(4)

    def noting(wanted: Span, buffer: memoryview, wait: bool) -> memoryview | None:
        lengths.append(wanted.length)
        return read(wanted, buffer, wait)

    def noting_steps(wanted: Span, step: int) -> Iterator[bytes]:
        assert taken_of(room, 4) == 4, "nothing is held while a slow reader is served"
        lengths.append(-step)
        return steps(wanted, step)

    peer = Peer(STEP, pause_s=0.003)
    deliver([span(0, len(STORED))], peer, noting, room=room, stepper=noting_steps)
    assert bytes(peer.got) == STORED
    assert lengths[:2] == [BLOCK, -STEP], "one batch before anybody knows; then one walk"
    assert taken_of(room, 4) == 4, "all buffers were given back"


@pytest.mark.parametrize("buffers", [0, 1, 2])
def test_without_buffers_a_body_is_read_in_steps(buffers: int) -> None:
    peer = Peer()
    room = Room(buffers)
    deliver([span(0, BATCH + 5), b"end"], peer, room=room)
    assert bytes(peer.got) == STORED[: BATCH + 5] + b"end"
    assert taken_of(room, 3) == buffers


@pytest.mark.parametrize(("asked", "had"), [(1, 1), (2, 2), (3, 2)])
def test_buffers_are_bounded(asked: int, had: int) -> None:
    assert taken_of(Room(2), asked) == had


def test_buffers_that_come_back_are_used_again_or_let_go() -> None:
    room = Room(sending.KEPT + 2)
    for _ in range(3):
        assert taken_of(room, sending.KEPT + 3) == sending.KEPT + 2


@pytest.mark.parametrize(("length", "begun"), [(AT_ONCE - 1, False), (AT_ONCE, False), (AT_ONCE + 1, True)])
def test_a_body_that_is_not_too_long_is_verified_before_it_begins(
    length: int, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "AT_ONCE", 2 * BLOCK)
    length -= AT_ONCE - 2 * BLOCK
    started: list[str] = []

    def failing_at_the_end(wanted: Span, buffer: memoryview, wait: bool) -> memoryview | None:
        if wanted.offset + wanted.length == length:
            if not wait:
                return None
            raise CorruptObject("stored bytes do not match their checksum")
        return read(wanted, buffer, wait)

    class Watched(Peer):
        async def send(self, message: Any) -> None:
            started.append(message["type"])
            await super().send(message)

    with pytest.raises(CorruptObject):
        deliver([span(0, length)], Watched(), failing_at_the_end)
    assert bool(started) is begun


def test_bytes_that_fail_their_checksum_end_the_body_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "AT_ONCE", BATCH)

    def failing(wanted: Span, buffer: memoryview, wait: bool) -> memoryview | None:
        if wanted.offset + wanted.length > 2 * BLOCK:
            if not wait:
                return None
            raise CorruptObject("stored bytes do not match their checksum")
        return read(wanted, buffer, wait)

    peer = Peer()
    with pytest.raises(CorruptObject):
        deliver([span(0, len(STORED)), b"closing"], peer, failing)
    assert len(peer.got) <= 2 * BLOCK
    assert b"closing" not in peer.got


def test_nothing_more_is_read_for_a_peer_that_left() -> None:
    count = 0
    peer = Peer()

    def counting(wanted: Span, buffer: memoryview, wait: bool) -> memoryview | None:
        nonlocal count
        count += 1
        peer.gone = True
        return read(wanted, buffer, wait)

    deliver([span(0, len(STORED))] * 50, peer, counting)
    assert count == 1


def test_head_says_the_length_and_sends_nothing() -> None:
    peer = Peer()
    deliver(PIECES, peer, method="HEAD")
    assert peer.got == b""

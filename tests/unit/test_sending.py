"""web.sending: whole bodies to those who keep up, little memory for those who do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.errors import CorruptObject
from negatoscope.model.checksum import BLOCK
from negatoscope.model.stored import Container, InstanceRecord, Location
from negatoscope.web import sending
from negatoscope.web.sending import BATCH, STEP, Body, Piece, ReadSteps, Room, Span, VerifiedResponse

STORED = bytes(range(256)) * (3 * BLOCK // 256) + b"tail"


def record() -> InstanceRecord:
    location = Location(Container.SEGMENT, 1, 0, len(STORED), b"")
    return InstanceRecord("1.2", "1.3", "1.2.840.10008.1.2.1", 1, 1, 1, 1, b"", location)


def read(span: Span) -> bytes:
    return STORED[span.offset : span.offset + span.length]


def span(offset: int, length: int) -> Span:
    return Span(record(), offset, length)


def steps(wanted: Span, step: int) -> Iterator[bytes]:
    for at in range(0, wanted.length, step):
        yield STORED[wanted.offset + at : wanted.offset + min(at + step, wanted.length)]


class Peer:
    """A connection whose buffer takes ``room`` bytes and is emptied when ``drain`` is called."""

    def __init__(self, room: int = 1 << 62, pause_s: float = 0.0) -> None:
        self.room, self.pause_s = room, pause_s
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

    def cut(self) -> None:
        self.was_cut = True

    async def send(self, message: Any) -> None:
        assert not self.full, "the transport was written to although it is full"
        self.got += message.get("body", b"")
        self.buffered += len(message.get("body", b""))


def deliver(
    pieces: list[Piece],
    peer: Peer,
    reader: Callable[[Span], bytes] = read,
    method: str = "GET",
    room: Room | None = None,
    stepper: ReadSteps = steps,
) -> None:
    body = Body(pieces, reader, stepper, room or Room())
    with ThreadPoolExecutor(1) as executor:
        response = VerifiedResponse(body, body.fill(BATCH), executor, headers={})
        scope = {"type": "http", "method": method, "extensions": {sending.CONNECTION: peer}}
        asyncio.run(response(scope, None, peer.send))  # type: ignore[arg-type]  # nothing is received


PIECES: list[Piece] = [b"head", span(0, len(STORED)), b"between", span(BLOCK - 3, BLOCK + 7), b"", span(5, 1), b"end"]
WHOLE = b"head" + STORED + b"between" + STORED[BLOCK - 3 : 2 * BLOCK + 4] + STORED[5:6] + b"end"


@given(st.lists(st.sampled_from([1, 5, 1000, STEP, BATCH, BLOCK + 1, 1 << 40]), min_size=1))
def test_reading_in_any_steps_gives_the_same_bytes(budgets: list[int]) -> None:
    pieces: list[Piece] = [b"head", span(BLOCK - 3, 9), span(2, 5), b"end"]
    body, got = Body(pieces, read, steps, Room()), b""
    while chunk := body.read(budgets[len(got) % len(budgets)]):
        got += b"".join(chunk)
    assert got == b"head" + STORED[BLOCK - 3 : BLOCK + 6] + STORED[2:7] + b"end"
    assert len(got) == body.length


@pytest.mark.parametrize("room", [1 << 62, STEP, 3 * STEP])
def test_a_reader_that_keeps_up_gets_everything(room: int) -> None:
    peer = Peer(room)
    deliver(PIECES, peer)
    assert bytes(peer.got) == WHOLE


def test_a_slow_reader_gets_everything_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PATIENCE_S", 0.001)
    monkeypatch.setattr(sending, "QUICK_S", 0.0)
    peer = Peer(STEP, pause_s=0.003)
    deliver(PIECES, peer)
    assert bytes(peer.got) == WHOLE


def test_what_waits_for_a_slow_reader_is_let_go_and_read_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PATIENCE_S", 0.001)
    monkeypatch.setattr(sending, "QUICK_S", 0.0)
    lengths: list[int] = []
    room = Room(4 * BATCH)

    def noting(wanted: Span) -> bytes:
        lengths.append(wanted.length)
        return read(wanted)

    def noting_steps(wanted: Span, step: int) -> Iterator[bytes]:
        assert room.take(4 * BATCH), "nothing is held while a slow reader is served"
        room.give(4 * BATCH)
        lengths.append(-step)
        return steps(wanted, step)

    peer = Peer(STEP, pause_s=0.003)
    deliver([span(0, len(STORED))], peer, noting, room=room, stepper=noting_steps)
    assert bytes(peer.got) == STORED
    assert lengths[:3] == [BLOCK, BLOCK, -STEP], "one batch and one ahead, before anybody knows; then one walk"
    assert room.take(4 * BATCH), "all room was given back"


def test_without_room_a_body_is_read_in_steps_from_the_start() -> None:
    def never(wanted: Span) -> bytes:
        raise AssertionError(wanted)

    peer = Peer()
    deliver(
        [span(0, BATCH + 5), b"end"],
        peer,
        lambda wanted: never(wanted) if wanted.length > STEP else read(wanted),
        room=Room(STEP),
    )
    assert bytes(peer.got) == STORED[: BATCH + 5] + b"end"


@pytest.mark.parametrize(("taken", "fits"), [(BATCH - 1, True), (BATCH, True), (BATCH + 1, False)])
def test_room_is_bounded(taken: int, fits: bool) -> None:
    assert Room(BATCH).take(taken) is fits


def test_bytes_that_fail_their_checksum_end_the_body_early() -> None:
    def failing(wanted: Span) -> bytes:
        if wanted.offset + wanted.length > 2 * BLOCK:
            raise CorruptObject("stored bytes do not match their checksum")
        return read(wanted)

    peer = Peer()
    with pytest.raises(CorruptObject):
        deliver([span(0, len(STORED)), b"closing"], peer, failing)
    assert len(peer.got) <= 2 * BLOCK
    assert b"closing" not in peer.got


def test_nothing_more_is_read_for_a_peer_that_left() -> None:
    count = 0
    peer = Peer()

    def counting(wanted: Span) -> bytes:
        nonlocal count
        count += 1
        peer.gone = True
        return read(wanted)

    deliver([span(0, len(STORED))] * 50, peer, counting)
    assert count == 1


def test_head_says_the_length_and_sends_nothing() -> None:
    peer = Peer()
    deliver(PIECES, peer, method="HEAD")
    assert peer.got == b""

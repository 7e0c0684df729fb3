"""archive.retrieve: no byte of a block that does not match is given as verified."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.archive.ports import Unit
from negatoscope.archive.retrieve import Flaw, Retrieval
from negatoscope.errors import CorruptObject, RangeNotSatisfiable, Unavailable
from negatoscope.model.actor import Scope
from negatoscope.model.checksum import BLOCK, block_crcs
from negatoscope.model.event import AuditEvent
from negatoscope.model.stored import Container, InstanceRecord, Location

DATA = bytes(range(251)) * (2 * BLOCK // 251) + bytes(1000)
STEP = 300_000


class NoDatabase:
    """Cannot be reached: reading goes on without it, and so does refusing."""

    def unit(self, establishments: Sequence[int] | None) -> AbstractContextManager[Unit]:
        raise Unavailable("no database")

    def statements(self, establishments: Sequence[int] | None) -> AbstractContextManager[Unit]:
        raise Unavailable("no database")

    def reading(self, scope: Scope) -> AbstractContextManager[Unit]:
        raise Unavailable("no database")


class NoTrail:
    def record(self, events: Sequence[AuditEvent]) -> None:
        raise NotImplementedError

    def append(self, unit: Unit, events: Sequence[AuditEvent]) -> None:
        raise NotImplementedError


class Disk:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.in_memory = True

    def read(self, container: Container, container_id: int, offset: int, length: int) -> bytes:
        found = self.data[offset : offset + length]
        if len(found) < length:
            raise CorruptObject("truncated")
        return found

    def read_into(
        self, container: Container, container_id: int, offset: int, buffer: memoryview, *, wait: bool = True
    ) -> bool:
        if wait or self.in_memory:
            buffer[:] = self.read(container, container_id, offset, len(buffer))
        return wait or self.in_memory

    def view(
        self, container: Container, container_id: int, offset: int, length: int
    ) -> AbstractContextManager[memoryview]:
        return memoryview(self.read(container, container_id, offset, length))


def archive(data: bytes) -> tuple[Retrieval, InstanceRecord, list[Flaw]]:
    """A retrieval over a disk that holds ``data`` where ``DATA`` was kept."""
    flaws: list[Flaw] = []
    location = Location(Container.SEGMENT, 7, 0, len(DATA), block_crcs(DATA))
    record = InstanceRecord("1.2", "1.3", "1.2.840.10008.1.2.1", 1, 1, 1, 1, b"", location)
    return Retrieval(NoDatabase(), Disk(data), NoTrail(), on_flaw=flaws.append), record, flaws


def buffer() -> memoryview:
    return memoryview(bytearray(len(DATA)))


def flipped(at: int) -> bytes:
    return DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :]


ranges = st.tuples(st.integers(0, len(DATA)), st.integers(0, len(DATA))).map(sorted)


@given(ranges)
def test_any_range_comes_back_whole_or_in_steps(bounds: list[int]) -> None:
    start, end = bounds
    retrieval, record, flaws = archive(DATA)
    assert retrieval.read_range(record, start, end - start) == DATA[start:end]
    steps = list(retrieval.read_steps(record, start, end - start, STEP))
    assert b"".join(steps) == DATA[start:end]
    assert all(0 < len(step) <= STEP for step in steps)
    assert bytes(retrieval.read_into(record, start, end - start, buffer()) or b"") == DATA[start:end]
    assert not flaws


@given(ranges, st.integers(0, len(DATA) - 1))
def test_a_range_with_a_bad_block_never_comes_back_whole(bounds: list[int], at: int) -> None:
    """Nor one whose block is bad outside of the range: which bit is wrong cannot be known."""
    start, end = bounds
    retrieval, record, flaws = archive(flipped(at))
    touched = start < end and start // BLOCK <= at // BLOCK <= (end - 1) // BLOCK
    if not touched:
        assert retrieval.read_range(record, start, end - start) == DATA[start:end]
        assert b"".join(retrieval.read_steps(record, start, end - start, STEP)) == DATA[start:end]
        assert not flaws
        return
    with pytest.raises(CorruptObject):
        retrieval.read_range(record, start, end - start)
    given_out = b""
    with pytest.raises(CorruptObject):
        for step in retrieval.read_steps(record, start, end - start, STEP):
            given_out += step
    assert len(given_out) < end - start
    assert retrieval.read_into(record, start, end - start, buffer(), wait=False) is None
    assert [flaw.kind for flaw in flaws] == ["altered", "altered"], "whoever may not wait does not record either"
    with pytest.raises(CorruptObject):
        retrieval.read_into(record, start, end - start, buffer())
    assert [flaw.kind for flaw in flaws] == ["altered"] * 3


def test_who_may_not_wait_gets_what_is_in_memory_and_else_nothing() -> None:
    flaws: list[Flaw] = []
    disk = Disk(DATA)
    location = Location(Container.SEGMENT, 7, 0, len(DATA), block_crcs(DATA))
    record = InstanceRecord("1.2", "1.3", "1.2.840.10008.1.2.1", 1, 1, 1, 1, b"", location)
    retrieval = Retrieval(NoDatabase(), disk, NoTrail(), on_flaw=flaws.append)
    assert bytes(retrieval.read_into(record, 5, 7, buffer(), wait=False) or b"") == DATA[5:12]
    disk.in_memory = False
    assert retrieval.read_into(record, 5, 7, buffer(), wait=False) is None
    assert bytes(retrieval.read_into(record, 5, 7, buffer()) or b"") == DATA[5:12]
    disk.data = b""
    disk.in_memory = True
    assert retrieval.read_into(record, 5, 7, buffer(), wait=False) is None
    assert not flaws
    with pytest.raises(CorruptObject):
        retrieval.read_into(record, 5, 7, buffer())
    assert [flaw.kind for flaw in flaws] == ["missing"]


@pytest.mark.parametrize("missing", [1, BLOCK, len(DATA)])
def test_bytes_that_are_not_there_are_refused_and_told(missing: int) -> None:
    retrieval, record, flaws = archive(DATA[: len(DATA) - missing])
    with pytest.raises(CorruptObject):
        list(retrieval.read(record))
    with pytest.raises(CorruptObject):
        list(retrieval.read_steps(record, 0, len(DATA), STEP))
    assert {flaw.kind for flaw in flaws} == {"missing"}


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, len(DATA) + 1), (len(DATA), 1), (0, -1)])
def test_ranges_outside_of_the_data_set_are_refused(offset: int, length: int) -> None:
    retrieval, record, _ = archive(DATA)
    with pytest.raises(RangeNotSatisfiable):
        retrieval.read_range(record, offset, length)
    with pytest.raises(RangeNotSatisfiable):
        list(retrieval.read_steps(record, offset, length, STEP))
    with pytest.raises(RangeNotSatisfiable):
        retrieval.read_into(record, offset, length, buffer())

"""What a job is given of an object: the parts that were asked for, zeros for all else."""

from __future__ import annotations

import mmap
import os

import pytest

from negatoscope.demo.synthetic import synthetic_ct
from negatoscope.dicom.part10 import read_file_meta
from negatoscope.dicom.pixels.render import RenderOptions
from negatoscope.dicom.pixels.source import Source
from negatoscope.errors import CorruptObject
from negatoscope.servers import pixels
from negatoscope.servers.pixels import PixelPool, _Lent

CONTENT = bytes(range(1, 256)) * 20_000  # 5 MB without a zero
PNG = RenderOptions("image/png")


def source(content: bytes, *extents: tuple[int, int]) -> Source:
    def read(start: int, room: memoryview) -> None:
        room[:] = content[start : start + len(room)]

    return Source(len(content), extents or ((0, len(content)),), read)


@pytest.mark.parametrize(
    "extents",
    [
        (),
        ((0, len(CONTENT)),),
        ((0, 1),),
        ((1, 2), (2_097_151, 2_097_153), (len(CONTENT) - 1, len(CONTENT))),
        ((1000, 4_000_000),),
    ],
)
def test_what_lay_in_the_room_before_is_gone_wherever_nothing_is_read(extents: tuple[tuple[int, int], ...]) -> None:
    room = bytearray(b"\xff" * len(CONTENT))
    Source(len(CONTENT), extents, source(CONTENT).read).fill(memoryview(room))
    expected = bytearray(len(CONTENT))
    for start, end in extents:
        expected[start:end] = CONTENT[start:end]
    assert room == expected


def test_a_child_renders_one_object_after_another_as_if_each_were_its_first() -> None:
    (large,), (small,) = synthetic_ct(1, 512, 512), synthetic_ct(1, 64, 64, seed=2)
    objects = []
    for file in (large, small):
        meta, start = read_file_meta(file)
        objects.append((file[start:], meta.transfer_syntax_uid))
    with PixelPool(1) as pool:
        alone = [pool.render(data, syntax, 0, PNG) for data, syntax in objects]
        for number in (0, 1, 0, 1):
            data, syntax = objects[number]
            assert pool.render(source(data), syntax, 0, PNG) == alone[number]


@pytest.mark.parametrize("length", [len(CONTENT), 3 * pixels._LENT])
def test_a_few_blocks_of_a_long_object_touch_no_more_pages_than_they_fill(length: int) -> None:
    extents = ((0, 4096), (2 << 20, (2 << 20) + 8192))
    child = object.__new__(pixels._Child)
    child._lent = None
    with child.given(Source(length, extents, lambda start, room: source(CONTENT).read(start, room))) as descriptor:
        status = os.fstat(descriptor)
        assert status.st_size == length
        assert status.st_blocks * 512 == 4096 + 8192
        assert os.pread(descriptor, 8192, 2 << 20) == CONTENT[2 << 20 : (2 << 20) + 8192]


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_objects_as_long_as_the_memory_that_a_child_keeps_and_one_byte_more_or_less_are_rendered(
    beyond: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = synthetic_ct(1, 64, 64)
    meta, start = read_file_meta(file)
    data = file[start:]
    monkeypatch.setattr(pixels, "_LENT", len(data) - beyond)
    with PixelPool(1) as pool:
        assert pool.render(source(data), meta.transfer_syntax_uid, 0, PNG) == pool.render(
            data, meta.transfer_syntax_uid, 0, PNG
        )


def test_a_child_that_was_to_be_given_damaged_bytes_goes_on_with_the_next_object() -> None:
    def damaged(start: int, room: memoryview) -> None:
        raise CorruptObject("stored bytes do not match their checksum")

    (file,) = synthetic_ct(1, 64, 64)
    meta, start = read_file_meta(file)
    with PixelPool(1) as pool:
        pool.render(file[start:], meta.transfer_syntax_uid, 0)
        before = pool.pids()
        with pytest.raises(CorruptObject):
            pool.render(Source(1000, ((0, 1000),), damaged), meta.transfer_syntax_uid, 0)
        assert pool.render(source(file[start:]), meta.transfer_syntax_uid, 0)
        assert pool.pids() == before


def test_whoever_is_lent_memory_can_read_it_and_neither_write_nor_resize_it() -> None:
    lent = _Lent(8192)
    lent.memory[:5] = b"hello"
    with mmap.mmap(lent.descriptor, 8192, prot=mmap.PROT_READ) as seen:
        assert seen[:5] == b"hello"
        lent.memory[:5] = b"later"
        assert seen[:5] == b"later"
    again = os.open(f"/proc/self/fd/{lent.descriptor}", os.O_RDWR)
    for descriptor in (lent.descriptor, again):
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, 8192)
        for attempt in (lambda fd: os.pwrite(fd, b"x", 0), lambda fd: os.ftruncate(fd, 0)):
            with pytest.raises(PermissionError):
                attempt(descriptor)
    os.close(again)
    lent.close()

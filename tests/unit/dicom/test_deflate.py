"""Inflating within bounds."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.dicom.deflate import inflate
from negatoscope.dicom.limits import DEFAULT_LIMITS, KIB, MIB
from negatoscope.errors import InvalidObject, LimitExceeded, TruncatedObject


def deflated(content: bytes, level: int = 9) -> bytes:
    deflater = zlib.compressobj(level, wbits=-15)
    return deflater.compress(content) + deflater.flush()


@given(content=st.binary(max_size=2000), cut=st.integers(1, 50), padding=st.binary(max_size=3))
def test_what_was_deflated_comes_back_however_it_is_cut(content: bytes, cut: int, padding: bytes) -> None:
    stream = deflated(content) + padding
    assert b"".join(inflate([stream[i : i + cut] for i in range(0, len(stream), cut)])) == content


def test_long_output_comes_in_chunks_of_at_most_256_kib() -> None:
    content = bytes(range(256)) * 4096 * 2
    chunks = list(inflate([memoryview(deflated(content, 0))]))
    assert b"".join(chunks) == content
    assert max(map(len, chunks)) <= 256 * KIB


@pytest.mark.parametrize(("size", "taken"), [(999, True), (1000, True), (1001, False)])
def test_output_is_limited(size: int, taken: bool) -> None:
    limits = replace(DEFAULT_LIMITS, inflated=1000)
    if taken:
        assert len(b"".join(inflate([deflated(bytes(size))], limits))) == size
    else:
        with pytest.raises(LimitExceeded):
            list(inflate([deflated(bytes(size))], limits))


@pytest.mark.parametrize(("step", "taken"), [(-1, True), (0, True), (1, False)])
def test_the_ratio_is_limited(step: int, taken: bool) -> None:
    limits = replace(DEFAULT_LIMITS, inflate_ratio=20)
    size = 100 * KIB + step
    padding = 5 * KIB - len(deflated(bytes(size)))  # the whole input is 5 KiB: 20 times that is 100 KiB
    stream = b"\0" * 0 + deflated(bytes(size)) + b"\xff" * padding
    if taken:
        assert len(b"".join(inflate([stream], limits))) == size
    else:
        with pytest.raises(LimitExceeded):
            list(inflate([stream], limits))


def test_a_bomb_costs_little_time_and_memory() -> None:
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(deflater.compress(bytes(MIB)) for _ in range(256)) + deflater.flush()
    begun = time.monotonic()
    tracemalloc.start()
    with pytest.raises(LimitExceeded):
        for _ in inflate([bomb[i : i + KIB] for i in range(0, len(bomb), KIB)]):
            pass
    assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    tracemalloc.stop()
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
def test_a_stream_that_does_not_end_is_truncated(cut: int) -> None:
    with pytest.raises(TruncatedObject):
        list(inflate([deflated(b"some text that is deflated")[:cut]]))


@pytest.mark.parametrize("extra", range(0, 300, 7))
def test_output_that_does_not_fit_its_chunk_is_not_lost(extra: int) -> None:
    """A copy of up to 258 bytes may be held back with no input left that would bring it out."""
    content = bytes(256 * KIB + extra)
    assert sum(map(len, inflate([deflated(content)], replace(DEFAULT_LIMITS, inflate_ratio=10_000)))) == len(content)


@given(st.binary(max_size=200))
def test_noise_raises_nothing_but_invalid_object(noise: bytes) -> None:
    try:
        list(inflate([noise]))
    except InvalidObject:
        pass

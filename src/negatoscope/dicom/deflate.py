"""Inflating within bounds: PS3.5 A.5 (deflated data sets), and whatever else comes compressed."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterable, Iterator

from negatoscope.dicom.limits import DEFAULT_LIMITS, KIB, Limits
from negatoscope.errors import InvalidObject, LimitExceeded, TruncatedObject

_STEP = 256 * KIB  # bytes at most in one output chunk
_GRACE = 64 * KIB  # below it no ratio is judged: short runs of zeros are honest


def inflate(
    chunks: Iterable[bytes | bytearray | memoryview | mmap.mmap], limits: Limits = DEFAULT_LIMITS
) -> Iterator[bytes]:
    """The bytes inside a raw RFC 1951 stream, in chunks of at most 256 KiB.

    Output is counted as it comes, so a bomb costs one chunk over its limit. Bytes after the end of
    the stream (padding to an even length) are ignored.

    Raises:
        LimitExceeded: over ``limits.inflated`` bytes, or ``limits.inflate_ratio`` times the input.
        TruncatedObject: the stream does not end.
        InvalidObject: no such stream.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    taken = given = 0
    for chunk in chunks:
        for start in range(0, len(chunk), _STEP):
            pending = bytes(chunk[start : start + _STEP])
            taken += len(pending)
            while not inflater.eof:
                try:
                    out = inflater.decompress(pending, _STEP)
                except zlib.error as error:
                    raise InvalidObject("the deflated stream is damaged") from error
                pending = inflater.unconsumed_tail
                given += len(out)
                if given > limits.inflated:
                    raise LimitExceeded(f"more than {limits.inflated} bytes inflated")
                if given > max(taken * limits.inflate_ratio, _GRACE):
                    raise LimitExceeded(f"inflates more than {limits.inflate_ratio} times")
                if not out and not pending:
                    break
                yield out
    if not inflater.eof:
        raise TruncatedObject("the deflated stream does not end")

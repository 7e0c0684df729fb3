"""CRC-32C by blocks of one MiB: what every read is verified with."""

from __future__ import annotations

import ctypes

import google_crc32c

BLOCK = 1 << 20  # bytes covered by one checksum; the last block of a run may be shorter

Buffer = bytes | bytearray | memoryview


def crc32c(data: Buffer) -> int:
    """CRC-32C (Castagnoli) of ``data``. The library takes bytes and C arrays; read-only views are copied."""
    if isinstance(data, bytes):
        return int(google_crc32c.value(data))
    view = memoryview(data)
    if view.readonly or not view.contiguous:
        return int(google_crc32c.value(bytes(view)))
    return int(google_crc32c.value((ctypes.c_char * view.nbytes).from_buffer(view)))


def block_crcs(data: Buffer) -> bytes:
    """The checksums of ``data`` block by block, four bytes big endian each: the form of ``Location.crcs``."""
    if len(data) <= BLOCK:
        return crc32c(data).to_bytes(4, "big") if len(data) else b""
    view = memoryview(data)
    return b"".join(crc32c(view[start : start + BLOCK]).to_bytes(4, "big") for start in range(0, len(view), BLOCK))


def covering(offset: int, length: int, whole: int) -> tuple[int, int]:
    """The block-aligned (start, end) within a run of ``whole`` bytes that covers a range of it."""
    start = offset // BLOCK * BLOCK
    end = min(whole, -(-(offset + length) // BLOCK) * BLOCK)
    return start, end


def blocks_match(data: Buffer, crcs: bytes, start: int = 0) -> bool:
    """Whether ``data``, which begins at block-aligned ``start`` of its run, has the checksums of that run."""
    first = start // BLOCK
    found = block_crcs(data)
    return crcs[4 * first : 4 * first + len(found)] == found

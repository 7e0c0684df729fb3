"""A whole data set, or one of its frames, in another transfer syntax, with proof that no pixel changed.

Every frame that is encoded is decoded again and its CRC-32C compared; the first that differs ends the
work with ``CannotTranscode`` and the original stays. Decompressing a lossy image keeps the mark of what
it lost. Sources: PS3.5 annex A, 8.2; PS3.3 C.7.6.1.1.5 (lossy), C.7.6.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from struct import pack
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.decode import (
    DECODABLE,
    JPEG,
    JPEG_LOSSLESS,
    RLE,
    decode_cells,
    decode_frame,
    decoded_photometric,
    meaning,
)
from negatoscope.dicom.pixels.describe import Kind, PixelDescription, describe_header
from negatoscope.dicom.pixels.encode import (
    CODEC_TARGETS,
    NATIVE_TARGETS,
    encode_frame,
    encoded_photometric,
    refuse_unless_encodable,
)
from negatoscope.dicom.pixels.frames import Fragments, after_fragments, frame_bytes, frame_locations
from negatoscope.dicom.pixels.header import (
    EXPLICIT,
    IMPLICIT,
    PIXEL_TAGS,
    UNDEFINED,
    Buffer,
    Encoding,
    Header,
    encoding_of,
    plain,
    read_header,
)
from negatoscope.dicom.pixels.rewrite import Changes, Rewriter, element_header, swap
from negatoscope.dicom.uid import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
)
from negatoscope.errors import CannotTranscode

Array = NDArray[Any]

_NATIVE = (IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, DEFLATED_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN)
SOURCES = frozenset(_NATIVE) | DECODABLE
TARGETS = NATIVE_TARGETS | CODEC_TARGETS

TRANSCODINGS: dict[str, frozenset[str]] = {source: TARGETS - {source} for source in SOURCES}
"""Which syntaxes each stored one can be had in, pixels permitting (float, one-bit and deep pixels do
not go into every codec). What is negotiated, and what the conformance statement says."""

# Syntaxes that lose something whenever they are used; others may or may not have.
_ALWAYS_LOSSY = (JPEG - JPEG_LOSSLESS) | {"1.2.840.10008.1.2.4.81"}

_TABLE_MEMORY = 256 << 20  # native bytes above which no Basic Offset Table is written, to hold one frame only
_LONGEST_NATIVE = 0xFFFFFFFE


def can_transcode(source_uid: str, target_uid: str) -> bool:
    """Whether such objects can be had in ``target_uid`` at all; the same syntax always can."""
    return source_uid == target_uid or target_uid in TRANSCODINGS.get(source_uid, frozenset())


@dataclass(frozen=True, slots=True)
class _Work:
    """One data set being transcoded."""

    header: Header
    source: PixelDescription
    target: PixelDescription  # of the frames once encoded
    target_uid: str
    frames: Sequence[Fragments]

    @property
    def copies_cells(self) -> bool:
        """RLE and native hold whole cells, so bits outside Bits Stored go along."""
        return self.target_uid in NATIVE_TARGETS or self.target_uid == RLE


def transcode(
    data: Buffer, source_uid: str, target_uid: str, limits: Limits = DEFAULT_LIMITS
) -> Iterator[bytes | memoryview]:
    """A whole data set in ``target_uid``, in pieces. Nothing is proven until the last piece is out.

    Raises:
        CannotTranscode: not a pair of :data:`TRANSCODINGS`, pixels the codec cannot hold, or a frame
            whose CRC-32C after is not the one before.
        PixelsUnreadable, LimitExceeded, TruncatedObject: the source cannot be read.
    """
    view, syntax = plain(data, source_uid, limits)
    if target_uid == source_uid:
        yield view if view.obj is data else memoryview(data)
        return
    if not can_transcode(source_uid, target_uid):
        raise CannotTranscode(f"from {source_uid} to {target_uid}")
    source_encoding, target_encoding = (
        encoding_of(syntax),
        IMPLICIT if target_uid == IMPLICIT_LITTLE_ENDIAN else EXPLICIT,
    )
    header = read_header(view, syntax, limits)
    signed = header.integer(0x00280103, 0) == 1
    rewriter = Rewriter(view, source_encoding, target_encoding, signed, limits)
    if not any(tag in header for tag in PIXEL_TAGS):
        yield from rewriter.top_level(0, len(view), {})
        return
    work = _work(header, syntax, target_uid, limits)
    yield from rewriter.top_level(0, work.source.pixels.start, _changes(work))
    yield from _pixel_data(work, target_encoding)
    after = after_fragments(view, work.source, limits) if work.source.encapsulated else work.source.pixels.end
    yield from rewriter.top_level(after, len(view), {})


def transcode_frame(
    data: Buffer, source_uid: str, target_uid: str, frame: int, limits: Limits = DEFAULT_LIMITS
) -> bytes:
    """One frame, counted from 0, encoded as the frames of ``target_uid`` are. Errors as :func:`transcode`."""
    return next(transcode_frames(data, source_uid, target_uid, (frame,), limits))


def transcode_frames(
    data: Buffer, source_uid: str, target_uid: str, frames: Sequence[int], limits: Limits = DEFAULT_LIMITS
) -> Iterator[bytes]:
    """Several frames of one object, the header read once. Errors as :func:`transcode`."""
    if target_uid not in TARGETS or not can_transcode(source_uid, target_uid):
        raise CannotTranscode(f"from {source_uid} to {target_uid}")
    view, syntax = plain(data, source_uid, limits)
    work = _work(read_header(view, syntax, limits), syntax, target_uid, limits)
    for frame in frames:
        if not 0 <= frame < work.source.frames:
            raise CannotTranscode(f"frame {frame + 1} of {work.source.frames}")
        yield _frame(work, frame)


def _work(header: Header, syntax: str, target_uid: str, limits: Limits) -> _Work:
    source = describe_header(header, syntax, limits)
    if target_uid in NATIVE_TARGETS and not source.encapsulated:
        photometric, planar = source.photometric, source.planar  # native cells are copied as they lie
    else:
        refuse_unless_encodable(source, target_uid)
        photometric = encoded_photometric(decoded_photometric(source), target_uid)
        planar = 1 if target_uid == RLE else 0
    target = replace(
        source,
        transfer_syntax_uid=target_uid,
        photometric=photometric,
        planar=planar if source.samples > 1 else 0,
        encapsulated=target_uid not in NATIVE_TARGETS,
        little=True,
    )
    return _Work(header, source, target, target_uid, frame_locations(header.view, source, limits))


def _changes(work: _Work) -> Changes:
    """Attributes that depend on the transfer syntax; the Extended Offset Table goes with its fragments."""
    changes: dict[int, tuple[bytes, bytes] | None] = {0x7FE00001: None, 0x7FE00002: None}
    if work.target.photometric != work.source.photometric:
        changes[0x00280004] = (b"CS", _even(work.target.photometric.encode(), b" "))
    if work.source.samples > 1:
        changes[0x00280006] = (b"US", pack("<H", work.target.planar))
    if work.source.transfer_syntax_uid in _ALWAYS_LOSSY and not work.source.lossy:
        changes[0x00282110] = (b"CS", b"01")
    return changes


def _pixel_data(work: _Work, encoding: Encoding) -> Iterator[bytes | memoryview]:
    tag, vr = work.source.kind.value, _pixel_vr(work)
    if work.target.encapsulated:
        yield element_header(tag, b"OB", UNDEFINED, encoding)
        yield from _encapsulated(work)
        yield pack("<HHL", 0xFFFE, 0xE0DD, 0)
        return
    if not work.source.encapsulated:
        element, order = work.source.pixels, work.header.encoding
        yield element_header(tag, vr, element.length + element.length % 2, encoding)
        width = 1 if order.little else work.source.unit if work.source.unit == 2 else work.source.bits_allocated // 8
        step = 1 << 20
        for start in range(element.offset, element.end, step):
            yield swap(work.header.view[start : min(start + step, element.end)], max(width, 1))
        yield b"\0" * (element.length % 2)
        return
    length = (work.source.rows * work.source.columns * work.source.samples * work.source.bits_allocated + 7) // 8
    length *= work.source.frames
    if work.source.bits_allocated == 1 and work.source.frames > 1:
        raise CannotTranscode("encapsulated one-bit frames to native ones")
    if length > _LONGEST_NATIVE:
        raise CannotTranscode(f"{length} bytes of native pixel data")
    yield element_header(tag, vr, length + length % 2, encoding)
    for frame in range(work.source.frames):
        yield _frame(work, frame)
    yield b"\0" * (length % 2)


def _pixel_vr(work: _Work) -> bytes:
    """OW over 8 bits, else what it was, else OB (PS3.5 A.2)."""
    if work.source.kind is not Kind.INTEGER:
        return b"OF" if work.source.kind is Kind.FLOAT else b"OD"
    if work.source.bits_allocated > 8:
        return b"OW"
    native = not work.source.encapsulated
    return work.source.pixels.vr if native and work.source.pixels.vr == b"OW" else b"OB"


def _encapsulated(work: _Work) -> Iterator[bytes]:
    """Offset table and one fragment a frame; an empty table where frames are too large to wait for."""
    encoded: Iterator[bytes] = (_frame(work, frame) for frame in range(work.source.frames))
    table = b""
    if work.source.frame_bits // 8 * work.source.frames <= _TABLE_MEMORY:
        pieces = list(encoded)
        offsets = np.cumsum([0] + [8 + len(piece) for piece in pieces[:-1]])
        if int(offsets[-1]) <= _LONGEST_NATIVE:
            table = offsets.astype("<u4").tobytes()
        encoded = iter(pieces)
    yield pack("<HHL", 0xFFFE, 0xE000, len(table)) + table
    for piece in encoded:
        yield pack("<HHL", 0xFFFE, 0xE000, len(piece)) + piece


def _frame(work: _Work, frame: int) -> bytes:
    """One frame encoded and proven."""
    raw = frame_bytes(work.header.view, work.frames[frame])
    cells = decode_cells(raw, work.source, frame)
    stored = meaning(cells, work.source)
    whole = not work.source.encapsulated or work.source.transfer_syntax_uid == RLE
    decoded = replace(work.source, photometric=decoded_photometric(work.source))
    if work.target_uid in NATIVE_TARGETS:
        return encode_frame(cells if whole else stored, decoded, work.target_uid)
    values = cells if work.copies_cells and whole else stored
    if not work.copies_cells and whole:
        _refuse_hidden_bits(cells, stored, work.source)
    encoded = encode_frame(values, decoded, work.target_uid)
    again = decode_cells(encoded, work.target, 0) if values is cells else decode_frame(encoded, work.target, 0)
    if crc(again) != crc(values):
        raise CannotTranscode(f"frame {frame + 1} does not come back from {work.target_uid} as it went in")
    return encoded


def _refuse_hidden_bits(cells: Array, stored: Array, description: PixelDescription) -> None:
    """Codecs carry Bits Stored alone: what else lies in the cells (old overlays) would be lost."""
    allocated, bits = description.bits_allocated, description.bits_stored
    if allocated == bits:
        return
    unsigned = stored.view(cells.dtype) if stored.dtype != cells.dtype else stored
    mask = cells.dtype.type((1 << bits) - 1)
    if not (np.array_equal(unsigned, cells) or np.array_equal(unsigned & mask, cells)):
        raise CannotTranscode("bits outside Bits Stored are in use")


def crc(values: Array) -> int:
    """CRC-32C of values in little endian, row by row, samples together."""
    flat = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return int(google_crc32c.value(flat.tobytes()))


def _even(value: bytes, pad: bytes) -> bytes:
    return value + pad if len(value) % 2 else value

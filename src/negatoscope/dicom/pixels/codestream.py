"""The size a compressed frame declares, read before any decoder sees it.

A codestream that disagrees with Rows and Columns is refused: the decoder would allocate what the
codestream says, not what the data set says. Sources: ISO 10918-1 B.2.2, 14495-1 C, 15444-1 A.5.1, 18181-1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from struct import Struct

from negatoscope.dicom.pixels.header import Buffer
from negatoscope.errors import PixelsUnreadable

_SIZ = Struct(">HLLLLLLLLH")
_SOF = Struct(">BHHB")
_MOST_TILES = 65_535  # ISO 15444-1 table A.10
_JP2_SEARCH = 64 << 10  # bytes of boxes looked through for the codestream


@dataclass(frozen=True, slots=True)
class Codestream:
    """What the header of a compressed frame declares. Zero where the format need not say."""

    rows: int
    columns: int
    samples: int
    precision: int
    adobe: int = -1  # colour transform of the APP14 marker, -1 when there is none
    components: bytes = b""  # identifiers of a JPEG's components
    lossless: bool = False  # JPEG process 14


def read_jpeg(data: Buffer) -> Codestream:
    """JPEG of every process, and JPEG-LS.

    Raises:
        PixelsUnreadable: no frame header.
    """
    view = memoryview(data)
    position, end, adobe = 2, len(view), -1
    if bytes(view[:2]) != b"\xff\xd8":
        raise PixelsUnreadable("not a JPEG codestream")
    while position + 4 <= end:
        if view[position] != 0xFF:
            raise PixelsUnreadable("not a JPEG codestream")
        marker = view[position + 1]
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:  # fill bytes and markers without a length
            position += 1 if marker == 0xFF else 2
            continue
        length = view[position + 2] << 8 | view[position + 3]
        body = position + 4
        if marker == 0xEE and bytes(view[body : body + 5]) == b"Adobe" and length >= 14:
            adobe = view[body + 11] if body + 11 < end else -1
        is_frame = marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))
        if is_frame:
            if body + _SOF.size > end:
                break
            precision, rows, columns, samples = _SOF.unpack_from(view, body)
            components = bytes(view[body + 6 : body + 6 + 3 * samples : 3])
            lossless = marker in (0xC3, 0xC7, 0xCB, 0xCF)
            return Codestream(rows, columns, samples, precision, adobe, components, lossless)
        if marker in (0xDA, 0xD9):
            break
        position += 2 + length
    raise PixelsUnreadable("a JPEG codestream without a frame header")


def read_j2k(data: Buffer) -> tuple[Codestream, int]:
    """JPEG 2000 and HTJ2K, bare or in a JP2 box; and where the codestream begins.

    Raises:
        PixelsUnreadable: no SIZ marker, subsampled components, or more tiles than the standard allows.
    """
    view = memoryview(data)
    start = bytes(view[:_JP2_SEARCH]).find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise PixelsUnreadable("not a JPEG 2000 codestream")
    try:
        _, x, y, x0, y0, tile_x, tile_y, tile_x0, tile_y0, samples = _SIZ.unpack_from(view, start + 6)
        parts = [bytes(view[start + 42 + 3 * n : start + 45 + 3 * n]) for n in range(min(samples, 4))]
        precision = (parts[0][0] & 0x7F) + 1
    except (struct.error, IndexError) as error:
        raise PixelsUnreadable("a JPEG 2000 codestream cut within its header") from error
    if x <= x0 or y <= y0 or not tile_x or not tile_y:
        raise PixelsUnreadable("a JPEG 2000 codestream of no size")
    if any(part[1:] != b"\1\1" for part in parts):
        raise PixelsUnreadable("a JPEG 2000 codestream with subsampled components")
    tiles = -((x - tile_x0) // -tile_x) * -((y - tile_y0) // -tile_y)
    if tiles > _MOST_TILES:
        raise PixelsUnreadable(f"a JPEG 2000 codestream of {tiles} tiles")
    return Codestream(y - y0, x - x0, samples, precision), start


class _Bits:
    """Little endian bit reader of a JPEG XL size header."""

    def __init__(self, raw: bytes) -> None:
        self._value, self._left = int.from_bytes(raw, "little"), 8 * len(raw)

    def take(self, count: int) -> int:
        if count > self._left:
            raise PixelsUnreadable("a JPEG XL codestream cut within its header")
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return taken

    def side(self) -> int:
        return self.take((9, 13, 18, 30)[self.take(2)]) + 1


_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def read_jpegxl(data: Buffer) -> Codestream:
    """JPEG XL, bare or in boxes; only the size is read.

    Raises:
        PixelsUnreadable: no size header in the first boxes.
    """
    head = bytes(memoryview(data)[:_JP2_SEARCH])
    start = 0
    if not head.startswith(b"\xff\x0a"):
        box = max(head.find(b"jxlc"), head.find(b"jxlp"))
        start = head.find(b"\xff\x0a", box) if box >= 0 else -1
    if start < 0:
        raise PixelsUnreadable("not a JPEG XL codestream")
    bits = _Bits(head[start + 2 : start + 16])
    small = bits.take(1)
    rows = (bits.take(5) + 1) * 8 if small else bits.side()
    ratio = bits.take(3)
    if ratio:
        numerator, denominator = _RATIOS[ratio]
        columns = rows * numerator // denominator
    else:
        columns = (bits.take(5) + 1) * 8 if small else bits.side()
    return Codestream(rows, columns, 0, 0)

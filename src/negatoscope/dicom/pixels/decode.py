"""One frame's bytes to stored values, for every transfer syntax that carries still images.

``cells`` are the values as they lie in their Bits Allocated, ``decode_frame`` gives what they mean:
bits outside Bits Stored dropped, sign extended. Source: PS3.5 chapter 8 and annex A.4.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from rle.rle import decode_frame as decode_rle

from negatoscope.dicom.pixels import gdcm_codec
from negatoscope.dicom.pixels.codestream import Codestream, read_j2k, read_jpeg, read_jpegxl
from negatoscope.dicom.pixels.colour import upsample_422
from negatoscope.dicom.pixels.describe import Kind, PixelDescription
from negatoscope.dicom.pixels.header import Buffer
from negatoscope.errors import PixelsUnreadable, TruncatedObject

Array = NDArray[Any]

_BASE = "1.2.840.10008.1.2"
RLE = _BASE + ".5"
DEFLATED_FRAME = _BASE + ".8.1"
ENCAPSULATED_PLAIN = _BASE + ".1.98"
JPEG = frozenset(f"{_BASE}.4.{n}" for n in range(50, 71))
JPEG_LOSSLESS = frozenset(f"{_BASE}.4.{n}" for n in (57, 58, 65, 66, 70))
JPEG_LS = frozenset(f"{_BASE}.4.{n}" for n in (80, 81))
JPEG_2000 = frozenset(f"{_BASE}.4.{n}" for n in (90, 91, 92, 93))
HTJ2K = frozenset(f"{_BASE}.4.{n}" for n in (201, 202, 203))
JPEG_XL = frozenset(f"{_BASE}.4.{n}" for n in (110, 111, 112))
DECODABLE = JPEG | JPEG_LS | JPEG_2000 | HTJ2K | JPEG_XL | {RLE, DEFLATED_FRAME, ENCAPSULATED_PLAIN}

_RLE_HEADER = 64  # bytes

# What C decoders and their wrappers raise for bad input.
CODEC_FAILURES = (RuntimeError, ValueError, TypeError, OverflowError, MemoryError, IndexError, OSError)


def decode_frame(data: Buffer, description: PixelDescription, index: int) -> Array:
    """The stored values of one frame.

    Args:
        data: the frame's bytes, fragments joined (``frames.frame_bytes``).
        index: of the frame, from 0; places one-bit frames within their first byte.

    Returns:
        (rows, columns) or (rows, columns, samples): (u)int8/16/32/64 by Bits Allocated and Pixel
        Representation, float32 or float64 for float pixels. In :func:`decoded_photometric`. May be
        a read-only view of ``data``.

    Raises:
        PixelsUnreadable: the bytes are not such a frame, or no decoder takes them.
        TruncatedObject: native bytes are missing.
    """
    return meaning(decode_cells(data, description, index), description)


def decoded_photometric(description: PixelDescription) -> str:
    """The Photometric Interpretation of what :func:`decode_frame` returns."""
    uid, photometric = description.transfer_syntax_uid, description.photometric
    if description.samples < 3:
        return photometric
    if description.encapsulated:
        if uid in JPEG_XL or (uid in JPEG and uid not in JPEG_LOSSLESS):
            return "RGB"
        if photometric in ("YBR_ICT", "YBR_RCT"):
            return "RGB"
    return "YBR_FULL" if photometric == "YBR_FULL_422" else photometric


def decode_cells(data: Buffer, description: PixelDescription, index: int) -> Array:
    """:func:`decode_frame` before bits outside Bits Stored are judged: unsigned cells, or floats."""
    if not description.encapsulated:
        return _native(data, description, index)
    uid = description.transfer_syntax_uid
    if uid in (ENCAPSULATED_PLAIN, DEFLATED_FRAME):
        raw = _inflated(data, description) if uid == DEFLATED_FRAME else data
        return _native(raw, description, 0)
    try:
        decoded = _decoder(uid)(data, description)
    except CODEC_FAILURES as error:
        raise PixelsUnreadable(f"frame {index + 1} cannot be decoded: {type(error).__name__}") from error
    return _as_cells(decoded, description)


def meaning(cells: Array, description: PixelDescription) -> Array:
    """Cells without the bits outside Bits Stored, sign extended (PS3.5 8.1.1)."""
    allocated, stored = description.bits_allocated, description.bits_stored
    if description.kind is not Kind.INTEGER or allocated == 1:
        return cells
    above = allocated - 1 - description.high_bit
    if description.signed:
        shifted: Array = (cells << above if above else cells).view(f"i{allocated // 8}")
        return shifted >> (allocated - stored) if stored < allocated else shifted
    below = description.high_bit + 1 - stored
    values = cells >> below if below else cells
    return values & ((1 << stored) - 1) if above else values


def _native(data: Buffer, description: PixelDescription, index: int) -> Array:
    rows, columns, samples = description.rows, description.columns, description.samples
    order = "<" if description.little else ">"
    if description.unit == 2:
        swapped = np.frombuffer(data, ">u2").astype("<u2").view(np.uint8)
        skipped = index * description.frame_bits % 16
        data = swapped[skipped // 8 :].tobytes()
    allocated = description.bits_allocated
    count = rows * columns * (2 if description.subsampled else samples)
    if len(data) * 8 < description.frame_bits:
        raise TruncatedObject(f"{len(data)} bytes for frame {index + 1}, {description.frame_bits // 8} needed")
    if allocated == 1:
        skipped = index * description.frame_bits % 8
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        if len(bits) < skipped + count:
            raise TruncatedObject(f"frame {index + 1} ends early")
        return _shaped(bits[skipped : skipped + count], description)
    code = {Kind.INTEGER: "u", Kind.FLOAT: "f", Kind.DOUBLE: "f"}[description.kind]
    cells = np.frombuffer(data, f"{order}{code}{allocated // 8}", count)
    if not description.little:
        cells = cells.astype(cells.dtype.newbyteorder("="))
    if description.subsampled:
        if columns % 2:
            raise PixelsUnreadable("4:2:2 pixels with an odd number of columns")
        return upsample_422(cells, rows, columns)
    return _shaped(cells, description)


def _shaped(cells: Array, description: PixelDescription) -> Array:
    rows, columns, samples = description.rows, description.columns, description.samples
    if samples == 1:
        return cells.reshape(rows, columns)
    if description.planar:
        return cells.reshape(samples, rows, columns).transpose(1, 2, 0)
    return cells.reshape(rows, columns, samples)


def _as_cells(decoded: Array, description: PixelDescription) -> Array:
    """What a codec gave, checked against the data set and laid into unsigned cells."""
    rows, columns, samples = description.rows, description.columns, description.samples
    wanted = (rows, columns) if samples == 1 else (rows, columns, samples)
    if decoded.shape == (rows, columns, 1):
        decoded = decoded[..., 0]
    if decoded.shape != wanted:
        raise PixelsUnreadable(f"decoded to {decoded.shape}, not {wanted}")
    if description.bits_allocated == 1:
        return np.asarray(decoded != 0, np.uint8)
    size = description.bits_allocated // 8
    if decoded.dtype.kind not in "iu":
        raise PixelsUnreadable(f"decoded to {decoded.dtype}")
    if decoded.dtype.itemsize > size and decoded.size and int(decoded.max()) >> description.bits_allocated:
        raise PixelsUnreadable(f"decoded values do not fit {description.bits_allocated} bits")
    return decoded.astype(f"u{size}", copy=False)  # negative values wrap: two's complement


def _inflated(data: Buffer, description: PixelDescription) -> bytes:
    size = (description.frame_bits + 7) // 8
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        raise PixelsUnreadable("not a deflated frame") from error


def _agrees(stream: Codestream, description: PixelDescription) -> Codestream:
    """Refuse a codestream of another size before its decoder may allocate for it."""
    if (stream.rows, stream.columns) != (description.rows, description.columns):
        raise PixelsUnreadable(
            f"the codestream is {stream.rows} x {stream.columns}, the image {description.rows} x {description.columns}"
        )
    if stream.samples not in (0, description.samples):
        raise PixelsUnreadable(f"{stream.samples} components for {description.samples} samples")
    return stream


Decoder = Callable[[Any, PixelDescription], Array]  # any buffer; the stubs of the codecs say too little


def _decoder(uid: str) -> Decoder:
    for family, decoder in (
        (JPEG, _jpeg),
        (JPEG_LS, _jpeg_ls),
        (JPEG_2000, _jpeg_2000),
        (HTJ2K, _htj2k),
        (JPEG_XL, _jpeg_xl),
        ({RLE}, _rle),
    ):
        if uid in family:
            return decoder
    raise PixelsUnreadable(f"no decoder for transfer syntax {uid}")


def _jpeg(data: Any, description: PixelDescription) -> Array:
    """All JPEG processes; colour of lossy ones to RGB.

    What the codestream says of its colour (Adobe marker, component letters) wins over Photometric
    Interpretation, which writers forget to change.
    """
    stream = _agrees(read_jpeg(data), description)
    colour = None
    if stream.samples == 3:
        if stream.adobe >= 0:
            is_rgb = stream.adobe == 0
        else:
            is_rgb = stream.components == b"RGB" or description.photometric == "RGB"
        colour = "RGB" if is_rgb or stream.lossless else "YCBCR"
    try:
        decoded: Array = imagecodecs.jpeg8_decode(
            data, colorspace=colour, outcolorspace=None if colour is None else "RGB"
        )
    except CODEC_FAILURES:
        if stream.precision <= 8 and not stream.lossless:
            raise  # the same library stands behind both: a second try only doubles the risk
        decoded = gdcm_codec.decode(data, description, stream)
    return decoded


def _jpeg_ls(data: Any, description: PixelDescription) -> Array:
    _agrees(read_jpeg(data), description)
    decoded: Array = imagecodecs.jpegls_decode(data)
    return decoded


def _jpeg_2000(data: Any, description: PixelDescription) -> Array:
    stream, start = read_j2k(data)
    _agrees(stream, description)
    # The bare codestream: what a JP2 box says of colour is not ours to apply (PS3.5 A.4.4).
    decoded: Array = imagecodecs.jpeg2k_decode(_from(data, start), numthreads=1)
    return decoded


def _htj2k(data: Any, description: PixelDescription) -> Array:
    stream, start = read_j2k(data)
    _agrees(stream, description)
    decoded: Array = imagecodecs.htj2k_decode(_from(data, start), planar=False)
    return decoded


def _from(data: Any, start: int) -> Any:
    return data if start == 0 else memoryview(data)[start:]


def _jpeg_xl(data: Any, description: PixelDescription) -> Array:
    _agrees(read_jpegxl(data), description)
    decoded: Array = imagecodecs.jpegxl_decode(data, numthreads=1)
    return decoded


def _rle(data: Buffer, description: PixelDescription) -> Array:
    rows, columns, samples = description.rows, description.columns, description.samples
    if description.bits_allocated == 1:
        raise PixelsUnreadable("RLE of one-bit cells")
    segments = samples * description.bits_allocated // 8
    most = _RLE_HEADER + segments * 2 * (rows * columns + rows)  # no encoder doubles what it packs
    if len(data) > most:
        raise PixelsUnreadable(f"{len(data)} bytes of RLE for {rows * columns} pixels")
    try:
        raw = decode_rle(bytes(data), rows * columns, description.bits_allocated, "<")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as panic:  # a panic of its Rust code is no Exception
        raise PixelsUnreadable("RLE segments do not fit the frame") from panic
    cells = np.frombuffer(raw, f"<u{description.bits_allocated // 8}")
    if samples == 1:
        return cells.reshape(rows, columns)
    return cells.reshape(samples, rows, columns).transpose(1, 2, 0)  # by planes whatever Planar Configuration

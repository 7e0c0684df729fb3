"""Images made by hand for the tests of pixels: a header, an array, and however they are to be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import pack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from negatoscope.dicom import uid
from negatoscope.dicom.pixels.describe import PixelDescription, describe
from unit.dicom.samples import element, item

EXPLICIT, IMPLICIT = uid.EXPLICIT_LITTLE_ENDIAN, uid.IMPLICIT_LITTLE_ENDIAN
BIG, DEFLATED = uid.EXPLICIT_BIG_ENDIAN, uid.DEFLATED_LITTLE_ENDIAN
JPEG, JPEG_LS, J2K = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
HTJ2K, RLE, JPEG_XL = "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.110"
SEQUENCE_END = pack("<HHI", 0xFFFE, 0xE0DD, 0)

Values = Mapping[int, tuple[str, bytes]]


def even(value: bytes | bytearray, pad: bytes = b" ") -> bytes:
    return bytes(value) + pad if len(value) % 2 else bytes(value)


def header(
    rows: int,
    columns: int,
    *,
    samples: int = 1,
    photometric: str = "MONOCHROME2",
    allocated: int = 16,
    stored: int | None = None,
    high: int | None = None,
    signed: bool = False,
    frames: int | None = None,
    planar: int | None = None,
    extra: Values | None = None,
    syntax: str = EXPLICIT,
) -> bytes:
    """The elements before the pixels."""
    written = uid.transfer_syntax(syntax)
    stored = allocated if stored is None else stored
    order = "<" if written.little_endian else ">"

    def us(value: int) -> tuple[str, bytes]:
        return "US", pack(order + "H", value)

    values: dict[int, tuple[str, bytes]] = {
        0x00280002: us(samples),
        0x00280004: ("CS", even(photometric.encode())),
        0x00280010: us(rows),
        0x00280011: us(columns),
        0x00280100: us(allocated),
        0x00280101: us(stored),
        0x00280102: us(stored - 1 if high is None else high),
        0x00280103: us(int(signed)),
    }
    if frames is not None:
        values[0x00280008] = ("IS", even(str(frames).encode()))
    if planar is not None:
        values[0x00280006] = us(planar)
    values |= dict(extra or {})
    return b"".join(element(tag, vr, value, syntax=written) for tag, (vr, value) in sorted(values.items()))


def encapsulated(fragments: Sequence[bytes], table: Sequence[int] = ()) -> bytes:
    """Pixel Data of undefined length."""
    pixels = element(0x7FE00010, "OB", length=0xFFFFFFFF)
    pixels += item(pack(f"<{len(table)}I", *table))
    return pixels + b"".join(item(fragment) for fragment in fragments) + SEQUENCE_END


def image(values: NDArray[Any], *, syntax: str = EXPLICIT, vr: str | None = None, **given: Any) -> bytes:
    """A native image. ``values``: (rows, columns[, samples]), or frames of them when ``frames`` is given."""
    shape = values.shape[1:] if given.get("frames") else values.shape
    written = uid.transfer_syntax(syntax)
    allocated = given.setdefault("allocated", 8 * values.dtype.itemsize)
    given.setdefault("signed", values.dtype.kind == "i")
    if len(shape) == 3:
        given.setdefault("samples", shape[2])
        given.setdefault("photometric", "RGB")
        given.setdefault("planar", 0)
    raw = values.astype(values.dtype.newbyteorder("<" if written.little_endian else ">")).tobytes()
    pixels = element(0x7FE00010, vr or ("OW" if allocated > 8 else "OB"), even(raw, b"\0"), syntax=written)
    return header(shape[0], shape[1], syntax=syntax, **given) + pixels


def described(data: bytes, syntax: str = EXPLICIT) -> PixelDescription:
    return describe(data, syntax)


def ramp(kind: str, rows: int = 16, columns: int = 24, samples: int = 1, bits: int | None = None) -> NDArray[Any]:
    """Values that cover the range of ``bits``, with some noise so that predictors have work."""
    dtype = np.dtype(kind)
    bits = bits or 8 * dtype.itemsize
    low = -(1 << (bits - 1)) if dtype.kind == "i" else 0
    count = rows * columns * samples
    steps = np.linspace(0, (1 << bits) - 1, count) + np.random.default_rng(7).integers(-3, 4, count)
    spread = np.clip(np.rint(steps), 0, (1 << bits) - 1).astype(np.int64) + low
    return spread.astype(dtype).reshape((rows, columns) if samples == 1 else (rows, columns, samples))

"""Stored values to one frame's bytes, without loss. Lossy JPEG exists for rendering alone (``render``)."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from rle.rle import encode_frame as encode_rle

from negatoscope.dicom.pixels.decode import CODEC_FAILURES, RLE
from negatoscope.dicom.pixels.describe import Kind, PixelDescription
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from negatoscope.errors import CannotTranscode

Array = NDArray[Any]

JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_RPCL = "1.2.840.10008.1.2.4.202"

NATIVE_TARGETS = frozenset({IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN})
CODEC_TARGETS = frozenset({RLE, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS, HTJ2K_RPCL})

# Most Bits Allocated that each encoder carries without loss.
_DEEPEST = {RLE: 32, JPEG_LS_LOSSLESS: 16, JPEG_2000_LOSSLESS: 16, HTJ2K_LOSSLESS: 32, HTJ2K_RPCL: 32}


def refuse_unless_encodable(description: PixelDescription, target_uid: str) -> None:
    """Raise ``CannotTranscode`` when ``target_uid`` cannot hold such pixels at all."""
    if target_uid in NATIVE_TARGETS:
        return
    allocated = description.bits_allocated
    if description.kind is not Kind.INTEGER or allocated == 1:
        raise CannotTranscode(f"float and one-bit pixels stay native, not {target_uid}")
    if allocated > _DEEPEST[target_uid]:
        raise CannotTranscode(f"{allocated} bits allocated are too many for {target_uid}")
    if description.samples not in (1, 3):
        raise CannotTranscode(f"{description.samples} samples cannot be had in {target_uid}")


def encode_frame(values: Array, description: PixelDescription, target_uid: str) -> bytes:
    """One frame in ``target_uid``, padded to an even length when encapsulated.

    Args:
        values: (rows, columns[, samples]), stored values (or raw cells for RLE and native).
        description: of the values: Bits Stored, samples, signedness.

    Raises:
        CannotTranscode: the codec cannot hold such values.
    """
    refuse_unless_encodable(description, target_uid)
    values = np.ascontiguousarray(values)
    if target_uid in NATIVE_TARGETS:
        if description.bits_allocated == 1:
            return np.packbits(values, axis=None, bitorder="little").tobytes()
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    try:
        encoded = _encoded(values, description, target_uid)
    except CODEC_FAILURES as error:
        raise CannotTranscode(f"a frame cannot be encoded in {target_uid}: {type(error).__name__}") from error
    return encoded + b"\0" if len(encoded) % 2 else encoded


def encoded_photometric(photometric: str, target_uid: str) -> str:
    """Photometric Interpretation once encoded: only JPEG 2000 turns RGB into its own space."""
    if photometric == "RGB" and target_uid in (JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS, HTJ2K_RPCL):
        return "YBR_RCT"
    return photometric


def _encoded(values: Array, description: PixelDescription, target_uid: str) -> bytes:
    if target_uid == RLE:
        raw = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        rows, columns = description.rows, description.columns
        return bytes(encode_rle(raw, rows, columns, description.samples, description.bits_allocated, "<"))
    if target_uid == JPEG_LS_LOSSLESS:
        return bytes(imagecodecs.jpegls_encode(_unsigned(values, description.bits_stored), 0))
    is_rgb = description.samples == 3 and description.photometric == "RGB"
    if target_uid == JPEG_2000_LOSSLESS:
        return bytes(
            imagecodecs.jpeg2k_encode(
                values,
                0,
                codecformat="j2k",
                colorspace=("SRGB" if is_rgb else "SYCC") if description.samples == 3 else "GRAY",
                bitspersample=description.bits_stored,
                reversible=True,
                mct=is_rgb,
                numthreads=1,
            )
        )
    # Progression RPCL with TLM markers always: what .202 asks for, and what .201 allows.
    return bytes(imagecodecs.htj2k_encode(values, reversible=True, rgb=is_rgb, tlm=True))


def _unsigned(values: Array, bits_stored: int) -> Array:
    """Two's complement within Bits Stored: JPEG-LS knows no signs (PS3.5 8.2.3)."""
    if values.dtype.kind == "u":
        return values
    cells = values.view(f"u{values.dtype.itemsize}")
    masked: Array = cells & cells.dtype.type((1 << bits_stored) - 1)
    return masked

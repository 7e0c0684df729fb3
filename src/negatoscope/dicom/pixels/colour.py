"""Colour spaces of PS3.3 C.7.6.3.1.2 to RGB, and palettes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from negatoscope.dicom.pixels.luts import Palette

Array = NDArray[Any]

# Y, Cb, Cr to RGB with 16 bits of fraction, PS3.3 C.7.6.3.1.2 (ITU-R BT.601 full range)
_FRACTION = 16
_RED_CR, _GREEN_CB, _GREEN_CR, _BLUE_CB = (round(c * (1 << _FRACTION)) for c in (1.402, 0.344136, 0.714136, 1.772))


def upsample_422(cells: Array, rows: int, columns: int) -> Array:
    """Native YBR_FULL_422 (Y1 Y2 Cb Cr for each pair) to one triplet a pixel, (rows, columns, 3)."""
    pairs = cells.reshape(rows, columns // 2, 4)
    full = np.empty((rows, columns // 2, 2, 3), cells.dtype)
    full[..., 0] = pairs[..., :2]
    full[..., 1] = pairs[..., 2:3]
    full[..., 2] = pairs[..., 3:4]
    return full.reshape(rows, columns, 3)


def ybr_to_rgb(pixels: Array, partial: bool = False) -> NDArray[np.uint8]:
    """YBR_FULL (or the retired PARTIAL ranges) of 8 bits to RGB, each within one of the exact value."""
    luma = pixels[..., 0].astype(np.int32)
    blue_difference = pixels[..., 1].astype(np.int32) - 128
    red_difference = pixels[..., 2].astype(np.int32) - 128
    half = 1 << (_FRACTION - 1)
    if partial:
        luma = (luma - 16) * 255 // 219
        blue_difference = blue_difference * 255 // 224
        red_difference = red_difference * 255 // 224
    rgb = np.empty((*pixels.shape[:-1], 3), np.int32)
    rgb[..., 0] = luma + ((_RED_CR * red_difference + half) >> _FRACTION)
    rgb[..., 1] = luma - ((_GREEN_CB * blue_difference + _GREEN_CR * red_difference + half) >> _FRACTION)
    rgb[..., 2] = luma + ((_BLUE_CB * blue_difference + half) >> _FRACTION)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def apply_palette(pixels: Array, palette: Palette) -> NDArray[np.uint8]:
    """Stored values through the three tables, to 8 bits a sample; (rows, columns, 3)."""
    rgb = np.empty((*pixels.shape, 3), np.uint8)
    for channel, lut in enumerate((palette.red, palette.green, palette.blue)):
        table = (lut.values >> max(lut.bits - 8, 0)).astype(np.uint8)
        places = np.clip(pixels.astype(np.int32) - lut.first, 0, len(table) - 1)
        rgb[..., channel] = table[places]
    return rgb


def to_eight_bits(pixels: Array, bits: int) -> NDArray[np.uint8]:
    """The eight most significant of ``bits`` bits; fewer than eight are spread over the range."""
    if bits == 8:
        return pixels.astype(np.uint8, copy=False)
    if bits > 8:
        return (pixels >> (bits - 8)).astype(np.uint8)
    return (pixels.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)

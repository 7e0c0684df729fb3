"""The grey scale pipeline: stored values to what the eye is shown.

Modality step (PS3.3 C.11.1), VOI step (C.11.2), presentation (C.11.4, C.7.6.3.1.2). A frame of 16-bit
pixels goes through one table of what its values become, so the arithmetic is paid per value, not per pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from negatoscope.dicom.pixels.describe import PixelDescription, Transform, Window

Array = NDArray[Any]
Floats = NDArray[np.float64]

_TABLE = 1 << 16  # values of a 16-bit cell
_AT_ONCE = 1 << 18  # pixels looked up in one step: twice as fast as all of a mammogram


def grey_levels(
    stored: Array, description: PixelDescription, transform: Transform, window: Window | None = None
) -> NDArray[np.uint8]:
    """Display values of one monochrome frame.

    Args:
        stored: (rows, columns), as ``decode.decode_frame`` gives it.
        transform: of that frame.
        window: wins over what the object says. Without one: its first VOI LUT, else its first window,
            else the whole range of values that are not padding.

    Returns:
        (rows, columns) uint8, 0 black to 255 white, MONOCHROME1 and INVERSE already turned over.
    """
    if stored.dtype.kind == "f" or stored.dtype.itemsize > 2:
        values = _modality(stored.astype(np.float64), transform)
        kept = values[~_is_padding(stored, description.padding) & np.isfinite(values)]
        extent = (float(kept.min()), float(kept.max())) if kept.size else (0.0, 0.0)
        return _displayed(np.nan_to_num(values), extent, description, transform, window)
    low, high = int(stored.min()), int(stored.max())
    domain = np.arange(low, high + 1)
    values = _modality(domain.astype(np.float64), transform)
    extent = (0.0, 0.0)
    if window is None and not transform.voi_luts and not transform.windows:
        extent = _extent(stored, description.padding, transform)
    shades = _displayed(values, extent, description, transform, window)
    unsigned = stored.view(f"u{stored.dtype.itemsize}")
    table = np.zeros(_TABLE if stored.dtype.itemsize == 2 else 256, np.uint8)
    table[domain & (len(table) - 1)] = shades  # negative values lie where two's complement puts them
    return _looked_up(table, unsigned)


def _looked_up(table: NDArray[np.uint8], places: Array) -> NDArray[np.uint8]:
    """``table[places]``, some rows at a time: the wide indices that numpy makes of them then stay in the cache."""
    shown = np.empty(places.shape, np.uint8)
    step = max(_AT_ONCE // max(places.shape[1], 1), 1)
    for row in range(0, len(places), step):
        np.take(table, places[row : row + step], out=shown[row : row + step])
    return shown


def _modality(values: Floats, transform: Transform) -> Floats:
    if transform.modality_lut is not None:
        return np.asarray(transform.modality_lut(values), np.float64)
    if transform.slope == 1.0 and transform.intercept == 0.0:
        return values
    return values * transform.slope + transform.intercept


def _is_padding(stored: Array, padding: tuple[int, int] | None) -> NDArray[np.bool_]:
    if padding is None:
        return np.zeros(stored.shape, np.bool_)
    return (stored >= padding[0]) & (stored <= padding[1])


def _extent(stored: Array, padding: tuple[int, int] | None, transform: Transform) -> tuple[float, float]:
    """Least and greatest modality value of what is not padding."""
    kept = stored if padding is None else stored[~_is_padding(stored, padding)]
    if not kept.size:
        kept = stored
    ends = np.unique(kept) if transform.modality_lut else np.array([kept.min(), kept.max()])
    values = _modality(ends.astype(np.float64), transform)
    return float(values.min()), float(values.max())


def _displayed(
    values: Floats,
    extent: tuple[float, float],
    description: PixelDescription,
    transform: Transform,
    window: Window | None,
) -> NDArray[np.uint8]:
    if window is None and transform.voi_luts:
        lut = transform.voi_luts[0]
        shades = lut(values) * (255.0 / max((1 << lut.bits) - 1, 1))
    else:
        window = window or next(iter(transform.windows), None)
        shades = apply_window(values, window) if window else _stretched(values, extent)
    if description.photometric == "MONOCHROME1" or description.inverse:  # two names of one thing: PS3.3 C.8.11.3.1.2
        shades = 255.0 - shades
    return np.asarray(np.rint(np.clip(shades, 0, 255)), np.uint8)


def _stretched(values: Floats, extent: tuple[float, float]) -> Floats:
    low, high = extent
    if high <= low:
        return np.where(values > low, 255.0, 0.0)
    return (values - low) * 255.0 / (high - low)


def apply_window(values: Floats, window: Window) -> Floats:
    """Modality values to 0..255, not yet clipped nor rounded (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    LINEAR narrower than 1, which the standard forbids but images of small fractions carry, is taken
    as LINEAR_EXACT; a width of 0 is a threshold.
    """
    center, width = window.center, window.width
    if window.function == "SIGMOID" and width > 0:
        return 255.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))
    if window.function == "LINEAR_EXACT" or 0 < width < 1:
        if width > 0:
            return ((values - center) / width + 0.5) * 255.0
        return np.where(values <= center, 0.0, 255.0)
    if width > 1:
        return ((values - (center - 0.5)) / (width - 1) + 0.5) * 255.0
    return np.where(values <= center - 0.5, 0.0, 255.0)

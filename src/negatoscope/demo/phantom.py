"""Drawn anatomy: arrays that look like a body at a glance and are nobody's. Lengths in millimetres.

Every function is deterministic in its seed. Slices are computed one at a time, so that a study of any
number of them is made in the memory of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Grid = npt.NDArray[np.float32]
AIR, LUNG, FAT, MUSCLE, BLOOD, SPONGIOSA, CORTEX = -1000, -860, -100, 50, 65, 260, 900  # HU


@dataclass(frozen=True, slots=True)
class Ball:
    """A round thing: centre in mm from the isocentre (x to the patient's left, y backwards, z up), radius, HU."""

    x: float
    y: float
    z: float
    radius: float
    value: float


def thorax(
    slices: int, rows: int, columns: int, seed: int, nodule_mm: float, field_mm: float = 380.0, height_mm: float = 300.0
) -> Iterator[npt.NDArray[np.int16]]:
    """A chest from its top to its base, HU as (rows, columns) int16, one array a slice.

    Args:
        nodule_mm: diameter of the nodule of the right lung; 0: none.
        field_mm: width of the field; the height follows the pixels, which are square.
        height_mm: distance from the first slice to the last.
    """
    spacing = field_mm / columns
    x = ((np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * spacing)[None, :]
    y = ((np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * spacing)[:, None]
    draw = np.random.default_rng(seed)
    noise = (draw.standard_normal((rows * 2, columns * 2), dtype=np.float32) * 14).astype(np.int16)
    vessels = _vessels(draw, height_mm)
    stamp = label_mask(rows, columns, "SYNTHETIC")
    inside = _ellipse(x, y, 0, 0, 172, 118)
    muscle = _ellipse(x, y, 0, 0, 158, 104)
    angle = np.arctan2(np.abs(x), y * 1.5)  # the same on both sides
    cage = _ellipse(x, y, 0, 0, 150, 97) & ~_ellipse(x, y, 0, 0, 142, 90)
    skin = np.where(inside, np.int16(FAT), np.int16(AIR))
    skin[muscle] = MUSCLE
    table = np.broadcast_to((y > 128) & (y < 132), skin.shape) & (np.abs(x) < 180)
    skin[table] = -300
    for number in range(slices):
        down = number / max(slices - 1, 1)  # 0 at the top of the chest, 1 at its base
        z = (0.5 - down) * height_mm
        image = skin.copy()
        _lungs_and_heart(image, x, y, down)
        _spine(image, x, y, z)
        image[cage & (np.sin(angle * 9 + z / 5.5) > 0.55)] = 420  # ribs, which slope downwards to the front
        image[_ellipse(x, y, 0, -88, 13, 5)] = 380  # sternum
        for ball in vessels:
            _ball(image, ball, z, spacing)
        if nodule_mm:
            _ball(image, Ball(-78, 8, 20, nodule_mm / 2, 35), z, spacing)
        top, left = (number * 37) % rows, (number * 53) % columns
        image += noise[top : top + rows, left : left + columns]
        image[stamp] = 1500
        yield np.clip(image, -1024, 3071, out=image)


def _ellipse(x: Grid, y: Grid, x0: float, y0: float, a: float, b: float) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = ((x - x0) / a) ** 2 + ((y - y0) / b) ** 2 <= 1
    return inside


def _lungs_and_heart(image: npt.NDArray[np.int16], x: Grid, y: Grid, down: float) -> None:
    open_ = np.sin(np.pi * min(max(0.08 + 0.8 * down, 0.0), 1.0))
    for side in (-1.0, 1.0):
        image[_ellipse(x, y, side * 76, 4, 30 + 32 * open_, 34 + 46 * open_)] = LUNG
    image[_ellipse(x, y, 0, 2, 30, 62)] = MUSCLE  # mediastinum
    if down > 0.45:
        grown = min((down - 0.45) * 3, 1.0)
        image[_ellipse(x, y, 24, -22, 30 + 26 * grown, 26 + 20 * grown)] = BLOOD
    image[_ellipse(x, y, 22, 46, 12, 12)] = 180  # descending aorta, contrast given
    if down < 0.5:
        image[_ellipse(x, y, 0, 6, 9, 8)] = AIR  # trachea
    else:
        image[_ellipse(x, y, -18 * down, 14, 6, 6)] = AIR
    image[_ellipse(x, y, 8, 30, 7, 5)] = 20  # oesophagus


def _spine(image: npt.NDArray[np.int16], x: Grid, y: Grid, z: float) -> None:
    within = (z % 24) / 24  # a vertebra and its disc: 24 mm
    image[_ellipse(x, y, 0, 64, 21, 17)] = 90 if within < 0.2 else CORTEX
    image[_ellipse(x, y, 0, 64, 18.5, 14.5)] = 90 if within < 0.2 else SPONGIOSA
    image[_ellipse(x, y, 0, 90, 9, 9)] = 30  # canal
    if within > 0.5:
        image[_ellipse(x, y, 0, 104, 4, 9)] = 500
        image[_ellipse(x, y, -26, 88, 14, 4) | _ellipse(x, y, 26, 88, 14, 4)] = 450


def _vessels(draw: np.random.Generator, height_mm: float) -> list[Ball]:
    """Round cuts of vessels, thinner away from the hilum."""
    balls = []
    for _ in range(420):
        side = draw.choice([-1.0, 1.0])
        out = draw.uniform(0.1, 1.0)
        turn = draw.uniform(-1.1, 1.1)
        x, y = side * (44 + 74 * out * np.cos(turn)), 4 + 62 * out * np.sin(turn)
        balls.append(Ball(x, y, draw.uniform(-0.45, 0.4) * height_mm, 4.5 - 3.2 * out, 40))
    return balls


def _ball(image: npt.NDArray[np.int16], ball: Ball, z: float, spacing: float) -> None:
    """Draw one ball's cut at height z: only its own square of pixels is touched. Edges are soft by a pixel."""
    left = ball.radius**2 - (z - ball.z) ** 2
    if left <= 0:
        return
    radius = float(np.sqrt(left)) / spacing
    row = ball.y / spacing + (image.shape[0] - 1) / 2
    column = ball.x / spacing + (image.shape[1] - 1) / 2
    reach = int(radius) + 2
    top, first = max(int(row) - reach, 0), max(int(column) - reach, 0)
    square = image[top : int(row) + reach + 1, first : int(column) + reach + 1]
    if not square.size:
        return
    r = np.arange(square.shape[0])[:, None] + top - row
    c = np.arange(square.shape[1])[None, :] + first - column
    share = np.clip(radius + 0.5 - np.sqrt(r**2 + c**2), 0, 1)
    square[...] = np.where(square < -300, square + share * (ball.value - square), square).astype(np.int16)


def head(slices: int, rows: int, columns: int, seed: int) -> Iterator[npt.NDArray[np.uint16]]:
    """A head in T1 weighting, 0-1023 as (rows, columns) uint16, one array a slice, from neck to vertex."""
    spacing = 240.0 / columns
    x = ((np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * spacing)[None, :]
    y = ((np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * spacing)[:, None]
    noise = np.random.default_rng(seed).rayleigh(9, (rows * 2, columns * 2)).astype(np.uint16)
    stamp = label_mask(rows, columns, "SYNTHETIC")
    folds = np.sin(np.arctan2(y, x) * 17 + np.hypot(x, y) / 6)
    for number in range(slices):
        up = number / max(slices - 1, 1)
        size = float(np.sqrt(max(1 - (1.7 * up - 0.85) ** 2, 0.02)))
        image = np.zeros((rows, columns), np.uint16)
        image[_ellipse(x, y, 0, 0, 78 * size, 98 * size)] = 620  # scalp: fat is bright
        image[_ellipse(x, y, 0, 0, 73 * size, 92 * size)] = 60  # skull: dark
        brain = _ellipse(x, y, 0, 0, 67 * size, 86 * size)
        image[brain] = 330
        image[_ellipse(x, y, 0, 0, 56 * size, 74 * size) & (folds > -0.35)] = 480  # white matter
        if 0.35 < up < 0.7:
            image[_ellipse(x, y, -9, -8, 6, 22) | _ellipse(x, y, 9, -8, 6, 22)] = 90  # ventricles
        image[brain & (np.abs(x) < 1.2)] = 110  # falx
        top, left = (number * 37) % rows, (number * 53) % columns
        image += noise[top : top + rows, left : left + columns]
        image[stamp] = 1000
        yield image


def breast(rows: int, columns: int, seed: int, left: bool) -> npt.NDArray[np.uint16]:
    """A mammogram for presentation, 0-4095 as (rows, columns) uint16, air black; the chest wall on one side."""
    draw = np.random.default_rng(seed)
    x = np.linspace(0, 1, columns, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    shape = (x / 0.78) ** 2 + (y / 0.82) ** 2
    coarse = draw.random((rows // 64 + 2, columns // 64 + 2), dtype=np.float32)
    texture = np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BILINEAR))
    grain = draw.integers(0, 60, (256, 256), dtype=np.uint16)
    image = np.where(shape < 1, 900 + 1900 * texture * (1 - shape) + 500 * (1 - shape), 20).astype(np.uint16)
    image += np.tile(grain, (rows // 256 + 1, columns // 256 + 1))[:rows, :columns]
    image[label_mask(rows, columns, "SYNTHETIC")] = 4000
    return image if left else np.ascontiguousarray(image[:, ::-1])


def fan(frames: int, rows: int, columns: int, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """An ultrasound loop: a fan of speckle with a dark cavity that beats. (rows, columns, 3) uint8 a frame."""
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
    depth = np.hypot(x, y)
    sector = (np.abs(np.arctan2(x, y)) < 0.75) & (depth < 0.97)
    speckle = np.random.default_rng(seed).rayleigh(46, (rows * 2, columns * 2)).clip(0, 255).astype(np.uint8)
    stamp = label_mask(rows, columns, "SYNTHETIC")
    for number in range(frames):
        beat = 1 + 0.18 * np.sin(number / 30 * 2 * np.pi)
        shift = (number * 7) % rows
        image = np.where(sector, speckle[shift : shift + rows, shift : shift + columns], 0).astype(np.uint8)
        image[sector & _ellipse(x, y, 0.05, 0.55, 0.22 * beat, 0.16 * beat)] //= 6
        image[stamp] = 220
        yield np.repeat(image[:, :, None], 3, axis=2)


def label_mask(rows: int, columns: int, text: str) -> npt.NDArray[np.bool_]:
    """Where the pixels of ``text`` are, in the upper left corner: a screenshot must say what it shows."""
    page = Image.new("L", (columns, rows))
    ImageDraw.Draw(page).text(
        (columns // 32, rows // 32), text, fill=255, font=ImageFont.load_default(max(rows // 28, 9))
    )
    return np.asarray(page) > 127

"""A child is given the header and one frame of a long object, and makes of them what the whole would give."""

from __future__ import annotations

import numpy as np

from negatoscope.demo.synthetic import synthetic_us
from negatoscope.dicom.part10 import read_file_meta
from negatoscope.dicom.pixels.render import RenderOptions
from negatoscope.servers.pixels import PixelPool

FRAMES, ROWS, COLUMNS = 12, 60, 80


def test_a_frame_of_the_bytes_that_are_there_is_the_frame_of_the_whole() -> None:
    file = synthetic_us(FRAMES, ROWS, COLUMNS)
    meta, start = read_file_meta(file)
    whole, syntax = file[start:], meta.transfer_syntax_uid
    size = ROWS * COLUMNS * 3
    header = len(whole) - FRAMES * size
    frame = (header + 7 * size, header + 8 * size)
    holes = bytearray(len(whole))
    for first, last in (extents := [(0, header), frame]):
        holes[first:last] = whole[first:last]
    options = RenderOptions("image/png")
    with PixelPool(1) as pool:
        assert pool.render(holes, syntax, 7, options, extents=extents) == pool.render(whole, syntax, 7, options)
        (stored,) = pool.transcode_frames(holes, syntax, syntax, [7], extents=extents)
        assert stored == whole[slice(*frame)]
        assert pool.render(whole, syntax, 7, options, extents=[(0, header)]) != pool.render(whole, syntax, 7, options)


def test_what_is_not_among_the_extents_is_not_copied() -> None:
    file = synthetic_us(FRAMES, ROWS, COLUMNS)
    meta, start = read_file_meta(file)
    header = len(file) - start - FRAMES * ROWS * COLUMNS * 3
    with PixelPool(1) as pool:
        (frame,) = pool.decode_frames(file[start:], meta.transfer_syntax_uid, [3])
        assert np.any(frame)
        (blank,) = pool.transcode_frames(
            file[start:], meta.transfer_syntax_uid, meta.transfer_syntax_uid, [3], extents=[(0, header)]
        )
        assert not any(blank)

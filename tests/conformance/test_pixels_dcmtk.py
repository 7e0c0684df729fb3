"""Renderings are DCMTK's within one grey level, on a sample of every kind of image in the corpus.

The comparison is fair with these options of dcm2pnm (and of dcmj2pnm, dcml2pnm for what they decode):
``-O`` (no overlays: we burn none in), no scaling (its default), and for grey images ``+Wl 1`` where the
object has a VOI LUT, ``+Wi 1`` where it has a window, else ``+Wm``: the same order as ours.

Differences that remain, and why:
- Pixel Padding Value: ours are left out of the range when there is no window (PS3.3 C.7.5.1.1.2), DCMTK counts them.
- YBR_FULL: two levels, DCMTK's integer tables round twice.
- 32-bit pixels in big endian OW: DCMTK swaps 16-bit words, pydicom and ours whole cells.
- JPEG 2000 and HTJ2K: Debian's DCMTK decodes none.
"""

from __future__ import annotations

import io
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.pixels.describe import PixelDescription, describe_header
from negatoscope.dicom.pixels.header import Header, plain, read_header
from negatoscope.dicom.pixels.render import frame_picture
from negatoscope.errors import NegatoscopeError
from unit.dicom.samples import need_corpus, read

pytestmark = pytest.mark.corpus

MOST_PIXELS = 1 << 20  # larger images show nothing that smaller ones do not, and cost seconds


def opened(path: Path) -> tuple[Header, PixelDescription] | None:
    try:
        data, syntax = read(path)
        view, plain_syntax = plain(data, syntax, DEFAULT_LIMITS)
        header = read_header(view, plain_syntax, DEFAULT_LIMITS)
        return header, describe_header(header, plain_syntax, DEFAULT_LIMITS)
    except NegatoscopeError:
        return None


@cache
def sample() -> dict[str, list[Path]]:
    """By Photometric Interpretation: the first file of each combination of what decides the rendering."""
    chosen: dict[str, list[Path]] = {}
    seen = set()
    for path in need_corpus():
        found = opened(path)
        if found is None:
            continue
        _, image = found
        voi = bool(image.transform.windows), bool(image.transform.voi_luts), image.transform.modality_lut is not None
        key = (image.transfer_syntax_uid, image.photometric, image.bits_stored, image.signed, image.planar, voi)
        if key in seen or image.rows * image.columns > MOST_PIXELS:
            continue
        seen.add(key)
        chosen.setdefault(image.photometric, []).append(path)
    return chosen


def by_dcmtk(path: Path, image: PixelDescription) -> np.ndarray | None:
    transform = image.transform
    options = ["+Wl", "1"] if transform.voi_luts else ["+Wi", "1"] if transform.windows else ["+Wm"]
    tool = "dcml2pnm" if image.transfer_syntax_uid.endswith((".80", ".81")) else "dcmj2pnm"
    command = [f"/usr/bin/{tool}", "-q", "-O", "+op", *(options if image.monochrome else []), str(path)]
    done = subprocess.run(command, capture_output=True, timeout=60)
    return np.asarray(Image.open(io.BytesIO(done.stdout))) if done.returncode == 0 and done.stdout else None


def tolerance(image: PixelDescription) -> int | None:
    """Grey levels that may differ; nothing where the two are known to disagree."""
    transform = image.transform
    if image.padding and not transform.windows and not transform.voi_luts:
        return None
    if image.bits_allocated == 32 and not image.little:
        return None
    return 2 if image.photometric == "YBR_FULL" and not image.encapsulated else 1


@pytest.mark.parametrize(
    ("photometric", "least"),
    [
        ("MONOCHROME1", 4),
        ("MONOCHROME2", 30),
        ("RGB", 8),
        ("YBR_FULL", 2),
        ("YBR_FULL_422", 2),
        ("PALETTE COLOR", 2),
    ],
)
def test_renderings_are_those_of_dcmtk_within_one_grey_level(photometric: str, least: int) -> None:
    if not Path("/usr/bin/dcmj2pnm").exists():
        pytest.skip("DCMTK is not installed")
    compared, wrong = 0, []
    for path in sample()[photometric]:
        found = opened(path)
        assert found is not None
        header, image = found
        allowed = tolerance(image)
        theirs = by_dcmtk(path, image) if allowed is not None else None
        if theirs is None:
            continue
        ours = frame_picture(header, image, 0)
        assert ours.shape == theirs.shape, path.name
        worst = int(np.abs(ours.astype(np.int16) - theirs.astype(np.int16)).max())
        compared += 1
        if allowed is not None and worst > allowed:
            wrong.append((path.name, worst))
    assert not wrong
    assert compared >= least

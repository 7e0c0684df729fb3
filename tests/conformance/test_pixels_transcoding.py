"""I7: every lossless transcoding of real images keeps every decoded frame, and others can read the result."""

from __future__ import annotations

import subprocess
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels.utils import pixel_array

from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.dicom.pixels.decode import RLE, decode_frame, decoded_photometric
from negatoscope.dicom.pixels.describe import PixelDescription, describe
from negatoscope.dicom.pixels.encode import HTJ2K_LOSSLESS, JPEG_2000_LOSSLESS, JPEG_LS_LOSSLESS
from negatoscope.dicom.pixels.frames import frame_bytes, frame_locations
from negatoscope.dicom.pixels.header import plain
from negatoscope.dicom.pixels.transcode import TARGETS, crc, transcode
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.errors import CannotTranscode, NegatoscopeError
from unit.dicom.samples import need_corpus, read

pytestmark = pytest.mark.corpus

MOST_PIXELS = 1 << 17  # of all frames together


def checksums(data: bytes, syntax: str) -> tuple[list[int], PixelDescription]:
    view, plain_syntax = plain(data, syntax, DEFAULT_LIMITS)
    image = describe(view, plain_syntax)
    table = frame_locations(view, image)
    frames = [decode_frame(frame_bytes(view, table[n]), image, n) for n in range(len(table))]
    return [crc(frame) for frame in frames], image


@cache
def sample() -> list[tuple[Path, list[int], str]]:
    """The first small file of each combination of syntax and pixels: its frames' CRCs and colour space."""
    chosen, seen = [], set()
    for path in need_corpus():
        try:
            data, syntax = read(path)
            view, plain_syntax = plain(data, syntax, DEFAULT_LIMITS)
            image = describe(view, plain_syntax)
            key = (syntax, image.photometric, image.bits_stored, image.bits_allocated, image.signed, image.frames > 1)
            if key in seen or image.rows * image.columns * image.frames > MOST_PIXELS:
                continue
            expected, _ = checksums(data, syntax)
        except NegatoscopeError:
            continue
        seen.add(key)
        chosen.append((path, expected, decoded_photometric(image)))
    return chosen


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_decoded_frame_has_the_same_checksum_after(target: str) -> None:
    done, wrong = 0, []
    for path, expected, photometric in sample():
        data, syntax = read(path)
        try:
            result = b"".join(transcode(data, syntax, target))
        except CannotTranscode:
            continue
        found, image = checksums(result, target)
        done += 1
        if found != expected or decoded_photometric(image) != photometric:
            wrong.append(path.name)
    assert not wrong
    assert done >= 30


@pytest.mark.parametrize(("target", "tool"), [(JPEG_LS_LOSSLESS, "dcmdjpls"), (RLE, "dcmdrle")], ids=["JPEG-LS", "RLE"])
def test_dcmtk_reads_what_we_encode(target: str, tool: str, tmp_path: Path) -> None:
    if not Path(f"/usr/bin/{tool}").exists():
        pytest.skip("DCMTK is not installed")
    there, back = tmp_path / "there.dcm", tmp_path / "back.dcm"
    done = 0
    for path, expected, _ in sample():
        data, syntax = read(path)
        try:
            result = b"".join(transcode(data, syntax, target))
        except CannotTranscode:
            continue
        there.write_bytes(write_file_meta("1.2.840.10008.5.1.4.1.1.7", "1.2.3", target) + result)
        ran = subprocess.run([f"/usr/bin/{tool}", "-q", str(there), str(back)], capture_output=True, timeout=60)
        if ran.returncode:
            continue  # counted below: DCMTK refuses some of what was wrong from the start
        native, native_syntax = read(back)
        assert checksums(native, native_syntax)[0] == expected, path.name
        done += 1
    assert done >= 25


@pytest.mark.parametrize("target", [JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS], ids=["JPEG 2000", "HTJ2K"])
def test_pydicom_reads_what_we_encode(target: str) -> None:
    """With its own decoders for JPEG 2000; HTJ2K goes there and back, since it has none."""
    done = 0
    for path, expected, photometric in sample():
        data, syntax = read(path)
        try:
            result = b"".join(transcode(data, syntax, target))
        except CannotTranscode:
            continue
        if target == HTJ2K_LOSSLESS:
            result, written = b"".join(transcode(result, target, EXPLICIT_LITTLE_ENDIAN)), EXPLICIT_LITTLE_ENDIAN
        else:
            written = target
        file = BytesIO(write_file_meta("1.2.840.10008.5.1.4.1.1.7", "1.2.3", written) + result)
        data_set = dcmread(file, force=True)
        try:
            first = pixel_array(data_set, index=0, raw=photometric != "RGB")
        except (RuntimeError, ValueError, AttributeError, NotImplementedError):
            continue
        assert crc(np.asarray(first)) == expected[0], path.name
        done += 1
    assert done >= 25

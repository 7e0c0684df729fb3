"""Packing with a lossless policy: other bytes at rest, the same pixels, and still the object that was received (I7)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dimse_peers import SAMPLES
from negatoscope.archive.packing import WANTED_SYNTAX
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN, transfer_syntax
from peers.corpus import SET_ASIDE, Answer, Archive, Sample, parts_of, sample_of
from system import System, system

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
STORED = Answer(200, None, None)
IMAGES = [
    "CT_small.dcm",  # 16 bits, signed
    "MR_small_implicit.dcm",
    "ExplVR_BigEnd.dcm",
    "examples_rgb_color.dcm",
    "examples_palette.dcm",
    "examples_overlay.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "image_dfl.dcm",
    "rtdose.dcm",  # 15 frames of 32 bits
    "liver_1frame.dcm",  # 1 bit
    "JPEG2000.dcm",  # compressed by its sender
    "rtplan.dcm",  # no image
]


@dataclass(frozen=True)
class Recompressed:
    """A server whose every series was packed under a policy, and what was served before."""

    built: System
    samples: list[Sample]
    wanted: str
    frames: dict[str, list[bytes]]  # by file name, before packing


@pytest.fixture(scope="module", params=sorted(WANTED_SYNTAX))
def packed(request: pytest.FixtureRequest) -> Iterator[Recompressed]:
    samples = [sample_of(SAMPLES / name) for name in IMAGES]
    with system(NEGATOSCOPE_QUIET_S="86400", NEGATOSCOPE_PACK_SYNTAX=request.param) as built:
        built.start()
        with reader(built) as archive:
            assert [archive.store_one(one.path.read_bytes()) for one in samples] == [STORED] * len(samples)
            frames = {one.name: frames_of(archive, one) for one in samples}
        assert built.children()["worker"].children() == [], "no decoder before there is something to decode"
        pack_all(built, series_of(samples))
        yield Recompressed(built, samples, WANTED_SYNTAX[request.param], frames)


def series_of(samples: list[Sample]) -> int:
    return len({one.address.split("/instances/")[0] for one in samples})


def reader(built: System) -> Archive:
    return Archive(built.url, built.token("reader"))


def pack_all(built: System, series: int) -> None:
    """Start again with nothing to wait for, and wait for so many packs."""
    built.stop()
    built.environment["NEGATOSCOPE_QUIET_S"] = "0.1"
    before = built.log.read_text(errors="replace").count("series_packed")
    built.start()
    until = time.monotonic() + 60
    while built.log.read_text(errors="replace").count("series_packed") - before < series:
        assert time.monotonic() < until, built.tail()
        time.sleep(0.1)


def frames_of(archive: Archive, sample: Sample) -> list[bytes]:
    """Every frame, decoded, little endian."""
    assert sample.scanned is not None
    if not sample.scanned.rows:
        return []
    numbers = ",".join(str(n + 1) for n in range(sample.scanned.number_of_frames or 1))
    accept = f'multipart/related; type="application/octet-stream"; transfer-syntax={EXPLICIT_LITTLE_ENDIAN}'
    answer = archive.get(f"{sample.address}/frames/{numbers}", accept)
    assert answer.status_code == 200, (sample.name, answer.text)
    return [body for _, body in parts_of(answer)]


def test_native_images_are_kept_in_the_syntax_of_the_policy_and_smaller(packed: Recompressed) -> None:
    changed = []
    with reader(packed.built) as archive:
        for sample in packed.samples:
            data, syntax = archive.data_set(sample.address)
            if syntax == packed.wanted:
                assert len(data) < len(sample.data)
                assert not transfer_syntax(sample.syntax).encapsulated
                changed.append(sample.name)
            else:
                assert (data, syntax) == (sample.data, sample.syntax), "what is not recompressed is as it came"
    assert len(changed) >= 5, changed


def test_every_frame_is_the_one_that_was_received(packed: Recompressed) -> None:
    with reader(packed.built) as archive:
        for sample in packed.samples:
            assert frames_of(archive, sample) == packed.frames[sample.name], sample.name


def test_what_was_received_is_known_and_anything_else_is_set_aside(packed: Recompressed) -> None:
    with reader(packed.built) as archive:
        judge_identity(archive, packed)


def judge_identity(archive: Archive, packed: Recompressed) -> None:
    for sample in packed.samples:
        assert archive.store_one(sample.path.read_bytes()) == STORED, sample.name
    altered = bytearray(packed.samples[0].path.read_bytes())
    altered[-1000] ^= 1
    assert archive.store_one(bytes(altered)) == Answer(202, SET_ASIDE, None)


def test_the_new_form_sent_back_is_other_bytes(packed: Recompressed) -> None:
    """Another transfer syntax is another object: what we made ourselves is no exception."""
    with reader(packed.built) as archive:
        answer = archive.get(
            packed.samples[0].address, 'multipart/related; type="application/dicom"; transfer-syntax=*'
        )
        [(_, file)] = parts_of(answer)
        assert archive.store_one(file) == Answer(202, SET_ASIDE, None)


def test_scrub_finds_a_recompressed_store_sound(packed: Recompressed) -> None:
    assert packed.built.run("scrub").stdout.endswith(" 0 damaged\n")


def test_the_index_is_rebuilt_from_recompressed_packs(packed: Recompressed, tmp_path: Path) -> None:
    """In a new folder that has nothing but the store; identity is judged by what was received, as before."""
    again = System(tmp_path / "again", NEGATOSCOPE_QUIET_S="86400")
    again.data.mkdir()
    for folder in ("packs", "segments"):
        shutil.copytree(packed.built.data / folder, again.data / folder)
    told = again.run("rebuild-index").stdout
    assert told.startswith(f"{series_of(packed.samples)} series of {len(packed.samples)} instances from")
    again.run("user", "add", "reader", "--role", "radiologist", "--establishment", "HX")
    try:
        again.start()
        with reader(again) as archive:
            for sample in packed.samples:
                assert frames_of(archive, sample) == packed.frames[sample.name], sample.name
            judge_identity(archive, packed)
        assert again.run("scrub").returncode == 0
    finally:
        again.stop()


def test_nothing_went_wrong_unseen(packed: Recompressed) -> None:
    log = packed.built.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert " ERROR " not in log

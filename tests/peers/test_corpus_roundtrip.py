"""I4 and evidence of every real file: stored by STOW-RS, read back byte for byte, open and packed."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conformance.test_dicom_json import DCM2JSON, differences, inlined
from conformance.test_pixels_dcmtk import MOST_PIXELS, by_dcmtk, opened, tolerance
from negatoscope.dicom.json_model import inflated
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.dicom.pixels.describe import PixelDescription
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.dicom.walk import walk
from peers.corpus import REFUSED, SET_ASIDE, Answer, Archive, Fate, Sample, fates, sample_of
from system import System, system
from unit.dicom.samples import need_corpus, read

pytestmark = [pytest.mark.corpus, pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Kept:
    """One establishment that was sent files, and what it answered."""

    built: System
    archive: Archive
    fates: list[Fate]
    answers: dict[str, Answer]  # by name

    def of_kind(self, kind: str) -> list[Fate]:
        return [fate for fate in self.fates if fate.kind == kind]

    @property
    def stored(self) -> list[Fate]:
        return self.of_kind("stored")


@pytest.fixture(scope="module")
def both() -> Iterator[list[Kept]]:
    """HX is sent the whole corpus, HY what HX sets aside. Nothing is packed before :func:`packed` says so."""
    samples = [sample_of(path) for path in need_corpus()]
    with system(NEGATOSCOPE_QUIET_S="86400") as built, ExitStack() as stack:
        built.run("establishment", "add", "HY", "--name", "Hôpital Y", "--oid", "2.25.5002")
        built.run("user", "add", "other", "--role", "radiologist", "--establishment", "HY")
        built.start()
        rooms = []
        for user in ("reader", "other"):
            archive = stack.enter_context(Archive(built.url, built.token(user, "--ttl", "1h")))
            answers = {one.name: archive.store_one(one.path.read_bytes()) for one in samples}
            rooms.append(Kept(built, archive, fates(samples), answers))
            samples = [fate.sample for fate in rooms[-1].of_kind("aside")]
        yield rooms


@pytest.fixture(scope="module")
def kept(both: list[Kept]) -> Kept:
    return both[0]


def test_every_file_is_stored_set_aside_or_refused_as_the_table_says(both: list[Kept]) -> None:
    expected = {"stored": Answer(200, None, None), "known": Answer(200, None, None)}
    expected["aside"] = Answer(202, SET_ASIDE, None)
    for room in both:
        wrong = []
        for fate in room.fates:
            name = fate.sample.name
            due = expected.get(fate.kind) or Answer(409, None, REFUSED[name][0])
            if room.answers[name] != due:
                wrong.append((name, fate.kind, room.answers[name]))
        assert wrong == []
    assert len(both[0].of_kind("refused")) == len(REFUSED)
    assert len(both[0].fates) >= 659


def test_quarantine_holds_the_bytes_of_every_file_set_aside(both: list[Kept], tmp_path: Path) -> None:
    aside = {fate.sample.sha256: fate.sample.syntax for room in both for fate in room.of_kind("aside")}
    rows = [json.loads(line) for line in both[0].built.run("quarantine", "list").stdout.splitlines()]
    assert {row["sha256"] for row in rows} == set(aside)
    for row in rows[:: len(rows) // 3]:
        both[0].built.run("quarantine", "get", str(row["id"]), "--out", str(tmp_path / "got.dcm"))
        data, syntax = read(tmp_path / "got.dcm")
        digest = hashlib.sha256(data).hexdigest()
        assert (digest, syntax) == (row["sha256"], aside[digest])


def differing(room: Kept) -> list[str]:
    """Names of stored files that do not come back as they were sent."""

    def differs(fate: Fate) -> bool:
        return room.archive.data_set(fate.sample.address) != (fate.sample.data, fate.sample.syntax)

    with ThreadPoolExecutor(2) as threads:
        wrong = list(threads.map(differs, room.stored))
    return [fate.sample.name for fate, is_wrong in zip(room.stored, wrong, strict=True) if is_wrong]


def test_every_stored_file_comes_back_byte_for_byte(both: list[Kept]) -> None:
    for room in both:
        assert differing(room) == []
    assert sum(len(room.stored) for room in both) > 550


def metadata(room: Kept) -> dict[str, Any]:
    """DICOM JSON of every stored instance by UID, asked for a series at a time."""
    found: dict[str, Any] = {}
    for address in sorted({fate.sample.address.split("/instances/")[0] for fate in room.stored}):
        for document in room.archive.json(f"{address}/metadata"):
            found[document["00080018"]["Value"][0]] = document
    return found


def test_metadata_are_those_of_dcm2json(kept: Kept, tmp_path: Path) -> None:
    """Pixel data and what follows them left out: their bytes were compared already."""
    if not DCM2JSON.exists():
        pytest.skip("DCMTK is not installed")
    served = metadata(kept)
    assert len(served) == len(kept.stored)

    def compared(fate: Fate) -> list[str] | None:
        """Paths that differ; None where DCMTK gives up."""
        sample = fate.sample
        assert sample.scanned is not None
        data, syntax = without_pixels(sample)
        file = tmp_path / f"{sample.sha256}.dcm"
        file.write_bytes(write_file_meta("1.2", "1.2.3", syntax) + data)
        done = subprocess.run([DCM2JSON, "-q", "-fc", "-ee", file], capture_output=True, check=False)
        file.unlink()
        if done.returncode:
            return None
        theirs = json.loads(done.stdout.decode(errors="replace"), strict=False)
        ours = served[sample.scanned.sop_instance_uid]
        ours = {tag: element for tag, element in ours.items() if tag < "7FE00008"}
        relative(ours)
        inlined(ours, data, syntax)
        return differences(ours, theirs)

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(compared, kept.stored))
    wrong = [(fate.sample.name, found) for fate, found in zip(kept.stored, results, strict=True) if found]
    assert wrong == []
    assert sum(found is not None for found in results) > 450


def without_pixels(sample: Sample) -> tuple[bytes, str]:
    """The data set up to its pixel data, and a syntax in which that may stand alone."""
    data, syntax = inflated(sample.data, sample.syntax)
    pixels = [e for e in walk(data, syntax) if e.tag >= 0x7FE00008 and not e.depth]
    uid = EXPLICIT_LITTLE_ENDIAN if syntax.encapsulated or syntax.deflated else sample.syntax
    return bytes(data[: pixels[0].start] if pixels else data), uid


def relative(document: dict[str, Any]) -> None:
    """Bulk data by the path of their element alone, as ``json_model`` names them."""
    for element in document.values():
        if "BulkDataURI" in element:
            element["BulkDataURI"] = element["BulkDataURI"].split("/bulkdata/")[1]
        if element["vr"] == "SQ":
            for item in element.get("Value", []):
                relative(item)


@pytest.fixture(scope="module")
def images(both: list[Kept]) -> dict[str, list[tuple[Archive, Sample, PixelDescription]]]:
    """Stored images by Photometric Interpretation, those that are no trouble to compare."""
    found: dict[str, list[tuple[Archive, Sample, PixelDescription]]] = {}
    for room in both:
        for fate in room.stored:
            image = opened(fate.sample.path)
            if image is not None and tolerance(image[1]) is not None and image[1].rows * image[1].columns < MOST_PIXELS:
                found.setdefault(image[1].photometric, []).append((room.archive, fate.sample, image[1]))
    return found


@pytest.mark.parametrize(
    "photometric", ["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR"]
)
def test_what_is_rendered_is_what_dcmtk_shows_within_one_grey_level(
    images: dict[str, list[tuple[Archive, Sample, PixelDescription]]], photometric: str
) -> None:
    if not Path("/usr/bin/dcmj2pnm").exists():
        pytest.skip("DCMTK is not installed")
    compared = 0
    for archive, sample, image in images[photometric][:: len(images[photometric]) // 8 + 1]:
        theirs = by_dcmtk(sample.path, image)
        if theirs is None:
            continue  # JPEG 2000
        answer = archive.get(f"{sample.address}/frames/1/rendered", "image/png")
        assert answer.status_code == 200, sample.name
        ours = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(np.int16) - theirs.astype(np.int16)).max() <= (tolerance(image) or 0), sample.name
        compared += 1
    assert compared >= 1


@pytest.fixture(scope="module")
def packed(both: list[Kept]) -> list[Kept]:
    """The same server, started again with nothing to wait for, once every series is in a pack."""
    before = [metadata(room) for room in both]
    built = both[0].built
    built.stop()
    built.environment["NEGATOSCOPE_QUIET_S"] = "0.1"
    built.start()
    series = sum(len({fate.sample.address.split("/instances/")[0] for fate in room.stored}) for room in both)
    until = time.monotonic() + 120
    while (done := built.log.read_text(errors="replace").count("series_packed")) < series:
        assert time.monotonic() < until, f"{done} of {series} series are packed"
        time.sleep(0.2)
    assert [metadata(room) for room in both] == before, "packing changes no metadata"
    return both


def test_every_stored_file_comes_back_byte_for_byte_from_its_pack(packed: list[Kept]) -> None:
    assert [differing(room) for room in packed] == [[], []]


def test_a_sent_file_is_known_after_packing_and_another_is_still_set_aside(packed: list[Kept]) -> None:
    room = packed[0]
    for fate in [*room.stored[::20], *room.of_kind("aside")[::10]]:
        assert room.archive.store_one(fate.sample.path.read_bytes()) == room.answers[fate.sample.name]


def test_nothing_went_wrong_unseen(packed: list[Kept]) -> None:
    """No traceback in the log of the whole run, and the store is whole."""
    assert packed[0].built.run("scrub").returncode == 0
    log = packed[0].built.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert " ERROR " not in log

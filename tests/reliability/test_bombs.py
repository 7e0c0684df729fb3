"""H6: small objects that would be huge, through every door of the real server: answered within a second, no memory."""

from __future__ import annotations

import gzip
import time
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import httpx
import pytest
from harness import synthetic

from negatoscope.dicom.part10 import write_file_meta
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from negatoscope.errors import WIRE_FORMS
from negatoscope.servers.dicom_client import PeerUnavailable, Proposal, associate
from peers.corpus import Archive
from reliability.test_fuzz_streams import MIB, Watch, look
from reliability.test_pixel_bombs import j2k_of_size
from reliability.traffic import CT
from system import System, system
from unit.dicom.samples import element, instance, nested
from unit.pixels.build import encapsulated

pytestmark = pytest.mark.slow
DEFLATED, J2K = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.90"
SLOWEST_S = 1.0
ALLOWED = {form.http for form in WIRE_FORMS.values()} - {500, 503} | {200}


@pytest.fixture(scope="module")
def built() -> Iterator[System]:
    with system(NEGATOSCOPE_QUIET_S="86400") as one:
        one.start()
        with Archive(one.url, one.token("reader")) as archive:
            archive.store_one(write_file_meta(CT, "2.25.1", EXPLICIT) + synthetic())
            for _ in look(archive, "/dicom-web/studies/2.25.100/series/2.25.200/instances/2.25.1"):
                pass
        yield one


@pytest.fixture
def archive(built: System) -> Iterator[Archive]:
    with Archive(built.url, built.token("reader")) as one:
        yield one


def deflated(data: bytes) -> bytes:
    machine = zlib.compressobj(9, wbits=-15)
    return machine.compress(data) + machine.flush()


def image(rows: int, columns: int, frames: int, pixels: bytes) -> bytes:
    """An 8-bit object that says it has so many pixels."""
    header: dict[int, tuple[str, bytes]] = {
        0x00100020: ("LO", b"BOMB"),
        0x00280002: ("US", pack("<H", 1)),
        0x00280004: ("CS", b"MONOCHROME2 "),
        0x00280008: ("IS", str(frames).encode().ljust(8)),
        0x00280010: ("US", pack("<H", rows)),
        0x00280011: ("US", pack("<H", columns)),
        0x00280100: ("US", pack("<H", 8)),
        0x00280101: ("US", pack("<H", 8)),
        0x00280102: ("US", pack("<H", 7)),
        0x00280103: ("US", pack("<H", 0)),
    }
    return instance(header) + pixels


def private(count: int) -> bytes:
    """``count`` empty private elements."""
    return b"".join(pack("<HHHxxxxxx", 0x1001 + 2 * (n >> 15), 0x1000 + (n & 0x7FFF), 0x4E55) for n in range(count))


PLAIN = instance({0x00100020: ("LO", b"BOMB")})
BOMBS: dict[str, tuple[str, bytes, bool]] = {  # syntax, data set, whether it may be kept
    "deflate 1000:1": (DEFLATED, deflated(PLAIN + element(0x7FE00010, "OB", bytes(256 * MIB))), False),
    "deflate 1000:1 in a header": (DEFLATED, deflated(PLAIN + element(0x00420011, "OB", bytes(64 * MIB))), False),
    "J2K 65535 x 65535": (J2K, image(65535, 65535, 1, encapsulated([j2k_of_size(65535, 65535)])), True),
    "J2K 65535 x 65535 in 16 x 16": (J2K, image(16, 16, 1, encapsulated([j2k_of_size(65535, 65535)])), True),
    "10^6 frames of 65535 x 65535 in no bytes": (EXPLICIT, image(65535, 65535, 10**6, element(0x7FE00010, "OB")), True),
    "10^6 frames in one fragment": (J2K, image(512, 512, 10**6, encapsulated([j2k_of_size(16, 16)])), True),
    "10^7 frames": (EXPLICIT, image(1, 1, 10**7, element(0x7FE00010, "OB")), True),
    "10^6 private elements": (EXPLICIT, PLAIN + private(10**6 + 1), False),
    "10^5 values": (EXPLICIT, instance({0x00080119: ("UC", b"1\\" * 10**5)}), True),
    "65 sequences": (EXPLICIT, PLAIN + nested(65, undefined=True), False),
    "100,000 sequences": (EXPLICIT, PLAIN + nested(100_000, undefined=True), False),
    "2,000 sequences of known length": (EXPLICIT, PLAIN + nested(2_000, undefined=False), False),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_one_answer_at_either_door(built: System, archive: Archive, name: str) -> None:
    syntax, data, may_be_kept = BOMBS[name]
    watch = Watch(built)
    began = time.monotonic()
    answer = archive.store([write_file_meta(CT, "1.2.3", syntax) + data])
    assert time.monotonic() - began < SLOWEST_S + len(data) / (50 * MIB)
    assert answer.status_code in ({200, 202, 409} if may_be_kept else {409}), answer.text
    if answer.status_code != 409:
        for path, status, seconds in look(archive, "/dicom-web/studies/1.2.4/series/1.2.5/instances/1.2.3"):
            assert status in ALLOWED, (path, status)
            assert seconds < SLOWEST_S, (path, seconds)
    began = time.monotonic()
    try:
        with associate(built.dicom, Proposal("NEGATOSCOPE", "MODALITY", ((CT, (syntax,)),))) as sender:
            status = sender.store(CT, "1.2.3", syntax, data).status
        assert (status == 0) <= may_be_kept, hex(status)
    except PeerUnavailable:
        assert not may_be_kept, "aborted"
    assert time.monotonic() - began < SLOWEST_S + len(data) / (50 * MIB)
    watch.judge()


def test_a_coded_request_body_is_not_opened(built: System) -> None:
    watch = Watch(built)
    began = time.monotonic()
    body = gzip.compress(bytes(256 * MIB), 9)
    answer = httpx.post(
        f"{built.url}/dicom-web/studies",
        content=body,
        headers={
            "Authorization": f"Bearer {built.token('reader')}",
            "Content-Encoding": "gzip",
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
        },
    )
    assert answer.status_code == 415
    assert time.monotonic() - began < 5 * SLOWEST_S  # most of it is ours, packing
    watch.judge()


def test_a_zip_of_zips_and_a_zip_bomb_are_refused_by_import(built: System, tmp_path: Path) -> None:
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("IM1", write_file_meta(CT, "1.2.3", EXPLICIT) + PLAIN)
    outer = tmp_path / "outer.zip"
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for n in range(20):
            archive.write(inner, f"{n}.zip")
        archive.writestr(
            "BOMB", write_file_meta(CT, "1.2.3", EXPLICIT) + PLAIN + element(0x7FE00010, "OB", bytes(64 * MIB))
        )
    assert outer.stat().st_size < MIB
    began = time.monotonic()
    done = built.run("import", str(outer), "--establishment", "HX", check=False)
    assert time.monotonic() - began < 10
    assert done.returncode == 1
    assert "0 stored" in done.stdout
    assert done.stdout.count("import it by itself") == 20
    assert "BOMB: refused: " in done.stdout
    assert done.stderr == "negatoscope: 21 files were refused\n"

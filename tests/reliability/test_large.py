"""One object of 2 GiB comes in by either door and goes out again, and the server stays small meanwhile."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import httpx
import psutil
import pytest

from benchmarks.ingest import Watch
from negatoscope.demo.encode import EXPLICIT_LITTLE_ENDIAN, data_set, part10
from negatoscope.demo.synthetic import Labels, header, image
from negatoscope.servers.dicom_client import Proposal, associate
from system import System, system

MULTIFRAME = "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture
FRAMES = 4096
BLOCK = 1 << 20
PIXELS = FRAMES * 512 * 512 * 2
MOST = 300_000_000  # bytes of all processes but PostgreSQL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Large:
    """2 GiB of pixels that are made as they are sent: one block of noise, again and again."""

    def __init__(self, name: str) -> None:
        self.labels = Labels(name)
        self.sop = self.labels.instance_uid(1, 1)
        elements = {
            **header(self.labels, MULTIFRAME, "OT", 1, 1, "large"),
            **image(512, 512, 16, 12),
            0x00280008: ("IS", FRAMES),
        }
        self.head = data_set(elements) + b"\xe0\x7f\x10\x00OW\0\0" + PIXELS.to_bytes(4, "little")
        self.block = random.Random(5).randbytes(BLOCK)

    def pieces(self) -> Iterator[bytes]:
        yield self.head
        for _ in range(PIXELS // BLOCK):
            yield self.block

    @property
    def address(self) -> str:
        labels = self.labels
        return f"/dicom-web/studies/{labels.study_uid}/series/{labels.series_uid(1)}/instances/{self.sop}"

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


@pytest.fixture(scope="module")
def built() -> Iterator[System]:
    with system() as one:
        one.start()
        yield one


def watch(built: System) -> Watch:
    """All processes but PostgreSQL."""

    def processes() -> list[psutil.Process]:
        assert built.process is not None
        top = psutil.Process(built.process.pid)
        return [process for process in [top, *top.children(recursive=True)] if "postgres" not in process.name()]

    return Watch(processes, every_s=0.2)


def served(built: System, token: str, large: Large) -> str:
    """SHA-256 of the data set as WADO-RS streams it."""
    digest, meta = hashlib.sha256(), len(part10(MULTIFRAME, large.sop, b""))
    accept = {"Accept": "application/dicom; transfer-syntax=*", "Authorization": f"Bearer {token}"}
    with httpx.stream("GET", built.url + large.address, headers=accept, timeout=60) as answer:
        assert answer.status_code == 200
        whole = int(answer.headers["content-length"])
        skip = whole - len(large.head) - PIXELS  # preamble and file meta, whatever they hold
        assert 0 < skip < meta + 512
        for piece in answer.iter_bytes(BLOCK):
            digest.update(piece[skip:])
            skip = max(0, skip - len(piece))
    return digest.hexdigest()


def test_two_gibibytes_come_by_c_store_and_go_out_within_300_mb(built: System) -> None:
    large, token = Large("large by C-STORE"), built.token("reader")
    with watch(built) as memory:
        proposal = Proposal("NEGATOSCOPE", "MODALITY", ((MULTIFRAME, (EXPLICIT_LITTLE_ENDIAN,)),))
        with associate(built.dicom, proposal) as sender:
            sender.begin_store(MULTIFRAME, large.sop, EXPLICIT_LITTLE_ENDIAN, large.pieces())
            assert sender.answer().status == 0
        assert served(built, token, large) == large.sha256()
    assert 0 < memory.highest < MOST


def test_two_gibibytes_come_by_stow_and_go_out_within_300_mb(built: System) -> None:
    large = Large("large by STOW-RS")
    built.run("user", "add", "sender", "--role", "radiographer", "--establishment", "HX")
    token, reader = built.token("sender"), built.token("reader")
    file_meta = part10(MULTIFRAME, large.sop, b"")
    start, end = b"--B\r\nContent-Type: application/dicom\r\n\r\n" + file_meta, b"\r\n--B--\r\n"

    def body() -> Iterator[bytes]:
        yield start
        yield from large.pieces()
        yield end

    with watch(built) as memory:
        answer = httpx.post(
            f"{built.url}/dicom-web/studies",
            content=body(),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
                "Content-Length": str(len(start) + len(large.head) + PIXELS + len(end)),
                "Accept": "application/dicom+json",
            },
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        assert served(built, reader, large) == large.sha256()
    assert 0 < memory.highest < MOST

"""The whole corpus through a real server: who is stored, who is not and why, and how it is read back.

Read from a file once; of many files one UID has several versions, so later ones go to quarantine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from negatoscope.dicom.part10 import read_file_meta
from negatoscope.dicom.scan import Scanned, scan
from negatoscope.errors import NegatoscopeError
from unit.dicom.samples import CORPUS, read

TRUNCATED, MISMATCH, NOT_DICOM = 0xC002, 0xA900, 0xC000
SET_ASIDE = 0xB000

# Every file that is refused, the status, and why that is right.
NO_STUDY = "has no Study Instance UID: it could be listed nowhere"
NO_CLASS = "has no SOP Class UID: a fragment made to test a parser"
INDEX = "is the index of a medium, no object (PS3.10 8)"
CUT = "is cut short"
REFUSED: dict[str, tuple[int, str]] = {
    # Color palettes are non-patient objects (PS3.4 GG): they have no study, and we do not offer that service.
    **dict.fromkeys(
        [
            f"data/palettes/{name}.dcm"
            for name in ["fall", "hotiron", "hotmetalblue", "pet", "pet20step", "spring", "summer", "winter"]
        ],
        (MISMATCH, NO_STUDY),
    ),
    **dict.fromkeys(
        [
            "data/test_files/JPEGLSNearLossless_08.dcm",
            "data/test_files/JPEGLSNearLossless_16.dcm",
            "data/test_files/SC_rgb_jls_lossy_line.dcm",
            "data/test_files/SC_rgb_jls_lossy_sample.dcm",
        ],
        (MISMATCH, NO_STUDY),
    ),
    **dict.fromkeys(
        [
            "data/charset_files/chrSQEncoding.dcm",
            "data/charset_files/chrSQEncoding1.dcm",
            "data/test_files/UN_sequence.dcm",
            "data/test_files/empty_charset_LEI.dcm",
            "data/test_files/nested_priv_SQ.dcm",
            "data/test_files/no_meta_group_length.dcm",
            "data/test_files/priv_SQ.dcm",
        ],
        (MISMATCH, NO_CLASS),
    ),
    **dict.fromkeys(
        [
            "data/test_files/dicomdirtests/DICOMDIR",
            "data/test_files/dicomdirtests/DICOMDIR-bigEnd",
            "data/test_files/dicomdirtests/DICOMDIR-empty.dcm",
            "data/test_files/dicomdirtests/DICOMDIR-implicit",
            "data/test_files/dicomdirtests/DICOMDIR-nopatient",
            "data/test_files/dicomdirtests/DICOMDIR-reordered",
            "data/test_files/dicomdirtests/TINY_ALPHA/DICOMDIR",
        ],
        (MISMATCH, INDEX),
    ),
    **dict.fromkeys(
        [
            "data/test_files/MR_truncated.dcm",
            "data/test_files/rtplan_truncated.dcm",
            "data/test_files/dicomdirtests/DICOMDIR-nooffset",
            "data_store/data/emri_small_jpeg_2k_lossless_too_short.dcm",
            "icometrix+dicom2nifti/tests/data/philips/anatomical/002/008.dcm",
        ],
        (TRUNCATED, CUT),
    ),
    "data_store/data/bad_sequence.dcm": (MISMATCH, "has a SOP Instance UID that is none (PS3.5 9.1)"),
    "data/test_files/meta_missing_tsyntax.dcm": (NOT_DICOM, "does not say how it is written, and does not look so"),
}


@dataclass(frozen=True)
class Sample:
    """One file of the corpus. ``scanned`` None: it cannot be indexed."""

    name: str  # below the corpus
    path: Path
    data: bytes
    syntax: str
    scanned: Scanned | None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def address(self) -> str:
        assert self.scanned is not None
        found = self.scanned
        return f"/dicom-web/studies/{found.study_uid}/series/{found.series_uid}/instances/{found.sop_instance_uid}"


def name_of(path: Path) -> str:
    inside = path.is_relative_to(CORPUS)
    return path.relative_to(CORPUS).as_posix().removeprefix("dev/") if inside else path.name


def sample_of(path: Path) -> Sample:
    try:
        data, syntax = read(path)
        return Sample(name_of(path), path, data, syntax, scan(data, syntax))
    except NegatoscopeError:
        return Sample(name_of(path), path, b"", "", None)


@dataclass(frozen=True)
class Answer:
    """What STOW-RS said of one object."""

    status: int
    warning: int | None  # Warning Reason
    failure: int | None  # Failure Reason


class Archive:
    """The DICOMweb of a running server, as one user sees it."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {token}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def get(self, path: str, accept: str, **parameters: str) -> httpx.Response:
        return self._client.get(path, headers={"Accept": accept}, params=parameters or None)

    def json(self, path: str) -> Any:
        answer = self.get(path, "application/dicom+json")
        answer.raise_for_status()
        return answer.json()

    def store(self, files: Sequence[bytes]) -> httpx.Response:
        """STOW-RS of Part 10 files in one request."""
        parts = [b"--B\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files]
        headers = {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
            "Accept": "application/dicom+json",
        }
        return self._client.post("/dicom-web/studies", content=b"".join(parts) + b"--B--\r\n", headers=headers)

    def store_one(self, file: bytes) -> Answer:
        answer = self.store([file])
        document = answer.json() if answer.headers["content-type"].startswith("application/dicom+json") else {}
        failed = document.get("00081198", {}).get("Value", [])
        kept = document.get("00081199", {}).get("Value", [])
        failure = failed[0]["00081197"]["Value"][0] if failed else None
        warning = kept[0]["00081196"]["Value"][0] if kept and "00081196" in kept[0] else None
        return Answer(answer.status_code, warning, failure)

    def data_set(self, address: str) -> tuple[bytes, str]:
        """The data set of an instance as it is kept, and its transfer syntax."""
        answer = self.get(address, 'multipart/related; type="application/dicom"; transfer-syntax=*')
        answer.raise_for_status()
        [(headers, body)] = parts_of(answer)
        meta, start = read_file_meta(body)
        assert f"transfer-syntax={meta.transfer_syntax_uid}" in headers
        return body[start:], meta.transfer_syntax_uid


def parts_of(answer: httpx.Response) -> Iterator[tuple[str, bytes]]:
    """Headers and body of each part; a body without its closing boundary fails."""
    boundary = answer.headers["content-type"].split("boundary=")[1].split(";")[0].strip('"').encode()
    content = b"\r\n" + answer.content
    assert content.endswith((b"\r\n--" + boundary + b"--", b"\r\n--" + boundary + b"--\r\n")), "cut"
    for part in content.split(b"\r\n--" + boundary)[1:-1]:
        head, _, body = part.partition(b"\r\n\r\n")
        yield head.decode(), body


@dataclass(frozen=True)
class Fate:
    """What must become of a file when the corpus is sent in order."""

    sample: Sample
    kind: str  # stored, known, aside, refused


def fates(samples: Sequence[Sample]) -> list[Fate]:
    """A model of the archive in four dictionaries: first come, first served; who contradicts goes aside."""
    patient_of: dict[str, str] = {}
    study_of: dict[str, str] = {}
    held: dict[str, tuple[str, str]] = {}
    told = []
    for one in samples:
        found = one.scanned
        if one.name in REFUSED or found is None:
            told.append(Fate(one, "refused"))
            continue
        parents = (
            patient_of.setdefault(found.study_uid, found.patient_identifier) == found.patient_identifier
            and study_of.setdefault(found.series_uid, found.study_uid) == found.study_uid
        )
        content = (one.sha256, found.series_uid)
        if not parents or held.get(found.sop_instance_uid, content) != content:
            told.append(Fate(one, "aside"))
        elif found.sop_instance_uid in held:
            told.append(Fate(one, "known"))
        else:
            held[found.sop_instance_uid] = content
            told.append(Fate(one, "stored"))
    return told

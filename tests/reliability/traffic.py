"""Senders that write down what was acknowledged, and the check that all of it is there."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from harness import synthetic

from negatoscope.dicom.part10 import read_file_meta, write_file_meta
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.errors import NegatoscopeError
from negatoscope.servers.dicom_client import Proposal, associate
from system import System

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Sent:
    """One object of the traffic."""

    study: str
    series: str
    sop: str
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def objects(seed: int, sender: int, count: int, largest: int = 60_000) -> Iterator[Sent]:
    """Objects of one sender: several studies and series, sizes mixed."""
    dice = random.Random(seed * 1000 + sender)
    for n in range(count):
        study = f"2.25.{seed}{sender}1{n // 40:03d}"
        series = f"2.25.{seed}{sender}2{n // 10:03d}"
        sop = f"2.25.{seed}{sender}3{n:05d}"
        pixels = dice.randbytes(dice.randrange(64, largest) // 32 * 32)
        patient = f"P{seed}-{sender}-{n // 40}"
        yield Sent(study, series, sop, synthetic(
            sop=sop, study=study, series=series, patient=patient, number=n, pixels=pixels
        ))  # fmt: skip


@dataclass
class Acknowledged:
    """The list of what was acknowledged, on disk and synced before the sender goes on."""

    file: Path
    known: dict[str, Sent] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, sent: Sent) -> None:
        with self.lock:
            with self.file.open("a") as file:
                file.write(f"{sent.study} {sent.series} {sent.sop} {sent.sha256}\n")
                file.flush()
                os.fsync(file.fileno())
            self.known[sent.sop] = sent


def send_dimse(built: System, traffic: Iterator[Sent], acknowledged: Acknowledged, stop: threading.Event) -> None:
    """C-STORE until the traffic ends or the server goes away; what is not acknowledged is not written down."""
    try:
        with associate(built.dicom, Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT_LITTLE_ENDIAN,)),))) as sender:
            for sent in traffic:
                if stop.is_set():
                    return
                if sender.store(CT, sent.sop, EXPLICIT_LITTLE_ENDIAN, sent.data).status == 0:
                    acknowledged.add(sent)
    except (NegatoscopeError, OSError):
        return


def send_stow(
    built: System, token: str, traffic: Iterator[Sent], acknowledged: Acknowledged, stop: threading.Event
) -> None:
    """STOW-RS one object a request, on one connection."""
    try:
        with httpx.Client(timeout=20) as client:
            for sent in traffic:
                if stop.is_set():
                    return
                body = part(sent)
                answer = client.post(
                    f"{built.url}/dicom-web/studies",
                    content=body,
                    headers={
                        "Authorization": f"Bearer {token}",
                        "Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
                        "Accept": "application/dicom+json",
                    },
                )
                if answer.status_code == 200:
                    acknowledged.add(sent)
    except (httpx.HTTPError, OSError):
        return


def part(sent: Sent) -> bytes:
    meta = write_file_meta(CT, sent.sop, EXPLICIT_LITTLE_ENDIAN)
    return b"--B\r\nContent-Type: application/dicom\r\n\r\n" + meta + sent.data + b"\r\n--B--\r\n"


@dataclass(frozen=True)
class Verdict:
    """Of everything acknowledged: what is not there, what is not the same, what is there twice."""

    checked: int
    lost: list[str]
    corrupt: list[str]
    double: list[str]


def verify(built: System, token: str, acknowledged: Acknowledged) -> Verdict:
    """Retrieve every acknowledged object and compare; count every UID in its study."""
    lost, corrupt, double = [], [], []
    with httpx.Client(timeout=60, headers={"Authorization": f"Bearer {token}"}) as client:
        for study in sorted({sent.study for sent in acknowledged.known.values()}):
            listed = client.get(f"{built.url}/dicom-web/studies/{study}/instances", params={"limit": 500})
            uids = [one["00080018"]["Value"][0] for one in listed.json()] if listed.status_code == 200 else []
            double += sorted({uid for uid in uids if uids.count(uid) > 1})
        for sent in acknowledged.known.values():
            answer = client.get(
                f"{built.url}/dicom-web/studies/{sent.study}/series/{sent.series}/instances/{sent.sop}",
                headers={"Accept": "application/dicom; transfer-syntax=*"},
            )
            if answer.status_code != 200:
                lost.append(sent.sop)
                continue
            body = answer.content
            if body.startswith(b"--"):
                start = body.index(b"\r\n\r\n") + 4
                body = body[start : body.rindex(b"\r\n--")]
            _, start = read_file_meta(body)
            if body[start:] != sent.data:
                corrupt.append(sent.sop)
    return Verdict(len(acknowledged.known), lost, corrupt, double)

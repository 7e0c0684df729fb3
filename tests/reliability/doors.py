"""The doors that objects come in by, opened again after each killing, and the reader who looks what is there."""

from __future__ import annotations

import time
from contextlib import suppress

import httpx
import psutil
from harness import synthetic

from negatoscope.dicom.part10 import read_file_meta
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.servers.dicom_client import PeerUnavailable, Proposal, Sender, associate
from reliability.traffic import CT, Sent, part
from system import System

PROPOSAL = Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT_LITTLE_ENDIAN,)),))
RESTART_S = 10.0  # the promise is five; the machine may be busy


class DicomDoor:
    """C-STORE on one association, opened beforehand: its thread is there when strace looks."""

    kind = "dicom"

    def __init__(self, built: System) -> None:
        self._built = built
        self._sender: Sender | None = None

    def open(self) -> None:
        self.close()
        until = time.monotonic() + RESTART_S
        while self._sender is None:
            try:
                self._sender = associate(self._built.dicom, PROPOSAL)
            except (PeerUnavailable, OSError):
                assert time.monotonic() < until, self._built.tail()
                time.sleep(0.02)

    def send(self, sent: Sent) -> bool:
        """Whether it was acknowledged. Raises NegatoscopeError, OSError when the server is gone."""
        assert self._sender is not None
        return self._sender.store(CT, sent.sop, EXPLICIT_LITTLE_ENDIAN, sent.data).status == 0

    def close(self) -> None:
        if self._sender is not None:
            self._sender.abort()
            self._sender = None


class StowDoor:
    """STOW-RS on one kept connection."""

    kind = "http"

    def __init__(self, built: System, token: str) -> None:
        self._built, self._headers = built, {"Authorization": f"Bearer {token}"}
        self._client = httpx.Client(timeout=30, headers=self._headers)

    def open(self) -> None:
        self.close()
        self._client = httpx.Client(timeout=30, headers=self._headers)
        self._warm()

    def _warm(self) -> None:
        """The server answers again, and knows the token."""
        until = time.monotonic() + RESTART_S
        while True:
            with suppress(httpx.HTTPError):
                if self._client.get(f"{self._built.url}/dicom-web/studies", params={"limit": 1}).status_code < 300:
                    return
            assert time.monotonic() < until, self._built.tail()
            time.sleep(0.02)

    def send(self, sent: Sent) -> bool:
        answer = self._client.post(
            f"{self._built.url}/dicom-web/studies",
            content=part(sent),
            headers={
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
                "Accept": "application/dicom+json",
            },
        )
        return answer.status_code in (200, 202)

    def close(self) -> None:
        self._client.close()


Door = DicomDoor | StowDoor


class Reader:
    """A radiologist who asks for what was sent."""

    def __init__(self, built: System, token: str) -> None:
        self.address = f"{built.url}/dicom-web/studies"
        self.client = httpx.Client(timeout=30, headers={"Authorization": f"Bearer {token}"})

    def state(self, sent: Sent) -> str:
        """``whole``, ``absent``, ``refused`` (known to be damaged) or ``corrupt``: served, and not what was sent."""
        answer = self.client.get(
            f"{self.address}/{sent.study}/series/{sent.series}/instances/{sent.sop}",
            headers={"Accept": "application/dicom; transfer-syntax=*"},
        )
        if answer.status_code == 404:
            return "absent"
        if answer.status_code == 500 and answer.json()["type"].endswith("corrupt-object"):
            return "refused"
        assert answer.status_code == 200, answer.text
        body = answer.content
        if body.startswith(b"--"):
            body = body[body.index(b"\r\n\r\n") + 4 : body.rindex(b"\r\n--")]
        return "whole" if body[read_file_meta(body)[1] :] == sent.data else "corrupt"

    def assert_one_copy(self, study: str, uids: set[str]) -> None:
        """The study, all of it in one series, has these objects once each, and is counted so."""
        listed = self.client.get(f"{self.address}/{study}/instances").json()
        assert sorted(one["00080018"]["Value"][0] for one in listed) == sorted(uids)
        found = self.client.get(self.address, params={"StudyInstanceUID": study}).json()
        assert [one["00201206"]["Value"] + one["00201208"]["Value"] for one in found] == [[1, len(uids)]]


def new_object(number: int, which: int, size: int = 20_000) -> Sent:
    """Object ``which`` of study ``number``."""
    study, series, sop = (f"2.25.7{number:05d}{kind}" for kind in ("1", "2", f"3{which}"))
    pixels = bytes([number % 251, which % 251]) * (size // 2)
    data = synthetic(sop=sop, study=study, series=series, patient=f"P{number}", number=which + 1, pixels=pixels)
    return Sent(study, series, sop, data)


def ended(process: psutil.Process, within_s: float) -> bool:
    """Whether the process has died, and its parent has seen it."""
    try:
        process.wait(within_s)
    except psutil.TimeoutExpired:
        return False
    return True

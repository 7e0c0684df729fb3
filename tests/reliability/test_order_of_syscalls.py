"""D4: seen from the kernel, bytes are synced before the index commits, and that before anything is acknowledged."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from harness import synthetic

from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.servers.dicom_client import Proposal, associate
from reliability.traffic import CT, Sent, part
from system import System, system

pytestmark = pytest.mark.slow

TRACED = "openat,fsync,fdatasync,pwritev,pwritev2,pwrite64,sendto,sendmsg,write,writev"


def traced(built: System, kind: str, act: Callable[[], None], folder: Path) -> list[str]:
    """The system calls of one of our processes while ``act`` runs, in order, one a line."""
    if shutil.which("strace") is None:
        pytest.skip("needs strace: make test installs it")
    log = folder / "trace"
    command = ["strace", "-f", "-p", str(built.children()[kind].pid), "-e", f"trace={TRACED}", "-yy", "-s", "200"]
    tracer = subprocess.Popen([*command, "-o", str(log)], stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    attached = tracer.stderr.readline().decode()
    if "attached" not in attached:
        pytest.skip(f"strace cannot attach here: {attached.strip()}")
    time.sleep(0.3)
    act()
    time.sleep(0.3)
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    return log.read_text(errors="replace").splitlines()


def first(lines: list[str], pattern: str, after: int = -1) -> int:
    for number, line in enumerate(lines):
        if number > after and re.search(pattern, line):
            return number
    raise AssertionError(f"never seen: {pattern}\n" + "\n".join(lines[-60:]))


def assert_order(lines: list[str], answer: str) -> None:
    """New segment: its folder is synced. Then data, data sync, commit in the index, and only then the answer."""
    folder = first(lines, r"fsync\(\d+<[^>]*/segments>\)")
    data = first(lines, r"pwritev2?\(\d+<[^>]*\.seg>", folder)
    synced = first(lines, r"fdatasync\(\d+<[^>]*\.seg>", data)
    inserted = first(lines, r"(sendto|write|sendmsg)\(.*UNIX.*", synced)
    commit = first(lines, r"(sendto|write|sendmsg)\(.*UNIX.*COMMIT", inserted)
    answered = first(lines, answer, data)
    assert commit < answered, "\n".join(lines[commit - 5 : answered + 5])


def sent(sop: str) -> Sent:
    return Sent("2.25.100", "2.25.200", sop, synthetic(sop=sop))


def test_an_object_is_durable_before_its_c_store_response(tmp_path: Path) -> None:
    with system(NEGATOSCOPE_QUIET_S="3600") as built:
        built.start()
        proposal = Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT_LITTLE_ENDIAN,)),))
        with associate(built.dicom, proposal) as sender:

            def act() -> None:
                one = sent("2.25.1")
                assert sender.store(CT, one.sop, EXPLICIT_LITTLE_ENDIAN, one.data).status == 0

            lines = traced(built, "dicom", act, tmp_path)
        # The response is the only PDU we send: PDU type 4 (P-DATA-TF), PS3.8 table 9-22.
        assert_order(lines, rf"(sendto|sendmsg|write|writev)\(\d+<TCP:\[127\.0\.0\.1:{built.dicom_port}->.*\\4\\0")


def test_the_index_commits_the_next_object_of_a_series_after_its_bytes_are_synced(tmp_path: Path) -> None:
    """Its statement is sent before: what commits it is the Sync message, sent when the bytes are safe."""
    with system(NEGATOSCOPE_QUIET_S="3600") as built:
        built.start()
        proposal = Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT_LITTLE_ENDIAN,)),))
        with associate(built.dicom, proposal) as sender:

            def store(number: int) -> None:
                one = sent(f"2.25.{number}")
                assert sender.store(CT, one.sop, EXPLICIT_LITTLE_ENDIAN, one.data).status == 0

            for number in range(1, 9):  # the statement is prepared by then
                store(number)
            lines = traced(built, "dicom", lambda: store(9), tmp_path)
        sync_message = r'(sendto|write|sendmsg)\(.*UNIX.*"S\\0\\0\\0\\4"'
        statement = first(lines, r"(sendto|write|sendmsg)\(.*UNIX.*2\.25\.9")
        synced = first(lines, r"fdatasync\(\d+<[^>]*\.seg>", statement)
        finished = (
            synced
            if "resumed" not in lines[synced] and "unfinished" not in lines[synced]
            else first(lines, r"fdatasync resumed", synced)
        )
        commit = first(lines, sync_message, finished)
        assert not [line for line in lines[statement:finished] if re.search(sync_message, line)]
        assert commit < first(lines, rf"(sendto|sendmsg)\(\d+<TCP:\[127\.0\.0\.1:{built.dicom_port}->.*\\4\\0")


def test_an_object_is_durable_before_its_stow_response(tmp_path: Path) -> None:
    with system(NEGATOSCOPE_QUIET_S="3600") as built:
        built.start()
        token = built.token("reader")

        def act() -> None:
            answer = httpx.post(
                f"{built.url}/dicom-web/studies",
                content=part(sent("2.25.1")),
                headers={
                    "Authorization": f"Bearer {token}",
                    "Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
                    "Accept": "application/dicom+json",
                },
                timeout=30,
            )
            assert answer.status_code == 200

        lines = traced(built, "http", act, tmp_path)
        assert_order(
            lines, rf"(sendto|sendmsg|write|writev)\(\d+<TCP:\[127\.0\.0\.1:{built.http_port}->.*HTTP/1\.1 200"
        )

"""Acknowledged is kept: killed processes, lost power, full disks, a database that comes and goes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.servers.dicom_client import Proposal, associate
from reliability.traffic import CT, Acknowledged, Verdict, objects, send_dimse, send_stow, verify
from system import ROOT, System, prepare, system

pytestmark = pytest.mark.slow
SHARED = Path(os.environ.get("NEGATOSCOPE_SHARED", ROOT.parent / "shared"))
POWERLOSS = SHARED / "tools" / "powerloss_fs.py"


@pytest.fixture
def built() -> Iterator[System]:
    with system(NEGATOSCOPE_QUIET_S="1", NEGATOSCOPE_RETIRED_GRACE_S="2") as running:
        yield running


def load(built: System, token: str, acknowledged: Acknowledged, seed: int, count: int) -> list[threading.Thread]:
    """Two DIMSE senders and two STOW senders, started."""
    stop = threading.Event()
    threads = []
    for sender in range(4):
        traffic = objects(seed, sender, count)
        if sender < 2:
            thread = threading.Thread(target=send_dimse, args=(built, traffic, acknowledged, stop))
        else:
            thread = threading.Thread(target=send_stow, args=(built, token, traffic, acknowledged, stop))
        thread.start()
        threads.append(thread)
    return threads


def killing_rounds(built: System, folder: Path, rounds: int, seed: int, first: int = 0) -> tuple[Verdict, list[float]]:
    """Each round: four senders, one process (or all) killed -9 at a random moment, ready again, next round.

    ``first``: number of the first round, which decides what is sent in it. Restarts in seconds.
    """
    dice = random.Random(seed)
    built.start()
    token = built.token("reader", "--ttl", "12h")
    acknowledged, waits = Acknowledged(folder / "acknowledged.txt"), []
    for number in range(first, first + rounds):
        threads = load(built, token, acknowledged, seed=100 + number, count=60)
        time.sleep(dice.uniform(0.05, 1.2))
        victim = ("dicom", "http", "worker", "postgres", "supervisor", "all")[number % 6]
        if victim == "all":
            built.kill_all()
        elif victim == "supervisor":
            assert built.process is not None
            built.process.kill()
            built.process.wait()
        else:
            built.child(victim).send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
        began = time.monotonic()
        if victim in ("all", "supervisor"):
            built.launch()
        built.wait_ready(30)
        waits.append(time.monotonic() - began)
    verdict = verify(built, token, acknowledged)
    keep_evidence(built, acknowledged, verdict)
    return verdict, waits


def keep_evidence(built: System, acknowledged: Acknowledged, verdict: Verdict) -> None:
    """What a loss is found with, before the folder goes: the store, the index, the log, what was acknowledged."""
    if verdict.lost or verdict.corrupt or verdict.double:
        kept = Path(tempfile.mkdtemp(prefix="negatoscope-evidence-"))
        shutil.copy(built.log, kept)
        shutil.copy(acknowledged.file, kept)
        built.stop()
        shutil.copytree(built.data, kept / "data", ignore=shutil.ignore_patterns("*.sock", ".s.PGSQL*"))
        print(f"evidence kept in {kept}")


def counted(verdict: Verdict, rounds: int) -> str:
    lost, corrupt, double = len(verdict.lost), len(verdict.corrupt), len(verdict.double)
    return f"rounds {rounds} acknowledged {verdict.checked} lost {lost} corrupt {corrupt} double {double}"


def test_nothing_acknowledged_is_lost_when_processes_are_killed(built: System, tmp_path: Path) -> None:
    verdict, _ = killing_rounds(built, tmp_path, rounds=20, seed=1)  # each round is ready again, or it fails
    assert verdict.checked > 400
    assert (verdict.lost, verdict.corrupt, verdict.double) == ([], [], [])
    assert built.run("scrub").returncode == 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("piece", range(5))
def test_nothing_acknowledged_is_lost_in_two_hundred_killings(built: System, tmp_path: Path, piece: int) -> None:
    """Five pieces of forty, so that each can be run by itself: ``-k "killings and 3"``."""
    verdict, waits = killing_rounds(built, tmp_path, rounds=40, seed=2 + piece, first=40 * piece)
    print(f"kill piece {piece}: {counted(verdict, 40)} restart p95 {sorted(waits)[37]:.2f} worst {max(waits):.2f} s")
    assert (verdict.lost, verdict.corrupt, verdict.double) == ([], [], [])
    assert built.run("scrub").returncode == 0


def power_loss(rounds: int, each: int, mode: str, first: int = 0) -> None:
    """Segments and packs on a file system that forgets what was not synced; every process killed at that moment."""
    if not POWERLOSS.exists() or not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse and the power-loss file system of the shared folder")
    with tempfile.TemporaryDirectory(prefix="negatoscope-power-") as name:
        folder = Path(name)
        built = System(folder / "data", NEGATOSCOPE_QUIET_S="0.3", NEGATOSCOPE_RESERVE_BYTES="0")
        prepare(built)
        acknowledged = Acknowledged(folder / "acknowledged.txt")
        token = built.token("reader", "--ttl", "12h")
        stores = ("segments", "packs")
        for number in range(first, first + rounds):
            mounts = []
            for store in stores:
                live, mount = folder / f"{store}.live", built.data / store
                if number == first:
                    shutil.move(mount, live) if mount.exists() else live.mkdir()
                mount.mkdir(exist_ok=True)
                command = [sys.executable, str(POWERLOSS), str(live), str(mount), str(folder / f"{store}.after")]
                mounts.append(subprocess.Popen([*command, "--mode", mode]))
                until = time.monotonic() + 10
                while not os.path.ismount(mount):
                    assert time.monotonic() < until, "the file system did not mount"
                    time.sleep(0.02)
            try:
                built.start()
                threads = load(built, token, acknowledged, seed=500 + number, count=each)
                time.sleep(random.Random(number).uniform(0.5, 2.5))
                built.kill_all()  # the power goes: nothing is acknowledged from here on ...
                for mount_process in mounts:
                    mount_process.send_signal(signal.SIGUSR1)  # ... and what was synced by then survives
                until = time.monotonic() + 20
                while not all((folder / f"{store}.after.done").exists() for store in stores):
                    assert time.monotonic() < until
                    for store in stores:
                        os.listdir(built.data / store)  # it handles the signal between two operations
                    time.sleep(0.005)
                for thread in threads:
                    thread.join()
            finally:
                for store in stores:
                    subprocess.run(["fusermount", "-u", "-z", str(built.data / store)], check=False)
                for mount_process in mounts:
                    mount_process.kill()
                    mount_process.wait()
            for store in stores:
                shutil.rmtree(folder / f"{store}.live")
                shutil.move(folder / f"{store}.after", folder / f"{store}.live")
                (folder / f"{store}.after.done").unlink()
        for store in stores:
            (built.data / store).rmdir()
            shutil.move(folder / f"{store}.live", built.data / store)
        built.start()
        verdict = verify(built, token, acknowledged)
        keep_evidence(built, acknowledged, verdict)
        built.stop()
        print(f"power losses from {first}: {counted(verdict, rounds)}")
        assert verdict.checked > 20 * rounds
        assert (verdict.lost, verdict.corrupt, verdict.double) == ([], [], [])


def test_nothing_acknowledged_is_lost_when_the_power_goes() -> None:
    power_loss(rounds=3, each=60, mode="strict")


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("piece", range(5))
def test_nothing_acknowledged_is_lost_in_fifty_power_losses(piece: int) -> None:
    """Five pieces of ten, so that each can be run by itself: ``-k "losses and 3"``."""
    power_loss(rounds=10, each=60, mode="strict", first=10 * piece)


def test_nothing_is_lost_while_the_database_restarts_thirty_times(built: System, tmp_path: Path) -> None:
    built.start()
    token = built.token("reader", "--ttl", "1h")
    acknowledged = Acknowledged(tmp_path / "acknowledged.txt")
    pids = {name: child.pid for name, child in built.children().items() if name != "postgres"}
    for number in range(30):
        threads = load(built, token, acknowledged, seed=700 + number, count=4)
        time.sleep(0.1)
        built.child("postgres").send_signal(signal.SIGQUIT)  # as `restart -m immediate`
        for thread in threads:
            thread.join()
        began = time.monotonic()
        built.wait_ready(10)
        assert time.monotonic() - began < 5.0
    verdict = verify(built, token, acknowledged)
    assert verdict.checked > 60
    assert (verdict.lost, verdict.corrupt, verdict.double) == ([], [], [])
    assert {name: child.pid for name, child in built.children().items() if name != "postgres"} == pids, "none died"


def test_a_full_disk_refuses_and_loses_nothing_and_accepts_again(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    with system(NEGATOSCOPE_QUIET_S="3600", NEGATOSCOPE_RESERVE_BYTES=str(1 << 20)) as built:
        segments = built.data / "segments"
        shutil.rmtree(segments, ignore_errors=True)
        segments.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(segments)], check=True)
        try:
            built.start()
            token = built.token("reader")
            acknowledged = Acknowledged(tmp_path / "acknowledged.txt")
            statuses = []
            proposal = Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT_LITTLE_ENDIAN,)),))
            with associate(built.dicom, proposal) as sender:
                for sent in objects(900, 0, 60, largest=1_000_000):
                    status = sender.store(CT, sent.sop, EXPLICIT_LITTLE_ENDIAN, sent.data).status
                    statuses.append(status)
                    if status == 0:
                        acknowledged.add(sent)
                assert set(statuses) == {0x0000, 0xA700}
                assert verify(built, token, acknowledged).lost == [], "reads go on"
                subprocess.run(["mount", "-o", "remount,size=64m", str(segments)], check=True)
                again = next(objects(901, 0, 1))
                assert sender.store(CT, again.sop, EXPLICIT_LITTLE_ENDIAN, again.data).status == 0
                acknowledged.add(again)
            verdict = verify(built, token, acknowledged)
            assert (verdict.lost, verdict.corrupt, verdict.double) == ([], [], [])
            built.stop()
        finally:
            subprocess.run(["umount", "-l", str(segments)], check=False)

"""I1: no damaged byte leaves as whole and scrub finds every damage. I5: nobody's bytes are dropped in a conflict."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from harness import synthetic

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.part10 import write_file_meta
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from negatoscope.servers.dicom_client import Proposal, associate
from peers.corpus import Archive, parts_of
from reliability.traffic import CT
from system import System, system

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PROPOSAL = Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT,)),))
EACH = 2  # objects of a series


@dataclass(frozen=True)
class Kept:
    """One object of the store under attack. Every series is a study of its own."""

    series: int
    number: int
    data: bytes

    @property
    def sop(self) -> str:
        return f"2.25.7{self.series:05d}{self.number}"

    @property
    def study(self) -> str:
        return f"2.25.8{self.series:05d}"

    @property
    def address(self) -> str:
        return f"/dicom-web/studies/{self.study}/series/2.25.9{self.series:05d}/instances/{self.sop}"


def made(series: int, number: int, dice: random.Random) -> Kept:
    empty = Kept(series, number, b"")
    size = 9 << 20 if series % 25 == 0 else dice.randrange(64, 4096) // 16 * 16
    pixels = dice.randbytes(size)
    return Kept(series, number, synthetic(
        sop=empty.sop, study=empty.study, series=f"2.25.9{series:05d}", number=number, pixels=pixels
    ))  # fmt: skip


def store(built: System, objects: list[Kept]) -> None:
    with associate(built.dicom, PROPOSAL) as sender:
        for one in objects:
            assert sender.store(CT, one.sop, EXPLICIT, one.data).status == 0


def restarted(built: System, quiet_s: str) -> None:
    built.stop()
    built.environment["NEGATOSCOPE_QUIET_S"] = quiet_s
    built.start()


# Damage -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where each object lies: file and offset."""

    of: dict[str, tuple[Path, int]]

    @classmethod
    def found(cls, built: System, objects: list[Kept]) -> Places:
        places: dict[str, tuple[Path, int]] = {}
        files = [path for name in ("packs", "segments") for path in (built.data / name).rglob("*") if path.is_file()]
        content = {path: path.read_bytes() for path in files}
        packs = {path: data for path, data in content.items() if path.suffix == ".pack"}
        for one in objects:
            for path, data in [*packs.items(), *content.items()]:
                at = data.find(one.data)
                if at >= 0:
                    places[one.sop] = (path, at)
                    break
        return cls(places)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(one: Kept, places: Places, dice: random.Random) -> None:
    path, at = places.of[one.sop]
    offset = dice.randrange(len(one.data))
    overwrite(path, at + offset, bytes([one.data[offset] ^ 1 << dice.randrange(8)]))


def truncate(path: Path, dice: random.Random) -> None:
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.truncate(dice.randrange(path.stat().st_size))


def swap(one: Path, other: Path) -> None:
    aside = one.with_suffix(".aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@pytest.fixture
def built() -> Iterator[System]:
    with system(NEGATOSCOPE_QUIET_S="86400", NEGATOSCOPE_RETIRED_GRACE_S="86400") as one:
        yield one


def attack(built: System, flips: int, packs: int) -> None:
    """``flips`` objects, half of them in packs, lose a bit; ``packs`` packs are cut, and deleted, and swapped."""
    dice = random.Random(flips)
    closed = [made(s, n, dice) for s in range(flips // 2 // EACH + 3 * packs) for n in range(EACH)]
    opened = [made(10_000 + s, n, dice) for s in range(flips // 2 // EACH + 20) for n in range(EACH)]
    built.start()
    store(built, closed)
    restarted(built, "0.1")
    until = time.monotonic() + 600
    while (done := built.log.read_text(errors="replace").count("series_packed")) < len(closed) // EACH:
        assert time.monotonic() < until, done
        time.sleep(0.2)
    restarted(built, "86400")
    store(built, opened)
    places = Places.found(built, [*closed, *opened])
    assert len(places.of) == len(closed) + len(opened)
    by_series = [closed[n : n + EACH] for n in range(0, len(closed), EACH)]
    flipped = [one for series in by_series[: flips // 2 // EACH] for one in series] + opened[: flips // 2]
    for one in flipped:
        flip(one, places, dice)
    ruined = by_series[flips // 2 // EACH :]
    assert len(ruined) == 3 * packs
    files = [places.of[series[0].sop][0] for series in ruined]
    for path in files[:packs]:
        truncate(path, dice)
    for path in files[packs : 2 * packs]:
        path.unlink()
    for n in range(2 * packs, 3 * packs, 2):
        swap(files[n], files[n + 1])
    judge_what_is_served(
        built, [*closed, *opened], {one.sop for one in flipped}, {one.sop for series in ruined for one in series}
    )
    found = scrub(built)
    expected = {("object", one.sop) for one in flipped} | {("pack", series[0].study) for series in ruined}
    assert found == expected
    judge_records(built, len(expected))


def judge_what_is_served(built: System, objects: list[Kept], flipped: set[str], ruined: set[str]) -> None:
    """A whole answer has the right bytes, whatever is asked for. What lost a bit has none; the untouched still do.

    Of a pack that was cut, what lies before the cut is still verified and right.
    """
    told = {"whole": 0, "error": 0, "cut": 0}
    every = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    with Archive(built.url, built.token("reader", "--ttl", "2h")) as archive:
        for one in objects:
            answered = whole(archive, one.address, every)
            told[answered if isinstance(answered, str) else "whole"] += 1
            if isinstance(answered, str):
                assert one.sop in flipped | ruined, answered
            else:
                assert one.sop not in flipped, "left as whole"
                assert answered[0].endswith(one.data)
            pixels = whole(archive, f"{one.address}/frames/1", 'multipart/related; type="application/octet-stream"')
            assert isinstance(pixels, str) or pixels[0] in one.data, "a frame has the bytes that were sent, or is none"
        for study in sorted({one.study for one in objects}):
            wanted = [one for one in objects if one.study == study]
            answered = whole(archive, f"/dicom-web/studies/{study}", every)
            if isinstance(answered, str):
                assert any(one.sop in flipped | ruined for one in wanted)
            else:
                assert not any(one.sop in flipped for one in wanted), "left as whole"
                assert [part.endswith(one.data) for part, one in zip(answered, wanted, strict=True)] == [True] * EACH
    assert told["error"] > 0
    assert told["cut"] > 0, "a large one was damaged behind its start"


def whole(archive: Archive, address: str, accept: str) -> list[bytes] | str:
    """The parts of a whole answer; else ``error`` (a status) or ``cut`` (no end)."""
    try:
        answer = archive.get(address, accept)
    except httpx.RemoteProtocolError:
        return "cut"
    if answer.status_code != 200:
        assert answer.status_code == 500, answer.text
        assert answer.json()["type"].endswith("corrupt-object")
        return "error"
    return [body for _, body in parts_of(answer)]


def scrub(built: System) -> set[tuple[str, str]]:
    done = built.run("scrub", check=False)
    assert done.returncode == 1
    *lines, sums = done.stdout.splitlines()
    assert sums.endswith(f"{len(lines)} damaged")
    assert done.stderr == f"negatoscope: {len(lines)} damaged\n"
    found = set()
    for line in lines:
        row = json.loads(line)
        is_object = row["offset"] >= 0 and row["sop_instance_uid"]
        found.add(("object", row["sop_instance_uid"]) if is_object else ("pack", row["study_instance_uid"]))
    return found


def judge_records(built: System, least: int) -> None:
    """Every damage stands in the index and has its audit event; the metric tells."""
    with psycopg.connect(EmbeddedPostgreSQL(built.data).url) as connection:
        damages = connection.execute("SELECT count(*) FROM damage WHERE repaired_at IS NULL").fetchone()
        alerts = connection.execute("SELECT count(*) FROM audit_event WHERE event LIKE '%integrity%'").fetchone()
    assert damages is not None
    assert alerts is not None
    assert damages[0] >= least
    assert alerts[0] >= damages[0]
    metrics = httpx.get(f"{built.url}/metrics").text
    assert f"negatoscope_damaged {damages[0]}" in metrics.replace(".0\n", "\n")
    assert built.run("verify-audit").returncode == 0


def test_no_damage_is_served_and_scrub_finds_all_of_it(built: System) -> None:
    attack(built, flips=100, packs=10)


@pytest.mark.soak
def test_thirteen_hundred_damages_are_all_found(built: System) -> None:
    attack(built, flips=1000, packs=100)


def test_scrub_finds_damage_in_quarantine_too(built: System) -> None:
    dice = random.Random(5)
    built.start()
    first = made(1, 1, dice)
    second = Kept(1, 1, made(1, 1, dice).data)
    assert first.data != second.data
    store(built, [first, second])
    flip(second, Places.found(built, [second]), dice)
    assert scrub(built) == {("object", second.sop)}
    [row] = [json.loads(line) for line in built.run("quarantine", "list").stdout.splitlines()]
    out = built.data.parent / "out.dcm"
    done = built.run("quarantine", "get", str(row["id"]), "--out", str(out), check=False)
    assert done.returncode == 1
    assert not out.exists()


# Conflicts ----------------------------------------------------------------------------------------

SENDERS = 8


def at_once(built: System, token: str, files: list[bytes], sop: str) -> list[str]:
    """Eight senders, four by C-STORE and four by STOW-RS, at the same moment; what each was told."""
    told = [""] * SENDERS
    together = threading.Barrier(SENDERS)

    def dimse(n: int) -> None:
        with associate(built.dicom, PROPOSAL) as sender:
            together.wait(10)
            told[n] = f"{sender.store(CT, sop, EXPLICIT, files[n]).status:04X}"

    def stow(n: int) -> None:
        with Archive(built.url, token) as archive:
            archive.get("/dicom-web/studies", "application/dicom+json", limit="1")
            together.wait(10)
            answer = archive.store_one(write_file_meta(CT, sop, EXPLICIT) + files[n])
            told[n] = str(answer.status)

    threads = [threading.Thread(target=dimse if n % 2 else stow, args=(n,)) for n in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told


Variant = Callable[[int, str], bytes]
VARIANTS: dict[str, Variant] = {
    "pixels": lambda n, sop: synthetic(sop=sop, study=f"{sop}.1", series=f"{sop}.2", pixels=bytes([n]) * 128),
    "patient": lambda n, sop: synthetic(sop=sop, study=f"{sop}.1", series=f"{sop}.2", patient=f"P{n}"),
    "study": lambda n, sop: synthetic(sop=sop, study=f"{sop}.1{n}", series=f"{sop}.2{n}"),
    "series": lambda n, sop: synthetic(sop=sop, study=f"{sop}.1", series=f"{sop}.2{n}"),
    "nothing": lambda n, sop: synthetic(sop=sop, study=f"{sop}.1", series=f"{sop}.2"),
}


@pytest.mark.parametrize("packed_first", [False, True], ids=["open", "packed"])
def test_of_eight_versions_at_once_one_is_served_and_the_others_wait(built: System, packed_first: bool) -> None:
    built.environment["NEGATOSCOPE_QUIET_S"] = "0.05" if packed_first else "86400"
    built.start()
    token = built.token("reader", "--ttl", "1h")
    for number, (name, variant) in enumerate(VARIANTS.items()):
        for turn in range(5):
            sop = f"2.25.6{number}{turn}"
            files = [variant(n, sop) for n in range(SENDERS)]
            if packed_first:
                store_as(built, sop, files[0])
                time.sleep(0.6)
            told = at_once(built, token, files, sop)
            assert set(told) <= {"0000", "200", "202"}, (name, told)
            judge_versions(built, token, sop, files)
    assert "Traceback" not in built.log.read_text(errors="replace")


def store_as(built: System, sop: str, data: bytes) -> None:
    with associate(built.dicom, PROPOSAL) as sender:
        assert sender.store(CT, sop, EXPLICIT, data).status == 0


def judge_versions(built: System, token: str, sop: str, files: list[bytes]) -> None:
    """One instance in the establishment; its bytes and those in quarantine are all that was sent, each once."""
    with Archive(built.url, token) as archive:
        rows = archive.json(f"/dicom-web/instances?SOPInstanceUID={sop}")
        assert len(rows) == 1
        [row] = rows
        study, series = row["0020000D"]["Value"][0], row["0020000E"]["Value"][0]
        served, _ = archive.data_set(f"/dicom-web/studies/{study}/series/{series}/instances/{sop}")
    with psycopg.connect(EmbeddedPostgreSQL(built.data).url) as connection:
        aside = connection.execute(
            "SELECT encode(sha256, 'hex') FROM quarantine WHERE sop_instance_uid = %s", (sop,)
        ).fetchall()
    kept = [hashlib.sha256(served).hexdigest(), *(digest for (digest,) in aside)]
    assert sorted(kept) == sorted({hashlib.sha256(file).hexdigest() for file in files})

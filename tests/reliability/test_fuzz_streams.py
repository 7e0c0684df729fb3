"""H5: mutants of files and of association streams against the real server: every one gets a typed answer in time.

Seeds are fixed, so a failure comes again; its number is in the message.
"""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import httpx
import pytest
from harness import synthetic

from conformance.test_dicom_corpus import mutated
from dimse_peers import SAMPLES
from negatoscope.dicom.scan import scan
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from negatoscope.errors import WIRE_FORMS, NegatoscopeError
from negatoscope.servers.dicom_client import VERIFICATION, Proposal, associate
from peers.corpus import Archive
from reliability.traffic import CT
from system import System, system
from unit.dicom.samples import read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
MIB = 1 << 20
SLOWEST_S = 1.0
COUNTS = pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.soak)])
TYPED_HTTP = {form.http for form in WIRE_FORMS.values()} - {500, 503} | {200, 202}
TYPED_DIMSE = {form.dimse for form in WIRE_FORMS.values()} - {0x0110} | {0}


@dataclass(frozen=True)
class Source:
    name: str
    file: bytes
    data: bytes
    syntax: str
    sop_class: str
    sop: str


def sources() -> list[Source]:
    """Whole, small files of the pydicom wheel, of every transfer syntax there."""
    found = []
    for path in sorted(SAMPLES.glob("*.dcm")):
        if path.stat().st_size < 150_000:
            with suppress(NegatoscopeError):
                data, syntax = read(path)
                scanned = scan(data, syntax)
                found.append(
                    Source(path.name, path.read_bytes(), data, syntax, scanned.sop_class_uid, scanned.sop_instance_uid)
                )
    assert len(found) > 40
    return found


class Watch:
    """The processes of a server and what they weighed; its log, searched for what nobody foresaw."""

    def __init__(self, built: System) -> None:
        self._built = built
        self._children = built.children()
        self._before = {kind: child.memory_info().rss for kind, child in self._children.items()}
        self._log_at = built.log.stat().st_size

    def judge(self) -> None:
        now = self._built.children()
        assert {kind: child.pid for kind, child in now.items()} == {
            kind: child.pid for kind, child in self._children.items()
        }, "a process died"
        for kind in ("dicom", "http", "worker"):
            grown = now[kind].memory_info().rss - self._before[kind]
            assert grown <= 64 * MIB, f"{kind} grew by {grown // MIB} MiB"
        with self._built.log.open("rb") as log:
            log.seek(self._log_at)
            text = log.read().decode(errors="replace")
        for word in ("unforeseen", "dropped", "Traceback", "duty_failed", "CRITICAL"):
            assert word not in text, text[max(0, text.index(word) - 500) : text.index(word) + 1500]


@pytest.fixture(scope="module")
def built() -> Iterator[System]:
    with system(NEGATOSCOPE_QUIET_S="0.5") as one:
        one.start()
        warm_up(one)
        yield one


def warm_up(built: System) -> None:
    """What a first use costs is not the attack's."""
    with Archive(built.url, built.token("reader")) as archive:
        for source in sources():
            archive.store_one(source.file)
            look_at(archive, source.data, source.syntax)
    with associate(built.dicom, Proposal("NEGATOSCOPE", "MODALITY", ((CT, (EXPLICIT,)),))) as sender:
        sender.store(CT, "2.25.1", EXPLICIT, synthetic())


# Files --------------------------------------------------------------------------------------------


@COUNTS
def test_mutated_files_are_kept_or_refused_by_stow(built: System, count: int) -> None:
    """File meta mutated too. What is kept is asked for in every representation."""
    dice, all_sources, watch = random.Random(count), sources(), Watch(built)
    told: Counter[int] = Counter()
    with Archive(built.url, built.token("reader", "--ttl", "2h")) as archive:
        for number in range(count):
            source = dice.choice(all_sources)
            file = renamed(source, number)  # else it would only be a version of one that is kept already
            head = len(source.file) - len(source.data) if number % 2 else 0  # every other one with its file meta whole
            mutant = file[:head] + mutated(file[head:], dice)
            began = time.monotonic()
            answer = archive.store([mutant])
            took = time.monotonic() - began
            label = f"{source.name} {count}/{number}"
            assert answer.status_code in TYPED_HTTP, (label, answer.text)
            assert took < SLOWEST_S, (label, took)
            told[answer.status_code] += 1
            if answer.status_code == 200:
                for path, status, seconds in look_at_stored(archive, answer):
                    assert status in TYPED_HTTP, (label, path, status)
                    assert seconds < SLOWEST_S, (label, path, seconds)
    assert told[200] > count / 20
    assert told[409] > count / 10
    watch.judge()


def renamed(source: Source, number: int) -> bytes:
    """The file with another SOP Instance UID of the same length, where that can be done."""
    room = len(source.sop) - len("2.25.1")
    new = "2.25.1" + str(number).zfill(room)
    return source.file.replace(source.sop.encode(), new.encode()) if len(new) == len(source.sop) else source.file


def look_at_stored(archive: Archive, answer: httpx.Response) -> Iterator[tuple[str, int, float]]:
    for item in answer.json()["00081199"]["Value"]:
        if "00081190" in item:
            yield from look(archive, item["00081190"]["Value"][0])


def look_at(archive: Archive, data: bytes, syntax: str) -> None:
    found = scan(data, syntax)
    at = f"/dicom-web/studies/{found.study_uid}/series/{found.series_uid}/instances/{found.sop_instance_uid}"
    for _ in look(archive, at):
        pass


def look(archive: Archive, address: str) -> Iterator[tuple[str, int, float]]:
    """Path, status and seconds of every representation."""
    for path, accept in [
        ("", 'multipart/related; type="application/dicom"; transfer-syntax=*'),
        ("", f'multipart/related; type="application/dicom"; transfer-syntax={EXPLICIT}'),
        ("/metadata", "application/dicom+json"),
        ("/metadata", 'multipart/related; type="application/dicom+xml"'),
        ("/rendered", "image/jpeg"),
        ("/thumbnail", "image/jpeg"),
        ("/frames/1", 'multipart/related; type="application/octet-stream"'),
        ("/bulkdata", 'multipart/related; type="application/octet-stream"'),
    ]:
        began = time.monotonic()
        answer = archive.get(address + path, accept)
        yield address + path, answer.status_code, time.monotonic() - began


@COUNTS
def test_mutated_data_sets_are_kept_or_refused_by_c_store(built: System, count: int) -> None:
    dice, all_sources, watch = random.Random(count + 1), sources(), Watch(built)
    told: Counter[int] = Counter()
    for number in range(count):
        source = dice.choice(all_sources)
        mutant = mutated(source.data, dice)
        began = time.monotonic()
        with associate(
            built.dicom, Proposal("NEGATOSCOPE", "MODALITY", ((source.sop_class, (source.syntax,)),))
        ) as sender:
            status = sender.store(source.sop_class, source.sop, source.syntax, mutant).status
        took = time.monotonic() - began
        assert status in TYPED_DIMSE, (f"{source.name} {count + 1}/{number}", hex(status))
        assert took < SLOWEST_S, (f"{source.name} {count + 1}/{number}", took)
        told[status] += 1
    assert told[0] > 0
    assert told[0xC002] > count / 20
    watch.judge()


# Streams ------------------------------------------------------------------------------------------


def captured(built: System) -> list[bytes]:
    """What senders really send, as a proxy between them and the server hears it: one stream an association."""
    streams: list[bytes] = []
    for number in range(3):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            heard = bytearray()
            proxy = threading.Thread(target=relay, args=(listener, built.dicom, heard))
            proxy.start()
            contexts = ((VERIFICATION, ("1.2.840.10008.1.2",)), (CT, (EXPLICIT, "1.2.840.10008.1.2")))
            with associate(listener.getsockname(), Proposal("NEGATOSCOPE", "MODALITY", contexts)) as sender:
                sender.echo()
                for n in range(number):
                    sop = f"2.25.3{number}{n}"
                    sender.store(CT, sop, EXPLICIT, synthetic(sop=sop, pixels=bytes(128 << 8 * n)))
            proxy.join()
            streams.append(bytes(heard))
    return streams


def relay(listener: socket.socket, server: tuple[str, int], heard: bytearray) -> None:
    client, _ = listener.accept()
    with client, socket.create_connection(server) as onward:
        back = threading.Thread(target=pump, args=(onward, client, bytearray()))
        back.start()
        pump(client, onward, heard)
        back.join()


def pump(source: socket.socket, target: socket.socket, heard: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            heard += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def pdus(stream: bytes) -> list[bytes]:
    found = []
    while len(stream) >= 6:
        end = 6 + int.from_bytes(stream[2:6], "big")
        found.append(stream[:end])
        stream = stream[end:]
    return found


def mutated_stream(stream: bytes, dice: random.Random) -> bytes:
    """PDUs lost, doubled, exchanged, their lengths and types wrong; items and commands changed inside."""
    parts = pdus(stream)
    for _ in range(dice.randint(1, 4)):
        where = dice.randrange(len(parts))
        part = bytearray(parts[where])
        if len(part) < 6:
            continue  # cut already
        match dice.randrange(8):
            case 0:
                del parts[where]
            case 1:
                parts.insert(where, parts[dice.randrange(len(parts))])
            case 2:
                other = dice.randrange(len(parts))
                parts[where], parts[other] = parts[other], parts[where]
            case 3:
                part[0] = dice.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 255])
                parts[where] = bytes(part)
            case 4:
                wrong = dice.choice([0, 1, 3, 5, len(part) - 7, len(part) - 5, 1 << 20, (1 << 20) + 1, 0xFFFFFFFF])
                part[2:6] = max(wrong, 0).to_bytes(4, "big")
                parts[where] = bytes(part)
            case 5:
                at = dice.randrange(len(part))
                part[at : at + 2] = dice.choice([b"\0\0", b"\xff\xff", b"\0\1", b"\x10\0", b"\xff\xfe"])
                parts[where] = bytes(part)
            case 6:
                parts[where] = bytes(part[: dice.randrange(len(part))])
            case _:
                parts[where] = bytes(part[:6]) + mutated(bytes(part[6:]), dice)
        if not parts:
            return b""
    return b"".join(parts)


@COUNTS
def test_mutated_streams_end_in_time_and_in_order(built: System, count: int) -> None:
    """The peer sends its stream, closes its side and waits: the server answers in PDUs and closes."""
    dice, told = random.Random(count + 2), Counter[int]()
    streams = captured(built)
    watch = Watch(built)
    for number in range(count):
        stream = mutated_stream(dice.choice(streams), dice)
        began = time.monotonic()
        answer = exchange(built, stream)
        took = time.monotonic() - began
        assert took < SLOWEST_S, (count + 2, number, took)
        kinds = [pdu[0] for pdu in pdus(answer)]
        assert b"".join(pdus(answer)) == answer, (count + 2, number, "half a PDU")
        assert set(kinds) <= {2, 3, 4, 6, 7}, (count + 2, number, kinds)
        told.update(kinds)
    assert told[2] > count / 10
    assert told[7] > count / 10
    watch.judge()
    with associate(built.dicom, Proposal("NEGATOSCOPE", "MODALITY")) as sender:
        assert sender.echo() == 0


def exchange(built: System, stream: bytes) -> bytes:
    """Everything the server says to a stream: its first PDU, then the rest, then our end of the connection.

    A reset after an abort is an end as well.
    """
    answer = bytearray()
    first = len(next(iter(pdus(stream)), b"")) or len(stream)
    with socket.create_connection(built.dicom, timeout=5) as connection, suppress(ConnectionError):
        for part in (stream[:first], stream[first:]):
            connection.sendall(part)
            while select.select([connection], [], [], 0.01)[0]:
                if not (data := connection.recv(65536)):
                    return bytes(answer)
                answer += data
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            answer += data
    return bytes(answer)


def test_the_watch_sees_what_it_watches_for(built: System) -> None:
    """The judge itself can fail."""
    watch = Watch(built)
    with built.log.open("a") as log:
        log.write("unforeseen id=none: written by the test\n")
    with pytest.raises(AssertionError, match="written by the test"):
        watch.judge()
    worker = built.children()["worker"]
    worker.kill()
    worker.wait()
    time.sleep(1.0)
    with pytest.raises(AssertionError, match="a process died"):
        watch.judge()

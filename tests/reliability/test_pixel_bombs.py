"""H6: files made to break a decoder cost one answer within a second, and the server nothing.

Also what the pool promises: a child that dies, hangs or eats memory is replaced, and has no way out.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from struct import pack, unpack
from typing import Any

import imagecodecs
import numpy as np
import psutil
import pytest

from negatoscope.dicom.pixels.describe import Window
from negatoscope.dicom.pixels.render import RenderOptions, Viewport, render
from negatoscope.dicom.pixels.transcode import transcode
from negatoscope.errors import (
    CannotTranscode,
    InvalidObject,
    LimitExceeded,
    NotAcceptable,
    NotFound,
    PixelsUnreadable,
    Unavailable,
)
from negatoscope.servers.pixel_protocol import Closed, receive, send
from negatoscope.servers.pixels import PixelPool
from unit.dicom.samples import element, nested
from unit.pixels.build import (
    DEFLATED,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG,
    JPEG_LS,
    JPEG_XL,
    RLE,
    encapsulated,
    even,
    header,
    image,
    ramp,
)

MIB = 1 << 20
SMALL = image(ramp("u2", 64, 64))


@pytest.fixture(scope="module")
def pool() -> Iterator[PixelPool]:
    with PixelPool(children=2, cpu_s=5) as pool:
        pool.render(SMALL, EXPLICIT, 0)
        yield pool


def j2k_of_size(columns: int, rows: int, tile: int | None = None) -> bytes:
    """A small codestream whose SIZ says otherwise."""
    stream = bytearray(imagecodecs.jpeg2k_encode(np.zeros((16, 16), np.uint8), 0, codecformat="j2k", reversible=True))
    stream[8:16] = pack(">2L", columns, rows)
    if tile:
        stream[24:32] = pack(">2L", tile, tile)
    return even(stream, b"\0")


def jpeg_of_size(stream: bytes | bytearray, marker: int, rows: int, columns: int) -> bytes:
    place = bytes(stream).index(bytes([0xFF, marker]))
    lying = bytearray(stream)
    lying[place + 5 : place + 9] = pack(">2H", rows, columns)
    return even(lying, b"\0")


def deflate_bomb() -> bytes:
    import zlib

    machine = zlib.compressobj(9, wbits=-15)
    return b"".join([machine.compress(bytes(MIB)) for _ in range(256)]) + machine.flush()


JPEG_SMALL = imagecodecs.jpeg8_encode(np.zeros((16, 16), np.uint8))
JLS_SMALL = imagecodecs.jpegls_encode(np.zeros((16, 16), np.uint8))
RUNS = b"\x81\x00" * (4 * MIB)  # each two bytes say 128
JPEG_XL_HUGE = b"\xff\x0a" + (0b11 << 1 | ((1 << 30) - 1) << 3).to_bytes(10, "little")
BOMBS = {
    "J2K 65535 x 65535": (J2K, header(16, 16, allocated=8) + encapsulated([j2k_of_size(65535, 65535)])),
    "J2K and header 65535 x 65535": (
        J2K, header(65535, 65535, allocated=8) + encapsulated([j2k_of_size(65535, 65535)])),
    "J2K 16384 x 16384, which is allowed": (
        J2K, header(16384, 16384, allocated=8) + encapsulated([j2k_of_size(16384, 16384)])),
    "J2K of a million tiles": (J2K, header(1000, 1000, allocated=8) + encapsulated([j2k_of_size(1000, 1000, 1)])),
    "HTJ2K 65535 x 65535": (HTJ2K, header(16, 16, allocated=8) + encapsulated([j2k_of_size(65535, 65535)])),
    "a million frames in no bytes": (EXPLICIT, header(512, 512, frames=1_000_000) + element(0x7FE00010, "OW", b"")),
    "a million and one frames": (EXPLICIT, header(1, 1, frames=1_000_001) + element(0x7FE00010, "OW", b"")),
    "10^30 frames": (EXPLICIT, header(1, 1, frames=10**30) + element(0x7FE00010, "OW", b"")),
    "a million frames in one fragment": (
        JPEG, header(512, 512, allocated=8, frames=1_000_000) + encapsulated([even(JPEG_SMALL)])),
    "RLE that expands": (RLE, header(16, 16, allocated=8) + encapsulated([pack("<16L", 1, 64, *[0] * 14) + RUNS])),
    "JPEG 65500 x 65500": (
        JPEG, header(16, 16, allocated=8) + encapsulated([jpeg_of_size(JPEG_SMALL, 0xC0, 65500, 65500)])),
    "JPEG-LS 65535 x 65535": (
        JPEG_LS, header(16, 16, allocated=8) + encapsulated([jpeg_of_size(JLS_SMALL, 0xF7, 65535, 65535)])),
    "JPEG XL 2^30 x 2^30": (
        JPEG_XL, header(16, 16, allocated=8) + encapsulated([JPEG_XL_HUGE])),
    "deflate 1000:1": (DEFLATED, deflate_bomb()),
    "100,000 sequences deep": (EXPLICIT, nested(100_000, undefined=True)),
    "a sequence of 10^6 private elements": (
        EXPLICIT, element(0x00091010, "SQ", length=0xFFFFFFFF) + pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + element(0x00091011, "UN") * 1_000_100),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_within_a_second_and_the_parent_does_not_grow(pool: PixelPool, name: str) -> None:
    syntax, bomb = BOMBS[name]
    process = psutil.Process()
    before, start = process.memory_info().rss, time.process_time()
    begun = time.monotonic()
    with pytest.raises((PixelsUnreadable, InvalidObject)):
        pool.render(bomb, syntax, 0)
    took, grown = time.monotonic() - begun, process.memory_info().rss - before
    assert took <= 3.0, "the child had two cores to share with other work"
    assert grown <= 64 * MIB
    assert time.process_time() - start <= 1.0
    assert pool.render(SMALL, EXPLICIT, 0).startswith(b"\xff\xd8")


@pytest.mark.parametrize("target", [EXPLICIT, J2K])
def test_bombs_are_not_transcoded_either(pool: PixelPool, target: str) -> None:
    for syntax, bomb in list(BOMBS.values())[:4]:
        with pytest.raises((PixelsUnreadable, InvalidObject, CannotTranscode)):
            pool.transcode(bomb, syntax, IMPLICIT if target == syntax else target)


def test_a_pool_answers_as_the_functions_do(pool: PixelPool) -> None:
    frames = np.stack([ramp("i2"), ramp("i2")[::-1]])
    data = image(frames, frames=2)
    options = RenderOptions(
        media="image/png", window=Window(10, 400), viewport=Viewport(20, 20, 1, 1, 10, 10), annotation=("R",)
    )
    assert pool.render(data, EXPLICIT, 1, options) == render(data, EXPLICIT, 1, options)
    assert b"".join(pool.transcode(data, EXPLICIT, JPEG_LS)) == b"".join(transcode(data, EXPLICIT, JPEG_LS))
    assert pool.transcode_frames(data, EXPLICIT, IMPLICIT, [1, 0]) == [frames[1].tobytes(), frames[0].tobytes()]
    decoded = pool.decode_frames(data, EXPLICIT, [0, 1])
    assert [values.dtype for values in decoded] == [np.dtype("<i2")] * 2
    assert np.array_equal(np.stack(decoded), frames)
    assert pool.thumbnail(data, EXPLICIT, None, 8).startswith(b"\xff\xd8")
    view = memoryview(bytearray(data)).toreadonly()
    assert pool.render(view, EXPLICIT, 0) == render(data, EXPLICIT, 0)


def test_errors_come_back_as_they_were(pool: PixelPool) -> None:
    with pytest.raises(NotFound, match="frame 2 of 1"):
        pool.render(SMALL, EXPLICIT, 1)
    with pytest.raises(NotFound):
        pool.decode_frames(SMALL, EXPLICIT, [1])
    with pytest.raises(NotAcceptable):
        pool.render(b"", EXPLICIT, 0)
    with pytest.raises(LimitExceeded):
        pool.render(header(1, 1, frames=1_000_001) + element(0x7FE00010, "OW", b""), EXPLICIT, 0)
    with pytest.raises(CannotTranscode):
        pool.transcode(SMALL, EXPLICIT, JPEG)


def test_children_have_one_thread_and_no_way_out(pool: PixelPool) -> None:
    pool.render(SMALL, EXPLICIT, 0)
    for pid in pool.pids():
        process = psutil.Process(pid)
        assert process.num_threads() == 1
        with open(f"/proc/{pid}/status") as status:
            facts = dict(line.split(":", 1) for line in status)
        assert facts["Seccomp"].strip() == "2"
        assert facts["NoNewPrivs"].strip() == "1"
        assert psutil.Process(pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_NOFILE)[0] <= 32
        assert process.memory_info().vms < 400 * MIB


def test_the_jail_refuses_sockets_programs_processes_and_writing() -> None:
    tried = """
import os, socket
from negatoscope.servers.pixel_jail import forbid_network_and_programs
assert forbid_network_and_programs()
for attempt in (lambda: socket.socket(), lambda: os.execv('/bin/true', ['true']), os.fork,
                lambda: open('/tmp/escaped', 'w'), lambda: os.open('/tmp', os.O_RDWR | os.O_TMPFILE),
                lambda: os.kill(os.getppid(), 0)):
    try:
        attempt()
    except PermissionError:
        continue
    raise SystemExit('escaped')
open('/proc/self/status').read()
print('jailed')
"""
    done = subprocess.run([sys.executable, "-c", tried], capture_output=True, text=True, timeout=20)
    assert done.stdout.strip() == "jailed", done.stderr


def test_a_killed_child_is_replaced() -> None:
    with PixelPool(children=1) as pool:
        pool.render(SMALL, EXPLICIT, 0)
        (pid,) = pool.pids()
        os.kill(pid, 9)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=1)
        assert pool.render(SMALL, EXPLICIT, 0).startswith(b"\xff\xd8")
        assert pool.pids() != [pid]


def test_a_child_killed_within_a_job_is_an_unreadable_image() -> None:
    """As when a decoder crashes: the one who asked is told, the next one is served."""
    slow = image(np.random.default_rng(3).integers(0, 4095, (3000, 3000)).astype(np.uint16))
    with PixelPool(children=1) as pool:
        pool.render(SMALL, EXPLICIT, 0)
        (pid,) = pool.pids()
        killer = threading.Timer(0.3, os.kill, (pid, 9))
        killer.start()
        with pytest.raises(PixelsUnreadable, match="crashed"):
            pool.transcode(slow, EXPLICIT, J2K)
        killer.join()
        assert pool.render(SMALL, EXPLICIT, 0)


def test_a_job_over_its_cpu_seconds_is_ended() -> None:
    slow = image(np.random.default_rng(3).integers(0, 65535, (4000, 4000)).astype(np.uint16))
    with PixelPool(children=1, cpu_s=1) as pool:
        pool.render(SMALL, EXPLICIT, 0)
        begun = time.monotonic()
        with pytest.raises(PixelsUnreadable, match="time"):
            pool.transcode(slow, EXPLICIT, J2K)
        assert time.monotonic() - begun < 4
        assert pool.render(SMALL, EXPLICIT, 0)


def test_a_stopped_child_is_ended_by_the_clock() -> None:
    with PixelPool(children=1, cpu_s=1) as pool:
        pool.render(SMALL, EXPLICIT, 0)
        psutil.Process(pool.pids()[0]).suspend()
        with pytest.raises(PixelsUnreadable):
            pool.render(SMALL, EXPLICIT, 0)
        assert pool.render(SMALL, EXPLICIT, 0)


@pytest.mark.parametrize(("memory", "enough"), [(256 * MIB, False), (1024 * MIB, True)])
def test_a_job_over_its_memory_is_unreadable_and_the_child_replaced(memory: int, enough: bool) -> None:
    large = image(np.zeros((8000, 8000), np.uint8))
    with PixelPool(children=1, memory=memory) as pool:
        if enough:
            assert pool.render(large, EXPLICIT, 0)
        else:
            with pytest.raises(PixelsUnreadable):
                pool.render(image(np.zeros((8000, 8000), np.uint32)), EXPLICIT, 0)
        assert pool.render(SMALL, EXPLICIT, 0)


def test_children_are_replaced_after_their_jobs() -> None:
    with PixelPool(children=1, jobs_per_child=3) as pool:
        seen = []
        for _ in range(7):
            pool.render(SMALL, EXPLICIT, 0)
            seen += pool.pids()
        assert len(set(seen)) >= 2


def test_a_pool_that_is_full_says_so_and_recovers() -> None:
    slow = image(np.random.default_rng(3).integers(0, 65535, (1500, 1500)).astype(np.uint16))
    with PixelPool(children=1, wait_s=0.2) as pool, ThreadPoolExecutor(40) as threads:
        while not pool.pids():
            time.sleep(0.01)
        asked = [threads.submit(lambda: list(pool.transcode(slow, EXPLICIT, J2K))) for _ in range(40)]
        errors = [future.exception() for future in asked]
        refused = [error for error in errors if isinstance(error, Unavailable)]
        assert len(refused) >= 35
        assert {type(error) for error in errors} <= {type(None), Unavailable}
        assert any("too many" in str(error) for error in refused)
        assert any("no pixel child was free" in str(error) for error in refused)
        assert pool.render(SMALL, EXPLICIT, 0)


def test_a_closed_pool_refuses_and_leaves_no_process() -> None:
    pool = PixelPool(children=2)
    pool.render(SMALL, EXPLICIT, 0)
    children = [psutil.Process(pid) for pid in pool.pids()]
    pool.close()
    assert not any(child.is_running() for child in children)
    with pytest.raises(Unavailable):
        pool.render(SMALL, EXPLICIT, 0)


def test_children_die_with_their_parent() -> None:
    program = """
import os, time
from negatoscope.servers.pixels import PixelPool
pool = PixelPool(children=1)
while not pool.pids():
    time.sleep(0.01)
print(pool.pids()[0], flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        gone, _ = psutil.wait_procs([child], timeout=5)
        assert gone or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    "lie",
    [b"", b"\xff\xff\xff\xff", b"\4\0\0\0nope", b"\2\0\0\0[]", b'\x0d\0\0\0{"parts":[9]}', b'\x0e\0\0\0{"parts":[-1]}'],
)
def test_an_answer_that_breaks_the_protocol_is_a_lost_child(lie: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(lie)
        theirs.close()
        with pytest.raises(Closed):
            receive(ours, 8)


@pytest.mark.parametrize(("size", "accepted"), [(7, True), (8, True), (9, False)])
def test_an_answer_longer_than_allowed_is_not_read(size: int, accepted: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, {"x": 1}, [bytes(size)])
        if accepted:
            answer: Any = receive(ours, 8)
            assert answer == ({"x": 1}, [bytes(size)], [])
        else:
            with pytest.raises(Closed, match="8 allowed"):
                receive(ours, 8)
    assert unpack("<L", pack("<L", size)) == (size,)

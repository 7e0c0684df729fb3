"""A child that decodes pixels for one pool: ``python -m negatoscope.servers.pixel_child FD PARENT MEMORY CPU``.

Its input comes from strangers and its codecs are C, so it is bounded before its first job: address
space, CPU seconds a job, few files, no core, no network, no programs; it dies with its parent.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np

from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.pixels.decode import decode_frame
from negatoscope.dicom.pixels.describe import Window, describe
from negatoscope.dicom.pixels.frames import frame_bytes, frame_locations
from negatoscope.dicom.pixels.header import plain
from negatoscope.dicom.pixels.render import RenderOptions, Viewport, render, thumbnail
from negatoscope.dicom.pixels.transcode import transcode, transcode_frames
from negatoscope.errors import NegatoscopeError, NotFound
from negatoscope.servers.pixel_jail import forbid_network_and_programs
from negatoscope.servers.pixel_protocol import Closed, Header, receive, send

_FILES = 32  # descriptors: socket, object, answer, and the libraries that load late
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Serve jobs until the parent closes the socket."""
    descriptor, parent, memory, cpu_s = (int(argument) for argument in arguments)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    _warm()
    _bound(memory)
    jailed = forbid_network_and_programs()
    send(connection, {"ready": True, "jailed": jailed})
    try:
        while _one_job(connection, memory, cpu_s):
            pass
    except (Closed, OSError):
        return 0
    return 0


def _warm() -> None:
    """Load the codecs that most jobs use; the others load on their first use."""
    grey = np.zeros((8, 8), np.uint8)
    imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(grey, 90))
    imagecodecs.jpeg2k_decode(imagecodecs.jpeg2k_encode(grey, 0, codecformat="j2k", reversible=True))
    imagecodecs.htj2k_decode(imagecodecs.htj2k_encode(grey))
    imagecodecs.jpegls_decode(imagecodecs.jpegls_encode(grey))
    imagecodecs.png_encode(grey, 1)


def _bound(memory: int) -> None:
    most = memory + DEFAULT_LIMITS.data_set
    resource.setrlimit(resource.RLIMIT_AS, (memory, most))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (DEFAULT_LIMITS.data_set, DEFAULT_LIMITS.data_set))


def _one_job(connection: socket.socket, memory: int, cpu_s: int) -> bool:
    """Answer one job. False when this child should not take another."""
    header, _, descriptors = receive(connection, 0)
    size = int(header["size"])
    # The object itself is mapped, not allocated: it does not count against the codecs' memory.
    resource.setrlimit(resource.RLIMIT_AS, (memory + size, memory + DEFAULT_LIMITS.data_set))
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
    try:
        with mmap.mmap(descriptors[0], size, prot=mmap.PROT_READ) if size else mmap.mmap(-1, 1) as mapped:
            return _answer(connection, header, mapped, size, descriptors)
    except BufferError:  # an error still holds a view of the map: both go with this process
        return False
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _answer(connection: socket.socket, header: Header, mapped: mmap.mmap, size: int, descriptors: list[int]) -> bool:
    error: BaseException
    with memoryview(mapped) as view, view[:size] as data:
        try:
            parts = _JOBS[header["job"]](data, header, descriptors)
        except NegatoscopeError as refused:
            send(connection, {"error": type(refused).__name__, "message": str(refused)})
            return True
        except Exception as failed:  # noqa: BLE001 - whatever a codec raises ends the job, not the server
            error = failed
        else:
            send(connection, {}, parts)
            return True
    send(connection, {"error": "PixelsUnreadable", "message": f"the job failed: {type(error).__name__}"})
    return False


Job = Callable[[memoryview, Header, list[int]], list[bytes]]


def _render(data: memoryview, header: Header, _: list[int]) -> list[bytes]:
    return [render(data, header["uid"], header["frame"], _options(header["options"]))]


def _thumbnail(data: memoryview, header: Header, _: list[int]) -> list[bytes]:
    return [thumbnail(data, header["uid"], header["frame"], header["length"], header["media"])]


def _transcode_frames(data: memoryview, header: Header, _: list[int]) -> list[bytes]:
    return list(transcode_frames(data, header["uid"], header["target"], header["frames"]))


def _transcode(data: memoryview, header: Header, descriptors: list[int]) -> list[bytes]:
    with open(descriptors[1], "wb", buffering=1 << 20, closefd=False) as out:
        for piece in transcode(data, header["uid"], header["target"]):
            out.write(piece)
    return []


def _decode_frames(data: memoryview, header: Header, _: list[int]) -> list[bytes]:
    view, syntax = plain(data, header["uid"], DEFAULT_LIMITS)
    description = describe(view, syntax)
    locations = frame_locations(view, description)
    decoded = []
    for frame in header["frames"]:
        if not 0 <= frame < len(locations):
            raise NotFound(f"frame {frame + 1} of {len(locations)}")
        values = decode_frame(frame_bytes(view, locations[frame]), description, frame)
        little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
        decoded += [f"{little.dtype.str}|{','.join(map(str, little.shape))}".encode(), little.tobytes()]
    return decoded


_JOBS: dict[str, Job] = {
    "render": _render,
    "thumbnail": _thumbnail,
    "transcode": _transcode,
    "transcode_frames": _transcode_frames,
    "decode_frames": _decode_frames,
}


def _options(given: dict[str, Any]) -> RenderOptions:
    return RenderOptions(
        media=given["media"],
        window=Window(*given["window"]) if given["window"] else None,
        viewport=Viewport(*given["viewport"]) if given["viewport"] else None,
        quality=given["quality"],
        annotation=tuple(given["annotation"]),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

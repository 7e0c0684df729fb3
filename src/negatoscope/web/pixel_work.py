"""What the routes ask of whoever decodes pixels: a pool of bounded child processes in a server.

``extents``: start and end of the bytes of ``data`` that are there and that the job will read; ``None``: all are.
A frame of a hundred megabytes then costs what the frame costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from negatoscope.dicom.pixels import render, transcode
from negatoscope.dicom.pixels.header import Buffer
from negatoscope.dicom.pixels.render import RenderOptions
from negatoscope.dicom.pixels.source import Source

Extents = Sequence[tuple[int, int]] | None


class PixelWork(Protocol):
    """Blocking, thread-safe. ``data`` is one plain data set; frames count from 0."""

    def render(self, data: Buffer | Source, transfer_syntax_uid: str, frame: int, options: RenderOptions) -> bytes:
        """See ``dicom.pixels.render.render``."""
        ...

    def thumbnail(
        self, data: Buffer | Source, transfer_syntax_uid: str, frame: int | None, size: int, media: str
    ) -> bytes:
        """See ``dicom.pixels.render.thumbnail``."""
        ...

    def transcode(self, data: Buffer, source_uid: str, target_uid: str) -> Iterator[bytes]:
        """A data set in another syntax, proven before this returns; see ``dicom.pixels.transcode.transcode``."""
        ...

    def transcode_frames(
        self, data: Buffer, source_uid: str, target_uid: str, frames: Sequence[int], *, extents: Extents = None
    ) -> list[bytes]:
        """See ``dicom.pixels.transcode.transcode_frames``."""
        ...


class PixelsHere:
    """The same in this process: for tests and commands, never for a server (a codec may crash it)."""

    def render(self, data: Buffer | Source, transfer_syntax_uid: str, frame: int, options: RenderOptions) -> bytes:
        return render.render(_here(data), transfer_syntax_uid, frame, options)

    def thumbnail(
        self, data: Buffer | Source, transfer_syntax_uid: str, frame: int | None, size: int, media: str
    ) -> bytes:
        return render.thumbnail(_here(data), transfer_syntax_uid, frame, size, media)

    def transcode(self, data: Buffer, source_uid: str, target_uid: str) -> Iterator[bytes]:
        return iter([bytes(piece) for piece in transcode.transcode(data, source_uid, target_uid)])

    def transcode_frames(
        self, data: Buffer, source_uid: str, target_uid: str, frames: Sequence[int], *, extents: Extents = None
    ) -> list[bytes]:
        return list(transcode.transcode_frames(data, source_uid, target_uid, frames))


def _here(data: Buffer | Source) -> Buffer:
    return data.whole() if isinstance(data, Source) else data

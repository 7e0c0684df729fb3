"""Lossless recompression for packing, in pixel children that start when the first object needs one."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from negatoscope.servers.pixels import PixelPool
from negatoscope.settings import Settings


class Recompression:
    """A ``packing.Transcode``. Belongs to one thread; its children end on leaving."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: PixelPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()

    def __call__(self, data: memoryview, source_uid: str, target_uid: str) -> bytes:
        """The data set in another syntax, every frame proven equal.

        Raises:
            CannotTranscode, PixelsUnreadable, InvalidObject: it stays as it is.
            Unavailable: no child could be had; try again later.
        """
        settings = self._settings
        if self._pool is None:
            self._pool = PixelPool(
                settings.pixel_children, settings.pixel_memory, settings.pixel_cpu_s, spool=settings.data
            )
        return b"".join(self._pool.transcode(data, source_uid, target_uid))

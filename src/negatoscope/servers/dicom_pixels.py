"""The DICOM door's pixel children: started when an object is first wanted in another transfer syntax, not before."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from negatoscope.archive.partial import PartialObject
from negatoscope.archive.retrieve import Retrieval
from negatoscope.dicom.limits import Limits
from negatoscope.dicom.uid import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    TRANSFER_SYNTAXES,
)
from negatoscope.model.stored import InstanceRecord

if TYPE_CHECKING:
    from negatoscope.servers.pixels import PixelPool

# Uncompressed first: encoding would only be undone, and costs the most.
_PREFERRED = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, DEFLATED_LITTLE_ENDIAN)


def choose(stored: str, accepted: Collection[str]) -> str | None:
    """The transfer syntax in which an object leaves: as stored if that was accepted; None: in none of them.

    Nothing is ever encoded with loss.
    """
    if stored in accepted:
        return stored
    from negatoscope.dicom.pixels.transcode import can_transcode  # codecs come with it: only when needed

    others = sorted(uid for uid in accepted if uid in TRANSFER_SYNTAXES and not TRANSFER_SYNTAXES[uid].lossy)
    for uid in (*(uid for uid in _PREFERRED if uid in accepted), *others):
        if can_transcode(stored, uid):
            return uid
    return None


class Transcoder:
    """Objects in another transfer syntax, each frame proven equal. Thread-safe."""

    def __init__(self, retrieval: Retrieval, limits: Limits, children: int, memory: int, cpu_s: int) -> None:
        """``children``, ``memory``, ``cpu_s``: as of ``PixelPool``."""
        self._retrieval, self._limits = retrieval, limits
        self._children, self._memory, self._cpu_s = children, memory, cpu_s
        self._lock = threading.Lock()
        self._pool: PixelPool | None = None

    @property
    def started(self) -> bool:
        return self._pool is not None

    def transcode(self, record: InstanceRecord, study_uid: str, syntax: str) -> Iterator[bytes]:
        """The data set in ``syntax``, wholly written before this returns; close the iterator or use it up.

        Raises:
            CannotTranscode, PixelsUnreadable, CorruptObject, LimitExceeded, Unavailable.
        """
        with PartialObject(self._retrieval, record, study_uid, self._limits) as opened:
            opened.need_all()
            return self._children_now().transcode(opened.buffer, record.transfer_syntax_uid, syntax)

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _children_now(self) -> PixelPool:
        from negatoscope.servers.pixels import PixelPool

        with self._lock:
            if self._pool is None:
                self._pool = PixelPool(self._children, self._memory, self._cpu_s)
            return self._pool

"""A stored data set as a buffer of its full length, read and verified only where it is needed.

The header of a 100 MB object is its first MiB; one of its frames is a MiB more. The rest stays a hole: it
reads as zeros and takes no memory. Whoever looks at bytes must have asked for them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from types import TracebackType

from negatoscope.archive.retrieve import Retrieval
from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.pixels.header import PIXEL_TAGS, Header, plain, read_header
from negatoscope.dicom.uid import transfer_syntax
from negatoscope.errors import TruncatedObject
from negatoscope.model.checksum import BLOCK, covering
from negatoscope.model.stored import InstanceRecord

WHOLE = 4 * BLOCK  # objects up to this length are read at once into plain memory


class PartialObject:
    """One instance, opened. Use as a context manager; not thread-safe.

    ``buffer`` has the length of the data set. Of a deflated one everything is read.
    """

    def __init__(
        self, retrieval: Retrieval, record: InstanceRecord, study_uid: str = "", limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._retrieval, self.record, self._study_uid, self._limits = retrieval, record, study_uid, limits
        self._filled: set[int] = set()  # blocks
        self._mapped: mmap.mmap | None = None
        self._views: list[memoryview] = []
        self.length = record.location.length
        if self.length <= WHOLE:
            self.buffer = memoryview(b"".join(retrieval.read(record, study_uid)))
            return
        fd = os.memfd_create("object", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, self.length)
            self._mapped = mmap.mmap(fd, self.length)
        finally:
            os.close(fd)
        self.buffer = memoryview(self._mapped)
        if transfer_syntax(record.transfer_syntax_uid).deflated:
            self.need_all()

    def __enter__(self) -> PartialObject:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for view in [*self._views, self.buffer]:
            view.release()
        if self._mapped is not None:
            with contextlib.suppress(BufferError):  # a slice is still held: freed with it
                self._mapped.close()

    @property
    def sparse(self) -> bool:
        """Not all of it has been read."""
        return self._mapped is not None and len(self._filled) * BLOCK < self.length

    @property
    def extents(self) -> list[tuple[int, int]] | None:
        """Start and end of what has been read; ``None``: all of it."""
        return [(at, min(at + BLOCK, self.length)) for at in sorted(self._filled)] if self.sparse else None

    def need(self, offset: int, length: int) -> None:
        """Have these bytes in the buffer. Raises CorruptObject, RangeNotSatisfiable."""
        if self._mapped is None:
            return
        start, end = covering(offset, length, self.length)
        for at in range(start, end, BLOCK):
            if at not in self._filled:
                size = min(BLOCK, self.length - at)
                self.buffer[at : at + size] = self._retrieval.read_range(self.record, at, size, self._study_uid)
                self._filled.add(at)

    def need_all(self) -> None:
        self.need(0, self.length)

    def header(self) -> Header:
        """The top level up to its pixel data, in a buffer of which that much is there.

        ``header.view`` is the plain data set: of a deflated one, another buffer than ``self.buffer``.

        Raises:
            InvalidObject and its kinds, PixelsUnreadable: not a data set in its syntax.
        """
        view, syntax = plain(self.buffer, self.record.transfer_syntax_uid, self._limits)
        self._views.append(view)
        if self._mapped is None or view.obj is not self._mapped:
            return read_header(view, syntax, self._limits)
        known = min(BLOCK, self.length)
        while True:
            self.need(0, known)
            with view[:known] as part:
                try:
                    found = any(tag in read_header(part, syntax, self._limits) for tag in PIXEL_TAGS)
                except TruncatedObject:
                    if known == self.length:
                        raise
                    found = False
            if found or known == self.length:
                return read_header(view, syntax, self._limits)
            known = min(4 * known, self.length)

"""An object that is read straight into the memory of the process that decodes it, and copied nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """A plain data set that has not been read yet.

    ``extents``: start and end of what the job will look at, in order, apart from each other; the rest is zeros.
    ``read`` is given an offset and as much room as it shall fill from there, with verified bytes, or raises.
    """

    length: int
    extents: tuple[tuple[int, int], ...]
    read: Callable[[int, memoryview], None]

    def fill(self, room: memoryview) -> None:
        """Write the whole object, zeros included, into ``room`` of its length. Raises what ``read`` raises."""
        done = 0
        for start, end in self.extents:
            _clear(room, done, start)
            with room[start:end] as part:
                self.read(start, part)
            done = end
        _clear(room, done, self.length)

    def whole(self) -> bytearray:
        """In plain memory, for decoding in this process."""
        data = bytearray(self.length)
        with memoryview(data) as room:
            self.fill(room)
        return data


_ZEROS = bytes(1 << 20)


def _clear(room: memoryview, start: int, end: int) -> None:
    for at in range(start, end, len(_ZEROS)):
        size = min(len(_ZEROS), end - at)
        room[at : at + size] = _ZEROS[:size]

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

    @property
    def touched(self) -> int:
        """Bytes that are read."""
        return sum(end - start for start, end in self.extents)

    def fill(self, room: memoryview, *, blank: bool = False) -> None:
        """Have the whole object in ``room`` of its length, zeros included. Raises what ``read`` raises.

        ``blank``: the room is zeros already, and what is not read may stay untouched.
        """
        done = 0
        for start, end in self.extents:
            if not blank:
                _clear(room, done, start)
            with room[start:end] as part:
                self.read(start, part)
            done = end
        if not blank:
            _clear(room, done, self.length)

    def whole(self) -> bytearray:
        """In plain memory, for decoding in this process."""
        data = bytearray(self.length)
        with memoryview(data) as room:
            self.fill(room, blank=True)
        return data


_ZEROS = bytes(1 << 20)


def _clear(room: memoryview, start: int, end: int) -> None:
    for at in range(start, end, len(_ZEROS)):
        size = min(len(_ZEROS), end - at)
        room[at : at + size] = _ZEROS[:size]

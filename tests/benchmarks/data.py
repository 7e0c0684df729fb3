"""The data sets that are sent: made by the project's own generators, kept in one file each.

Every run must send objects that no server has seen. Making a gigabyte anew each time would take longer than
sending it, so a run gives the same bytes other UIDs: the last digits of study, series and instance UID are
overwritten in the head of the object. Nothing moves, so nothing has to be encoded again.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from negatoscope.dicom.part10 import read_file_meta

HEAD = 4096  # bytes of an object in which its UIDs lie
TAIL = 5  # last digits of each UID that tell runs apart


@dataclass(frozen=True, slots=True)
class Item:
    """A Part 10 file within the file of its data set."""

    start: int
    length: int
    data_set: int  # where the data set begins, from ``start``
    sop_class: str
    syntax: str
    study: str
    series: str
    sop: str


@dataclass(frozen=True, slots=True)
class Sending:
    """One object as one run sends it."""

    sop_class: str
    syntax: str
    study: str
    series: str
    sop: str
    pieces: tuple[bytes, memoryview]  # of the Part 10 file
    data_set: int  # where the data set begins in the first piece

    @property
    def length(self) -> int:
        return len(self.pieces[0]) + len(self.pieces[1])

    def data_set_pieces(self) -> tuple[memoryview, memoryview]:
        return memoryview(self.pieces[0])[self.data_set :], self.pieces[1]


def uid_of_run(uid: str, run: int) -> str:
    """Another UID of the same length, the same for the same run."""
    return f"{uid[:-TAIL]}{run:0{TAIL}d}"


@dataclass(frozen=True, slots=True)
class DataSet:
    """What one row sends. Cheap to pass to another process: it is opened where it is used."""

    name: str
    path: Path
    items: tuple[Item, ...]

    @property
    def bytes(self) -> int:
        """Of the data sets, without file meta."""
        return sum(item.length - item.data_set for item in self.items)

    def sendings(self, run: int, first: int = 0, last: int | None = None) -> Iterator[Sending]:
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
            whole = memoryview(memory)
            for item in self.items[first:last]:
                end = min(HEAD, item.length)
                head = bytes(whole[item.start : item.start + end])
                uids = (item.study, item.series, item.sop)
                study, series, sop = (uid_of_run(uid, run) for uid in uids)
                for old, new in zip(uids, (study, series, sop), strict=True):
                    head = head.replace(old.encode(), new.encode())
                rest = whole[item.start + end : item.start + item.length]
                yield Sending(item.sop_class, item.syntax, study, series, sop, (head, rest), item.data_set)
                rest.release()
            whole.release()


def make(folder: Path, name: str, files: Callable[[], Iterator[bytes]]) -> DataSet:
    """Generate a data set, unless ``folder`` has it from before."""
    path, table = folder / f"{name}.bin", folder / f"{name}.json"
    if not table.exists():
        items, start = [], 0
        with path.open("wb") as file:
            for content in files():
                meta, data_set = read_file_meta(content[:HEAD])
                identity = _uids(content[data_set:HEAD])
                items.append([start, len(content), data_set, meta.sop_class_uid, meta.transfer_syntax_uid, *identity])
                file.write(content)
                start += len(content)
        table.write_text(json.dumps(items))
    return DataSet(name, path, tuple(Item(*row) for row in json.loads(table.read_text())))


def _uids(head: bytes) -> tuple[str, str, str]:
    """Study, series, instance UID of a generated explicit little endian object."""

    def value(tag: bytes) -> str:
        at = head.index(tag + b"UI")
        length = int.from_bytes(head[at + 6 : at + 8], "little")
        return head[at + 8 : at + 8 + length].rstrip(b"\0").decode()

    return value(b"\x20\x00\x0d\x00"), value(b"\x20\x00\x0e\x00"), value(b"\x08\x00\x18\x00")


@dataclass(frozen=True, slots=True)
class DataSets:
    ct: DataSet  # 530 kB each, one series
    mr: DataSet  # 136 kB each
    mg: DataSet  # 24 MB each
    us: DataSet  # 55 MB each
    enhanced: DataSet  # one object of many frames
    tiny: DataSet  # one small image a study
    many: DataSet  # 6,000 small slices of one series
    long: DataSet  # 2,000 slices of 530 kB, for the viewer
    enhanced_frames: int


def make_all(folder: Path, quick: bool) -> DataSets:
    """All of them; ``quick``: a tenth."""
    from negatoscope.demo import synthetic as make_up

    folder.mkdir(parents=True, exist_ok=True)
    tenth = 10 if quick else 1
    ups = {"mg": max(2, 20 // tenth), "us": max(1, 8 // tenth)}
    return DataSets(
        make(folder, "ct", lambda: make_up.synthetic_ct(1000 // tenth)),
        make(folder, "mr", lambda: make_up.synthetic_mr(600 // tenth)),
        make(folder, "mg", lambda: (make_up.synthetic_mg(seed=seed) for seed in range(ups["mg"]))),
        make(folder, "us", lambda: (make_up.synthetic_us(seed=seed) for seed in range(ups["us"]))),
        make(folder, "enhanced", lambda: iter([make_up.synthetic_enhanced_ct(200 // tenth)])),
        make(folder, "tiny", lambda: make_up.tiny_studies(20_000 // tenth)),
        make(folder, "many", lambda: make_up.synthetic_ct(6000 // tenth, 64, 64, seed=6)),
        make(folder, "long", lambda: make_up.synthetic_ct(2000 // tenth, seed=2)),
        200 // tenth,
    )

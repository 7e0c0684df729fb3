"""The manifest of a closed series: all its instances in one compressed value beside the series row.

Form: zlib of ``length of JSON (4 bytes) | JSON columns | CRC-32C lists | first 8 bytes of each SHA-256``.
Objects lie end to end from the start of the pack, so lengths alone give the offsets. The whole SHA-256
is in the pack; eight bytes of it here tell identical from conflicting before the pack is asked.
"""

from __future__ import annotations

import os.path
import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

import orjson

from negatoscope.model.checksum import BLOCK
from negatoscope.model.stored import Container, InstanceRecord, Location

SHORT_DIGEST = 8  # bytes of SHA-256 kept here


def encode(records: Sequence[InstanceRecord]) -> bytes:
    """``records`` in the order in which their data sets lie in the pack."""
    uids = [record.sop_instance_uid for record in records]
    prefix = os.path.commonprefix(uids)  # noqa: RUF071 (of characters: that is what is wanted)
    columns: dict[str, Any] = {
        "prefix": prefix,
        "uid": [uid[len(prefix) :] for uid in uids],
        "class": _runs(record.sop_class_uid for record in records),
        "syntax": _runs(record.transfer_syntax_uid for record in records),
        "number": _steps([record.instance_number for record in records]),
        "rows": _runs(record.rows for record in records),
        "columns": _runs(record.columns for record in records),
        "frames": _runs(record.number_of_frames for record in records),
        "length": _runs(record.location.length for record in records),
    }
    text = orjson.dumps(columns)
    crcs = b"".join(record.location.crcs for record in records)
    digests = b"".join(record.sha256[:SHORT_DIGEST] for record in records)
    return zlib.compress(len(text).to_bytes(4, "big") + text + crcs + digests, 9)


def decode(manifest: bytes, pack_id: int) -> list[InstanceRecord]:
    """The records, in the order of the pack; ``sha256`` is its first eight bytes."""
    raw = zlib.decompress(manifest)
    end = 4 + int.from_bytes(raw[:4], "big")
    columns = orjson.loads(raw[4:end])
    uids: list[str] = columns["uid"]
    lengths = _unrun(columns["length"])
    offsets = [0, *accumulate(lengths)]
    crc_sizes = [4 * -(-length // BLOCK) if length else 4 for length in lengths]
    crc_ends = [end, *accumulate(crc_sizes, initial=end)][1:]
    digests = raw[crc_ends[-1] :]
    rows = zip(
        uids,
        _unrun(columns["class"]),
        _unrun(columns["syntax"]),
        _unstep(columns["number"]),
        _unrun(columns["rows"]),
        _unrun(columns["columns"]),
        _unrun(columns["frames"]),
        strict=True,
    )
    return [
        InstanceRecord(
            columns["prefix"] + uid,
            sop_class,
            syntax,
            number,
            row_count,
            column_count,
            frames,
            digests[SHORT_DIGEST * i : SHORT_DIGEST * (i + 1)],
            Location(
                Container.PACK,
                pack_id,
                offsets[i],
                lengths[i],
                raw[crc_ends[i] : crc_ends[i] + crc_sizes[i]],
            ),
        )
        for i, (uid, sop_class, syntax, number, row_count, column_count, frames) in enumerate(rows)
    ]


def _runs(values: Iterable[Any]) -> list[list[Any]]:
    """[[value, how many times], ...]: most columns of a series hold one value."""
    return [[value, len(list(group))] for value, group in groupby(values)]


def _unrun(runs: list[list[Any]]) -> list[Any]:
    return [value for value, count in runs for _ in range(count)]


def _steps(numbers: Sequence[int | None]) -> list[Any]:
    """Instance numbers as [first, runs of differences], or as they are when one is missing."""
    if not numbers or any(number is None for number in numbers):
        return [None, _runs(numbers)]
    known = [number for number in numbers if number is not None]
    return [known[0], _runs(b - a for a, b in pairwise(known))]


def _unstep(steps: list[Any]) -> list[int | None]:
    first, runs = steps
    if first is None:
        return _unrun(runs)
    return list(accumulate(_unrun(runs), initial=first))

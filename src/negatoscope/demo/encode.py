"""The few lines of DICOM writing that generated objects need: explicit VR little endian, in tag order.

Not the archive's code path, on purpose: what the demonstration and the benchmarks send is made by something
that shares nothing with what receives it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLEMENTATION_CLASS_UID = "2.25.107382461829034712938471029384712093847"
_LONG = {"OB", "OW", "OF", "OD", "OL", "OV", "SQ", "UN", "UC", "UR", "UT", "SV", "UV"}
_NUMBERS = {"US": "<H", "SS": "<h", "UL": "<I", "SL": "<i", "FL": "<f", "FD": "<d"}

Value = str | int | float | bytes | Sequence[int] | Sequence[float] | Sequence["Elements"]
Elements = Mapping[int, tuple[str, Value]]  # tag -> (VR, value)


def stable_uid(*names: str | int) -> str:
    """A UID of the 2.25 arc (PS3.5 B.2) that is the same for the same names, everywhere and always."""
    digest = hashlib.sha256("\0".join(str(name) for name in names).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def data_set(elements: Elements) -> bytes:
    """The elements in explicit VR little endian. Text is UTF-8: say so with (0008,0005) ISO_IR 192."""
    return b"".join(_element(tag, *elements[tag]) for tag in sorted(elements))


def part10(sop_class_uid: str, sop_instance_uid: str, content: bytes, syntax: str = EXPLICIT_LITTLE_ENDIAN) -> bytes:
    """A DICOM file: preamble of zeros, file meta information (PS3.10 7.1), the data set."""
    meta = data_set(
        {
            0x00020001: ("OB", b"\0\1"),
            0x00020002: ("UI", sop_class_uid),
            0x00020003: ("UI", sop_instance_uid),
            0x00020010: ("UI", syntax),
            0x00020012: ("UI", IMPLEMENTATION_CLASS_UID),
            0x00020013: ("SH", "NEGATOSCOPEDEMO"),
        }
    )
    return b"".join([bytes(128), b"DICM", _element(0x00020000, "UL", len(meta)), meta, content])


def _element(tag: int, vr: str, value: Value) -> bytes:
    body = _body(vr, value)
    if len(body) % 2:
        body += b"\0" if vr in ("UI", "OB", "UN") else b" "
    start = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in _LONG:
        return start + struct.pack("<HI", 0, len(body)) + body
    return start + struct.pack("<H", len(body)) + body


def _body(vr: str, value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if vr in _NUMBERS:
        numbers = [value] if isinstance(value, int | float) else value
        return b"".join(struct.pack(_NUMBERS[vr], number) for number in numbers)
    if isinstance(value, int | float):
        return f"{value:g}".encode() if isinstance(value, float) else str(value).encode()
    if vr == "SQ":
        items = [data_set(item) for item in value if isinstance(item, Mapping)]
        return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    return "\\".join(f"{number:g}" for number in value if isinstance(number, int | float)).encode()

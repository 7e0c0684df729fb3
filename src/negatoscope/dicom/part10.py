"""DICOM files: PS3.10 chapter 7. The archive keeps data sets; files exist only at its doors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from struct import error as struct_error

from negatoscope.dicom.limits import DEFAULT_LIMITS, Limits
from negatoscope.dicom.tags import LONG_VRS, VRS, vr_of
from negatoscope.dicom.uid import (
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
)
from negatoscope.dicom.values import text
from negatoscope.errors import InvalidObject, LimitExceeded, TruncatedObject

PREAMBLE = 128
MAGIC = b"DICM"
IMPLEMENTATION_CLASS_UID = "2.25.6338610091866896191376459649301875319"  # the same in associations
IMPLEMENTATION_VERSION_NAME = "NEGATOSCOPE_0.1"

_explicit = Struct("<HH2sH").unpack_from
_implicit = Struct("<HHI").unpack_from
_long = Struct("<I").unpack_from
_VRS = {vr.encode(): vr for vr in VRS}


@dataclass(frozen=True, slots=True)
class FileMeta:
    """Group 0002 of a file. "" where the file does not say."""

    transfer_syntax_uid: str  # as written, or guessed from the first element
    sop_class_uid: str = ""  # Media Storage SOP Class UID
    sop_instance_uid: str = ""
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    source_application_entity_title: str = ""


_FIELDS = {
    0x0002: "sop_class_uid",
    0x0003: "sop_instance_uid",
    0x0010: "transfer_syntax_uid",
    0x0012: "implementation_class_uid",
    0x0013: "implementation_version_name",
    0x0016: "source_application_entity_title",
}


def read_file_meta(head: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[FileMeta, int]:
    """The file meta information, and the offset of the data set.

    Args:
        head: the beginning of the file: its first ``limits.file_meta`` + 200 bytes, or all of it.

    A preamble or group 0002 may be missing, as in files older than PS3.10 and in bare data sets; then
    the transfer syntax is guessed. A wrong group length is not believed.

    Raises:
        LimitExceeded: group 0002 goes on for more than ``limits.file_meta`` bytes.
        TruncatedObject: the file ends within group 0002.
        InvalidObject: not a DICOM file.
    """
    start = 0
    if head[PREAMBLE : PREAMBLE + 4] == MAGIC:
        start = PREAMBLE + 4
    elif head[:4] == MAGIC:
        start = 4
    fields: dict[str, str] = {}
    position = start
    while head[position : position + 2] == b"\2\0":
        if position - start > limits.file_meta:
            raise LimitExceeded(f"file meta information over {limits.file_meta} bytes")
        try:
            number, value, length = _meta_element(head, position)
        except struct_error as error:
            raise TruncatedObject("the file ends in its meta information") from error
        if length > limits.file_meta:
            raise LimitExceeded(f"file meta information over {limits.file_meta} bytes")
        position = value + length
        if position > len(head):
            raise TruncatedObject("the file ends in its meta information")
        if number in _FIELDS:
            fields.setdefault(_FIELDS[number], text(head[value:position]))
    if position - start > limits.file_meta:
        raise LimitExceeded(f"file meta information over {limits.file_meta} bytes")
    if not fields.get("transfer_syntax_uid"):
        fields["transfer_syntax_uid"] = guess_transfer_syntax(head[position : position + 8])
    return FileMeta(**fields), position


def _meta_element(head: bytes, position: int) -> tuple[int, int, int]:
    """Element number, offset and length of a value. Some write group 0002 in implicit VR."""
    _, number, code, length = _explicit(head, position)
    vr = _VRS.get(code)
    if vr is None:
        return number, position + 8, _implicit(head, position)[2]
    if vr in LONG_VRS:
        return number, position + 12, _long(head, position + 8)[0]
    return number, position + 8, length


def guess_transfer_syntax(first: bytes) -> str:
    """The uncompressed transfer syntax that the first element of a data set is written in.

    Args:
        first: at least eight bytes of it.

    Raises:
        InvalidObject: it is none.
    """
    if len(first) < 8:
        raise InvalidObject("no DICOM file: too short")
    group, element, code, _ = _explicit(first, 0)
    if code in _VRS:
        # Data sets begin with a low group: byte order shows in which byte of it is zero.
        return EXPLICIT_LITTLE_ENDIAN if group < 0x0100 or group & 0xFF else EXPLICIT_BIG_ENDIAN
    length = _implicit(first, 0)[2]
    known = vr_of(group << 16 | element) != "UN"
    if known and group and length < 1 << 16:
        return IMPLICIT_LITTLE_ENDIAN
    raise InvalidObject("no DICOM file")


def write_file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble of zeros, ``DICM`` and group 0002: what goes before a data set to make it a file.

    The preamble of a received file is never given back: it can be a program (CVE-2019-11687).
    """
    body = b"".join(
        (
            _VERSION,
            _uid_element(0x0002, sop_class_uid),
            _element(0x0003, "UI", sop_instance_uid.encode("ascii")),
            _uid_element(0x0010, transfer_syntax_uid),
            _IMPLEMENTATION,
        )
    )
    return _BEFORE_LENGTH + len(body).to_bytes(4, "little") + body


def _element(number: int, vr: str, value: bytes) -> bytes:
    if len(value) % 2:
        value += b" " if vr == "SH" else b"\0"
    head = b"\2\0" + number.to_bytes(2, "little") + vr.encode()
    if vr in LONG_VRS:
        return head + b"\0\0" + len(value).to_bytes(4, "little") + value
    return head + len(value).to_bytes(2, "little") + value


@lru_cache(1024)
def _uid_element(number: int, uid: str) -> bytes:
    """Of classes and transfer syntaxes, which are few."""
    return _element(number, "UI", uid.encode("ascii"))


_BEFORE_LENGTH = bytes(PREAMBLE) + MAGIC + _element(0x0000, "UL", bytes(4))[:-4]
_VERSION = _element(0x0001, "OB", b"\0\1")
_IMPLEMENTATION = _element(0x0012, "UI", IMPLEMENTATION_CLASS_UID.encode("ascii")) + _element(
    0x0013, "SH", IMPLEMENTATION_VERSION_NAME.encode("ascii")
)

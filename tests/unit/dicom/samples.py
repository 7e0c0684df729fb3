"""Data sets written by hand, byte by byte, and the real ones of the corpus. Shared by the tests of ``dicom``."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from struct import pack

import pytest
from hypothesis import strategies as st

from negatoscope.dicom import uid
from negatoscope.dicom.part10 import read_file_meta
from negatoscope.dicom.tags import LONG_VRS, UNDEFINED_LENGTH, vr_of

EXPLICIT = uid.TRANSFER_SYNTAXES[uid.EXPLICIT_LITTLE_ENDIAN]
IMPLICIT = uid.TRANSFER_SYNTAXES[uid.IMPLICIT_LITTLE_ENDIAN]
BIG = uid.TRANSFER_SYNTAXES[uid.EXPLICIT_BIG_ENDIAN]
JPEG = uid.TRANSFER_SYNTAXES["1.2.840.10008.1.2.4.50"]

ITEM_END = pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = pack("<HHI", 0xFFFE, 0xE0DD, 0)


def element(
    tag: int, vr: str, value: bytes = b"", *, length: int | None = None, syntax: uid.TransferSyntax = EXPLICIT
) -> bytes:
    """One element; ``length`` overrides what is declared."""
    order = "<" if syntax.little_endian else ">"
    length = len(value) if length is None else length
    head = pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if not syntax.explicit:
        return head + pack(order + "I", length) + value
    if vr in LONG_VRS:
        return head + vr.encode() + pack(order + "HI", 0, length) + value
    return head + vr.encode() + pack(order + "H", length) + value


def item(content: bytes, *, undefined: bool = False, order: str = "<") -> bytes:
    length = UNDEFINED_LENGTH if undefined else len(content)
    end = pack(order + "HHI", 0xFFFE, 0xE00D, 0) if undefined else b""
    return pack(order + "HHI", 0xFFFE, 0xE000, length) + content + end


def sequence(
    tag: int, items: list[bytes], *, undefined: bool = False, syntax: uid.TransferSyntax = EXPLICIT, vr: str = "SQ"
) -> bytes:
    content = b"".join(items)
    if not undefined:
        return element(tag, vr, content, syntax=syntax)
    order = "<" if syntax.little_endian else ">"
    return element(tag, vr, content, length=UNDEFINED_LENGTH, syntax=syntax) + pack(order + "HHI", 0xFFFE, 0xE0DD, 0)


def nested(depth: int, *, undefined: bool, syntax: uid.TransferSyntax = EXPLICIT) -> bytes:
    """``depth`` sequences, each in an item of the one before."""
    if undefined:
        opening = element(0x00400275, "SQ", length=UNDEFINED_LENGTH, syntax=syntax) + pack(
            "<HHI", 0xFFFE, 0xE000, UNDEFINED_LENGTH
        )
        return opening * depth + (ITEM_END + SEQUENCE_END) * depth
    data = b""
    for _ in range(depth):
        data = sequence(0x00400275, [item(data)], syntax=syntax)
    return data


UIDS = {
    0x00080016: b"1.2.840.10008.5.1.4.1.1.2\0",
    0x00080018: b"1.2.3\0",
    0x0020000D: b"1.2.4\0",
    0x0020000E: b"1.2.5\0",
}


def instance(extra: dict[int, tuple[str, bytes]] | None = None, syntax: uid.TransferSyntax = EXPLICIT) -> bytes:
    """A data set with the four UIDs, and more."""
    elements = {tag: ("UI", value) for tag, value in UIDS.items()} | (extra or {})
    return b"".join(element(tag, vr, value, syntax=syntax) for tag, (vr, value) in sorted(elements.items()))


# Random data sets ---------------------------------------------------------------------------------

TAGS = [0x00080005, 0x00080008, 0x00080050, 0x00081030, 0x00090010, 0x00091001, 0x00100010, 0x00101010, 0x00200013]
TAGS += [0x00280010, 0x00280106, 0x00281050, 0x00400254, 0x0040A040, 0x00541300, 0x00720074, 0x60003000, 0x00020010]
SEQUENCES = [0x00081032, 0x00400275, 0x00540016, 0x00101002]


@cache
def datasets(syntax: uid.TransferSyntax, depth: int = 2) -> st.SearchStrategy[bytes]:
    """Well-formed data sets in any shape that the syntax allows."""

    def one(tag: int, value: bytes) -> bytes:
        return element(tag, vr_of(tag), value, syntax=syntax)

    leaves = st.builds(one, st.sampled_from(TAGS), st.binary(max_size=20))
    if depth == 0:
        return st.lists(leaves, max_size=4).map(b"".join)
    order = "<" if syntax.little_endian else ">"

    def items(contents: list[tuple[bytes, bool]]) -> list[bytes]:
        return [item(content, undefined=undefined, order=order) for content, undefined in contents]

    contents = st.lists(st.tuples(datasets(syntax, depth - 1), st.booleans()), max_size=3).map(items)
    sequences = st.builds(
        lambda tag, parts, undefined: sequence(tag, parts, undefined=undefined, syntax=syntax),
        st.sampled_from(SEQUENCES),
        contents,
        st.booleans(),
    )
    return st.lists(leaves | sequences, max_size=5).map(b"".join)


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """A data set with a few bytes changed, cut out or put in."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["set", "cut", "insert", "length"]))
        if kind == "set" and where < len(data):
            data[where] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[where : where + draw(st.integers(1, 8))]
        elif kind == "insert":
            data[where:where] = draw(st.binary(max_size=8))
        else:
            data[where : where + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


# The corpus ---------------------------------------------------------------------------------------

CORPUS = Path(os.environ.get("NEGATOSCOPE_CORPUS", Path.home() / ".cache/negatoscope/corpus"))


@cache
def corpus_files() -> list[Path]:
    return sorted(path for path in CORPUS.rglob("*") if path.is_file()) if CORPUS.is_dir() else []


def need_corpus() -> list[Path]:
    if not corpus_files():
        pytest.skip(f"the corpus of real images is not in {CORPUS} (set NEGATOSCOPE_CORPUS)")
    return corpus_files()


def read(path: Path) -> tuple[bytes, str]:
    """Data set and transfer syntax of a file."""
    content = path.read_bytes()
    meta, offset = read_file_meta(content)
    return content[offset:], meta.transfer_syntax_uid

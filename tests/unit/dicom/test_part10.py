"""File meta information."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from struct import pack

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negatoscope.dicom import uid
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.dicom.part10 import FileMeta, guess_transfer_syntax, read_file_meta, write_file_meta
from negatoscope.errors import InvalidObject, LimitExceeded, TruncatedObject
from unit.dicom.samples import BIG, EXPLICIT, IMPLICIT, element, instance

DATA = instance()
META = write_file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.4.90")


def test_what_is_written_is_read_by_us_and_by_pydicom() -> None:
    meta, offset = read_file_meta(META + DATA)
    assert (META + DATA)[offset:] == DATA
    assert (meta.sop_class_uid, meta.sop_instance_uid) == ("1.2.840.10008.5.1.4.1.1.2", "1.2.3")
    assert meta.transfer_syntax_uid == "1.2.840.10008.1.2.4.90"
    theirs = pydicom.dcmread(BytesIO(META + DATA))
    assert theirs.file_meta.FileMetaInformationGroupLength == len(META) - 128 - 4 - 12
    assert theirs.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert theirs.file_meta.ImplementationClassUID == meta.implementation_class_uid
    assert uid.is_valid_uid(meta.implementation_class_uid)


def test_a_file_names_the_implementation_that_associations_name() -> None:
    from negatoscope.wire.dul import items

    meta, _ = read_file_meta(META)
    assert meta.implementation_class_uid == items.IMPLEMENTATION_CLASS_UID
    assert meta.implementation_version_name == items.IMPLEMENTATION_VERSION_NAME


def test_the_preamble_is_never_a_program() -> None:
    assert META[:132] == bytes(128) + b"DICM"


@pytest.mark.parametrize("start", [0, 128, 132])
def test_preamble_and_magic_may_be_missing(start: int) -> None:
    meta, offset = read_file_meta((META + DATA)[start:])
    assert meta.sop_instance_uid == "1.2.3"
    assert (META + DATA)[start:][offset:] == DATA


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG], ids=["explicit", "implicit", "big"])
def test_the_syntax_of_a_bare_data_set_is_guessed(syntax: uid.TransferSyntax) -> None:
    assert read_file_meta(instance(syntax=syntax)) == (FileMeta(syntax.uid), 0)
    without_syntax = element(0x00020003, "UI", b"1.9\0")
    meta, offset = read_file_meta(bytes(128) + b"DICM" + without_syntax + instance(syntax=syntax))
    assert (meta.transfer_syntax_uid, meta.sop_instance_uid, offset) == (syntax.uid, "1.9", 132 + 12)


@pytest.mark.parametrize(
    "head",
    [b"", b"1234567", b"%PDF-1.7 and so on", b"\x89PNG\r\n\x1a\n1234", bytes(200), b"\xff\xd8\xff\xe0\0\x10JFIF"],
)
def test_what_is_no_dicom_is_refused(head: bytes) -> None:
    with pytest.raises(InvalidObject):
        read_file_meta(head)


def test_a_large_first_length_is_no_guess() -> None:
    with pytest.raises(InvalidObject):
        guess_transfer_syntax(pack("<HHI", 0x0008, 0x0005, 1 << 16))


def test_meta_in_implicit_vr_is_read() -> None:
    head = element(0x00020010, "UI", b"1.2.840.10008.1.2\0", syntax=IMPLICIT)
    meta, offset = read_file_meta(bytes(128) + b"DICM" + head)
    assert (meta.transfer_syntax_uid, offset) == (uid.IMPLICIT_LITTLE_ENDIAN, 132 + len(head))


def test_a_wrong_group_length_is_not_believed() -> None:
    wrong = META[:140] + b"\xff\xff\0\0" + META[144:]
    assert read_file_meta(wrong + DATA)[1] == len(META)


@pytest.mark.parametrize("cut", range(133, len(META)))
def test_a_file_that_ends_in_its_meta_is_truncated_or_understood(cut: int) -> None:
    try:
        meta, offset = read_file_meta(META[:cut])
    except InvalidObject:
        return
    assert cut - offset < 2  # one byte alone says nothing of its group
    assert meta.transfer_syntax_uid


def test_a_value_past_the_end_is_truncated() -> None:
    for cut in (len(META) - 1, 150):
        with pytest.raises(TruncatedObject):
            read_file_meta(META[:cut])


@pytest.mark.parametrize(("step", "taken"), [(-1, True), (0, True), (1, False)])
def test_file_meta_is_limited(step: int, taken: bool) -> None:
    limits = replace(DEFAULT_LIMITS, file_meta=len(META) - 132 - step)
    if taken:
        assert read_file_meta(META + DATA, limits)[1] == len(META)
    else:
        with pytest.raises(LimitExceeded):
            read_file_meta(META + DATA, limits)


def test_a_declared_length_over_the_limit_is_refused_whatever_is_there() -> None:
    with pytest.raises(LimitExceeded):
        read_file_meta(element(0x00020001, "OB", b"", length=0xFFFFFFFF))
    with pytest.raises(LimitExceeded):
        read_file_meta(element(0x00020001, "OB", bytes(40)) * 3, replace(DEFAULT_LIMITS, file_meta=50))


@given(st.binary(max_size=200))
def test_noise_raises_nothing_but_invalid_object(noise: bytes) -> None:
    for head in (noise, b"DICM" + noise, b"DICM\2\0" + noise, b"DICM" + element(0x00020001, "OB", b"\0\1") + noise):
        try:
            read_file_meta(head)
        except InvalidObject:
            pass

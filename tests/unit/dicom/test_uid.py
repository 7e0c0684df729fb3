"""Form of UIDs and the tables of well-known ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary

from negatoscope.dicom import uid


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=4))
def test_dotted_numbers_without_leading_zeros_are_uids(components: list[int]) -> None:
    assert uid.is_valid_uid(".".join(map(str, components)))


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".1", "1..2", "1.02", "01", "1.2 ", "1.2\n", "1.2\0", "1.a", "١.٢", "1.2/../3", "1.-2"]
)
def test_what_breaks_the_form_is_no_uid(text: str) -> None:
    assert not uid.is_valid_uid(text)


@pytest.mark.parametrize(("length", "valid"), [(63, True), (64, True), (65, False)])
def test_a_uid_has_at_most_64_characters(length: int, valid: bool) -> None:
    assert uid.is_valid_uid("1." + "2" * (length - 2)) is valid


def test_every_transfer_syntax_of_the_standard_is_known_by_its_name() -> None:
    standard = {u: entry[0] for u, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    assert standard.items() <= {u: s.name for u, s in uid.TRANSFER_SYNTAXES.items()}.items()


@pytest.mark.parametrize(
    ("syntax_uid", "traits"),
    [
        ("1.2.840.10008.1.2", ""),
        ("1.2.840.10008.1.2.1", "explicit"),
        ("1.2.840.10008.1.2.1.99", "explicit deflated"),
        ("1.2.840.10008.1.2.2", "explicit big"),
        ("1.2.840.10008.1.2.1.98", "explicit encapsulated"),
        ("1.2.840.10008.1.2.4.50", "explicit encapsulated lossy"),
        ("1.2.840.10008.1.2.4.70", "explicit encapsulated"),
        ("1.2.840.10008.1.2.4.81", "explicit encapsulated lossy"),
        ("1.2.840.10008.1.2.4.90", "explicit encapsulated"),
        ("1.2.840.10008.1.2.4.95", "explicit deflated"),
        ("1.2.840.10008.1.2.4.102.1", "explicit encapsulated lossy video"),
        ("1.2.840.10008.1.2.4.107", "explicit encapsulated lossy video"),
        ("1.2.840.10008.1.2.4.112", "explicit encapsulated lossy"),
        ("1.2.840.10008.1.2.4.201", "explicit encapsulated"),
        ("1.2.840.10008.1.2.5", "explicit encapsulated"),
        ("1.2.840.10008.1.2.8.1", "explicit encapsulated"),
        ("1.2.276.0.99.1", "explicit encapsulated lossy"),  # private: the most careful guess
    ],
)
def test_traits_of_transfer_syntaxes(syntax_uid: str, traits: str) -> None:
    syntax = uid.transfer_syntax(syntax_uid)
    assert syntax.uid == syntax_uid
    shown = [
        name
        for name, holds in [
            ("explicit", syntax.explicit),
            ("big", not syntax.little_endian),
            ("deflated", syntax.deflated),
            ("encapsulated", syntax.encapsulated),
            ("lossy", syntax.lossy),
            ("video", syntax.video),
        ]
        if holds
    ]
    assert shown == traits.split()


@pytest.mark.parametrize(
    ("class_uid", "kept"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", True),  # CT
        ("1.2.840.10008.5.1.4.1.1.104.1", True),  # Encapsulated PDF
        ("1.2.840.10008.5.1.4.1.1.12.77", True),  # retired, nameless
        ("1.2.840.10008.5.1.1.30", True),  # Hardcopy Color, retired
        ("1.3.12.2.1107.5.9.1", True),  # Siemens CSA Non-Image
        ("1.2.840.10008.1.1", False),  # Verification
        ("1.2.840.10008.1.3.10", False),  # DICOMDIR
        ("1.2.840.10008.1.20.1", False),  # Storage Commitment
        ("1.2.840.10008.5.1.4.1.2.2.1", False),  # Study Root FIND
        ("1.2.840.10008.5.1.4.1.1.201.2", False),  # Inventory FIND
        ("1.2.840.10008.5.1.4.34.6.1", False),  # UPS Push
        ("../etc", False),
        ("", False),
    ],
)
def test_only_storage_classes_and_unknown_private_ones_are_kept(class_uid: str, kept: bool) -> None:
    assert uid.is_storage_class(class_uid) is kept


def test_every_kept_class_is_a_storage_class_and_has_a_name() -> None:
    assert len(uid.STORAGE_CLASSES) > 200
    assert all(uid.is_storage_class(u) and name for u, name in uid.STORAGE_CLASSES.items())


def test_names_of_uids_are_those_of_the_standard() -> None:
    assert uid.uid_name("1.2.840.10008.5.1.4.1.1.2") == "CT Image Storage"
    assert uid.uid_name("1.2.840.10008.1.2.4.110") == "JPEG XL Lossless"
    assert uid.uid_name("1.2.840.10008.1.1") == "Verification SOP Class"
    assert uid.uid_name("1.2.3") == "1.2.3"

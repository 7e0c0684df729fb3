"""The statements say what the doors accept, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary

from negatoscope import conformance
from negatoscope.conformance import IHE, Transaction, served, state
from negatoscope.dicom.uid import is_storage_class

DOCS = Path(__file__).resolve().parents[2] / "docs"
STATEMENT = (DOCS / "dicom-conformance-statement.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    found = re.search(rf"<!-- from code: {name} -->\n(.*?)<!-- end -->", STATEMENT, re.DOTALL)
    assert found is not None, name
    return found[1]


def known_classes() -> list[str]:
    return [uid for uid, row in UID_dictionary.items() if row[1] == "SOP Class"]


def test_every_class_that_the_door_accepts_is_in_the_statement_and_no_other_is() -> None:
    stated = set(re.findall(r"`([0-9.]+)` \| SCP", block("services"))) | set(
        re.findall(r"`([0-9.]+)`", block("storage-classes"))
    )
    accepted = {uid for uid in known_classes() if served(uid)}
    assert len(accepted) > 100
    assert accepted - stated == set()
    assert {uid for uid in stated if not served(uid)} == set()


def test_what_is_no_service_of_ours_is_not_served() -> None:
    """So that the comparison above compares something."""
    print_management, _ = "1.2.840.10008.5.1.1.9", "1.2.840.10008.5.1.1.18"
    assert not served(print_management)
    assert is_storage_class(conformance.CT_IMAGE)
    assert len(conformance.services()) >= 5


@pytest.mark.parametrize("one", IHE, ids=lambda one: f"{one.actor}: {one.transaction}")
def test_a_transaction_is_implemented_when_all_that_it_needs_is_there(one: Transaction) -> None:
    there = bool(one.needs) and all(map(conformance.has, one.needs))
    assert state(one).startswith("implements" if there else "not there")
    assert not there or one.tested, "what is implemented names the peers that it was tested with"


@pytest.mark.parametrize("need", ["1.2.840.10008.5.1.1.9", ("GET", "/nowhere"), "no_setting"])
def test_what_is_not_there_is_not_claimed(need: conformance.Need) -> None:
    assert not conformance.has(need)
    assert state(Transaction("P", "A", "T", (conformance.CT_IMAGE, need), "a peer")).startswith("not there")

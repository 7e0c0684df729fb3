"""pynetdicom as sender: options of the association, its own PDU sizes, an abort in the middle."""

from __future__ import annotations

import logging
from typing import Any

import pydicom
import pytest
from pynetdicom import AE, build_role
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)

from dimse_fakes import CT, TITLE, VERIFICATION, door
from dimse_peers import same, sample

EXPLICIT = "1.2.840.10008.1.2.1"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


def entity(maximum: int = 16382) -> Any:
    ae = AE("CT_A")
    ae.maximum_pdu_size = maximum
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
    ae.add_requested_context(VERIFICATION)
    ae.add_requested_context(CT, EXPLICIT)
    return ae


@pytest.mark.parametrize("maximum", [0, 256, 16382, 1 << 20])
def test_echo_and_store_with_its_maximum_length(maximum: int) -> None:
    with door() as here:
        association = entity(maximum).associate(*here.address, ae_title=TITLE, max_pdu=maximum)
        assert association.is_established
        assert association.send_c_echo().Status == 0
        assert association.send_c_store(pydicom.dcmread(sample("CT_small.dcm"))).Status == 0
        association.release()
        assert association.is_released
    [kept] = here.receiver.kept
    assert same(kept, sample("CT_small.dcm"))


def test_it_understands_our_answers_to_every_option() -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 5, 2
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CT, b"\2\0\0\0\1\0"
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.positive_response_requested = 1, b"user", True
    with door() as here:
        options = [window, extended, identity, build_role(CT, scu_role=True, scp_role=True)]
        association = entity().associate(*here.address, ae_title=TITLE, ext_neg=options)
        assert association.is_established
        answer = association.acceptor
        assert answer.asynchronous_operations == (5, 1)
        assert answer.sop_class_extended[CT] == bytes([2, 0, 3, 0, 0, 0])
        assert answer.user_identity.server_response == b""
        [context] = [one for one in association.accepted_contexts if one.abstract_syntax == CT]
        assert (context.as_scu, context.as_scp) == (True, False)
        assert str(answer.implementation_version_name).startswith("NEGATOSCOPE")
        association.release()


@pytest.mark.parametrize(("title", "reason"), [("OTHER", 7), (TITLE, 3)])
def test_it_understands_our_rejections(title: str, reason: int) -> None:
    with door(authenticate=lambda calling: None) as here:
        association = entity().associate(*here.address, ae_title=title)
        assert association.is_rejected
        answer = association.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, reason)


def test_its_abort_ends_the_association() -> None:
    with door() as here:
        association = entity().associate(*here.address, ae_title=TITLE)
        association.abort()
        again = entity().associate(*here.address, ae_title=TITLE)
        assert again.is_established
        again.release()

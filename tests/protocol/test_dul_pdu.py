"""PDUs and their items: round trips, captures, what is refused, agreement with pynetdicom's decoder."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from negatoscope.wire.dul import ProtocolViolation, items, pdu
from negatoscope.wire.dul.items import (
    AsynchronousOperations,
    CommonExtendedNegotiation,
    ContextAnswer,
    ExtendedNegotiation,
    PresentationContext,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from negatoscope.wire.dul.pdu import AssociateAccept, AssociateReject, AssociateRequest

CT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2"

uids = st.integers(0, 10**9).map("1.2.{}".format)
titles = st.sampled_from(["A", "CT_1", "SIXTEEN_LETTERS_"])
shorts, longs = st.integers(0, 0xFFFF), st.integers(8, 0xFFFFFFFF) | st.just(0)
users = st.builds(
    UserInformation,
    longs,
    uids,
    titles,
    st.none() | st.builds(AsynchronousOperations, shorts, shorts),
    st.lists(st.builds(RoleSelection, uids, st.booleans(), st.booleans()), max_size=3).map(tuple),
    st.lists(st.builds(ExtendedNegotiation, uids, st.binary(max_size=9)), max_size=3).map(tuple),
    st.lists(st.builds(CommonExtendedNegotiation, uids, uids, st.lists(uids, max_size=3).map(tuple)), max_size=2).map(
        tuple
    ),
    st.none()
    | st.builds(UserIdentity, st.integers(1, 5), st.booleans(), st.binary(max_size=20), st.binary(max_size=9)),
    st.none() | st.binary(max_size=20),
)
identifiers = st.lists(st.integers(0, 127).map(lambda n: 2 * n + 1), unique=True, max_size=6)


@st.composite
def requests(draw: st.DrawFn) -> AssociateRequest:
    contexts = tuple(
        PresentationContext(number, draw(uids), tuple(draw(st.lists(uids, min_size=1, max_size=4))))
        for number in draw(identifiers)
    )
    return AssociateRequest(draw(titles), draw(titles), contexts, draw(users), draw(uids), draw(shorts))


@st.composite
def acceptances(draw: st.DrawFn) -> AssociateAccept:
    answers = tuple(ContextAnswer(number, draw(st.integers(0, 4)), draw(uids)) for number in draw(identifiers))
    return AssociateAccept(answers, draw(users), draw(uids), draw(st.binary(min_size=64, max_size=64)))


@given(requests())
def test_a_request_survives_encoding(request: AssociateRequest) -> None:
    assert pdu.decode_associate_request(pdu.encode_associate_request(request)[6:], 128) == request


@given(acceptances())
def test_an_acceptance_survives_encoding(accept: AssociateAccept) -> None:
    assert pdu.decode_associate_accept(pdu.encode_associate_accept(accept)[6:], 128) == accept


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_bodies_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    """What is read from a mutant encodes to something that reads the same: as dicom-rs asks of its fuzzers."""
    body = bytearray(pdu.encode_associate_request(data.draw(requests()))[6:])
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(len(body) - 8, len(body))) :]
    try:
        request = pdu.decode_associate_request(bytes(body), 128)
    except ProtocolViolation:
        return
    try:
        again = pdu.encode_associate_request(request)[6:]
    except ValueError:  # a title that we would never send
        return
    assert pdu.decode_associate_request(again, 128) == request


@given(st.binary(max_size=300))
def test_noise_behind_the_fixed_part_is_read_or_refused_and_nothing_else(noise: bytes) -> None:
    for decode in (pdu.decode_associate_request, pdu.decode_associate_accept):
        try:
            decode(bytes(68) + noise, 128)
        except ProtocolViolation:
            continue


# Captured from a socket: DCMTK 3.6.7, `echoscu -aet ECHOSCU -aec NEGATOSCOPE`.
DCMTK_ECHO = bytes.fromhex(
    "0100000000cd000100004e454741544f53434f504520202020204543484f534355202020202020202020000000000000"
    "000000000000000000000000000000000000000000000000000010000015312e322e3834302e31303030382e332e312e"
    "312e312000002e0100ff0030000011312e322e3834302e31303030382e312e3140000011312e322e3834302e31303030"
    "382e312e325000003a51000004000040005200001b312e322e3237362e302e373233303031302e332e302e332e362e37"
    "5500000f4f464649535f44434d544b5f333637"
)
# Captured from a socket: pynetdicom 3.0.4, one context, window 5, both roles, user name and passcode.
PYNETDICOM_OPTIONS = bytes.fromhex(
    "010000000118000100004e454741544f53434f5045202020202050594e45542020202020202020202020000000000000"
    "000000000000000000000000000000000000000000000000000010000015312e322e3834302e31303030382e332e312e"
    "312e31200000380100000030000019312e322e3834302e31303030382e352e312e342e312e312e3240000013312e322e"
    "3834302e31303030382e312e322e315000007b5100000400003ffe52000020312e322e3832362e302e312e3336383030"
    "34332e392e333831312e332e302e345500000e50594e45544449434f4d5f3330345400001d0019312e322e3834302e31"
    "303030382e352e312e342e312e312e32010153000004000500015800001002010004757365720006736563726574"
)


def test_a_request_of_dcmtk_is_read_as_it_was_meant() -> None:
    request = pdu.decode_associate_request(DCMTK_ECHO[6:], 128)
    assert request == AssociateRequest(
        "NEGATOSCOPE",
        "ECHOSCU",
        (PresentationContext(1, "1.2.840.10008.1.1", (IMPLICIT,)),),
        UserInformation(16384, "1.2.276.0.7230010.3.0.3.6.7", "OFFIS_DCMTK_367"),
    )
    assert request.echo == DCMTK_ECHO[10:74]


def test_a_request_of_pynetdicom_with_every_option_is_read_as_it_was_meant() -> None:
    user = pdu.decode_associate_request(PYNETDICOM_OPTIONS[6:], 128).user
    assert user == UserInformation(
        16382,
        "1.2.826.0.1.3680043.9.3811.3.0.4",
        "PYNETDICOM_304",
        AsynchronousOperations(5, 1),
        (RoleSelection(CT, True, True),),
        user_identity=UserIdentity(2, True, b"user", b"secret"),
    )


def test_an_acceptance_sends_titles_and_reserved_bytes_back_as_they_came() -> None:
    """PS3.8 table 9-17: even a title that is not left-justified."""
    echo = b"   NEGATOSCOPE  \0ODD            " + bytes(range(32))
    body = pdu.encode_associate_accept(AssociateAccept((), echo=echo))[6:]
    assert body[4:68] == echo


@given(requests())
@settings(max_examples=30)
def test_pynetdicom_reads_our_requests_as_we_do(request: AssociateRequest) -> None:
    theirs: Any = A_ASSOCIATE_RQ()
    theirs.decode(pdu.encode_associate_request(request))
    assert (theirs.called_ae_title, theirs.calling_ae_title) == (request.called_title, request.calling_title)
    assert str(theirs.application_context_name) == request.application_context
    assert [
        (context.context_id, str(context.abstract_syntax), tuple(map(str, context.transfer_syntax)))
        for context in theirs.presentation_context
    ] == [(c.context_id, c.abstract_syntax, c.transfer_syntaxes) for c in request.contexts]
    user = theirs.user_information
    assert user.maximum_length == request.user.maximum_length
    assert user.async_ops_window is None or (
        user.async_ops_window.maximum_number_operations_invoked,
        user.async_ops_window.maximum_number_operations_performed,
    ) == (request.user.asynchronous_operations.invoked, request.user.asynchronous_operations.performed)  # type: ignore[union-attr]  # there if theirs is
    if request.user.user_identity is not None and request.user.user_identity.primary:  # it misreads an empty one
        assert user.user_identity.primary_field == request.user.user_identity.primary
        assert user.user_identity.secondary_field == request.user.user_identity.secondary
    roles = {str(uid): (bool(role.scu_role), bool(role.scp_role)) for uid, role in user.role_selection.items()}
    assert roles == {role.sop_class_uid: (role.scu, role.scp) for role in request.user.roles}
    assert theirs.encode() is not None


@given(acceptances())
@settings(max_examples=30)
def test_pynetdicom_reads_our_acceptances_as_we_do(accept: AssociateAccept) -> None:
    theirs: Any = A_ASSOCIATE_AC()
    theirs.decode(pdu.encode_associate_accept(accept))
    assert [(c.context_id, c.result, str(c.transfer_syntax)) for c in theirs.presentation_context] == [
        (a.context_id, a.result, a.transfer_syntax if a.result == 0 else str(c.transfer_syntax))
        for a, c in zip(accept.contexts, theirs.presentation_context, strict=True)
    ]
    assert theirs.user_information.maximum_length == accept.user.maximum_length


@given(requests())
@settings(max_examples=30)
def test_we_read_what_pynetdicom_writes(request: AssociateRequest) -> None:
    theirs: Any = A_ASSOCIATE_RQ()
    theirs.decode(pdu.encode_associate_request(request))
    ours = pdu.decode_associate_request(theirs.encode()[6:], 128)
    assert (ours.contexts, ours.called_title) == (request.contexts, request.called_title)


def test_unknown_items_are_passed_over_on_every_level() -> None:
    unknown = items.item(0x77, b"???")
    context = items.item(0x20, b"\1\0\0\0" + unknown + items.item(0x30, CT.encode()) + unknown)
    user = items.item(0x50, unknown + items.item(0x51, bytes([0, 0, 64, 0])) + unknown)
    request = pdu.decode_associate_request(bytes(68) + unknown + context + unknown + user + unknown, 128)
    assert (request.contexts[0].abstract_syntax, request.user.maximum_length) == (CT, 16384)


@pytest.mark.parametrize(
    "damage",
    [
        items.item(0x20, b"\1\0\0"),  # context without its head
        items.item(0x20, b"\1\0\0\0"),  # without an abstract syntax
        items.item(0x20, b"\1\0\0\0" + items.item(0x30, b"1.2") * 2),
        items.item(0x20, b"\1\0\0\0" + items.item(0x30, b"1.2")) * 2,  # the same identifier twice
        bytes.fromhex("2000ffff0100"),  # an item longer than the PDU
        bytes.fromhex("200000"),  # a header cut off
        items.item(0x50, items.item(0x51, b"\0\0\0")),
        items.item(0x50, items.item(0x51, bytes([0, 0, 0, 7]))),  # no room for a fragment
        items.item(0x50, items.item(0x53, b"\0\1\0")),
        items.item(0x50, items.item(0x54, b"\0\x091.2\1\1")),
        items.item(0x50, items.item(0x58, b"\1\1\0\4me\0\0")),
        items.item(0x50, items.item(0x57, b"\0\0031.2\0\0031.3\0\4\0\x091.")),
    ],
)
def test_items_that_contradict_themselves_are_refused(damage: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        pdu.decode_associate_request(bytes(68) + damage, 128)


def test_a_maximum_length_that_holds_one_fragment_is_taken() -> None:
    user = items.item(0x50, items.item(0x51, bytes([0, 0, 0, 8])))
    assert pdu.decode_associate_request(bytes(68) + user, 128).user.maximum_length == 8


@pytest.mark.parametrize(("count", "refused"), [(127, False), (128, False), (129, True)])
def test_at_most_128_presentation_contexts(count: int, refused: bool) -> None:
    contexts = b"".join(items.encode_proposed(PresentationContext(n, CT, (IMPLICIT,))) for n in range(count))
    if refused:
        with pytest.raises(ProtocolViolation, match="129 presentation contexts, 128 allowed"):
            pdu.decode_associate_request(bytes(68) + contexts, 128)
    else:
        assert len(pdu.decode_associate_request(bytes(68) + contexts, 128).contexts) == count


@given(payload=st.binary(max_size=200), maximum=st.integers(8, 60), command=st.booleans())
def test_data_is_cut_into_even_fragments_that_fit(payload: bytes, maximum: int, command: bool) -> None:
    pdus = list(pdu.data_pdus(5, payload, command, maximum))
    assert b"".join(fragment for _, fragment in pdus) == payload
    for number, (head, fragment) in enumerate(pdus):
        last = number == len(pdus) - 1
        body = int.from_bytes(head[2:6], "big")
        assert body == len(fragment) + 6 <= maximum
        assert int.from_bytes(head[6:10], "big") == len(fragment) + 2
        assert (head[0], head[10], head[11]) == (4, 5, command + 2 * last)
        assert last or len(fragment) % 2 == 0


def test_short_pdus_are_what_the_standard_draws() -> None:
    assert pdu.encode_associate_reject(AssociateReject(1, 2, 3)) == bytes.fromhex("03000000000400010203")
    assert pdu.decode_associate_reject(bytes.fromhex("00010203")) == AssociateReject(1, 2, 3)
    assert pdu.encode_release_request() == bytes.fromhex("05000000000400000000")
    assert pdu.encode_release_response() == bytes.fromhex("06000000000400000000")
    assert pdu.encode_abort(2, 6) == bytes.fromhex("07000000000400000206")
    assert pdu.decode_abort(bytes.fromhex("00000206")) == (2, 6)


@pytest.mark.parametrize("title", ["", "SEVENTEEN_LETTERS", "É"])
def test_a_title_that_has_no_form_on_the_wire_is_not_sent(title: str) -> None:
    with pytest.raises(ValueError, match="AE title"):
        pdu.encode_associate_request(AssociateRequest(title, "X", ()))


def test_what_does_not_fit_an_item_is_not_sent() -> None:
    for user in (
        UserInformation(identity_answer=bytes(65536)),
        UserInformation(extended=(ExtendedNegotiation("1.2", bytes(65535)),)),
    ):
        with pytest.raises(ValueError, match="65535 at most"):
            items.encode_user(user)


def test_secrets_are_not_shown() -> None:
    assert "hunter2" not in repr(UserIdentity(2, False, b"hunter2", b"hunter2"))
    assert "hunter2" not in repr(UserInformation(identity_answer=b"hunter2"))


def test_a_body_shorter_than_its_fixed_part_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        pdu.decode_associate_request(bytes(67), 128)
    assert pdu.decode_associate_request(bytes(68), 128).contexts == ()

"""The DICOM door against our own sender and raw sockets: answers, failures, limits, endings."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from dimse_fakes import CT, EXPLICIT, IMPLICIT, TITLE, VERIFICATION, Door, MemoryReceiver, actor, door
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.errors import OutOfResources, SequenceTooDeep, TooLarge, Unavailable
from negatoscope.model.actor import Actor, Right
from negatoscope.model.source import Announced, Source
from negatoscope.model.source import Door as Entry
from negatoscope.servers.dicom_client import AssociationRefused, PeerUnavailable, Proposal, Sender, associate
from negatoscope.wire.dimse import Command, Element, encode, request, response_to
from negatoscope.wire.dimse.commands import C_CANCEL, C_ECHO, C_FIND, C_STORE
from negatoscope.wire.dul.items import (
    ExtendedNegotiation,
    PresentationContext,
    RoleSelection,
    UserIdentity,
    UserInformation,
)
from negatoscope.wire.dul.pdu import (
    AssociateReject,
    AssociateRequest,
    data_pdus,
    decode_associate_accept,
    encode_associate_request,
    encode_release_request,
)

CONTEXTS = ((CT, (EXPLICIT,)), (VERIFICATION, (IMPLICIT,)))
PROPOSAL = Proposal(TITLE, "CT_A", CONTEXTS)


def send(sender: Sender, data: bytes = b"data", uid: str = "1.2.3") -> Command:
    return sender.store(CT, uid, EXPLICIT, data)


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


@pytest.mark.parametrize("offered", [64, 4096, 262144, 2**20])
@pytest.mark.parametrize("size", [0, 1, 58, 59, 3_000_001])
def test_what_is_sent_is_what_is_received(offered: int, size: int) -> None:
    if offered == 64:
        size = min(size, 10_000)
    payload = os.urandom(size)
    with door(limits=replace(DEFAULT_LIMITS, pdu_offered=offered)) as here, associate(here.address, PROPOSAL) as sender:
        response = send(sender, payload)
    assert (response.status, response.text(Element.AFFECTED_SOP_INSTANCE_UID)) == (0, "1.2.3")
    assert response.number(Element.MESSAGE_ID_BEING_RESPONDED_TO) == 1
    assert [kept.data for kept in here.receiver.kept] == [payload]
    assert here.receiver.kept[0].announced == Announced(EXPLICIT, CT, "1.2.3")
    assert here.receiver.kept[0].source == Source(1, 1, "A", "2.25.1001", "CT_A", "127.0.0.1", Entry.DIMSE)


def test_a_data_set_in_pieces_is_one_object() -> None:
    with door() as here, associate(here.address, PROPOSAL) as sender:
        sender.begin_store(CT, "1.2.3", EXPLICIT, [b"ab", b"", b"cdef"])
        assert sender.answer().status == 0
    assert here.receiver.kept[0].data == b"abcdef"


@pytest.mark.parametrize("step", ["begin", "write", "commit"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OutOfResources("the reserve is reached"), 0xA700),
        (Unavailable("no database"), 0xA700),
        (TooLarge("too large"), 0xC001),
        (SequenceTooDeep("65 levels, 64 allowed"), 0xC003),
        (ValueError("Dupont^Jeanne"), 0x0110),
    ],
)
def test_a_failure_is_answered_after_the_data_set_and_the_association_goes_on(
    step: str, error: Exception, status: int
) -> None:
    broken = [True]

    def fail(now: str, size: int) -> None:
        if now == step and broken and size >= (400_000 if step == "write" else 0):
            raise error

    receiver = MemoryReceiver(fail)
    with door(receiver) as here, associate(here.address, PROPOSAL) as sender:
        response = send(sender, bytes(1_000_000))
        assert response.status == status
        assert response.text(Element.ERROR_COMMENT) == ("internal error" if status == 0x0110 else str(error))
        assert send(sender, b"").status == (0 if step == "write" else status)
        broken.clear()
        assert send(sender, b"next", "1.2.4").status == 0
        assert sender.echo() == 0
    assert receiver.kept[-1].data == b"next"
    assert receiver.aborted == {"begin": 0, "write": 1, "commit": 0}[step]
    assert here.counts["dicom_acknowledged_total"] == (2 if step == "write" else 1)


def test_an_unforeseen_error_leaves_no_data_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def fail(step: str, size: int) -> None:
        raise ValueError("Dupont^Jeanne")

    with door(MemoryReceiver(fail)) as here, associate(here.address, PROPOSAL) as sender:
        send(sender)
    assert "ValueError" in caplog.text
    assert "Dupont" not in caplog.text


@pytest.mark.parametrize(
    ("sop_class", "uid", "status"),
    [
        (CT, "", 0xA900),
        (CT, "../../tmp/x", 0xA900),
        (CT, "1" * 65, 0xA900),
        (CT, "1" * 64, 0),
        ("1.2.9", "1.2", 0x0122),
    ],
)
def test_an_announcement_that_nothing_can_meet_is_refused(sop_class: str, uid: str, status: int) -> None:
    with door() as here, associate(here.address, PROPOSAL) as sender:
        values = {Element.AFFECTED_SOP_CLASS_UID: sop_class, Element.AFFECTED_SOP_INSTANCE_UID: uid}
        raw(sender, request(C_STORE, 9, values, data_set=True), b"data")
        assert sender.answer().status == status
    assert len(here.receiver.kept) == (status == 0)


def raw(sender: Sender, command: Command, payload: bytes | None = None, context_id: int = 1) -> None:
    """Send what no decent sender would."""
    parts = list(data_pdus(context_id, encode(command), True, 16384))
    parts += list(data_pdus(context_id, payload, False, 16384)) if payload is not None else []
    sender._connection.sendall(b"".join(bytes(part) for pair in parts for part in pair))


def test_a_request_for_another_service_is_answered_and_its_data_set_drained() -> None:
    with door() as here, associate(here.address, PROPOSAL) as sender:
        raw(sender, request(C_FIND, 5, {Element.AFFECTED_SOP_CLASS_UID: CT}, data_set=True), bytes(50_000))
        response = sender.answer()
        assert (response.field, response.status) == (C_FIND | 0x8000, 0x0211)
        raw(sender, request(C_STORE, 6, {Element.AFFECTED_SOP_CLASS_UID: CT}, data_set=False))
        assert sender.answer().status == 0xA900
        raw(
            sender,
            Command(
                {
                    Element.COMMAND_FIELD: C_CANCEL,
                    Element.MESSAGE_ID_BEING_RESPONDED_TO: 6,
                    Element.DATA_SET_TYPE: 0x0101,
                }
            ),
        )
        assert sender.echo() == 0


def in_pdus(payload: bytes, command: bool) -> bytes:
    return b"".join(bytes(part) for pair in data_pdus(1, payload, command, 16384) for part in pair)


RESPONSE_TO_NOTHING = response_to(request(C_ECHO, 1, {}, False), 0)


@pytest.mark.parametrize(
    "nonsense",
    [
        in_pdus(encode(RESPONSE_TO_NOTHING), True),
        in_pdus(encode(request(C_STORE, 1, {}, True)), True) + in_pdus(b"", False) + in_pdus(b"x", False),
        b"\x09" + bytes(5),
        in_pdus(b"x", True),
        in_pdus(b"x", False),
    ],
)
def test_nonsense_is_answered_by_an_abort(nonsense: bytes) -> None:
    with door() as here:
        sender = associate(here.address, PROPOSAL)
        sender._connection.sendall(nonsense)
        with pytest.raises(PeerUnavailable, match="ended: Aborted"):
            while True:
                sender.answer()
        until(lambda: here.counts["dicom_violations_total"] == 1)


def test_many_requests_may_be_outstanding_and_are_answered_in_order() -> None:
    proposal = replace(PROPOSAL, window=100)
    with door() as here, associate(here.address, proposal) as sender:
        assert sender.window == 32
        sent = [sender.begin_store(CT, f"1.2.{n}", EXPLICIT, [bytes(5_000)]) for n in range(32)]
        answers = [sender.answer() for _ in sent]
    assert [answer.number(Element.MESSAGE_ID_BEING_RESPONDED_TO) for answer in answers] == sent
    assert {answer.status for answer in answers} == {0}
    assert len(here.receiver.kept) == 32


def test_a_connection_lost_inside_an_object_leaves_nothing_of_it() -> None:
    with door() as here:
        sender = associate(here.address, PROPOSAL)
        raw(
            sender,
            request(C_STORE, 1, {Element.AFFECTED_SOP_CLASS_UID: CT, Element.AFFECTED_SOP_INSTANCE_UID: "1.2"}, True),
        )
        head, _ = next(data_pdus(1, bytes(16000), False, 16384))
        sender._connection.sendall(head + bytes(9000))
        sender._connection.close()
        until(lambda: here.receiver.aborted == 1)
    assert here.receiver.kept == []


def test_an_abort_inside_an_object_leaves_nothing_of_it() -> None:
    with door() as here:
        sender = associate(here.address, PROPOSAL)
        raw(
            sender,
            request(C_STORE, 1, {Element.AFFECTED_SOP_CLASS_UID: CT, Element.AFFECTED_SOP_INSTANCE_UID: "1.2"}, True),
        )
        sender.abort()
        until(lambda: here.receiver.aborted == 1)


def test_an_idle_association_is_aborted() -> None:
    limits = replace(DEFAULT_LIMITS, idle_s=0.3)
    with door(limits=limits) as here:
        sender = associate(here.address, PROPOSAL)
        started = time.monotonic()
        with pytest.raises(PeerUnavailable, match="Aborted"):
            sender.answer()
        assert 0.25 <= time.monotonic() - started < 3


# ---- who is let in ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("called", "calling", "reject"),
    [
        ("OTHER", "CT_A", (1, 1, 7)),
        (TITLE, "NOBODY", (1, 1, 3)),
        (TITLE, "BROKEN", (2, 3, 1)),
        (TITLE, "BUG", (2, 3, 1)),
    ],
)
def test_strangers_are_rejected_with_the_reason(called: str, calling: str, reject: tuple[int, int, int]) -> None:
    def authenticate(title: str) -> Actor | None:
        if title == "BROKEN":
            raise Unavailable("no database")
        if title == "BUG":
            raise RuntimeError("a bug")
        return actor(*Right) if title == "CT_A" else None

    with door(authenticate=authenticate) as here:
        with pytest.raises(AssociationRefused) as refused:
            associate(here.address, Proposal(called, calling, CONTEXTS))
        assert refused.value.reject == AssociateReject(*reject)
        with associate(here.address, PROPOSAL) as sender:
            assert sender.echo() == 0


@pytest.mark.parametrize(
    ("change", "reject"), [({"version": 2}, (1, 2, 2)), ({"application_context": "1.2"}, (1, 1, 2))]
)
def test_another_protocol_is_rejected_with_the_reason(change: dict[str, str], reject: tuple[int, int, int]) -> None:
    asked = replace(AssociateRequest(TITLE, "CT_A", ()), **change)  # type: ignore[arg-type]  # values of both kinds
    with door() as here:
        assert ask(here, encode_associate_request(asked)) == bytes([3, 0, 0, 0, 0, 4, 0, *reject])


def test_a_title_that_cannot_be_one_never_reaches_the_policy() -> None:
    asked = bytearray(encode_associate_request(AssociateRequest(TITLE, "CT_A", ())))
    asked[26:42] = b"CT\0A".ljust(16)
    with door() as here:
        assert ask(here, bytes(asked)) == bytes([3, 0, 0, 0, 0, 4, 0, 1, 1, 3])
    assert not here.asked


def ask(here: Door, data: bytes) -> bytes:
    """Send ``data``; the first PDU that comes back, b"" when the connection just ends."""
    with socket.create_connection(here.address, timeout=5) as connection:
        connection.sendall(data)
        answer = b""
        while len(answer) < 6 or len(answer) < 6 + int.from_bytes(answer[2:6], "big"):
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        return answer


def test_each_context_is_answered_for_itself() -> None:
    private_class, private_syntax = "1.2.826.0.1.3680043.99.1", "1.2.826.0.1.3680043.99.2"
    retired_class = "1.2.840.10008.5.1.4.1.1.3"  # Ultrasound Multi-frame, retired
    proposed = [
        (CT, ("1.2.840.10008.1.2.4.90", EXPLICIT)),
        (private_class, (private_syntax,)),
        (retired_class, (IMPLICIT,)),
        (VERIFICATION, (EXPLICIT,)),
        ("1.2.840.10008.5.1.4.1.2.2.1", (IMPLICIT,)),  # Study Root FIND: not served by this door yet
        (CT, ("1.2.840.10008.1.2.777", "not a uid", IMPLICIT)),
        (CT, ("1.2.840.10008.1.2.777",)),
        (CT, ()),
        ("", (IMPLICIT,)),
    ]
    answers = negotiate(proposed)
    assert answers == [
        (0, "1.2.840.10008.1.2.4.90"),
        (0, private_syntax),
        (0, IMPLICIT),
        (0, EXPLICIT),
        (3, IMPLICIT),
        (0, IMPLICIT),
        (4, "1.2.840.10008.1.2.777"),
        (4, ""),
        (3, IMPLICIT),
    ]


def negotiate(
    proposed: list[tuple[str, tuple[str, ...]]], rights: tuple[Right, ...] = tuple(Right), **user: object
) -> list[tuple[int, str]]:
    contexts = tuple(PresentationContext(2 * n + 1, *one) for n, one in enumerate(proposed))
    asked = AssociateRequest(TITLE, "CT_A", contexts, UserInformation(16384, **user))  # type: ignore[arg-type]  # by test
    with door(authenticate=lambda title: actor(*rights)) as here:
        accept = decode_associate_accept(ask(here, encode_associate_request(asked))[6:], 128)
    return [(answer.result, answer.transfer_syntax) for answer in accept.contexts]


def test_who_may_not_store_gets_verification_only() -> None:
    assert negotiate([(CT, (EXPLICIT,)), (VERIFICATION, (EXPLICIT,))], (Right.QUERY,)) == [(1, EXPLICIT), (0, EXPLICIT)]


def test_a_peer_that_will_not_be_scu_of_a_class_gets_no_context_for_it() -> None:
    assert negotiate([(CT, (EXPLICIT,))], roles=(RoleSelection(CT, False, True),)) == [(1, EXPLICIT)]
    assert negotiate([(CT, (EXPLICIT,))], roles=(RoleSelection(CT, True, True),)) == [(0, EXPLICIT)]


def test_options_are_answered_only_where_they_were_proposed() -> None:
    identity = UserIdentity(2, True, b"user", b"secret")
    user = UserInformation(
        16384,
        roles=(RoleSelection(CT, True, True), RoleSelection("1.2.840.10008.5.1.4.1.2.2.1", True, False)),
        extended=(ExtendedNegotiation(CT, bytes(6)), ExtendedNegotiation(VERIFICATION, b"?")),
        user_identity=identity,
    )
    contexts = tuple(PresentationContext(2 * n + 1, *one) for n, one in enumerate(CONTEXTS))
    with door() as here:
        full = ask(here, encode_associate_request(AssociateRequest(TITLE, "CT_A", contexts, user)))
        bare = ask(here, encode_associate_request(AssociateRequest(TITLE, "CT_A", contexts, UserInformation(0))))
    answer = decode_associate_accept(full[6:], 128).user
    assert answer.roles == (RoleSelection(CT, True, False),)
    assert answer.extended == (ExtendedNegotiation(CT, bytes([2, 0, 3, 0, 0, 0])),)
    assert answer.identity_answer == b""
    assert here.asked[0] == ("CT_A", TITLE, "127.0.0.1", identity)
    plain = decode_associate_accept(bare[6:], 128).user
    assert plain == UserInformation(DEFAULT_LIMITS.pdu_offered)


# ---- limits and endings -------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["associations", "associations_per_title", "associations_per_address"])
def test_one_association_over_a_limit_is_told_to_come_again(bound: str) -> None:
    limits = replace(DEFAULT_LIMITS, **{bound: 3})
    with door(limits=limits) as here:
        held = [associate(here.address, PROPOSAL) for _ in range(3)]
        with pytest.raises(AssociationRefused) as refused:
            associate(here.address, PROPOSAL)
        assert refused.value.reject == AssociateReject(2, 3, 2)
        held.pop().release()
        with associate(here.address, PROPOSAL) as sender:  # the place is free once the release is answered
            assert sender.echo() == 0
        if bound == "associations_per_title":
            associate(here.address, replace(PROPOSAL, calling_title="CT_B")).release()
        for sender in held:
            sender.release()


def test_the_place_of_a_peer_that_vanished_is_free_again() -> None:
    with door(limits=replace(DEFAULT_LIMITS, associations=1)) as here:
        for _ in range(5):
            associate(here.address, PROPOSAL).abort()

            def admitted() -> bool:
                try:
                    associate(here.address, PROPOSAL).release()
                except AssociationRefused:
                    return False
                return True

            until(admitted)


def test_stop_lets_a_message_under_way_end_and_aborts_the_rest() -> None:
    slow, begun = threading.Event(), threading.Event()

    def fail(step: str, size: int) -> None:
        if step == "commit":
            begun.set()
            slow.wait(5)

    receiver = MemoryReceiver(fail)
    with door(receiver) as here:
        busy, idle = associate(here.address, PROPOSAL), associate(here.address, PROPOSAL)
        half = socket.create_connection(here.address)
        half.sendall(b"\1")
        busy.begin_store(CT, "1.2.3", EXPLICIT, [b"data"])
        assert begun.wait(5)
        stopping = threading.Thread(target=here.server.stop)
        started = time.monotonic()
        stopping.start()
        with pytest.raises(PeerUnavailable, match="Aborted"):
            idle.answer()
        slow.set()
        assert busy.answer().status == 0
        with pytest.raises(PeerUnavailable, match="Aborted"):
            busy.answer()
        stopping.join()
        assert time.monotonic() - started < 2
        half.settimeout(1)
        with contextlib.suppress(ConnectionResetError):  # when its byte was not read yet
            assert half.recv(1) == b""
        half.close()
        with pytest.raises(PeerUnavailable):
            associate(here.address, PROPOSAL)
    assert len(receiver.kept) == 1


def test_stop_does_not_wait_for_a_peer_that_never_ends_its_object() -> None:
    with door() as here:
        sender = associate(here.address, PROPOSAL)
        raw(
            sender,
            request(C_STORE, 1, {Element.AFFECTED_SOP_CLASS_UID: CT, Element.AFFECTED_SOP_INSTANCE_UID: "1.2"}, True),
        )
        until(lambda: here.counts["dicom_associations_total"] == 1)
        started = time.monotonic()
        here.server.stop(grace_s=0.3)
        assert time.monotonic() - started < 2
    assert here.receiver.aborted == 1


def test_a_peer_that_says_too_much_after_its_end_is_cut_off() -> None:
    with door() as here, socket.create_connection(here.address, timeout=5) as connection:
        connection.sendall(bytes(6))
        with pytest.raises(OSError):  # reset or broken pipe, as the kernel likes
            for _ in range(200):
                connection.sendall(bytes(65536))
                time.sleep(0.001)


def test_release_is_answered_before_the_connection_ends() -> None:
    with door() as here, socket.create_connection(here.address, timeout=5) as connection:
        connection.sendall(encode_associate_request(AssociateRequest(TITLE, "CT_A", ())))
        connection.recv(65536)
        connection.sendall(encode_release_request())
        assert connection.recv(64) == bytes.fromhex("06000000000400000000")


def test_what_follows_a_request_before_its_answer_is_a_violation() -> None:
    asked = encode_associate_request(AssociateRequest(TITLE, "CT_A", ()))
    with door() as here:
        assert ask(here, asked + asked) == bytes.fromhex("07000000000400000202")
    assert not here.asked


def test_our_sender_says_why_it_cannot() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        quick = replace(DEFAULT_LIMITS, dimse_answer_s=0.2)
        with pytest.raises(PeerUnavailable, match="no answer in time"):
            associate(deaf.getsockname(), replace(PROPOSAL, limits=quick))
        address = deaf.getsockname()
    with pytest.raises(PeerUnavailable, match="no connection"):
        associate(address, PROPOSAL)

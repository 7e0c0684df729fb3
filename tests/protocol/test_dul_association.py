"""The machine as a whole: segmentation, limits at -1, 0, +1, order of fragments, hostile bytes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dul_machines import ACCEPT, LIMITS, PDUS, REQUEST, data, established
from negatoscope.dicom.limits import Limits
from negatoscope.wire.dul import Association, Role, State
from negatoscope.wire.dul.events import (
    AssociationRequested,
    CommandReceived,
    DataReceived,
    Event,
    ReleaseRequested,
    Violated,
)
from negatoscope.wire.dul.pdu import encode_associate_request
from negatoscope.wire.dul.states import Trigger

REQUEST_PDU = PDUS[Trigger.REQUEST_RECEIVED]
INVALID = bytes.fromhex("07000000000400000206")  # A-ABORT, provider, invalid parameter value


def joined(events: list[Event]) -> list[Event | tuple[int, bytes, bool]]:
    """Events with neighbouring pieces of one data set made one."""
    out: list[Event | tuple[int, bytes, bool]] = []
    for event in events:
        if not isinstance(event, DataReceived):
            out.append(event)
        elif out and isinstance(out[-1], tuple) and not out[-1][2] and out[-1][0] == event.context_id:
            out[-1] = (event.context_id, out[-1][1] + bytes(event.data), event.last)
        else:
            out.append((event.context_id, bytes(event.data), event.last))
    return out


def hear(stream: bytes, cuts: list[int], machine: Association | None = None) -> list[Event | tuple[int, bytes, bool]]:
    """Events of ``stream`` cut at ``cuts``, each piece in the same buffer, as the shell does it."""
    machine = machine or established(Role.ACCEPTOR)
    heard: list[Event | tuple[int, bytes, bool]] = []
    for start, end in pairwise([0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]):
        heard += joined(machine.receive(bytearray(stream[start:end]), 0.0))
    merged: list[Event | tuple[int, bytes, bool]] = []
    for one in heard:
        if isinstance(one, tuple) and merged and isinstance(merged[-1], tuple) and not merged[-1][2]:
            merged[-1] = (one[0], merged[-1][1] + one[1], one[2])
        else:
            merged.append(one)
    return merged


payloads = st.binary(max_size=40)
messages = st.builds(
    lambda command, payload, size, two: (
        data(command, command=True, size=size) + (data(payload, size=size) if two else b"")
    ),
    st.binary(min_size=1, max_size=40),
    payloads,
    st.integers(8, 40),
    st.booleans(),
)
cuts = st.lists(st.integers(0, 10_000), max_size=12)


@settings(max_examples=200)
@given(
    sent=st.lists(messages, max_size=4), cuts=cuts, tail=st.sampled_from([b"", *PDUS.values()]) | st.binary(max_size=20)
)
def test_segmentation_never_changes_what_is_received(sent: list[bytes], cuts: list[int], tail: bytes) -> None:
    """TCP may cut the stream anywhere, inside headers too; whatever follows, good or bad."""
    stream = b"".join(sent) + tail
    assert hear(stream, cuts) == hear(stream, [])


@settings(max_examples=40)
@given(cuts=cuts)
def test_segmentation_never_changes_a_request(cuts: list[int]) -> None:
    heard = hear(REQUEST_PDU, cuts, Association(Role.ACCEPTOR, LIMITS, 0.0))
    assert heard == [AssociationRequested(REQUEST)]


@settings(max_examples=300)
@given(st.binary(max_size=200), st.booleans(), cuts, st.lists(st.integers(0, 2**16 - 1), max_size=6))
def test_whatever_comes_ends_in_events(noise: bytes, state: bool, cuts: list[int], edits: list[int]) -> None:
    machine = established(Role.ACCEPTOR) if state else Association(Role.ACCEPTOR, LIMITS, 0.0)
    stream = bytearray((data(b"command", command=True) + data(noise) if state else REQUEST_PDU) + noise)
    for edit in edits:
        stream[edit % len(stream)] = edit >> 8
    heard = hear(bytes(stream), cuts, machine)
    violations = [event for event in heard if isinstance(event, Violated)]
    assert violations == [event for event in heard[-1:] if isinstance(event, Violated)]


def test_data_set_bytes_are_views_of_the_buffer_they_came_in() -> None:
    buffer = bytearray(data(b"abcdef"))
    event = established(Role.ACCEPTOR).receive(buffer, 0.0)[0]
    assert isinstance(event, DataReceived)
    buffer[12:18] = b"ABCDEF"
    assert bytes(event.data) == b"ABCDEF"


def test_a_fragment_is_passed_on_before_it_is_whole() -> None:
    machine, stream = established(Role.ACCEPTOR), data(bytes(10_000))
    first = machine.receive(stream[:1_000], 0.0)
    assert joined(first) == [(1, bytes(988), False)]
    assert joined(machine.receive(stream[1_000:], 0.0)) == [(1, bytes(9_012), True)]


def test_an_empty_last_fragment_ends_a_data_set() -> None:
    stream = data(b"ab", last=False) + data(b"")
    assert joined(established(Role.ACCEPTOR).receive(stream, 0.0)) == [(1, b"ab", True)]
    assert established(Role.ACCEPTOR).receive(data(b"", last=False), 0.0) == []


def test_many_fragments_in_one_pdu_are_read() -> None:
    parts = b"".join(data(piece, command=True, last=last)[6:] for piece, last in ((b"ab", False), (b"cd", True)))
    parts += data(b"ef")[6:]
    stream = bytes([4, 0]) + len(parts).to_bytes(4, "big") + parts
    assert joined(established(Role.ACCEPTOR).receive(stream, 0.0)) == [CommandReceived(1, b"abcd"), (1, b"ef", True)]


def judge(machine: Association, stream: bytes) -> str:
    """ "" if it is taken, else the detail of the violation, which must be the answer to these bytes alone."""
    events = machine.receive(stream, 0.0)
    if not events or not isinstance(events[-1], Violated):
        return ""
    assert machine.state is State.STA13
    return events[-1].detail


def head(kind: int, length: int) -> bytes:
    return bytes([kind, 0]) + length.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("length", "refused"), [(2**20 - 1, False), (2**20, False), (2**20 + 1, True), (2**32 - 1, True)]
)
def test_a_pdu_over_one_mebibyte_is_refused_at_its_header(length: int, refused: bool) -> None:
    detail = judge(established(Role.ACCEPTOR), head(4, length))
    assert detail == (f"P_DATA_TF of {length} bytes declared, 6 to 1048576 allowed" if refused else "")


@pytest.mark.parametrize(("length", "refused"), [(65535, False), (65536, False), (65537, True), (2**32 - 1, True)])
@pytest.mark.parametrize("least", [68])
def test_an_associate_body_over_64_kib_is_refused_at_its_header(length: int, refused: bool, least: int) -> None:
    machine = Association(Role.ACCEPTOR, LIMITS, 0.0)
    assert bool(judge(machine, head(1, length))) is refused
    assert bool(judge(Association(Role.ACCEPTOR, LIMITS, 0.0), head(1, least - 1)))
    assert not judge(Association(Role.ACCEPTOR, LIMITS, 0.0), head(1, least))


@pytest.mark.parametrize("kind", [5, 6, 7])
@pytest.mark.parametrize(("length", "refused"), [(0, True), (3, True), (4, False), (5, True)])
def test_short_pdus_have_four_bytes(kind: int, length: int, refused: bool) -> None:
    machine = established(Role.ACCEPTOR)
    if kind == 6:
        machine.release(0.0)
    assert bool(judge(machine, head(kind, length))) is refused


@pytest.mark.parametrize(("length", "refused"), [(0, True), (5, True), (6, False)])
def test_a_data_pdu_holds_a_fragment(length: int, refused: bool) -> None:
    assert bool(judge(established(Role.ACCEPTOR), head(4, length))) is refused


@pytest.mark.parametrize(
    ("body", "fragment", "refused"),
    [
        (106, 101, False),  # leaves one byte: see below
        (106, 102, False),
        (106, 103, True),
        (106, 2**32 - 1, True),
        (106, 1, True),
        (106, 0, True),
        (106, 2, False),
        (106, 97, True),
        (106, 96, False),
    ],
)
def test_a_fragment_fits_its_pdu(body: int, fragment: int, refused: bool) -> None:
    """What is left after a fragment holds another one's header, or nothing."""
    machine = established(Role.ACCEPTOR)
    detail = judge(machine, head(4, body) + fragment.to_bytes(4, "big") + b"\1\0")
    assert bool(detail) is (refused or fragment == 101)


@pytest.mark.parametrize(("size", "refused"), [(63, False), (64, False), (65, True)])
def test_a_command_set_over_its_limit_is_refused_at_the_fragment_header(size: int, refused: bool) -> None:
    limits = replace(LIMITS, command_set=64)
    machine = established_with(limits)
    first = data(bytes(32), command=True, last=False)
    second = data(bytes(size - 32), command=True)
    detail = judge(machine, first + second[:12])
    assert detail == ("command set of 65 bytes, 64 allowed" if refused else "")


def established_with(limits: Limits) -> Association:
    machine = Association(Role.ACCEPTOR, limits, 0.0)
    machine.receive(REQUEST_PDU, 0.0)
    machine.accept(ACCEPT, 0.0)
    return machine


@pytest.mark.parametrize("context_id", [0, 2, 3, 255])
def test_a_fragment_on_a_context_that_was_not_accepted_is_refused(context_id: int) -> None:
    machine = established(Role.ACCEPTOR)
    events = machine.receive(data(b"", context_id=context_id), 0.0)
    assert isinstance(events[-1], Violated)
    assert events[-1].reply == INVALID


def test_a_command_set_is_not_broken_into() -> None:
    first = data(b"ab", command=True, last=False)
    assert judge(established(Role.ACCEPTOR), first + data(b"cd")) == "a command set was broken into by another fragment"
    assert judge(established(Role.ACCEPTOR), first + data(b"cd", command=True)) == ""


def test_nothing_is_heard_after_a_violation() -> None:
    machine = established(Role.ACCEPTOR)
    assert judge(machine, b"\x09" + bytes(5)) == "unrecognized PDU type 0x09"
    assert machine.receive(PDUS[Trigger.RELEASE_RECEIVED], 0.0) == []


def test_what_came_before_a_violation_in_the_same_bytes_is_still_heard() -> None:
    heard = hear(data(b"ab", command=True) + data(b"cd") + b"\xff" * 6, [])
    assert heard[:2] == [CommandReceived(1, b"ab"), (1, b"cd", True)]
    assert isinstance(heard[2], Violated)
    assert heard[2].reply == bytes.fromhex("07000000000400000201")


def test_artim_does_not_start_again_with_each_byte() -> None:
    machine = Association(Role.ACCEPTOR, LIMITS, 100.0)
    for second in range(29):
        machine.receive(REQUEST_PDU[second : second + 1], 100.0 + second)
        assert machine.timer() == 130.0


def test_every_byte_shows_that_an_association_is_not_idle() -> None:
    machine = established(Role.ACCEPTOR)
    machine.receive(data(b"ab")[:3], 50.0)
    assert machine.timer() == 110.0
    assert machine.expire(109.9) == []
    assert isinstance(machine.expire(110.0)[0], Violated)


def test_a_release_collision_ends_well_on_both_sides() -> None:
    requestor, acceptor = established(Role.REQUESTOR), established(Role.ACCEPTOR)
    from_requestor, from_acceptor = requestor.release(0.0), acceptor.release(0.0)
    assert acceptor.receive(from_requestor, 0.0) == []
    assert requestor.receive(from_acceptor, 0.0) == [ReleaseRequested()]
    assert acceptor.receive(requestor.release_answer(0.0), 0.0) == [ReleaseRequested()]
    requestor.receive(acceptor.release_answer(0.0), 0.0)
    assert (requestor.state, acceptor.state) == (State.STA1, State.STA13)


@pytest.mark.parametrize(("theirs", "ours"), [(0, 262144), (8, 8), (16384, 16384), (2**20, 2**20), (2**32 - 1, 2**20)])
def test_we_send_no_longer_pdus_than_the_peer_takes(theirs: int, ours: int) -> None:
    machine = Association(Role.ACCEPTOR, LIMITS, 0.0)
    request = replace(REQUEST, user=replace(REQUEST.user, maximum_length=theirs))
    machine.receive(encode_associate_request(request), 0.0)
    assert machine.maximum_length == ours


def test_an_acceptance_of_what_was_not_proposed_opens_nothing() -> None:
    machine = Association(Role.REQUESTOR, LIMITS, 0.0)
    machine.request(replace(REQUEST, contexts=REQUEST.contexts[1:]), 0.0)
    machine.receive(PDUS[Trigger.ACCEPT_RECEIVED], 0.0)
    assert machine.contexts == {}

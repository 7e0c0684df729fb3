"""Command sets: round trips, a capture, agreement with pynetdicom, what is refused, order of messages."""

from __future__ import annotations

from io import BytesIO
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dsutils import decode as pynetdicom_decode

from negatoscope.wire.dimse import Command, Element, MessageReader, commands, decode, encode, request, response_to
from negatoscope.wire.dimse.commands import OPERATIONS, VR, Value
from negatoscope.wire.dul import ProtocolViolation
from negatoscope.wire.dul.events import CommandReceived, DataReceived

CT = "1.2.840.10008.5.1.4.1.1.2"
words = st.integers(0, 10**9).map("1.2.{}".format)
_values: dict[str, st.SearchStrategy[Value]] = {
    "US": st.integers(0, 0xFFFF),
    "UL": st.integers(0, 0xFFFFFFFF),
    "UI": words,
    "AE": words,
    "LO": words,
    "AT": st.lists(st.integers(0, 0xFFFFFFFF), max_size=4).map(tuple),
}
optional = [element for element in Element if element is not Element.GROUP_LENGTH]


@st.composite
def command_sets(draw: st.DrawFn) -> Command:
    values: dict[Element, Value] = {
        element: draw(_values[VR[element]]) for element in draw(st.sets(st.sampled_from(optional)))
    }
    for element in (Element.COMMAND_FIELD, Element.DATA_SET_TYPE, Element.MESSAGE_ID):
        values.setdefault(element, draw(st.integers(0, 0xFFFF)))
    values.setdefault(Element.MESSAGE_ID_BEING_RESPONDED_TO, 1)
    values.setdefault(Element.STATUS, 0)
    return Command(values)


@given(command_sets())
def test_a_command_set_survives_encoding(command: Command) -> None:
    encoded = encode(command)
    assert decode(encoded) == command
    assert len(encoded) % 2 == 0
    assert int.from_bytes(encoded[8:12], "little") == len(encoded) - 12


@given(command_sets())
def test_pynetdicom_reads_our_command_sets_as_we_do(command: Command) -> None:
    theirs = pynetdicom_decode(BytesIO(encode(command)), True, True)
    assert {element.tag for element in theirs} == {0, *command.values}
    for element, value in command.values.items():
        if isinstance(value, int):
            assert theirs[int(element)].value == value


@given(st.binary(max_size=120), st.binary(max_size=40))
def test_noise_is_read_or_refused_and_nothing_else(noise: bytes, tail: bytes) -> None:
    good = encode(request(commands.C_ECHO, 1, {Element.AFFECTED_SOP_CLASS_UID: CT}, data_set=False))
    for data in (noise, good + tail, good[: len(noise)] + tail, good[:12] + noise):
        try:
            decode(data)
        except ProtocolViolation:
            continue


# Captured from a socket: the C-ECHO-RQ of DCMTK 3.6.7's echoscu.
DCMTK_ECHO = bytes.fromhex(
    "0000000004000000380000000000020012000000312e322e3834302e31303030382e312e3100000000010200000030000000100102000000010000000008020000000101"
)


def test_an_echo_of_dcmtk_is_read_as_it_was_meant() -> None:
    command = decode(DCMTK_ECHO)
    assert (command.field, command.has_data_set, command.is_response) == (commands.C_ECHO, False, False)
    assert (command.number(Element.MESSAGE_ID), command.text(Element.AFFECTED_SOP_CLASS_UID)) == (
        1,
        "1.2.840.10008.1.1",
    )
    assert command.missing() == []


def test_a_response_holds_what_the_standard_asks() -> None:
    """PS3.7 tables 9.1-1 and 9.3-2: message ID echoed, UIDs echoed, no data set."""
    asked = request(
        commands.C_STORE, 7, {Element.AFFECTED_SOP_CLASS_UID: CT, Element.AFFECTED_SOP_INSTANCE_UID: "1.2.3"}, True
    )
    assert decode(encode(response_to(asked, 0xA700, "no room"))).values == {
        Element.AFFECTED_SOP_CLASS_UID: CT,
        Element.COMMAND_FIELD: 0x8001,
        Element.MESSAGE_ID_BEING_RESPONDED_TO: 7,
        Element.DATA_SET_TYPE: 0x0101,
        Element.STATUS: 0xA700,
        Element.ERROR_COMMENT: "no room",
        Element.AFFECTED_SOP_INSTANCE_UID: "1.2.3",
    }
    assert Element.ERROR_COMMENT not in response_to(asked, 0).values


@pytest.mark.parametrize("length", [63, 64, 65, 1000])
def test_an_error_comment_has_at_most_64_characters(length: int) -> None:
    asked = request(commands.C_ECHO, 1, {}, False)
    assert len(response_to(asked, 1, "x" * length).text(Element.ERROR_COMMENT)) == min(length, 64)


def test_an_error_comment_is_plain_text() -> None:
    comment = response_to(request(commands.C_ECHO, 1, {}, False), 1, "a\\b\né").text(Element.ERROR_COMMENT)
    assert comment == "a?b??"


@pytest.mark.parametrize("field", sorted(OPERATIONS))
def test_each_operation_says_what_it_misses(field: int) -> None:
    row = OPERATIONS[field]
    bare = Command({Element.COMMAND_FIELD: field, Element.MESSAGE_ID: 1, Element.DATA_SET_TYPE: 0x0101})
    assert bare.missing() == list(row.required)
    filled: dict[Element, Value] = {element: 1 if VR[element] == "US" else "1.2" for element in row.required}
    assert Command({**bare.values, **filled}).missing() == []
    assert set(row.echoed) & set(filled) <= set(response_to(Command({**bare.values, **filled}), 0).values)


def element(number: int, raw: bytes, group: int = 0) -> bytes:
    return pack("<HHI", group, number, len(raw)) + raw


GOOD = {0x0100: b"\x30\0", 0x0110: b"\1\0", 0x0800: b"\1\1"}


def command_set(**changes: bytes) -> bytes:
    values = GOOD | {int(name[1:], 16): raw for name, raw in changes.items()}
    return b"".join(element(number, raw) for number, raw in values.items() if raw)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        command_set()[:-1],
        command_set()[:5],
        command_set(_0100=b""),
        command_set(_0800=b""),
        command_set(_0110=b""),
        command_set(_0110=b"\1"),
        command_set(_0110=b"\1\0\0\0"),
        command_set(_0901=b"\1\0\0"),
        command_set(_0100=b"\x30\x80"),  # a response to nothing
        command_set(_0100=b"\x30\x80", _0120=b"\1\0"),  # without status
        command_set(_0100=b"\xff\x0f"),  # a cancel of nothing
        command_set() + element(0x0110, b"\1\0"),
        command_set() + element(0x0010, b"A ", group=8),
        command_set() + pack("<HHI", 0, 0x0902, 0xFFFFFFFF),
    ],
)
def test_what_is_no_command_set_is_refused(damaged: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode(damaged)


def test_unknown_elements_and_a_wrong_group_length_are_passed_over() -> None:
    data = element(0, b"\xff\xff\xff\xff") + element(0x5555, b"odd") + command_set()
    assert decode(data) == decode(command_set())


def test_a_message_is_a_command_set_and_then_its_data_set() -> None:
    reader = MessageReader()
    store = encode(request(commands.C_STORE, 1, {}, data_set=True))
    echo = encode(request(commands.C_ECHO, 1, {}, data_set=False))
    assert reader.command(CommandReceived(1, store)).context_id == 1
    seen = [reader.in_data_set]
    reader.data(DataReceived(1, memoryview(b"ab"), False))
    with pytest.raises(ProtocolViolation, match="before its forerunner"):
        reader.command(CommandReceived(1, echo))
    with pytest.raises(ProtocolViolation, match="context 3"):
        reader.data(DataReceived(3, memoryview(b"ab"), False))
    reader.data(DataReceived(1, memoryview(b""), True))
    seen.append(reader.in_data_set)
    with pytest.raises(ProtocolViolation, match="no command announced"):
        reader.data(DataReceived(1, memoryview(b"ab"), True))
    assert reader.command(CommandReceived(1, echo)).command.field == commands.C_ECHO
    assert [*seen, reader.in_data_set] == [True, False, False]

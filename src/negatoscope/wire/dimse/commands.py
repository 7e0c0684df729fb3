"""Command sets, PS3.7 annex E: one table of elements, one of operations, a bounded codec.

A command set is implicit little endian, group 0000 only. There is no class a message: what a
request must hold is a row of :data:`OPERATIONS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import pack, unpack_from

from negatoscope.wire.dul.items import NOT_SPECIFIED, ProtocolViolation

Value = int | str | tuple[int, ...]
NO_DATA_SET = 0x0101  # Command Data Set Type: nothing follows
DATA_SET = 0x0001  # any other value: a data set follows
RESPONSE = 0x8000  # bit of the command field
SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
MEDIUM_PRIORITY = 0x0000


class Element(IntEnum):
    """Element numbers of group 0000, PS3.7 tables E.1-1 and E.2-1."""

    GROUP_LENGTH = 0x0000
    LENGTH_TO_END = 0x0001
    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    MOVE_DESTINATION = 0x0600
    PRIORITY = 0x0700
    DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    OFFENDING_ELEMENT = 0x0901
    ERROR_COMMENT = 0x0902
    ERROR_ID = 0x0903
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ATTRIBUTE_IDENTIFIER_LIST = 0x1005
    ACTION_TYPE_ID = 0x1008
    REMAINING_SUBOPERATIONS = 0x1020
    COMPLETED_SUBOPERATIONS = 0x1021
    FAILED_SUBOPERATIONS = 0x1022
    WARNING_SUBOPERATIONS = 0x1023
    MOVE_ORIGINATOR_TITLE = 0x1030
    MOVE_ORIGINATOR_MESSAGE_ID = 0x1031


_E = Element
VR: dict[Element, str] = {
    **dict.fromkeys(Element, "US"),
    **dict.fromkeys((_E.GROUP_LENGTH, _E.LENGTH_TO_END), "UL"),
    **dict.fromkeys((_E.AFFECTED_SOP_CLASS_UID, _E.REQUESTED_SOP_CLASS_UID), "UI"),
    **dict.fromkeys((_E.AFFECTED_SOP_INSTANCE_UID, _E.REQUESTED_SOP_INSTANCE_UID), "UI"),
    **dict.fromkeys((_E.MOVE_DESTINATION, _E.MOVE_ORIGINATOR_TITLE), "AE"),
    **dict.fromkeys((_E.OFFENDING_ELEMENT, _E.ATTRIBUTE_IDENTIFIER_LIST), "AT"),
    _E.ERROR_COMMENT: "LO",
}
LONGEST_COMMENT = 64  # characters of an LO
_ELEMENTS = {int(element): element for element in Element}


@dataclass(frozen=True, slots=True)
class Operation:
    """One row: what a request of this kind holds besides its Message ID (PS3.7 9.3, 10.3)."""

    name: str
    required: tuple[Element, ...]
    echoed: tuple[Element, ...]  # copied from the request into its response, where present


_AFFECTED = (_E.AFFECTED_SOP_CLASS_UID, _E.AFFECTED_SOP_INSTANCE_UID)
_REQUESTED = (_E.REQUESTED_SOP_CLASS_UID, _E.REQUESTED_SOP_INSTANCE_UID)
_CLASS = (_E.AFFECTED_SOP_CLASS_UID,)

C_STORE, C_GET, C_FIND, C_MOVE, C_ECHO, C_CANCEL = 0x0001, 0x0010, 0x0020, 0x0021, 0x0030, 0x0FFF
N_EVENT_REPORT, N_GET, N_SET, N_ACTION, N_CREATE, N_DELETE = 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150

OPERATIONS: dict[int, Operation] = {
    C_STORE: Operation("C-STORE", _AFFECTED, _AFFECTED),
    C_GET: Operation("C-GET", _CLASS, _CLASS),
    C_FIND: Operation("C-FIND", _CLASS, _CLASS),
    C_MOVE: Operation("C-MOVE", (*_CLASS, _E.MOVE_DESTINATION), _CLASS),
    C_ECHO: Operation("C-ECHO", _CLASS, _CLASS),
    C_CANCEL: Operation("C-CANCEL", (), ()),
    N_EVENT_REPORT: Operation("N-EVENT-REPORT", (*_AFFECTED, _E.EVENT_TYPE_ID), (*_AFFECTED, _E.EVENT_TYPE_ID)),
    N_GET: Operation("N-GET", _REQUESTED, ()),
    N_SET: Operation("N-SET", _REQUESTED, ()),
    N_ACTION: Operation("N-ACTION", (*_REQUESTED, _E.ACTION_TYPE_ID), (_E.ACTION_TYPE_ID,)),
    N_CREATE: Operation("N-CREATE", _CLASS, _AFFECTED),
    N_DELETE: Operation("N-DELETE", _REQUESTED, ()),
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command set. It always has a command field, a data set type, and the message ID of its kind."""

    values: Mapping[Element, Value]

    def number(self, element: Element) -> int:
        """An element that is a number; KeyError when absent."""
        value = self.values[element]
        assert isinstance(value, int), element
        return value

    def text(self, element: Element) -> str:
        """An element that is text, "" when absent."""
        value = self.values.get(element, "")
        assert isinstance(value, str), element
        return value

    @property
    def field(self) -> int:
        return self.number(Element.COMMAND_FIELD)

    @property
    def message_id(self) -> int:
        """Of a request."""
        return self.number(Element.MESSAGE_ID)

    @property
    def is_response(self) -> bool:
        return bool(self.field & RESPONSE)

    @property
    def has_data_set(self) -> bool:
        return self.number(Element.DATA_SET_TYPE) != NO_DATA_SET

    @property
    def status(self) -> int:
        """Status of a response."""
        return self.number(Element.STATUS)

    def missing(self) -> list[Element]:
        """What a request of its kind must hold and this one does not."""
        row = OPERATIONS.get(self.field)
        return [element for element in row.required if not self.values.get(element, "")] if row else []


def request(field: int, message_id: int, values: Mapping[Element, Value], data_set: bool) -> Command:
    """A request of ours."""
    return Command(
        {
            Element.COMMAND_FIELD: field,
            Element.MESSAGE_ID: message_id,
            Element.DATA_SET_TYPE: DATA_SET if data_set else NO_DATA_SET,
            **values,
        }
    )


def response_to(
    command: Command,
    status: int,
    comment: str = "",
    values: Mapping[Element, Value] | None = None,
    data_set: bool = False,
) -> Command:
    """The response to ``command``: its message ID, its UIDs, a status, and why if it is not success.

    ``comment`` is cut to 64 characters; it never carries anything of a patient.
    """
    row = OPERATIONS.get(command.field)
    answer: dict[Element, Value] = {
        Element.COMMAND_FIELD: command.field | RESPONSE,
        Element.MESSAGE_ID_BEING_RESPONDED_TO: command.number(Element.MESSAGE_ID),
        Element.DATA_SET_TYPE: DATA_SET if data_set else NO_DATA_SET,
        Element.STATUS: status,
    }
    for element in row.echoed if row else _AFFECTED:
        if command.values.get(element):
            answer[element] = command.values[element]
    if comment:
        answer[Element.ERROR_COMMENT] = _comment(comment)
    return Command(answer | dict(values or {}))


def _comment(comment: str) -> str:
    """An LO: printable ASCII, no backslash, 64 characters at most."""
    plain = "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in comment)
    return plain[:LONGEST_COMMENT].strip()


def encode(command: Command) -> bytes:
    """The bytes of a command set, group length first, elements in ascending order.

    ValueError for a value that its representation cannot hold.
    """
    body = b"".join(
        _encode_element(element, command.values[element])
        for element in sorted(command.values)
        if element is not Element.GROUP_LENGTH
    )
    return pack("<HHII", 0, 0, 4, len(body)) + body


def _encode_element(element: Element, value: Value) -> bytes:
    kind = VR[element]
    if isinstance(value, tuple):
        raw = b"".join(pack("<HH", tag >> 16, tag & 0xFFFF) for tag in value)
    elif isinstance(value, int):
        raw = value.to_bytes(4 if kind == "UL" else 2, "little")
    else:
        raw = value.encode("latin-1")
        raw += (b"\0" if kind == "UI" else b" ") * (len(raw) & 1)
    return pack("<HHI", 0, element, len(raw)) + raw


def decode(data: bytes) -> Command:
    """Read a command set. Unknown elements are passed over, whatever their order.

    Raises:
        ProtocolViolation: not a command set, or without the elements that every one has.
    """
    values: dict[Element, Value] = {}
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < 8:
            raise _violation("an element header is cut off")
        group, number, length = unpack_from("<HHI", data, offset)
        offset += 8
        if group != 0:
            raise _violation(f"group {group:04X} in a command set")
        if length > end - offset:
            raise _violation(f"element {number:04X} of {length} bytes, {end - offset} left")
        element = _ELEMENTS.get(number)
        if element is not None:
            if element in values:
                raise _violation(f"element {number:04X} is there twice")
            values[element] = _decode_value(element, data[offset : offset + length])
        offset += length
    values.pop(Element.GROUP_LENGTH, None)
    _check(values)
    return Command(values)


def _decode_value(element: Element, raw: bytes) -> Value:
    kind = VR[element]
    if kind in ("US", "UL"):
        if len(raw) != (2 if kind == "US" else 4):
            raise _violation(f"element {element:04X} of {len(raw)} bytes is not a {kind}")
        return int.from_bytes(raw, "little")
    if kind == "AT":
        if len(raw) % 4:
            raise _violation(f"element {element:04X} of {len(raw)} bytes is not a list of tags")
        return tuple(
            group << 16 | number
            for group, number in (unpack_from("<HH", raw, offset) for offset in range(0, len(raw), 4))
        )
    return raw.decode("latin-1").strip("\0 ")


def _check(values: Mapping[Element, Value]) -> None:
    for element in (Element.COMMAND_FIELD, Element.DATA_SET_TYPE):
        if element not in values:
            raise _violation(f"no element {element:04X}")
    field = values[Element.COMMAND_FIELD]
    assert isinstance(field, int)
    if field & RESPONSE:
        needed: tuple[Element, ...] = (Element.MESSAGE_ID_BEING_RESPONDED_TO, Element.STATUS)
    elif field == C_CANCEL:
        needed = (Element.MESSAGE_ID_BEING_RESPONDED_TO,)
    else:
        needed = (Element.MESSAGE_ID,)
    for element in needed:
        if element not in values:
            raise _violation(f"command {field:04X} without element {element:04X}")


def _violation(detail: str) -> ProtocolViolation:
    return ProtocolViolation(NOT_SPECIFIED, detail)

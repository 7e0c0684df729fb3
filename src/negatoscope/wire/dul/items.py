"""The items of A-ASSOCIATE PDUs: PS3.8 9.3.2-9.3.3 and annex D, PS3.7 annex D.3.3.

Every decoder takes a view that ends where the item ends, and raises :class:`ProtocolViolation`
for anything that does not fit in it. Items of a kind we do not know are passed over, as PS3.8
9.3.1 asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from struct import pack, unpack_from
from typing import Any

IMPLEMENTATION_CLASS_UID = "2.25.6338610091866896191376459649301875319"
IMPLEMENTATION_VERSION_NAME = "NEGATOSCOPE_0.1"

USER_SOURCE, PROVIDER_SOURCE = 0, 2  # of an A-ABORT, PS3.8 table 9-26
NOT_SPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 0, 1, 2, 6

_APPLICATION_CONTEXT = 0x10
_CONTEXT_PROPOSED, _CONTEXT_ANSWERED = 0x20, 0x21
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_USER_INFORMATION = 0x50
_MAXIMUM_LENGTH, _IMPLEMENTATION_CLASS, _ASYNCHRONOUS, _ROLE, _IMPLEMENTATION_VERSION = 0x51, 0x52, 0x53, 0x54, 0x55
_EXTENDED, _COMMON_EXTENDED, _USER_IDENTITY, _USER_IDENTITY_ANSWER = 0x56, 0x57, 0x58, 0x59


class ProtocolViolation(Exception):
    """The peer broke PS3.8 or PS3.7; the association ends with an A-ABORT.

    ``reason`` is the one of table 9-26 (it leaves only with the provider as source). ``str()``
    goes to the log and holds numbers and UIDs only.
    """

    def __init__(self, reason: int, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class PresentationContext:
    """A presentation context as proposed."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextAnswer:
    """The answer to one proposed context; ``transfer_syntax`` counts only when accepted."""

    context_id: int
    result: int  # 0 accepted, 1 user-rejection, 2 no-reason, 3 abstract, 4 transfer syntaxes not supported
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AsynchronousOperations:
    """How many operations may be outstanding; 0 is without limit (PS3.7 D.3.3.3)."""

    invoked: int
    performed: int


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """Whether the association requestor takes the SCU role, the SCP role (PS3.7 D.3.3.4)."""

    sop_class_uid: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class ExtendedNegotiation:
    """Service-class application information of one SOP class (PS3.7 D.3.3.5)."""

    sop_class_uid: str
    information: bytes


@dataclass(frozen=True, slots=True)
class CommonExtendedNegotiation:
    """The service class, and more general classes, of a SOP class (PS3.7 D.3.3.6)."""

    sop_class_uid: str
    service_class_uid: str
    related_general: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Who asks, as the peer says (PS3.7 D.3.3.7). The fields are secrets: never shown."""

    kind: int  # 1 user name, 2 user name and passcode, 3 Kerberos, 4 SAML, 5 JSON web token
    positive_response: bool  # an answer is wanted
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class UserInformation:
    """The user information item, of a request or of an acceptance."""

    maximum_length: int = 0  # longest PDU that the sender of this item takes; 0 is without limit
    implementation_class_uid: str = IMPLEMENTATION_CLASS_UID
    implementation_version_name: str = IMPLEMENTATION_VERSION_NAME
    asynchronous_operations: AsynchronousOperations | None = None
    roles: tuple[RoleSelection, ...] = ()
    extended: tuple[ExtendedNegotiation, ...] = ()
    common_extended: tuple[CommonExtendedNegotiation, ...] = ()
    user_identity: UserIdentity | None = None  # in a request
    identity_answer: bytes | None = field(default=None, repr=False)  # in an acceptance


def walk(view: memoryview, where: str) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of each item of ``view``. Raises ProtocolViolation when one does not fit."""
    offset, end = 0, len(view)
    while offset < end:
        if end - offset < 4:
            raise ProtocolViolation(INVALID_PARAMETER, f"item header cut off in {where}")
        kind, length = unpack_from(">BxH", view, offset)
        offset += 4
        if length > end - offset:
            raise ProtocolViolation(INVALID_PARAMETER, f"item of {length} bytes, {end - offset} left in {where}")
        yield kind, view[offset : offset + length]
        offset += length


def item(kind: int, content: bytes) -> bytes:
    """An item with its header. ValueError when the content cannot be that long."""
    if len(content) > 0xFFFF:
        raise ValueError(f"item 0x{kind:02X} of {len(content)} bytes, 65535 at most")
    return pack(">BxH", kind, len(content)) + content


def text(raw: memoryview | bytes) -> str:
    """A UID or a name; old peers pad them with NUL or space. Never fails: policy judges what it says."""
    return bytes(raw).decode("latin-1").strip("\0 ")


class _Fields:
    """Reads the fields of one sub-item in order."""

    def __init__(self, view: memoryview, where: str) -> None:
        self._view, self._where, self._offset = view, where, 0

    def take(self, count: int) -> memoryview:
        start, self._offset = self._offset, self._offset + count
        if self._offset > len(self._view):
            raise ProtocolViolation(INVALID_PARAMETER, f"{self._where} ends inside a field of {count} bytes")
        return self._view[start : self._offset]

    def byte(self) -> int:
        return self.take(1)[0]

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def counted(self) -> memoryview:
        """A field led by its length in two bytes."""
        return self.take(self.short())

    def rest(self) -> memoryview:
        return self._view[self._offset :]


def decode_items(
    view: memoryview,
) -> tuple[str, list[PresentationContext], list[ContextAnswer], UserInformation]:
    """Application context, contexts proposed, contexts answered, user information of a PDU's variable part.

    What is absent is "", [] or a UserInformation of empty names and no limits.
    """
    application_context: str | None = None
    proposed: list[PresentationContext] = []
    answered: list[ContextAnswer] = []
    user: UserInformation | None = None
    for kind, content in walk(view, "associate PDU"):
        if kind == _APPLICATION_CONTEXT and application_context is None:
            application_context = text(content)
        elif kind == _CONTEXT_PROPOSED:
            proposed.append(_decode_proposed(content))
        elif kind == _CONTEXT_ANSWERED:
            answered.append(_decode_answered(content))
        elif kind == _USER_INFORMATION and user is None:
            user = _decode_user(content)
    return application_context or "", proposed, answered, user or UserInformation(0, "", "")


def _decode_proposed(view: memoryview) -> PresentationContext:
    context_id = _context_head(view)[0]
    abstract: str | None = None
    transfer: list[str] = []
    for kind, content in walk(view[4:], "presentation context"):
        if kind == _ABSTRACT_SYNTAX:
            if abstract is not None:
                raise ProtocolViolation(INVALID_PARAMETER, f"context {context_id} has two abstract syntaxes")
            abstract = text(content)
        elif kind == _TRANSFER_SYNTAX:
            transfer.append(text(content))
    if abstract is None:
        raise ProtocolViolation(INVALID_PARAMETER, f"context {context_id} has no abstract syntax")
    return PresentationContext(context_id, abstract, tuple(transfer))


def _decode_answered(view: memoryview) -> ContextAnswer:
    context_id, result = _context_head(view)
    syntaxes = [text(content) for kind, content in walk(view[4:], "context answer") if kind == _TRANSFER_SYNTAX]
    return ContextAnswer(context_id, result, syntaxes[0] if syntaxes else "")


def _context_head(view: memoryview) -> tuple[int, int]:
    """Identifier and result of a presentation context item."""
    if len(view) < 4:
        raise ProtocolViolation(INVALID_PARAMETER, f"presentation context of {len(view)} bytes")
    return view[0], view[2]


def _decode_user(view: memoryview) -> UserInformation:
    found: dict[str, Any] = {}
    for kind, content in walk(view, "user information"):
        if kind not in _USER_ITEMS:
            continue
        name, decode, repeated = _USER_ITEMS[kind]
        value = decode(_Fields(content, f"sub-item 0x{kind:02X}"))
        if repeated:
            found[name] = (*found.get(name, ()), value)
        else:
            found.setdefault(name, value)
    return replace(UserInformation(0, "", ""), **found)


def _decode_role(fields: _Fields) -> RoleSelection:
    return RoleSelection(text(fields.counted()), fields.byte() == 1, fields.byte() == 1)


def _decode_common_extended(fields: _Fields) -> CommonExtendedNegotiation:
    sop_class, service_class = text(fields.counted()), text(fields.counted())
    names = _Fields(fields.counted(), "related general SOP classes")
    related = []
    while names.rest():
        related.append(text(names.counted()))
    return CommonExtendedNegotiation(sop_class, service_class, tuple(related))


def _decode_user_identity(fields: _Fields) -> UserIdentity:
    kind, wanted = fields.byte(), fields.byte() == 1
    return UserIdentity(kind, wanted, bytes(fields.counted()), bytes(fields.counted()))


# Type: the field of UserInformation, how it is read, whether there may be many.
_USER_ITEMS: dict[int, tuple[str, Callable[[_Fields], Any], bool]] = {
    _MAXIMUM_LENGTH: ("maximum_length", lambda fields: int.from_bytes(fields.take(4), "big"), False),
    _IMPLEMENTATION_CLASS: ("implementation_class_uid", lambda fields: text(fields.rest()), False),
    _IMPLEMENTATION_VERSION: ("implementation_version_name", lambda fields: text(fields.rest()), False),
    _ASYNCHRONOUS: (
        "asynchronous_operations",
        lambda fields: AsynchronousOperations(fields.short(), fields.short()),
        False,
    ),
    _ROLE: ("roles", _decode_role, True),
    _EXTENDED: ("extended", lambda fields: ExtendedNegotiation(text(fields.counted()), bytes(fields.rest())), True),
    _COMMON_EXTENDED: ("common_extended", _decode_common_extended, True),
    _USER_IDENTITY: ("user_identity", _decode_user_identity, False),
    _USER_IDENTITY_ANSWER: ("identity_answer", lambda fields: bytes(fields.counted()), False),
}


def _name(value: str) -> bytes:
    """A UID or a name as bytes; ValueError when it holds what no such field can."""
    return value.encode("latin-1")


def _counted(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError(f"field of {len(value)} bytes, 65535 at most")
    return pack(">H", len(value)) + value


def encode_application_context(uid: str) -> bytes:
    return item(_APPLICATION_CONTEXT, _name(uid))


def encode_proposed(context: PresentationContext) -> bytes:
    syntaxes = b"".join(item(_TRANSFER_SYNTAX, _name(uid)) for uid in context.transfer_syntaxes)
    head = pack(">Bxxx", context.context_id)
    return item(_CONTEXT_PROPOSED, head + item(_ABSTRACT_SYNTAX, _name(context.abstract_syntax)) + syntaxes)


def encode_answered(answer: ContextAnswer) -> bytes:
    head = pack(">BxBx", answer.context_id, answer.result)
    return item(_CONTEXT_ANSWERED, head + item(_TRANSFER_SYNTAX, _name(answer.transfer_syntax)))


def encode_user(user: UserInformation) -> bytes:
    """The user information item. Sub-items stand in the order of their types, as PS3.7 lists them."""
    parts = [item(_MAXIMUM_LENGTH, pack(">I", user.maximum_length))]
    if user.implementation_class_uid:
        parts.append(item(_IMPLEMENTATION_CLASS, _name(user.implementation_class_uid)))
    if window := user.asynchronous_operations:
        parts.append(item(_ASYNCHRONOUS, pack(">HH", window.invoked, window.performed)))
    for role in user.roles:
        parts.append(item(_ROLE, _counted(_name(role.sop_class_uid)) + bytes([role.scu, role.scp])))
    if user.implementation_version_name:
        parts.append(item(_IMPLEMENTATION_VERSION, _name(user.implementation_version_name)))
    for extended in user.extended:
        parts.append(item(_EXTENDED, _counted(_name(extended.sop_class_uid)) + extended.information))
    for common in user.common_extended:
        related = b"".join(_counted(_name(uid)) for uid in common.related_general)
        names = _counted(_name(common.sop_class_uid)) + _counted(_name(common.service_class_uid))
        parts.append(item(_COMMON_EXTENDED, names + _counted(related)))
    if identity := user.user_identity:
        head = bytes([identity.kind, identity.positive_response])
        parts.append(item(_USER_IDENTITY, head + _counted(identity.primary) + _counted(identity.secondary)))
    if user.identity_answer is not None:
        parts.append(item(_USER_IDENTITY_ANSWER, _counted(user.identity_answer)))
    return item(_USER_INFORMATION, b"".join(parts))

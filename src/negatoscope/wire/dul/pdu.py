"""The seven PDUs of PS3.8 9.3: dataclasses, encoders, decoders of bodies.

A body is all that follows the six-byte header. P-DATA-TF has no class: its body is never in
memory as a whole (``association.py``), :func:`data_pdus` cuts what is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from struct import pack

from negatoscope.wire.dul import items
from negatoscope.wire.dul.items import (
    INVALID_PARAMETER,
    ContextAnswer,
    PresentationContext,
    ProtocolViolation,
    UserInformation,
)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
HEADER = 6  # bytes: type, reserved, length in four bytes big endian
ASSOCIATE_FIXED = 68  # bytes of an A-ASSOCIATE body before its items
PDV_HEADER = 6  # bytes: length in four bytes, context, message control
Buffer = bytes | bytearray | memoryview


class PDUType(IntEnum):
    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ, PS3.8 9.3.2."""

    called_title: str
    calling_title: str
    contexts: tuple[PresentationContext, ...]
    user: UserInformation = field(default_factory=UserInformation)
    application_context: str = APPLICATION_CONTEXT
    version: int = 1  # a bit a version; bit 0 is version 1
    echo: bytes = field(default=b"", compare=False, repr=False)  # the 64 bytes that an acceptance sends back


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """A-ASSOCIATE-AC, PS3.8 9.3.3."""

    contexts: tuple[ContextAnswer, ...]
    user: UserInformation = field(default_factory=UserInformation)
    application_context: str = APPLICATION_CONTEXT
    echo: bytes = field(default=bytes(64), repr=False)  # titles and reserved field of the request, as they came


@dataclass(frozen=True, slots=True)
class AssociateReject:
    """A-ASSOCIATE-RJ, PS3.8 9.3.4. The class's constants are the rejections that we send."""

    result: int  # 1 permanent, 2 transient
    source: int  # 1 service user, 2 provider (ACSE), 3 provider (presentation)
    reason: int


NO_REASON = AssociateReject(1, 1, 1)
APPLICATION_CONTEXT_UNKNOWN = AssociateReject(1, 1, 2)
CALLING_TITLE_UNKNOWN = AssociateReject(1, 1, 3)
CALLED_TITLE_UNKNOWN = AssociateReject(1, 1, 7)
VERSION_UNSUPPORTED = AssociateReject(1, 2, 2)
TEMPORARY_CONGESTION = AssociateReject(2, 3, 1)
LOCAL_LIMIT_EXCEEDED = AssociateReject(2, 3, 2)


def decode_associate_request(body: Buffer, contexts_limit: int) -> AssociateRequest:
    """Raises ProtocolViolation for a body that is not one, or that proposes too many contexts."""
    view = _associate_body(body)
    application_context, proposed, _, user = items.decode_items(view[ASSOCIATE_FIXED:])
    _check_contexts([context.context_id for context in proposed], contexts_limit)
    _check_maximum_length(user)
    return AssociateRequest(
        items.text(view[4:20]),
        items.text(view[20:36]),
        tuple(proposed),
        user,
        application_context,
        int.from_bytes(view[:2], "big"),
        bytes(view[4:ASSOCIATE_FIXED]),
    )


def decode_associate_accept(body: Buffer, contexts_limit: int) -> AssociateAccept:
    """Raises ProtocolViolation for a body that is not one."""
    view = _associate_body(body)
    application_context, _, answered, user = items.decode_items(view[ASSOCIATE_FIXED:])
    _check_contexts([answer.context_id for answer in answered], contexts_limit)
    _check_maximum_length(user)
    return AssociateAccept(tuple(answered), user, application_context, bytes(view[4:ASSOCIATE_FIXED]))


def decode_associate_reject(body: Buffer) -> AssociateReject:
    return AssociateReject(*bytes(body)[1:4])


def decode_abort(body: Buffer) -> tuple[int, int]:
    """Source and reason."""
    return body[2], body[3]


def _associate_body(body: Buffer) -> memoryview:
    if len(body) < ASSOCIATE_FIXED:
        raise ProtocolViolation(INVALID_PARAMETER, f"associate body of {len(body)} bytes")
    return memoryview(body)


def _check_contexts(identifiers: list[int], limit: int) -> None:
    if len(identifiers) > limit:
        raise ProtocolViolation(INVALID_PARAMETER, f"{len(identifiers)} presentation contexts, {limit} allowed")
    if len(set(identifiers)) < len(identifiers):
        raise ProtocolViolation(INVALID_PARAMETER, "two presentation contexts share an identifier")


def _check_maximum_length(user: UserInformation) -> None:
    """Into a PDU shorter than this no fragment of even length fits, so nothing could ever be answered."""
    if 0 < user.maximum_length < PDV_HEADER + 2:
        raise ProtocolViolation(INVALID_PARAMETER, f"maximum length {user.maximum_length} holds no fragment")


def _pdu(kind: PDUType, body: bytes) -> bytes:
    return pack(">BxI", kind, len(body)) + body


def _title(title: str) -> bytes:
    """ValueError for a title that has no form on the wire (PS3.8 table 9-11, PS3.5 AE)."""
    if not 1 <= len(title) <= 16 or not title.isascii():
        raise ValueError(f"AE title {title!r} is not 1 to 16 ASCII characters")
    return title.encode("ascii").ljust(16)


def encode_associate_request(request: AssociateRequest) -> bytes:
    fixed = pack(">Hxx", request.version) + _title(request.called_title) + _title(request.calling_title) + bytes(32)
    contexts = b"".join(map(items.encode_proposed, request.contexts))
    context = items.encode_application_context(request.application_context)
    return _pdu(PDUType.ASSOCIATE_RQ, fixed + context + contexts + items.encode_user(request.user))


def encode_associate_accept(accept: AssociateAccept) -> bytes:
    fixed = pack(">Hxx", 1) + accept.echo
    contexts = b"".join(map(items.encode_answered, accept.contexts))
    context = items.encode_application_context(accept.application_context)
    return _pdu(PDUType.ASSOCIATE_AC, fixed + context + contexts + items.encode_user(accept.user))


def encode_associate_reject(reject: AssociateReject) -> bytes:
    return _pdu(PDUType.ASSOCIATE_RJ, bytes([0, reject.result, reject.source, reject.reason]))


def encode_release_request() -> bytes:
    return _pdu(PDUType.RELEASE_RQ, bytes(4))


def encode_release_response() -> bytes:
    return _pdu(PDUType.RELEASE_RP, bytes(4))


def encode_abort(source: int, reason: int) -> bytes:
    return _pdu(PDUType.ABORT, bytes([0, 0, source, reason]))


def data_pdu(context_id: int, payload: bytes, command: bool) -> bytes:
    """One P-DATA-TF that holds a whole command set or data set."""
    size = len(payload)
    return pack(">BxIIBB", PDUType.P_DATA_TF, size + PDV_HEADER, size + 2, context_id, command | 2) + payload


def data_pdus(
    context_id: int, payload: Buffer, command: bool, maximum_length: int, last: bool = True
) -> Iterator[tuple[bytes, memoryview]]:
    """P-DATA-TF PDUs of one PDV each that carry ``payload``: (headers of PDU and PDV, fragment).

    Fragments are views of ``payload``, nothing is copied. ``maximum_length`` (8 at least) bounds the
    body of each PDU; fragments but the last are even (PS3.8 annex E). With ``last`` the final
    fragment ends the command or data set; an empty payload gives one empty fragment.
    """
    view = memoryview(payload)
    step = (maximum_length - PDV_HEADER) & ~1
    for start in range(0, max(len(view), 1), step):
        fragment = view[start : start + step]
        control = command | (last and start + step >= len(view)) << 1
        size = len(fragment)
        yield pack(">BxIIBB", PDUType.P_DATA_TF, size + PDV_HEADER, size + 2, context_id, control), fragment

"""What the upper layer tells its shell. All frozen; nothing here is ever None by surprise."""

from __future__ import annotations

from dataclasses import dataclass

from negatoscope.wire.dul.pdu import AssociateAccept, AssociateReject, AssociateRequest


@dataclass(frozen=True, slots=True)
class AssociationRequested:
    """Answer with ``accept`` or ``reject``."""

    request: AssociateRequest


@dataclass(frozen=True, slots=True)
class AssociationAccepted:
    accept: AssociateAccept


@dataclass(frozen=True, slots=True)
class AssociationRejected:
    """Close the connection."""

    reject: AssociateReject


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A whole command set, PS3.7 E."""

    context_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class DataReceived:
    """The next bytes of a data set, as they came: not a whole PDV, let alone a PDU.

    ``data`` is a view of the buffer given to ``receive``: good until that buffer is used again.
    ``last`` means that the data set ends with these bytes (which may be none).
    """

    context_id: int
    data: memoryview
    last: bool


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """Answer with ``release_answer``."""


@dataclass(frozen=True, slots=True)
class Released:
    """Close the connection."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """The peer sent A-ABORT. Close the connection."""

    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class Violated:
    """The peer broke the protocol, or a time ran out: send ``reply`` (an A-ABORT), await the end."""

    reply: bytes
    detail: str  # for the log


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The transport ended while an association was on."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing is left to say: close the connection."""


Event = (
    AssociationRequested
    | AssociationAccepted
    | AssociationRejected
    | CommandReceived
    | DataReceived
    | ReleaseRequested
    | Released
    | Aborted
    | Violated
    | ConnectionLost
    | Ended
)

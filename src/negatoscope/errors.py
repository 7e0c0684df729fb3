"""One base, one table: each error that may reach a peer and its form on each wire.

Raise the narrowest class at the edge of meaning. The doors (``servers``, ``web``) never invent a
status: they ask :func:`wire_form`. A subclass without a row of its own takes its parent's.

Statuses: DIMSE PS3.4 B.2.3 and PS3.7 annex C; HTTP RFC 9110 and PS3.18; HL7 table 0008.
"""

from __future__ import annotations

from dataclasses import dataclass


class NegatoscopeError(Exception):
    """Something went wrong in the server.

    ``str(error)`` may be shown to the peer and written to logs, so it never carries a patient's
    name, identifier or birth date; UIDs, tags, sizes and limits are fine.
    """


class NotFound(NegatoscopeError):
    """Nothing here by that name. Also stands for "not yours": a UID tells a stranger nothing."""


class Unauthenticated(NegatoscopeError):
    """Valid credentials are needed."""


class Forbidden(NegatoscopeError):
    """The role does not allow this action (used only where existence is no secret)."""


class TooManyRequests(NegatoscopeError):
    """Too many attempts; try again later."""


class BadRequest(NegatoscopeError):
    """The request is not well formed."""


class AttributeFault(BadRequest):
    """An attribute of the request is missing or not what it may be."""

    def __init__(self, detail: str, *tags: int) -> None:
        super().__init__(detail)
        self.tags = tags  # for the Attribute Identifier List of a DIMSE response


class MissingAttribute(AttributeFault):
    """An attribute that is needed is missing."""


class MissingAttributeValue(AttributeFault):
    """An attribute that needs a value has none."""


class InvalidAttributeValue(AttributeFault):
    """An attribute has a value that it may not have."""


class PreconditionFailed(NegatoscopeError):
    """The state of the resource does not allow this."""


class StepEnded(PreconditionFailed):
    """The performed procedure step has ended and may no longer be updated."""


class NotAcceptable(NegatoscopeError):
    """None of the representations asked for can be had."""


class UnsupportedMediaType(NegatoscopeError):
    """The request body is of a kind this route does not take."""


class TooLarge(NegatoscopeError):
    """A declared or measured size is over its limit."""


class RangeNotSatisfiable(NegatoscopeError):
    """The byte range lies outside the value."""


class InvalidObject(NegatoscopeError):
    """The data set cannot be understood."""


class TruncatedObject(InvalidObject):
    """The data set ends before its declared end."""


class SequenceTooDeep(InvalidObject):
    """Sequences are nested deeper than the limit."""


class LimitExceeded(InvalidObject):
    """The data set holds more elements, values or frames than the limit."""


class MismatchedObject(InvalidObject):
    """Data set and announcement disagree, or a mandatory UID is missing or malformed."""


class UnsupportedSOPClass(NegatoscopeError):
    """The SOP Class is not one that this service keeps."""


class OutOfResources(NegatoscopeError):
    """No room left, or the reserve is reached. Reads go on; send again later."""


class Unavailable(NegatoscopeError):
    """The archive cannot commit at this moment; nothing was acknowledged. Send again."""


class CorruptObject(NegatoscopeError):
    """Stored bytes do not match their checksum; the location was set aside."""


class PixelsUnreadable(NegatoscopeError):
    """Pixel data cannot be decoded."""


class CannotTranscode(NotAcceptable):
    """This object cannot be had in the transfer syntax asked for."""


class Conflict(NegatoscopeError):
    """The same name is held with other content."""


class WorkitemNotClaimed(BadRequest):
    """The Transaction UID is missing or is not the one of the claim."""


class WorkitemEnded(BadRequest):
    """The workitem has ended and may no longer be updated."""


class WorkitemState(Conflict):
    """The request is inconsistent with the current state of the workitem."""


@dataclass(frozen=True, slots=True)
class WireForm:
    """How one error looks to each kind of peer."""

    dimse: int  # C-STORE-RSP status (0000,0900)
    http: int  # status code
    slug: str  # last part of the problem type, RFC 9457; also the key of the page's message
    hl7: str  # acknowledgement code, table 0008


WIRE_FORMS: dict[type[NegatoscopeError], WireForm] = {
    NegatoscopeError: WireForm(0x0110, 500, "internal-error", "AE"),
    NotFound: WireForm(0x0112, 404, "not-found", "AR"),
    Unauthenticated: WireForm(0x0124, 401, "unauthenticated", "AR"),
    Forbidden: WireForm(0x0124, 403, "forbidden", "AR"),
    TooManyRequests: WireForm(0x0213, 429, "too-many-requests", "AR"),
    BadRequest: WireForm(0x0115, 400, "bad-request", "AR"),
    AttributeFault: WireForm(0x0115, 400, "bad-request", "AR"),
    MissingAttribute: WireForm(0x0120, 400, "missing-attribute", "AR"),
    MissingAttributeValue: WireForm(0x0121, 400, "missing-attribute-value", "AR"),
    InvalidAttributeValue: WireForm(0x0106, 400, "invalid-attribute-value", "AR"),
    PreconditionFailed: WireForm(0x0110, 412, "precondition-failed", "AR"),
    StepEnded: WireForm(0x0110, 412, "step-ended", "AR"),
    NotAcceptable: WireForm(0x0122, 406, "not-acceptable", "AR"),
    UnsupportedMediaType: WireForm(0x0122, 415, "unsupported-media-type", "AR"),
    TooLarge: WireForm(0xC001, 413, "too-large", "AR"),
    RangeNotSatisfiable: WireForm(0x0110, 416, "range-not-satisfiable", "AR"),
    InvalidObject: WireForm(0xC000, 409, "cannot-understand", "AE"),
    TruncatedObject: WireForm(0xC002, 409, "truncated-object", "AE"),
    SequenceTooDeep: WireForm(0xC003, 409, "sequence-too-deep", "AE"),
    LimitExceeded: WireForm(0xC004, 409, "limit-exceeded", "AE"),
    MismatchedObject: WireForm(0xA900, 409, "data-set-mismatch", "AE"),
    UnsupportedSOPClass: WireForm(0x0122, 409, "sop-class-not-supported", "AR"),
    OutOfResources: WireForm(0xA700, 507, "out-of-resources", "AE"),
    Unavailable: WireForm(0xA700, 503, "unavailable", "AE"),
    CorruptObject: WireForm(0xC005, 500, "corrupt-object", "AE"),
    PixelsUnreadable: WireForm(0xC006, 422, "pixels-unreadable", "AE"),
    CannotTranscode: WireForm(0xC007, 406, "cannot-transcode", "AE"),
    Conflict: WireForm(0x0111, 409, "conflict", "AE"),
    WorkitemNotClaimed: WireForm(0xC301, 400, "workitem-not-claimed", "AR"),
    WorkitemEnded: WireForm(0xC300, 400, "workitem-ended", "AR"),
    WorkitemState: WireForm(0xC310, 409, "workitem-state", "AR"),
}


def wire_form(error: NegatoscopeError) -> WireForm:
    """The row of the nearest class of ``error``."""
    return next(WIRE_FORMS[kind] for kind in type(error).__mro__ if kind in WIRE_FORMS)


def title(error: NegatoscopeError) -> str:
    """The first sentence of the class's docstring: what a problem document shows as title."""
    doc = type(error).__doc__ or NegatoscopeError.__doc__ or ""
    return doc.strip().split("\n", 1)[0].split(". ", 1)[0].rstrip(".") + "."

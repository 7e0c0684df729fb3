"""The import page. The files go from the browser to STOW-RS; this is its frame and its words."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from negatoscope.errors import (
    WIRE_FORMS,
    InvalidObject,
    LimitExceeded,
    MismatchedObject,
    NegatoscopeError,
    OutOfResources,
    SequenceTooDeep,
    TooLarge,
    TruncatedObject,
    Unavailable,
    UnsupportedSOPClass,
)
from negatoscope.web.i18n import Speech
from negatoscope.web.pages.common import Visit, page


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


# Failure Reason (0008,1197) of a STOW answer is the error's DIMSE status: one table, read here too.
REASONS: dict[type[NegatoscopeError], str] = {
    InvalidObject: _("The file cannot be understood as DICOM."),
    TruncatedObject: _("The file ends too early."),
    SequenceTooDeep: _("The file nests sequences too deeply."),
    LimitExceeded: _("The file holds more elements than the limit."),
    MismatchedObject: _("A mandatory identifier is missing or malformed."),
    UnsupportedSOPClass: _("This kind of object is not kept."),
    OutOfResources: _("There is no room left. Send it again later."),
    Unavailable: _("The archive cannot answer now. Send it again later."),
    TooLarge: _("The file is too large."),
}
STATUSES = {
    401: _("Your session has ended. Sign in again, then import again."),
    403: _("You may not store images."),
    404: _("You may not store images."),
    413: _("The file is too large."),
    503: _("The archive cannot answer now. Send it again later."),
    507: _("There is no room left. Send it again later."),
}
ZIPS = {
    "zip": _("This is not a ZIP archive that can be read."),
    "zip-long": _("The archive holds too many files."),
    "zip-bomb": _("The archive inflates beyond the limit."),
    "zip-locked": _("The archive is protected by a password."),
    "zip-method": _("The archive is compressed in a way that browsers cannot read."),
}
WORDS = {
    "sending": _("Sending"),
    "stored": _("Stored"),
    "held": _("Set aside"),
    "refused": _("Refused"),
    "skipped": _("Skipped"),
    "summary": _("{stored} stored, {held} set aside, {refused} refused, {skipped} skipped, of {found}"),
    "foreign": _("Not a DICOM file."),
    "index": _("A disc's index, not an image."),
    "unreadable": _("The file cannot be read."),
    "warned": _("Kept aside: it contradicts what is already there. A referent decides."),
    "code": _("Refused, code {code}."),
    "status": _("The server answered {status}."),
}


def words_of(speech: Speech) -> dict[str, object]:
    """All that import.js says, in one language. Keys of reasons are decimal, as they stand in the answer."""
    say = speech.gettext
    return {
        **{name: say(text) for name, text in WORDS.items()},
        "reasons": {str(WIRE_FORMS[kind].dimse): say(text) for kind, text in REASONS.items()},
        "statuses": {str(status): say(text) for status, text in STATUSES.items()},
        "zips": {name: say(text) for name, text in ZIPS.items()},
    }


def show_import(request: Request, visit: Visit) -> Response:
    return page(request, visit, "import.html", {"words": words_of(visit.speech)}, section="import")

"""The audit trail, for data protection officers and administrators: searched, shown, exported.

A data protection officer sees what was done in the own establishment, an administrator everything. Both
leave an event of their own before anything is shown (PS3.15 A.5.3.2 Audit Log Used).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from itertools import chain
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from negatoscope.audit import AuditLine, AuditSearch, search_trail
from negatoscope.audit.events import audit_log_used
from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import BadRequest
from negatoscope.model.event import EventKind
from negatoscope.sharing import policy
from negatoscope.web.pages.common import Visit, page
from negatoscope.web.pages.services import pages_of

LINES = 50  # of one page
DAYS = 30  # looked back without a date: a year of a region is millions of events
EXPORTED = 10_000  # events of one file
LONGEST = 64  # characters of a field, those of a Patient ID
COLUMNS = ("sequence", "at", "kind", "action", "outcome", "person", "establishment_code", "address", "door", "purpose",
           "study_uid", "patient")  # fmt: skip


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


KINDS = {
    EventKind.USER_AUTHENTICATION: _("Sign-in"),
    EventKind.QUERY: _("Query"),
    EventKind.INSTANCES_ACCESSED: _("Images seen"),
    EventKind.INSTANCES_TRANSFERRED: _("Images transferred"),
    EventKind.BEGIN_TRANSFERRING: _("Transfer begun"),
    EventKind.DATA_EXPORT: _("Export"),
    EventKind.DATA_IMPORT: _("Import"),
    EventKind.STUDY_DELETED: _("Examination deleted"),
    EventKind.ORDER_RECORD: _("Order"),
    EventKind.PROCEDURE_RECORD: _("Procedure step"),
    EventKind.SECURITY_ALERT: _("Security"),
    EventKind.AUDIT_LOG_USED: _("Audit trail read"),
    EventKind.APPLICATION_ACTIVITY: _("Application activity"),
}
OUTCOMES = {"0": _("done"), "4": _("refused"), "8": _("serious failure"), "12": _("major failure")}
FIELDS = ("since", "until", "person", "patient", "study", "event")


@dataclass(frozen=True, slots=True)
class Asked:
    """The form as it was sent, and what it means."""

    form: dict[str, str]
    search: AuditSearch
    before: int | None

    def address(self, path: str, **more: object) -> str:
        """``path`` with this search."""
        return f"{path}?{urlencode({**{k: v for k, v in self.form.items() if v}, **more})}"


def asked_of(request: Request, today: date) -> Asked:
    """Days are whole days in UTC. Raises BadRequest."""
    form = {name: request.query_params.get(name, "").strip() for name in FIELDS}
    if any(len(value) > LONGEST for value in form.values()):
        raise BadRequest(f"a field has at most {LONGEST} characters")
    form["since"] = form["since"] or (today - timedelta(days=DAYS)).isoformat()
    if form["study"] and not is_valid_uid(form["study"]):
        raise BadRequest("the study is named by its UID")
    before = request.query_params.get("before", "")
    try:
        since = date.fromisoformat(form["since"])
        until = date.fromisoformat(form["until"]) if form["until"] else today
        kind = EventKind(form["event"]) if form["event"] else None
        last = int(before) if before else None
        end = _midnight(until + timedelta(days=1))
    except (ValueError, OverflowError) as error:
        raise BadRequest("a date, an event or a place in the list cannot be read") from error
    if last is not None and not 0 <= last < 1 << 63:
        raise BadRequest("no such place in the list")
    search = AuditSearch(_midnight(since), end, form["person"], form["patient"], form["study"], kind)
    return Asked(form, search, last)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def show_audit(request: Request, visit: Visit) -> Response:
    """One page of events; the next begins below the last sequence number shown."""
    asked, bounds = asked_of(request, datetime.now(UTC).date()), policy.audit_bounds(visit.signed_in)
    lines = search_trail(pages_of(request).database, bounds, asked.search, before=asked.before, most=LINES + 1)
    shown = lines[:LINES]
    _record_use(request, visit, asked, len(shown), "read")
    context = {
        "lines": shown,
        "form": asked.form,
        "kinds": {kind.value: label for kind, label in KINDS.items()},
        "outcomes": OUTCOMES,
        "older": asked.address("/audit", before=shown[-1].sequence) if len(lines) > LINES else "",
        "newest": asked.address("/audit") if asked.before else "",
        "export": asked.address("/audit/export.csv"),
        "exported": EXPORTED,
        "whole": bounds is None,
    }
    return page(request, visit, "audit.html", context, section="audit")


def export_audit(request: Request, visit: Visit) -> Response:
    """What the search finds, as a table (RFC 4180, UTF-8), newest first, at most ``EXPORTED`` events."""
    asked, bounds = asked_of(request, datetime.now(UTC).date()), policy.audit_bounds(visit.signed_in)
    _record_use(request, visit, asked, EXPORTED, "export")
    database = pages_of(request).database

    def parts() -> Iterator[str]:
        left, before = EXPORTED, None
        yield "\ufeff" + written([*COLUMNS, "detail"])  # the mark makes spreadsheets read UTF-8
        while left > 0:
            lines = search_trail(database, bounds, asked.search, before=before, most=min(1_000, left))
            if not lines:
                return
            yield "".join(written(cells_of(line)) for line in lines)
            left, before = left - len(lines), lines[-1].sequence

    rows = parts()
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"', "Cache-Control": "no-store"}
    first = [next(rows), next(rows, "")]  # the database is asked before the answer begins
    return StreamingResponse(chain(first, rows), media_type="text/csv; charset=utf-8", headers=headers)


def cells_of(line: AuditLine) -> list[str]:
    values = [line.at.isoformat() if name == "at" else str(getattr(line, name)) for name in COLUMNS]
    return [*values, " ".join(f"{name}={value}" for name, value in sorted(line.detail.items()))]


def written(cells: list[str]) -> str:
    """A line of the table. What a spreadsheet would take for a formula is made text by an apostrophe."""
    out = StringIO()
    csv.writer(out).writerow("'" + cell if cell[:1] in tuple("=+-@\t\r") else cell for cell in cells)
    return out.getvalue()


def _record_use(request: Request, visit: Visit, asked: Asked, answers: int, what: str) -> None:
    event = audit_log_used(visit.signed_in, what, asked.search.keys(), answers, "page", visit.address)
    pages_of(request).trail.record([event])

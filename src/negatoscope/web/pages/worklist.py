"""The worklist: search as you type, one page after another, new examinations by themselves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from negatoscope.archive.query_worklist import StudyKey, WorklistRow, worklist
from negatoscope.audit.events import queried
from negatoscope.errors import BadRequest
from negatoscope.model.actor import Right
from negatoscope.sharing.policy import scope
from negatoscope.web.i18n import Speech, parse_date
from negatoscope.web.pages.common import Visit, page
from negatoscope.web.pages.orders import expected_today
from negatoscope.web.pages.services import pages_of
from negatoscope.web.pages.words import (
    FILTER_MODALITIES,
    SEX_SHORT,
    WITHOUT_PICTURES,
    WrittenName,
    written_age,
    written_name,
)

PAGE = 50  # rows
MOST_SHOWN = 200  # rows that a live refresh covers
ARRIVING = timedelta(seconds=45)  # a study that changed so lately is still coming in


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


PERIODS = {
    "": _("All dates"),
    "1": _("Today"),
    "3": _("Last 3 days"),
    "7": _("Last 7 days"),
    "30": _("Last 30 days"),
    "365": _("Last 12 months"),
}


@dataclass(frozen=True, slots=True)
class Search:
    """What was asked for, as the form shows it again."""

    text: str = ""
    period: str = ""  # key of PERIODS
    modality: str = ""
    date_from: str = ""  # YYYY-MM-DD, wins over the period
    date_to: str = ""

    @classmethod
    def of(cls, request: Request) -> Search:
        """Parameters of the address. An unknown period is no period; limits are the query's own."""
        given = request.query_params
        period = given.get("period", "")
        return cls(
            text=given.get("q", "").strip(),
            period=period if period in PERIODS else "",
            modality=given.get("modality", "").strip()[:16],
            date_from=given.get("from", "").strip()[:10],
            date_to=given.get("to", "").strip()[:10],
        )

    @property
    def has_dates(self) -> bool:
        return bool(self.date_from or self.date_to)

    @property
    def empty(self) -> bool:
        return self == Search()

    @property
    def query_string(self) -> str:
        pairs = {
            "q": self.text,
            "period": self.period,
            "modality": self.modality,
            "from": self.date_from,
            "to": self.date_to,
        }
        return urlencode({name: value for name, value in pairs.items() if value})

    def bounds(self, today: date) -> tuple[str, str]:
        """First and last study date; ``""`` without bound."""
        if self.has_dates or not self.period:
            return self.date_from, self.date_to
        first = today - timedelta(days=int(self.period) - 1)
        return first.strftime("%Y%m%d"), ""

    @property
    def keys(self) -> list[str]:
        """Tags matched on, for the audit trail; never the values."""
        tags = {
            "00100010": self.text,
            "00080061": self.modality,
            "00080020": self.period or self.date_from or self.date_to,
        }
        return [tag for tag, value in tags.items() if value]


@dataclass(frozen=True, slots=True)
class Line:
    """One row as it is written."""

    key: int
    study_uid: str
    name: WrittenName
    traits: str  # sex, birth date, age: one short line
    patient_identifier: str
    study_date: str
    study_time: str
    description: str
    accession_number: str
    modalities: tuple[str, ...]
    series: int
    instances: int
    establishment: str
    arriving: bool

    @property
    def pictureless(self) -> bool:
        return bool(self.modalities) and WITHOUT_PICTURES.issuperset(self.modalities)


def line_of(row: WorklistRow, speech: Speech, now: datetime) -> Line:
    sex = SEX_SHORT.get(row.sex)
    born = speech.dicom_date(row.birth_date) if parse_date(row.birth_date) else ""
    age = written_age(speech, row.birth_date, row.study_date, now.date())
    traits = (speech.gettext(sex) if sex else "", born, age)
    return Line(
        key=row.study_id,
        study_uid=row.study_uid,
        name=written_name(row.patient_name),
        traits=" · ".join(trait for trait in traits if trait),
        patient_identifier=row.patient_identifier,
        study_date=row.study_date,
        study_time=row.study_time,
        description=row.description,
        accession_number=row.accession_number,
        modalities=row.modalities,
        series=row.number_of_series,
        instances=row.number_of_instances,
        establishment=row.establishment_code,
        arriving=now - row.changed_at < ARRIVING,
    )


def show_worklist(request: Request, visit: Visit) -> Response:
    """The page, or for htmx its results alone. An open-ended search that is wrong keeps the form."""
    fragment = bool(request.headers.get("hx-request"))
    template = "worklist_results.html" if fragment else "worklist.html"
    search = Search.of(request)
    context = {
        "search": search,
        "periods": PERIODS,
        "filter_modalities": FILTER_MODALITIES,
        "rows": [],
        "next_query": "",
        "may_look": visit.may(Right.RETRIEVE),
        "expected": [] if fragment else expected_today(request, visit),
    }
    try:
        context |= _found(request, visit, search, PAGE, record=True)
    except BadRequest:
        problem = visit.speech.gettext(_("This search cannot be read: check the dates and shorten the text."))
        return page(
            request, visit, template, context, section="worklist", status=400 if not fragment else 200, problem=problem
        )
    # A search is no place to come back to one letter at a time: the address is replaced, not pushed.
    headers = {"HX-Replace-Url": f"/worklist?{search.query_string}".rstrip("?")} if fragment else {}
    return page(request, visit, template, context, section="worklist", headers={**headers, "Vary": "HX-Request"})


def more_studies(request: Request, visit: Visit) -> Response:
    """The next page of rows, for htmx."""
    context = _found(request, visit, Search.of(request), PAGE, record=True)
    return page(request, visit, "worklist_added.html", context)


def live_studies(request: Request, visit: Visit) -> Response:
    """The rows that are shown, as they are now; 304 when nothing changed. Asked for every few seconds.

    It is the search that was already recorded, asked again, so it writes no audit event of its own.
    """
    shown = request.query_params.get("shown", "")
    limit = max(PAGE, min(int(shown), MOST_SHOWN)) if shown.isdecimal() and len(shown) < 6 else PAGE
    context = _found(request, visit, Search.of(request), limit, record=False)
    response = page(request, visit, "worklist_rows.html", context)
    tag = f'"{hashlib.sha256(response.body).hexdigest()[:24]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "no-store"})
    response.headers["ETag"] = tag
    return response


def _found(request: Request, visit: Visit, search: Search, limit: int, *, record: bool) -> dict[str, object]:
    services = pages_of(request)
    asking = scope(visit.signed_in, Right.QUERY)
    after = request.query_params.get("after", "")
    now = datetime.now(UTC)
    first, last = search.bounds(now.astimezone().date())
    with services.database.reading(asking) as unit:
        found = worklist(
            unit,
            asking,
            text=search.text,
            date_from=first,
            date_to=last,
            modality=search.modality,
            after=StudyKey.parse(after) if after else None,
            limit=limit,
        )
    if record:
        services.trail.record([queried(asking, "STUDY", search.keys, len(found.rows), "page", visit.address)])
    next_query = "&".join(part for part in (search.query_string, f"after={found.next}") if part) if found.next else ""
    return {
        "search": search,
        "rows": [line_of(row, visit.speech, now) for row in found.rows],
        "next_query": next_query,
        "may_look": visit.may(Right.RETRIEVE),
    }

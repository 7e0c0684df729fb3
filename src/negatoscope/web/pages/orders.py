"""Orders: the day's list, a form to enter one, and what has become of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from negatoscope.errors import BadRequest, Conflict, PreconditionFailed
from negatoscope.model.actor import Right
from negatoscope.sharing.policy import scope
from negatoscope.web.i18n import Speech, parse_date
from negatoscope.web.pages.common import Visit, page, see_other
from negatoscope.web.pages.services import pages_of
from negatoscope.web.pages.words import FILTER_MODALITIES, SEX_SHORT, WrittenName, written_age, written_name
from negatoscope.worklist import BY_HAND, Asking, OrderRow, Orders, StepStatus, Wanted, read_order


def _(message: str) -> str:
    """Mark a message for extraction; it is translated where it is shown."""
    return message


@dataclass(frozen=True, slots=True)
class StatusWord:
    label: str
    tint: str  # suffix of the class of a tag, "" for the plain one
    action: str  # what a button says that brings it about


STATUSES = {
    StepStatus.SCHEDULED: StatusWord(_("Scheduled"), "", _("Schedule again")),
    StepStatus.ARRIVED: StatusWord(_("Patient arrived"), "warn", _("Patient has arrived")),
    StepStatus.READY: StatusWord(_("Patient ready"), "warn", _("Patient is ready")),
    StepStatus.STARTED: StatusWord(_("In progress"), "warn", _("Begin")),
    StepStatus.DEPARTED: StatusWord(_("Patient gone"), "warn", _("Patient has gone")),
    StepStatus.COMPLETED: StatusWord(_("Done"), "good", _("Mark as done")),
    StepStatus.DISCONTINUED: StatusWord(_("Broken off"), "bad", _("Broken off")),
    StepStatus.CANCELLED: StatusWord(_("Cancelled"), "bad", _("Cancel the order")),
}
PERFORMED = {"IN PROGRESS": _("In progress"), "COMPLETED": _("Done"), "DISCONTINUED": _("Broken off")}
PRIORITIES = {
    "": _("Not said"),
    "STAT": _("Immediate"),
    "HIGH": _("Urgent"),
    "ROUTINE": _("Routine"),
    "LOW": _("Low"),
}
STATES = {"open": _("To be done"), "": _("All states")}
# Fields of the form, by the name that the use case's messages begin with.
FIELDS = {
    "accession_number": _("Accession number"),
    "patient.identifier": _("Patient identifier"),
    "patient.name": _("Name"),
    "patient.birth_date": _("Birth date"),
    "patient.sex": _("Sex"),
    "referring_physician": _("Referring physician"),
    "procedures[0].description": _("Examination"),
    "procedures[0].priority": _("Priority"),
    "procedures[0].steps[0].modality": _("Modality"),
    "procedures[0].steps[0].station_ae": _("Station (AE title)"),
    "procedures[0].steps[0].scheduled": _("Day and time"),
    "procedures[0].steps[0].performing_physician": _("Performing physician"),
}
FORM = (
    "identifier", "family", "given", "birth_date", "sex", "accession_number", "modality", "station_ae", "scheduled",
    "description", "referring_physician", "performing_physician", "priority",
)  # fmt: skip
DOSE_WORDS = {
    "dose_area_product_dgy_cm2": (_("Dose area product"), "dGy·cm²"),
    "entrance_dose_mgy": (_("Entrance dose"), "mGy"),
    "entrance_dose_dgy": (_("Entrance dose"), "dGy"),
    "fluoroscopy_time_s": (_("Fluoroscopy time"), "s"),
    "exposures": (_("Exposures"), ""),
    "ctdi_vol_mgy_highest": (_("Highest CTDIvol"), "mGy"),
}


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One order as it is written."""

    request_id: int
    name: WrittenName
    traits: str  # sex, birth date, age
    identifier: str
    accession_number: str
    date: str  # of its first step, YYYYMMDD
    time: str
    modalities: tuple[str, ...]
    stations: tuple[str, ...]
    description: str
    status: StatusWord
    studies: tuple[str, ...]  # Study Instance UIDs that have come
    instances: int


def line_of(order: OrderRow, speech: Speech) -> OrderLine:
    first = min(order.steps, key=lambda step: (step.start_date, step.start_time))
    patient = order.patient
    sex = SEX_SHORT.get(patient.sex)
    born = speech.dicom_date(patient.birth_date) if parse_date(patient.birth_date) else ""
    today = parse_date(first.start_date) or date.min
    age = written_age(speech, patient.birth_date, first.start_date, today)
    described = [procedure.description for procedure in order.procedures if procedure.description]
    return OrderLine(
        request_id=order.request_id,
        name=written_name(patient.name),
        traits=" · ".join(trait for trait in (speech.gettext(sex) if sex else "", born, age) if trait),
        identifier=patient.identifier,
        accession_number=order.accession_number,
        date=first.start_date,
        time=first.start_time,
        modalities=tuple(dict.fromkeys(step.modality for step in order.steps)),
        stations=tuple(dict.fromkeys(step.station_title for step in order.steps if step.station_title)),
        description=", ".join(described) or first.description,
        status=STATUSES[order.status],
        studies=tuple(study.study_uid for study in order.images),
        instances=sum(study.number_of_instances for study in order.images),
    )


def orders_of(request: Request) -> Orders:
    services = pages_of(request)
    return Orders(services.database, services.trail)


def asking_of(visit: Visit) -> Asking:
    return Asking(scope(visit.signed_in, Right.WORKLIST), "page", visit.address)


def expected_today(request: Request, visit: Visit, most: int = 20) -> list[OrderLine]:
    """Open orders of today without images: what the worklist of studies shows before there is a study."""
    if not visit.may(Right.WORKLIST):
        return []
    day = _today().strftime("%Y%m%d")
    found = orders_of(request).listed(Wanted(first=day, last=day, only_open=True, limit=most), asking_of(visit))
    return [line_of(order, visit.speech) for order in found.orders if not order.images]


# The list ----------------------------------------------------------------------------------------


def show_orders(request: Request, visit: Visit, problem: str = "") -> Response:
    """The orders of one day, today unless the address says another."""
    query = request.query_params
    day = _day_of(query.get("day", ""))
    state = query.get("state", "open" if "state" not in query else "")
    modality = query.get("modality", "").strip()[:16]
    wanted = Wanted(
        first=day.isoformat(), last=day.isoformat(), modality=modality, only_open=state == "open",
        after=query.get("after", ""),
    )  # fmt: skip
    found = orders_of(request).listed(wanted, asking_of(visit))
    form = {name: visit.form.get(name, [""])[0] for name in FORM}
    form["scheduled"] = form["scheduled"] or f"{day.isoformat()}T08:00"
    context = {
        "lines": [line_of(order, visit.speech) for order in found.orders],
        "next": found.next,
        "day": day.isoformat(),
        "before": (day - timedelta(days=1)).isoformat() if day > date.min else "",
        "following": (day + timedelta(days=1)).isoformat() if day < date.max else "",
        "state": state,
        "states": STATES,
        "modality": modality,
        "filter_modalities": FILTER_MODALITIES,
        "priorities": PRIORITIES,
        "form": form,
        "entering": bool(visit.form),
    }
    return page(request, visit, "orders.html", context, section="orders", problem=problem)


def _today() -> date:
    return datetime.now(UTC).astimezone().date()


def _day_of(text: str) -> date:
    try:
        return date.fromisoformat(text.strip()[:10])
    except ValueError:
        return _today()


def add_order(request: Request, visit: Visit) -> Response:
    say = visit.speech.gettext
    name = "^".join(part.replace("^", " ").replace("=", " ") for part in (visit.value("family"), visit.value("given")))
    try:
        order = read_order(
            {
                "accession_number": visit.value("accession_number"),
                "referring_physician": visit.value("referring_physician"),
                "patient": {
                    "identifier": visit.value("identifier"),
                    "name": name.strip("^ "),
                    "birth_date": visit.value("birth_date"),
                    "sex": visit.value("sex"),
                },
                "procedures": [
                    {
                        "description": visit.value("description"),
                        "priority": visit.value("priority"),
                        "steps": [
                            {
                                "modality": visit.value("modality").upper(),
                                "station_ae": visit.value("station_ae"),
                                "scheduled": visit.value("scheduled"),
                                "performing_physician": visit.value("performing_physician"),
                                "description": visit.value("description"),
                            }
                        ],
                    }
                ],
            }
        )
        request_id = orders_of(request).add(order, asking_of(visit))
    except Conflict:
        return show_orders(request, visit, say(_("An order has this accession number already.")))
    except BadRequest as error:
        field = FIELDS.get(str(error).split(" ", 1)[0], "")
        return show_orders(
            request, visit, say(_("Check this field: %(field)s.")) % {"field": say(field) if field else "?"}
        )
    return see_other(f"/orders/{request_id}", "order-added")


# One order ---------------------------------------------------------------------------------------


def show_order(request: Request, visit: Visit, problem: str = "") -> Response:
    order = orders_of(request).get(int(request.path_params["request_id"]), asking_of(visit))
    ahead = [status for status in STATUSES if any(status in BY_HAND[step.status] for step in order.steps)]
    context = {
        "order": order,
        "line": line_of(order, visit.speech),
        "statuses": STATUSES,
        "performed_words": PERFORMED,
        "dose_words": DOSE_WORDS,
        "moves": [(status.value, STATUSES[status].action) for status in ahead if status is not StepStatus.CANCELLED],
        "may_cancel": StepStatus.CANCELLED in ahead,
        "may_look": visit.may(Right.RETRIEVE),
    }
    return page(request, visit, "order.html", context, section="orders", problem=problem)


def change_order(request: Request, visit: Visit) -> Response:
    say, request_id = visit.speech.gettext, int(request.path_params["request_id"])
    try:
        wanted = StepStatus(visit.value("status"))
    except ValueError:
        return show_order(request, visit, say(_("Choose a state.")))
    try:
        orders_of(request).move(request_id, wanted, asking_of(visit), reason=visit.value("reason"))
    except PreconditionFailed:
        return show_order(request, visit, say(_("The order has moved on meanwhile.")))
    except BadRequest:
        return show_order(request, visit, say(_("The reason is too long.")))
    done = "order-cancelled" if wanted is StepStatus.CANCELLED else "order-moved"
    return see_other(f"/orders/{request_id}", done)

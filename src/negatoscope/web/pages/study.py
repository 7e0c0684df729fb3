"""One study: whose it is, its series, its documents, what came before; and the light viewer of its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from negatoscope.archive.query import Query, find_series, find_studies
from negatoscope.audit.events import Disclosure, queried
from negatoscope.dicom.matching import Kind, Match
from negatoscope.dicom.uid import is_valid_uid
from negatoscope.errors import NotFound
from negatoscope.model.actor import Right, Scope
from negatoscope.model.stored import InstanceRecord, SeriesHolding
from negatoscope.sharing.policy import scope
from negatoscope.web.pages import report
from negatoscope.web.pages.common import Visit, page
from negatoscope.web.pages.services import pages_of
from negatoscope.web.pages.words import (
    REPORT_FLAGS,
    WITHOUT_PICTURES,
    WrittenName,
    window_presets,
    written_age,
    written_name,
)

PRIORS = 50  # listed at most; the worklist has the rest
SERIES = 500
VIEWPORT = "1024,1024"  # as images.js asks, so that its first image comes from the cache


@dataclass(frozen=True, slots=True)
class SeriesCard:
    series_uid: str
    modality: str
    number: int | None
    description: str
    body_part: str
    instances: int
    pictures: bool  # has something that can be shown as an image


@dataclass(frozen=True, slots=True)
class Document:
    """A report or another document among the objects of a study."""

    path: str
    title: str
    modality: str
    date: str
    pdf: bool


@dataclass(frozen=True, slots=True)
class StudyView:
    study_uid: str
    name: WrittenName
    patient_identifier: str
    birth_date: str
    sex: str
    age: str
    study_date: str
    study_time: str
    description: str
    accession_number: str
    referring: WrittenName
    modalities: tuple[str, ...]
    instances: int
    establishment: str
    series: tuple[SeriesCard, ...] = ()
    bytes: int = 0  # of the objects as received; 0: not known to this reader

    @property
    def pictures(self) -> tuple[SeriesCard, ...]:
        return tuple(card for card in self.series if card.pictures)

    @property
    def has_pictures(self) -> bool:
        return bool(self.pictures)

    @property
    def pictureless(self) -> bool:
        """By modality alone, where the series were not looked at."""
        return bool(self.modalities) and WITHOUT_PICTURES.issuperset(self.modalities)


# Reading -----------------------------------------------------------------------------------------


def text_of(dataset: Mapping[str, Any], key: str) -> str:
    """First value of an attribute in the DICOM JSON model, as text; ``""`` without one. PN: all groups."""
    values = dataset.get(key, {}).get("Value") or [""]
    value = values[0]
    if isinstance(value, dict):
        groups = [value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return "" if value is None else str(value)


def number_of(dataset: Mapping[str, Any], key: str) -> int | None:
    """First value of a numeric attribute; ``None`` when there is none that is a whole number."""
    try:
        return int(text_of(dataset, key))
    except ValueError:
        return None


def study_view(dataset: Mapping[str, Any], visit: Visit) -> StudyView:
    birth_date, study_date = text_of(dataset, "00100030"), text_of(dataset, "00080020")
    return StudyView(
        study_uid=text_of(dataset, "0020000D"),
        name=written_name(text_of(dataset, "00100010")),
        patient_identifier=text_of(dataset, "00100020"),
        birth_date=birth_date,
        sex=text_of(dataset, "00100040"),
        age=written_age(visit.speech, birth_date, study_date, datetime.now(UTC).date()),
        study_date=study_date,
        study_time=text_of(dataset, "00080030"),
        description=text_of(dataset, "00081030"),
        accession_number=text_of(dataset, "00080050"),
        referring=written_name(text_of(dataset, "00080090")),
        modalities=tuple(dataset.get("00080061", {}).get("Value") or ()),
        instances=number_of(dataset, "00201208") or 0,
        establishment=visit.signed_in.establishment_code,
    )


def _known_uid(request: Request, name: str) -> str:
    """A UID of the address. What is no UID names nothing."""
    value = str(request.path_params[name])
    if not is_valid_uid(value):
        raise NotFound("nothing here by that name")
    return value


def _study(request: Request, visit: Visit, asking: Scope) -> tuple[StudyView, list[SeriesHolding]]:
    """The study of the address with its series. Raises ``NotFound`` also when it is not this reader's."""
    services = pages_of(request)
    study_uid = _known_uid(request, "study_uid")
    found = find_studies(
        services.database, asking, Query(study_uid=study_uid, include=frozenset({0x00080090}), limit=1)
    )
    if not found.rows:
        raise NotFound("nothing here by that name")
    wanted = Query(study_uid=study_uid, include=frozenset({0x00180015}), limit=SERIES)
    rows = find_series(services.database, asking, wanted).rows
    holdings: list[SeriesHolding] = []
    if visit.may(Right.RETRIEVE):
        holdings = services.retrieval.locate(scope(visit.signed_in, Right.RETRIEVE), study_uid)
    by_uid = {holding.series_uid: holding for holding in holdings}
    cards = tuple(_card(row, by_uid.get(text_of(row, "0020000E")), bool(holdings)) for row in rows)
    size = sum(record.location.length for holding in holdings for record in holding.instances)
    return replace(study_view(found.rows[0], visit), series=cards, bytes=size), holdings


def _card(row: Mapping[str, Any], holding: SeriesHolding | None, located: bool) -> SeriesCard:
    modality = text_of(row, "00080060")
    pictured = any(is_picture(record) for record in holding.instances) if holding else not located
    return SeriesCard(
        series_uid=text_of(row, "0020000E"),
        modality=modality,
        number=number_of(row, "00200011"),
        description=text_of(row, "0008103E"),
        body_part=text_of(row, "00180015"),
        instances=number_of(row, "00201209") or 0,
        pictures=pictured and modality not in WITHOUT_PICTURES,
    )


def is_picture(record: InstanceRecord) -> bool:
    """Whether an object has pixels. Dose grids have, segmentations too; reports have not."""
    return bool(record.rows and record.columns)


def _priors(request: Request, visit: Visit, asking: Scope, study: StudyView) -> list[StudyView]:
    """The other studies of the same patient, newest first. Without an identifier nobody is compared with nobody."""
    if not study.patient_identifier:
        return []
    # Built, not parsed: an asterisk in an identifier is that character, not a wild card.
    same = Match(Kind.SINGLE, "LO", (study.patient_identifier,))
    query = Query(matches={"00100020": same}, limit=PRIORS)
    rows = find_studies(pages_of(request).database, asking, query).rows
    views = [study_view(row, visit) for row in rows]
    return [view for view in views if view.study_uid != study.study_uid]


# Pages -------------------------------------------------------------------------------------------


def show_study(request: Request, visit: Visit) -> Response:
    asking = scope(visit.signed_in, Right.QUERY)
    study, holdings = _study(request, visit, asking)
    priors = _priors(request, visit, asking, study)
    services = pages_of(request)
    services.trail.record([queried(asking, "SERIES", ["0020000D"], len(study.series), "page", visit.address)])
    context = {
        "study": study,
        "pictures": study.pictures,
        "documents": _documents(study, holdings),
        "priors": priors,
        "may_look": visit.may(Right.RETRIEVE),
    }
    return page(request, visit, "study.html", context, section="worklist")


def _documents(study: StudyView, holdings: list[SeriesHolding]) -> list[Document]:
    cards = {card.series_uid: card for card in study.series}
    return [
        Document(
            path=_document_path(holding, record),
            title=cards[holding.series_uid].description,
            modality=holding.modality,
            date=study.study_date,
            pdf=report.is_pdf(record.sop_class_uid),
        )
        for holding in holdings
        if holding.series_uid in cards
        for record in holding.instances
        if report.is_report(record.sop_class_uid) or report.is_pdf(record.sop_class_uid)
    ]


def _document_path(holding: SeriesHolding, record: InstanceRecord) -> str:
    tail = f"series/{holding.series_uid}/instances/{record.sop_instance_uid}"
    if report.is_pdf(record.sop_class_uid):
        return f"/dicom-web/studies/{holding.study_uid}/{tail}/rendered"
    return f"/studies/{holding.study_uid}/{tail}/report"


def show_report(request: Request, visit: Visit) -> Response:
    """A structured report as a page. Its text is disclosed: recorded before it is read."""
    asking = scope(visit.signed_in, Right.RETRIEVE)
    services = pages_of(request)
    study, _holdings = _study(request, visit, asking)
    series_uid, instance_uid = _known_uid(request, "series_uid"), _known_uid(request, "instance_uid")
    holding = services.retrieval.locate(asking, study.study_uid, series_uid, instance_uid)[0]
    record = holding.instances[0]
    if not report.is_report(record.sop_class_uid) or record.location.length > report.LONGEST:
        raise NotFound("nothing here by that name")
    services.trail.disclose(asking, Disclosure.VIEW, [study.study_uid], "page", visit.address)
    data = b"".join(services.retrieval.read(record, study.study_uid))
    context = {"study": study, "report": report.read_report(data, record.transfer_syntax_uid), "flags": REPORT_FLAGS}
    return page(request, visit, "report.html", context, section="worklist")


def choose_series(request: Request, visit: Visit) -> Response:
    """The light viewer of a study: on to its first series worth looking at."""
    study, _holdings = _study(request, visit, scope(visit.signed_in, Right.RETRIEVE))
    if not study.pictures:
        raise NotFound("nothing here by that name")
    best = next((card for card in study.pictures if card.instances > 3), study.pictures[0])
    return RedirectResponse(f"/studies/{study.study_uid}/series/{best.series_uid}/images", status_code=303)


def show_images(request: Request, visit: Visit) -> Response:
    """The light viewer of one series. It works without its script: arrows and windows are links.

    The images themselves come from DICOMweb, which records the disclosure.
    """
    study, holdings = _study(request, visit, scope(visit.signed_in, Right.RETRIEVE))
    series_uid = _known_uid(request, "series_uid")
    holding = next((holding for holding in holdings if holding.series_uid == series_uid), None)
    card = next((card for card in study.series if card.series_uid == series_uid), None)
    if holding is None or card is None:
        raise NotFound("nothing here by that name")
    frames = [(r.sop_instance_uid, r.number_of_frames or 1) for r in holding.instances if is_picture(r)]
    count = sum(number for _uid, number in frames)
    presets = window_presets(holding.modality)
    asked = request.query_params.get("window", "")
    preset = next((choice for choice in presets if choice.key == asked), presets[0])
    index = _index(request.query_params.get("i", ""), count)
    context = {
        "study": study,
        "series": card,
        "pictures": study.pictures,
        "frames": frames,
        "count": count,
        "index": index,
        "presets": presets,
        "preset": preset,
        "source": _rendered(study.study_uid, series_uid, frames, index, preset.value) if count else "",
        "previous_query": urlencode({"window": preset.key, "i": max(1, index)}),
        "next_query": urlencode({"window": preset.key, "i": min(count, index + 2)}),
    }
    return page(request, visit, "images.html", context, section="worklist")


def _index(asked: str, count: int) -> int:
    """Place in the series, from 0; the middle of a volume when none is asked for: more to see than at its end."""
    if asked.isdecimal() and len(asked) < 9:
        return max(0, min(count, int(asked)) - 1)
    return count // 2


def _rendered(study_uid: str, series_uid: str, frames: list[tuple[str, int]], index: int, window: str) -> str:
    """Address of the image at a place in the series, written as images.js writes it."""
    places = ((uid, frame) for uid, number in frames for frame in range(1, number + 1))
    instance_uid, frame = next(islice(places, index, None))
    query = urlencode({"viewport": VIEWPORT, **({"window": window} if window else {})})
    instance = f"/dicom-web/studies/{study_uid}/series/{series_uid}/instances/{instance_uid}"
    return f"{instance}/frames/{frame}/rendered?{query}"

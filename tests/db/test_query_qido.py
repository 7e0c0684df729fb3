"""QIDO-RS over HTTP on a real database: PS3.18 10.6 as a table, one row a requirement."""

from __future__ import annotations

import email
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from harness import World
from httpx import Response
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.testclient import TestClient

from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.errors import NegatoscopeError, Unauthenticated, Unavailable
from negatoscope.model.actor import Actor, Right, Scope
from negatoscope.model.event import AuditEvent
from negatoscope.sharing import policy
from negatoscope.web.problem import problem
from negatoscope.web.qido import qido_routes
from negatoscope.web.services import Services
from query_data import SeriesData, StudyData, add, element

STUDIES = (
    StudyData("1.1", "DUPONT^JEAN", "P1", "20240102", accession="A1", attributes={
        "00081030": element("LO", "Thorax"), "00081032": element("SQ", {"00080100": element("SH", "CT1")})},
        series=(SeriesData("1.1.1", attributes={"00400275": element("SQ", {"00401001": element("SH", "RP1")})}),
                SeriesData("1.1.2", "MR", 2, instances=(3, 2, 1), closed=True))),
    StudyData("1.2", "MÜLLER^Zoé", "P2", "20240103", accession="A2", series=(SeriesData("1.2.1", "CR"),)),
    StudyData("1.3", "山田^太郎", "P3", "20231231", accession="A3", series=(SeriesData("1.3.1", "US"),)),
)  # fmt: skip


class Trail:
    """Keeps what is recorded; broken, it refuses."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.broken = False

    def record(self, events: Sequence[AuditEvent]) -> None:
        if self.broken:
            raise Unavailable("the trail cannot be written")
        self.events += events


@dataclass
class Tokens:
    """Bearer tokens by actor."""

    actors: dict[str, Actor] = field(default_factory=dict)

    def actor_of(self, request: HTTPConnection) -> Actor:
        actor = self.actors.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if actor is None:
            raise Unauthenticated("a token is needed")
        return actor

    def address_of(self, request: HTTPConnection) -> str:
        return "192.0.2.1"


@dataclass
class Site:
    client: TestClient
    trail: Trail

    def get(self, path: str, accept: str | None = None, token: str = "A") -> Response:
        headers = {"Authorization": f"Bearer {token}"} | ({"Accept": accept} if accept else {})
        answer: Response = self.client.get("/dicom-web" + path, headers=headers)
        return answer


@pytest.fixture
def site(world: World) -> Iterator[Site]:
    add(world, "A", *STUDIES)
    add(world, "B", StudyData("2.1"))
    tokens = Tokens(dict(world.radiologist))
    tokens.actors["scoped"] = replace(world.radiologist["A"], only_study_uid="1.2")
    tokens.actors["none"] = replace(world.radiologist["A"], rights=frozenset())
    trail = Trail()
    with ThreadPoolExecutor(2) as executor:
        services = SimpleNamespace(
            database=world.database, trail=trail, authentication=tokens, limits=DEFAULT_LIMITS, executor=executor,
            retrieval=None,
        )  # fmt: skip

        async def run(function: Callable[..., Any], *args: Any) -> Any:
            return executor.submit(function, *args).result()

        def scope(request: StarletteRequest, right: Right) -> Scope:
            return policy.scope(tokens.actor_of(request), right)

        services.run, services.scope = run, scope
        app = Starlette(
            routes=qido_routes(cast(Services, services)),
            exception_handlers={NegatoscopeError: _problem},
        )
        yield Site(TestClient(app), trail)


def _problem(request: StarletteRequest, error: Exception) -> StarletteResponse:
    assert isinstance(error, NegatoscopeError)
    return problem(error)


def uids(answer: Response, key: str = "0020000D") -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row[key]["Value"][0] for row in answer.json()]


STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
FOUND = [
    ("10.6.1 studies, newest first", "/studies", STUDY, ["1.2", "1.1", "1.3"]),
    ("10.6.1 series of a study", "/studies/1.1/series", SERIES, ["1.1.1", "1.1.2"]),
    ("10.6.1 instances of a study", "/studies/1.1/instances", INSTANCE,
     ["1.1.1.1", "1.1.1.2", "1.1.2.3", "1.1.2.2", "1.1.2.1"]),
    ("10.6.1 instances of a series", "/studies/1.1/series/1.1.2/instances", INSTANCE,
     ["1.1.2.3", "1.1.2.2", "1.1.2.1"]),
    ("10.6.1 all series", "/series", SERIES, ["1.2.1", "1.1.1", "1.1.2", "1.3.1"]),
    ("10.6.1 all instances", "/instances?limit=3", INSTANCE, ["1.2.1.1", "1.2.1.2", "1.1.1.1"]),
    ("series by UID alone", "/series/1.1.1/instances", INSTANCE, ["1.1.1.1", "1.1.1.2"]),
    ("study of one, series of another", "/studies/1.2/series/1.1.1/instances", INSTANCE, []),
    ("8.3.4 keyword", "/studies?PatientID=P1", STUDY, ["1.1"]),
    ("8.3.4 tag", "/studies?00100020=P2", STUDY, ["1.2"]),
    ("8.3.4 path", "/series?RequestAttributesSequence.RequestedProcedureID=RP1", SERIES, ["1.1.1"]),
    ("8.3.4 path by tags", "/studies?00081032.00080100=CT*", STUDY, ["1.1"]),
    ("PS3.4 C.2.2.2.2 list of UIDs", "/studies?StudyInstanceUID=1.1,1.3,9.9", STUDY, ["1.1", "1.3"]),
    ("PS3.4 C.2.2.2.4 wild card", "/studies?PatientName=dup*", STUDY, ["1.1"]),
    ("PS3.4 C.2.2.2.4 percent is a letter", "/studies?PatientName=%25", STUDY, []),
    ("PS3.4 C.2.2.2.5 range", "/studies?StudyDate=20240101-20240102", STUDY, ["1.1"]),
    ("names without accents", "/studies?PatientName=muller%5Ezoe", STUDY, ["1.2"]),
    ("names in another script", "/studies?PatientName=%E5%B1%B1%E7%94%B0*", STUDY, ["1.3"]),
    ("8.3.4.2 fuzzy", "/studies?PatientName=zoe%20mul&fuzzymatching=true", STUDY, ["1.2"]),
    ("modalities in study", "/studies?ModalitiesInStudy=MR", STUDY, ["1.1"]),
    ("relational: series by patient", "/series?PatientID=P1&Modality=MR", SERIES, ["1.1.2"]),
    ("relational: instances by accession", "/instances?AccessionNumber=A2", INSTANCE, ["1.2.1.1", "1.2.1.2"]),
    ("instance by UID", "/instances?SOPInstanceUID=1.1.2.3", INSTANCE, ["1.1.2.3"]),
    ("8.3.4.4 limit", "/studies?limit=1", STUDY, ["1.2"]),
    ("8.3.4.4 offset", "/studies?limit=1&offset=1", STUDY, ["1.1"]),
    ("8.3.4.4 offset beyond the end", "/studies?offset=50", STUDY, []),
    ("8.3.4.4 limit of zero", "/studies?limit=0", STUDY, []),
    ("10.6.3 nothing found is an empty list", "/studies?PatientID=nobody", STUDY, []),
    ("10.6.3 series of an unknown study", "/studies/9.9/series", SERIES, []),
    ("not yours looks like absent", "/studies/2.1/series", SERIES, []),
]  # fmt: skip


def test_searches_find_what_the_standard_says(site: Site) -> None:
    found = {(name, path): uids(site.get(path), key) for name, path, key, _ in FOUND}
    assert found == {(name, path): expected for name, path, _, expected in FOUND}


def test_another_actor_gets_answers_of_its_own_scope(site: Site) -> None:
    assert uids(site.get("/studies", token="B")) == ["2.1"]
    assert uids(site.get("/studies", token="scoped")) == ["1.2"]
    assert set(uids(site.get("/instances", token="scoped"))) == {"1.2"}


STATUSES = [
    ("200 with an empty list", "/studies?PatientID=nobody", "A", None, 200),
    ("400 unknown attribute", "/studies?Nonsense=1", "A", None, 400),
    ("400 bad limit", "/studies?limit=x", "A", None, 400),
    ("400 path is no UID", "/studies/..%2e/series", "A", None, 400),
    ("400 bad date", "/studies?StudyDate=x", "A", None, 400),
    ("400 nine wild cards", "/studies?PatientName=a?b?c?d?e?f?g?h?i?", "A", None, 400),
    ("401 no token", "/studies", "", None, 401),
    ("403 no right to search", "/studies", "none", None, 403),
    ("406 media type", "/studies", "A", "image/png", 406),
    ("406 charset", "/studies?charset=iso-8859-1", "A", None, 406),
    ("404 no such resource", "/patients", "A", None, 404),
]


def test_refusals_have_the_statuses_of_the_standard(site: Site) -> None:
    found = {name: site.get(path, accept, token).status_code for name, path, token, accept, _ in STATUSES}
    assert found == {name: status for name, _, _, _, status in STATUSES}
    assert site.client.post("/dicom-web/studies").status_code == 405


MEDIA = [
    ("8.7.3.3 default", None, "application/dicom+json"),
    ("anything", "*/*", "application/dicom+json"),
    ("json", "application/json", "application/json"),
    ("weights", "application/json;q=0.2, application/dicom+json;q=0.4", "application/dicom+json"),
    ("xml", 'multipart/related; type="application/dicom+xml"', "multipart/related"),
]


def test_the_representation_is_negotiated(site: Site) -> None:
    found = {name: site.get("/studies", accept).headers["content-type"].split(";")[0] for name, accept, _ in MEDIA}
    assert found == {name: kind for name, _, kind in MEDIA}
    answer = site.get("/studies?accept=application/json", "multipart/related")
    assert (answer.headers["content-type"], answer.headers["vary"]) == ("application/json", "Accept")


def test_xml_has_one_part_an_answer(site: Site) -> None:
    """PS3.18 8.7.3.2: multipart/related, one Native DICOM Model document (PS3.19 A.1) a part."""
    answer = site.get("/studies", 'multipart/related; type="application/dicom+xml"')
    message = email.message_from_bytes(
        b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n" + answer.content
    )
    parts = cast("list[email.message.Message]", message.get_payload())
    assert [part.get_content_type() for part in parts] == ["application/dicom+xml"] * 3
    found = []
    for part in parts:
        document = ElementTree.fromstring(cast(bytes, part.get_payload(decode=True)))
        found.append(document.findtext("DicomAttribute[@tag='0020000D']/Value"))
    assert found == ["1.2", "1.1", "1.3"]
    empty = site.get("/studies?PatientID=nobody", "multipart/related")
    assert empty.status_code == 200
    assert empty.content.endswith(b"--\r\n")


def test_json_is_utf8_and_names_keep_their_groups(site: Site) -> None:
    (row,) = site.get("/studies?PatientID=P2").json()
    assert row["00080005"] == element("CS", "ISO_IR 192")
    assert row["00100010"] == element("PN", {"Alphabetic": "MÜLLER^Zoé"})


def test_a_page_that_is_not_the_last_says_so(site: Site) -> None:
    """PS3.18 8.3.4.4: a Warning header of code 299."""
    assert "299" in site.get("/studies?limit=2").headers["warning"]
    assert "warning" not in site.get("/studies?limit=3").headers
    assert "warning" not in site.get("/studies?limit=2&offset=1").headers


def test_a_key_that_is_not_supported_is_named_in_a_warning(site: Site) -> None:
    answer = site.get("/studies?BodyPartExamined=HEAD")
    assert len(answer.json()) == 3
    assert "(0018,0015)" in answer.headers["warning"]


def test_attributes_of_levels_that_the_path_does_not_name_are_answered(site: Site) -> None:
    """PS3.18 tables 10.6.3-4 and -5: series without a study carry study attributes, and so on."""
    (series,) = site.get("/series?SeriesInstanceUID=1.2.1").json()
    assert series["00100020"] == element("LO", "P2")
    assert series["00081190"] == element("UR", "/dicom-web/studies/1.2/series/1.2.1")
    (named,) = site.get("/studies/1.2/series").json()
    assert "00100020" not in named
    instance = site.get("/instances?SOPInstanceUID=1.2.1.1").json()[0]
    assert (instance["00100020"], instance["00080060"]) == (element("LO", "P2"), element("CS", "CR"))
    assert instance["00081190"] == element("UR", "/dicom-web/studies/1.2/series/1.2.1/instances/1.2.1.1")
    assert site.get("/studies/1.2/instances").json()[0]["00080060"] == element("CS", "CR")


def test_keys_and_included_fields_are_answered(site: Site) -> None:
    (row,) = site.get("/studies?PatientID=P1&includefield=ProcedureCodeSequence").json()
    assert row["00081032"]["Value"] == [{"00080100": element("SH", "CT1")}]
    assert "00081032" in site.get("/studies?00081032.00080100=CT1").json()[0]
    assert "00081032" in site.get("/studies?PatientID=P1&includefield=all").json()[0]


def test_every_search_is_recorded_before_it_is_answered(site: Site) -> None:
    site.get("/studies?PatientName=DUPONT*&PatientID=P1")
    (event,) = site.trail.events
    assert (event.kind, event.actor_name, event.door, event.address) == (
        "110112",
        "radiologist-a",
        "dicomweb",
        "192.0.2.1",
    )
    assert event.detail == {"level": "STUDY", "keys": "00100010 00100020", "answers": 1}
    assert "DUPONT" not in repr(event)
    site.trail.broken = True
    refused = site.get("/studies")
    assert refused.status_code == 503
    assert b"DUPONT" not in refused.content

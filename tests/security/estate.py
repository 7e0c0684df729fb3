"""A running estate for the matrix: the real application, two establishments with images, somebody in every role."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from argon2 import PasswordHasher
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from negatoscope import bootstrap
from negatoscope.http_app import http_app
from negatoscope.model.actor import Actor, Right, Role, Scope
from negatoscope.model.source import Announced, Door, Source
from negatoscope.model.stored import Outcome
from negatoscope.routing import NewNode
from negatoscope.sending import sending
from negatoscope.settings import Settings
from negatoscope.sharing import COMMAND_LINE, Accounts, Passwords
from negatoscope.worklist import Asking, Orders, read_order
from negatoscope.worklist.ups_book import Workitems
from security.matrix import Family, Names, Row
from workitem_data import a_workitem
from worklist_data import DAY, order_of

EXPLICIT = "1.2.840.10008.1.2.1"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
_numbers = itertools.count(1)

STRANGERS = ("no login", "unknown token", "expired token", "revoked token", "disabled user")


@dataclass
class Place:
    """What one establishment holds."""

    code: str
    study: dict[str, str] = field(default_factory=dict)  # path parameters
    second_study: dict[str, str] = field(default_factory=dict)
    report: dict[str, str] = field(default_factory=dict)  # in the first study
    quarantined: int = 0
    order: int = 0
    workitem: str = ""


@dataclass
class Estate:
    built: bootstrap.Core
    accounts: Accounts
    app: Starlette
    client: TestClient
    places: dict[str, Place]
    actors: dict[str, Actor] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)  # by audience: role, stranger, "study token", "other <role>"

    # Asking --------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, audience: str, row: Row, values: dict[str, str], **more: Any) -> Any:
        headers = {**more.pop("headers", {})}
        if token := self.tokens.get(audience):
            headers["Authorization"] = f"Bearer {token}"
        query = {name: value.format_map(values) for name, value in row.query.items()}
        data = row.form if method == "POST" else None
        return self.client.request(
            method, fill(path, values), params=query, headers=headers, data=data, follow_redirects=False, **more
        )

    # What is named -------------------------------------------------------------------------------

    def named(self, names: Names | None, whose: str, audience: str) -> dict[str, str]:
        """Path parameters that name something of ``whose``: own, foreign or absent."""
        values = self._common()
        if names in (Names.STUDY, Names.REPORT):
            own, foreign = (place.report if names is Names.REPORT else place.study for place in self.places.values())
            absent = {"study_uid": "2.25.404", "series_uid": "2.25.404.1", "sop_instance_uid": "2.25.404.1.1"}
            values |= {"own": own, "foreign": foreign, "absent": absent}[whose]
        elif names is Names.ENTITY:
            values["actor_id"] = "999999" if whose == "absent" else str(self._entity("A" if whose == "own" else "B"))
        elif names is Names.QUARANTINED:
            place = self.places["A" if whose == "own" else "B"]
            values["quarantine_id"] = "999999" if whose == "absent" else str(place.quarantined)
        elif names is Names.CREDENTIAL:
            values["credential_id"] = str(uuid.uuid4()) if whose == "absent" else self._credential(audience, whose)
        elif names is Names.ORDER:
            place = self.places["A" if whose == "own" else "B"]
            values["request_id"] = "999999" if whose == "absent" else str(place.order)
        elif names is Names.WORKITEM:
            place = self.places["A" if whose == "own" else "B"]
            values["workitem"] = "2.25.404" if whose == "absent" else place.workitem
        elif names is Names.NODE:
            values["node_id"] = "999999" if whose == "absent" else str(self._node("A" if whose == "own" else "B"))
        elif names is Names.DELIVERY:
            code = "A" if whose == "own" else "B"
            values["delivery_id"] = "999999" if whose == "absent" else str(self._delivery(code))
        elif names is Names.USER:
            values["name"] = "nobody" if whose == "absent" else "victim"
        values["instance_uid"] = values["sop_instance_uid"]
        return values

    def _common(self) -> dict[str, str]:
        return {
            **self.places["A"].study,
            "frames": "1",
            "path": "7FE00010",
            "address": "nothing.js",
            "actor_id": "0",
            "node_id": "0",
            "delivery_id": "0",
            "quarantine_id": "0",
            "request_id": "0",
            "workitem": "2.25.404",
            "name": "victim",
            "credential_id": str(uuid.uuid4()),
        }

    def _entity(self, code: str) -> int:
        title = f"AE{next(_numbers)}"
        return self.accounts.add_entity(title, code, [Right.STORE], by=COMMAND_LINE).actor_id

    def _node(self, code: str) -> int:
        """Nobody listens there."""
        new = NewNode(establishment=code, name=f"N{next(_numbers)}", title="NOBODY", host="127.0.0.1", port=9)
        return sending(self.built).nodes.add(new, by=COMMAND_LINE)

    def _delivery(self, code: str) -> int:
        parts = sending(self.built)
        node = parts.nodes.of_id(self._node(code))
        return parts.queue.ask(node, self.places[code].study["study_uid"], by=parts.hand(code), hold=True)

    def _credential(self, audience: str, whose: str) -> str:
        """A fresh token of the one who asks, or of somebody else."""
        owner = (
            self.actors[audience] if whose == "own" and audience in self.actors else self.actors["other radiologist"]
        )
        self.accounts.create_token(owner.name, 3600, by=COMMAND_LINE)
        return str(self.accounts.credentials(owner.name, by=COMMAND_LINE)[0].credential_id)


def fill(path: str, values: dict[str, str]) -> str:
    """``/a/{b:int}`` with the value of ``b``."""
    for name, value in values.items():
        for suffix in ("", ":int", ":path", ":str", ":uuid"):
            path = path.replace(f"{{{name}{suffix}}}", value)
    assert "{" not in path, f"no value for a parameter of {path}"
    return path


def routes_of(routes: list[BaseRoute], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(name, method, path) of every route, HEAD left out, sub-applications opened."""
    for route in routes:
        if isinstance(route, Mount):
            yield from routes_of(list(route.routes or []), prefix + route.path)
        elif isinstance(route, Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield route.name, method, prefix + route.path


@contextmanager
def estate(url: str, data: Path) -> Iterator[Estate]:
    """Everything on the database at ``url``, which must be fresh."""
    settings = Settings(data=data, database=url)
    with bootstrap.core(settings, url) as built, http_app(built) as app:
        accounts = Accounts(built.database, built.trail, monotonic=lambda: 0.0, passwords=Passwords(QUICK))
        places = {}
        for code, oid in (("A", "2.25.1001"), ("B", "2.25.1002")):
            accounts.add_establishment(code, f"Establishment {code}", oid, by=COMMAND_LINE)
            places[code] = _images(built, accounts.system_actor(code), Place(code))
        made = Estate(built, accounts, app, TestClient(app, base_url="http://pacs.example"), places)
        _people(made)
        with made.client:
            yield made


def _people(made: Estate) -> None:
    accounts = made.accounts
    for role in Role:
        for audience, code in ((role.value, "A"), (f"other {role.value}", "B")):
            login = audience.replace(" ", "-")
            made.actors[audience] = accounts.add_user(login, role, code, by=COMMAND_LINE)
            made.tokens[audience] = accounts.create_token(login, 86_400, by=COMMAND_LINE)
    accounts.add_user("victim", Role.CLINICIAN, "B", by=COMMAND_LINE)
    study_uid = made.places["A"].study["study_uid"]
    made.tokens["study token"] = accounts.create_token("radiologist", 86_400, study_uid, by=COMMAND_LINE)
    made.tokens["unknown token"] = "ngt_" + "x" * 43
    for audience in ("expired token", "revoked token", "disabled user"):
        login = audience.replace(" ", "-")
        accounts.add_user(login, Role.RADIOLOGIST, "A", by=COMMAND_LINE)
        made.tokens[audience] = accounts.create_token(login, 86_400, by=COMMAND_LINE)
    with made.built.database.unit(None) as unit:
        unit.execute(
            "UPDATE credential SET expires_at = now() FROM actor"
            " WHERE actor.actor_id = credential.actor_id AND actor.name = 'expired-token'"
        )
        # disabled in the database alone, its token not revoked: the flag must be enough
        unit.execute("UPDATE actor SET disabled_at = now() WHERE name = 'disabled-user'")
    (revoked,) = accounts.credentials("revoked-token", by=COMMAND_LINE)
    accounts.revoke("revoked-token", revoked.credential_id, by=COMMAND_LINE)


def data_set(
    file: str, study_uid: str, patient_id: str, series: int, pixels: bytes = b""
) -> tuple[bytes, dict[str, str]]:
    """A data set of pydicom's with these UIDs, as bytes without file meta; and the path parameters that name it."""
    dataset = pydicom.dcmread(str(get_testdata_file(file)))
    named = {
        "study_uid": study_uid,
        "series_uid": f"{study_uid}.{series}",
        "sop_instance_uid": f"{study_uid}.{series}.1",
    }
    dataset.StudyInstanceUID, dataset.PatientID = study_uid, patient_id
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = named["series_uid"], named["sop_instance_uid"]
    if pixels:
        dataset.PixelData = pixels + dataset.PixelData[len(pixels) :]
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue()), named


def _images(built: bootstrap.Core, hand: Actor, place: Place) -> Place:
    """Two studies of a patient, the first with a report; and an object in quarantine."""
    source = Source(hand.actor_id, hand.establishment_id, place.code, hand.authority_oid, hand.name, "", Door.IMPORT)
    number = hand.establishment_id

    def store(file: str, study: int, series: int, expected: Outcome, pixels: bytes = b"") -> dict[str, str]:
        raw, named = data_set(file, f"2.25.{number}0{study}", f"P{number}", series, pixels)
        reception = built.store.begin(source, Announced(EXPLICIT))
        reception.write([raw])
        assert reception.commit().outcome is expected
        return named

    place.study = store("CT_small.dcm", 1, 1, Outcome.CREATED)
    place.second_study = store("CT_small.dcm", 2, 1, Outcome.CREATED)
    place.report = store("reportsi.dcm", 1, 2, Outcome.CREATED)
    store("CT_small.dcm", 1, 1, Outcome.QUARANTINED, b"other")
    with built.database.unit([hand.establishment_id]) as unit:
        row = unit.execute("SELECT quarantine_id FROM quarantine").fetchone()
    assert row is not None
    place.quarantined = row["quarantine_id"]
    orders = Orders(built.database, built.trail)
    place.order = orders.add(read_order(order_of(DAY[0])), Asking(Scope(hand), "cli"))
    workitems = Workitems(built.database, built.trail)
    place.workitem = workitems.create(a_workitem(), Asking(Scope(hand), "cli")).uid
    return place


def refused_for_login(family: Family, response: Any) -> bool:
    """Whether ``response`` tells somebody without login to sign in, and nothing else."""
    if family is Family.PROGRAM:
        return bool(response.status_code == 401 and response.headers.get("www-authenticate", "").startswith("Bearer"))
    location = str(response.headers.get("location", ""))
    return bool(response.status_code == 401 or (response.status_code == 303 and location.startswith("/login")))


def refused_for_role(family: Family, response: Any) -> bool:
    """Whether ``response`` turns away somebody whose role does not do this."""
    return bool(response.status_code == (403 if family is Family.PROGRAM else 404))

"""DIMSE: verbs x rights of the application entity x who calls from where, with a peer that we did not write."""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.model.actor import Right, Scope
from negatoscope.ordering import worklist_services
from negatoscope.sending import commitment_service, sending
from negatoscope.serve import query_retrieve
from negatoscope.servers.dicom import DicomServer
from negatoscope.servers.dicom_commitment import PUSH_MODEL, WELL_KNOWN_INSTANCE
from negatoscope.sharing import COMMAND_LINE
from negatoscope.worklist import Asking, Orders, StepStatus
from security.estate import Estate, estate
from worklist_data import DAY, Line, enter

TITLE = "NEGATOSCOPE"
VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
STUDY_FIND, STUDY_MOVE, STUDY_GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
MWL, MPPS, MPPS_GET = "1.2.840.10008.5.1.4.31", "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.3.1.2.3.4"
EXPLICIT = "1.2.840.10008.1.2.1"
USER_REJECTION = 0x01  # PS3.8 table 9-18
CALLING_UNKNOWN, CALLED_UNKNOWN = (1, 1, 3), (1, 1, 7)  # result, source, reason: PS3.8 table 9-21


@dataclass
class Node:
    estate: Estate
    port: int
    orders: dict[str, int] = field(default_factory=dict)  # by establishment; LINES says what they are

    def call(self, title: str, called: str = TITLE, **more: Any) -> Association:
        entity = AE(ae_title=title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        for abstract in (VERIFICATION, CT, STUDY_FIND, STUDY_MOVE, STUDY_GET, MWL, MPPS, MPPS_GET, PUSH_MODEL):
            entity.add_requested_context(abstract, EXPLICIT)
        return entity.associate("127.0.0.1", self.port, ae_title=called, **more)


def scope_of(made: Estate, code: str) -> Scope:
    return Scope(made.accounts.system_actor(code, "orders", (Right.WORKLIST,)))


LINES = {
    code: replace(DAY[0], accession=f"MX{code}", procedure=f"MXR{code}", step=f"MXS{code}", study=f"2.25.88{number}")
    for number, code in enumerate("AB")
}


@pytest.fixture(scope="module")
def node(postgresql: EmbeddedPostgreSQL) -> Iterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="negatoscope-dimse-"))
    admin = postgresql.url.replace("/negatoscope?", "/postgres?")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("CREATE DATABASE dimse_matrix TEMPLATE negatoscope")
    with estate(postgresql.url.replace("/negatoscope?", "/dimse_matrix?"), folder) as made:
        for right in (Right.STORE, Right.QUERY, Right.RETRIEVE, Right.WORKLIST):
            made.accounts.add_entity(f"ONLY_{right.upper()}"[:16], "A", [right], by=COMMAND_LINE)
        made.accounts.add_entity("ELSEWHERE", "A", [Right.STORE], "192.0.2.1", by=COMMAND_LINE)
        made.accounts.add_entity("HERE", "B", [Right.STORE], "127.0.0.1", by=COMMAND_LINE)
        made.accounts.remove_entity(
            made.accounts.add_entity("GONE", "A", [Right.STORE], by=COMMAND_LINE).actor_id, by=COMMAND_LINE
        )
        for code in ("A", "B"):
            made.accounts.add_entity(f"READS_{code}", code, [Right.QUERY, Right.RETRIEVE], by=COMMAND_LINE)
            made.accounts.add_entity(f"WORKS_{code}", code, [Right.WORKLIST], by=COMMAND_LINE)
            made.accounts.add_entity(f"KEEPS_{code}", code, [Right.STORE], by=COMMAND_LINE)
        made.accounts.add_entity("SHELF_A", "A", [Right.STORE], "127.0.0.1", 9, by=COMMAND_LINE)
        with query_retrieve(made.built) as operations:
            server = DicomServer(
                ("127.0.0.1", 0),
                TITLE,
                made.built.store,
                lambda calling, called, address, identity: made.accounts.actor_of_title(calling, address, called),
                operations=(*worklist_services(made.built), commitment_service(made.built), operations),
            )
            server.start()
            book = Orders(made.built.database, made.built.trail)
            orders = {code: enter(book, scope_of(made, code), line)[0] for code, line in LINES.items()}
            yield Node(made, server.address[1], orders)
            server.stop()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("DROP DATABASE dimse_matrix WITH (FORCE)")
    shutil.rmtree(folder, ignore_errors=True)


SERVICES = {CT, STUDY_FIND, STUDY_MOVE, STUDY_GET, MWL, MPPS, MPPS_GET, PUSH_MODEL}
SERVED = {
    "ONLY_STORE": {CT, PUSH_MODEL},
    "ONLY_QUERY": {STUDY_FIND},
    "ONLY_RETRIEVE": {STUDY_MOVE, STUDY_GET},
    "ONLY_WORKLIST": {MWL, MPPS, MPPS_GET},
    "HERE": {CT, PUSH_MODEL},
    "READS_A": {STUDY_FIND, STUDY_MOVE, STUDY_GET},
}


@pytest.mark.parametrize("title", SERVED)
def test_who_may_associate_echoes_and_gets_the_services_of_its_rights_alone(node: Node, title: str) -> None:
    stores = CT in SERVED[title]
    association = node.call(title)
    try:
        assert association.is_established
        assert association.send_c_echo().Status == 0x0000
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        assert accepted == {VERIFICATION} | SERVED[title]
        refused = {(str(context.abstract_syntax), context.result) for context in association.rejected_contexts}
        assert refused == {(uid, USER_REJECTION) for uid in SERVICES - SERVED[title]}
        if stores:
            dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
            dataset.StudyInstanceUID = f"2.25.77{len(title)}"
            dataset.SeriesInstanceUID = f"{dataset.StudyInstanceUID}.1"
            dataset.SOPInstanceUID = UID(f"{dataset.StudyInstanceUID}.1.1")
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            assert association.send_c_store(dataset).Status == 0x0000
    finally:
        association.release()


def rejection(association: Association) -> tuple[object, object, object]:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    assert association.is_rejected
    reject = association.acceptor.primitive
    assert reject is not None
    return reject.result, reject.result_source, reject.diagnostic


@pytest.mark.parametrize(
    ("title", "called", "answer"),
    [
        ("NOBODY", TITLE, CALLING_UNKNOWN),
        ("only_store", TITLE, CALLING_UNKNOWN),
        ("ELSEWHERE", TITLE, CALLING_UNKNOWN),
        ("GONE", TITLE, CALLING_UNKNOWN),
        ("ONLY_STORE", "ORTHANC", CALLED_UNKNOWN),
        ("NOBODY", "ORTHANC", CALLED_UNKNOWN),
    ],
)
def test_unknown_titles_wrong_addresses_and_wrong_called_titles_are_rejected(
    node: Node, title: str, called: str, answer: tuple[int, int, int]
) -> None:
    assert rejection(node.call(title, called)) == answer


def test_a_wrong_address_is_answered_as_an_unknown_title(node: Node) -> None:
    assert rejection(node.call("NOBODY")) == rejection(node.call("ELSEWHERE"))


def test_what_an_entity_stores_belongs_to_its_establishment(node: Node) -> None:
    test_who_may_associate_echoes_and_gets_the_services_of_its_rights_alone(node, "HERE")
    with node.estate.built.database.unit(None) as unit:
        row = unit.execute(
            "SELECT code FROM study JOIN establishment USING (establishment_id) WHERE study_uid = '2.25.774'"
        ).fetchone()
    assert row == {"code": "B"}


# Query and retrieve --------------------------------------------------------------------------------

MATCHES = ("own", "foreign", "absent")


def identifier(node: Node, code: str, whose: str, level: str) -> Dataset:
    """Names a study, a series or an image of the asker's establishment, of the other one, or of nobody."""
    places = node.estate.places
    named = {
        "own": places[code].study,
        "foreign": places["B" if code == "A" else "A"].study,
        "absent": {"study_uid": "2.25.404", "series_uid": "2.25.404.1", "sop_instance_uid": "2.25.404.1.1"},
    }[whose]
    wanted = Dataset()
    wanted.QueryRetrieveLevel = level
    wanted.StudyInstanceUID = named["study_uid"]
    if level != "STUDY":
        wanted.SeriesInstanceUID = named["series_uid"]
    if level == "IMAGE":
        wanted.SOPInstanceUID = named["sop_instance_uid"]
    return wanted


@pytest.mark.parametrize("code", ["A", "B"])
@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
@pytest.mark.parametrize("whose", MATCHES)
def test_a_query_finds_one_s_own_and_what_is_foreign_looks_absent(
    node: Node, code: str, level: str, whose: str
) -> None:
    association = node.call(f"READS_{code}")
    answers = list(association.send_c_find(identifier(node, code, whose, level), STUDY_FIND))
    association.release()
    statuses = [status.Status for status, _ in answers]
    assert statuses == ([0xFF00, 0x0000] if whose == "own" else [0x0000])


@pytest.mark.parametrize("code", ["A", "B"])
@pytest.mark.parametrize("level", ["STUDY", "SERIES", "IMAGE"])
@pytest.mark.parametrize("whose", MATCHES)
def test_a_retrieve_reaches_one_s_own_and_what_is_foreign_looks_absent(
    node: Node, code: str, level: str, whose: str
) -> None:
    """No storage context is open, so what is in reach fails to be sent; the rest is as if it were not there."""
    association = node.call(f"READS_{code}")
    status, _ = list(association.send_c_get(identifier(node, code, whose, level), STUDY_GET))[-1]
    association.release()
    assert status.NumberOfCompletedSuboperations == 0
    assert (status.Status, bool(status.NumberOfFailedSuboperations)) == (
        (0xA702, True) if whose == "own" else (0x0000, False)
    )


@pytest.mark.parametrize(
    ("title", "destination", "status"),
    [
        ("READS_A", "SHELF_A", 0x0000),
        ("READS_B", "SHELF_A", 0xA801),
        ("READS_A", "READS_B", 0xA801),
        ("READS_A", "HERE", 0xA801),
        ("READS_A", "ONLY_STORE", 0xA801),
        ("READS_A", "NOBODY", 0xA801),
    ],
)
def test_a_move_goes_to_entities_of_one_s_own_establishment_with_an_address(
    node: Node, title: str, destination: str, status: int
) -> None:
    association = node.call(title)
    wanted = identifier(node, title[-1], "absent", "STUDY")
    last, _ = list(association.send_c_move(wanted, destination, STUDY_MOVE))[-1]
    association.release()
    assert last.Status == status


# Worklist and performed steps ------------------------------------------------------------------------


def line_of(code: str, whose: str) -> Line:
    """An order of the asker's establishment, of the other one, or of nobody."""
    if whose == "absent":
        return replace(DAY[0], accession="MX0", procedure="MXR0", step="MXS0", study="2.25.889")
    return LINES[code if whose == "own" else "B" if code == "A" else "A"]


@pytest.mark.parametrize("code", ["A", "B"])
@pytest.mark.parametrize("whose", MATCHES)
def test_a_worklist_has_one_s_own_orders_and_what_is_foreign_looks_absent(node: Node, code: str, whose: str) -> None:
    asked = Dataset()
    asked.AccessionNumber, asked.PatientID, asked.ScheduledProcedureStepSequence = "", "", Sequence([Dataset()])
    asked.AccessionNumber = line_of(code, whose).accession
    association = node.call(f"WORKS_{code}")
    statuses = [answer.Status for answer, _ in association.send_c_find(asked, MWL)]
    association.release()
    assert statuses == ([0xFF00, 0x0000] if whose == "own" else [0x0000])


def begun(line: Line) -> Dataset:
    item, made = Dataset(), Dataset()
    item.StudyInstanceUID, item.AccessionNumber, item.ScheduledProcedureStepID = line.study, line.accession, line.step
    made.ScheduledStepAttributesSequence = Sequence([item])
    made.PatientName, made.PatientID, made.Modality = line.name, line.identifier, line.modality
    made.PerformedProcedureStepID, made.PerformedStationAETitle = "PPS", line.station
    made.PerformedProcedureStepStartDate, made.PerformedProcedureStepStartTime = line.date, line.time
    made.PerformedProcedureStepStatus, made.PerformedSeriesSequence = "IN PROGRESS", Sequence()
    return made


def ended(how: str) -> Dataset:
    made = Dataset()
    made.PerformedProcedureStepStatus = how
    return made


def states(node: Node) -> dict[str, StepStatus]:
    book = Orders(node.estate.built.database, node.estate.built.trail)
    return {
        code: book.get(number, Asking(scope_of(node.estate, code), "api")).status
        for code, number in node.orders.items()
    }


@pytest.mark.parametrize("whose", ["foreign", "absent", "own"])
def test_a_step_moves_one_s_own_order_alone_and_is_seen_by_its_establishment_alone(node: Node, whose: str) -> None:
    """N-CREATE, N-SET and N-GET; a step for an order that is not there is kept, as one that was not scheduled."""
    before, uid = states(node), f"2.25.{uuid.uuid4().int}"
    own, other = node.call("WORKS_A"), node.call("WORKS_B")
    try:
        assert own.send_n_create(begun(line_of("A", whose)), MPPS, uid)[0].Status == 0x0000
        assert states(node) == (before | {"A": StepStatus.STARTED} if whose == "own" else before)
        for wrong in (uid, "2.25.404"):
            assert other.send_n_set(ended("DISCONTINUED"), MPPS, UID(wrong))[0].Status == 0x0112
            assert other.send_n_get([Tag(0x00400252)], MPPS_GET, UID(wrong))[0].Status == 0x0112
        status, held = own.send_n_get([Tag(0x00400252)], MPPS_GET, UID(uid))
        assert (status.Status, held and held.PerformedProcedureStepStatus) == (0x0000, "IN PROGRESS")
        assert own.send_n_set(ended("COMPLETED"), MPPS, UID(uid))[0].Status == 0x0000
        assert states(node) == (before | {"A": StepStatus.COMPLETED} if whose == "own" else before)
    finally:
        own.release()
        other.release()


# Storage commitment ----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["A", "B"])
@pytest.mark.parametrize("whose", MATCHES)
def test_only_one_s_own_objects_are_promised_and_what_is_foreign_looks_absent(
    node: Node, code: str, whose: str
) -> None:
    """N-ACTION, and the N-EVENT-REPORT that answers it."""
    uids = {key: place.second_study["sop_instance_uid"] for key, place in node.estate.places.items()}
    named = {"own": uids[code], "foreign": uids["B" if code == "A" else "A"], "absent": "2.25.404"}[whose]
    reports: list[Dataset] = []
    arrived = threading.Event()

    def hear(event: Any) -> tuple[int, None]:
        reports.append(event.event_information)
        arrived.set()
        return 0x0000, None

    item, asked = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, named
    asked.TransactionUID, asked.ReferencedSOPSequence = f"2.25.{uuid.uuid4().int}", Sequence([item])
    association = node.call(f"KEEPS_{code}", evt_handlers=[(evt.EVT_N_EVENT_REPORT, hear)])
    answer, _ = association.send_n_action(asked, 1, UID(PUSH_MODEL), UID(WELL_KNOWN_INSTANCE))
    assert answer.Status == 0x0000
    assert arrived.wait(10)
    association.release()
    failed = [int(one.FailureReason) for one in reports[0].get("FailedSOPSequence", [])]
    promised = [str(one.ReferencedSOPInstanceUID) for one in reports[0].get("ReferencedSOPSequence", [])]
    assert (promised, failed) == (([named], []) if whose == "own" else ([], [0x0112]))


def test_a_report_settles_what_the_reporter_s_establishment_asked_for_alone(node: Node) -> None:
    """N-EVENT-REPORT of an application entity, on an association of its own. Every answer is the same."""
    built = node.estate.built
    delivery, transaction = node.estate._delivery("A"), f"2.25.{uuid.uuid4().int}"
    with built.database.unit(None) as unit:
        unit.execute("UPDATE delivery SET state = 'committing' WHERE delivery_id = %s", (delivery,))
        unit.execute(
            "INSERT INTO commitment_asked (transaction_uid, delivery_id) VALUES (%s, %s)", (transaction, delivery)
        )
    queue, settled = sending(built).queue, []
    for title in ("KEEPS_B", "KEEPS_A"):
        report = Dataset()
        report.TransactionUID, report.ReferencedSOPSequence = transaction, Sequence()
        role = build_role(PUSH_MODEL, scu_role=False, scp_role=True)
        association = node.call(title, ext_neg=[role])
        status, _ = association.send_n_event_report(report, 1, UID(PUSH_MODEL), UID(WELL_KNOWN_INSTANCE))
        association.release()
        assert status.Status == 0x0000
        settled.append(queue.get(delivery, by=COMMAND_LINE).state.value)
    assert settled == ["committing", "done"]

"""DIMSE: verbs x rights of the application entity x who calls from where, with a peer that we did not write."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association

from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.model.actor import Right
from negatoscope.servers.dicom import DicomServer
from negatoscope.sharing import COMMAND_LINE
from security.estate import Estate, estate

TITLE = "NEGATOSCOPE"
VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT = "1.2.840.10008.1.2.1"
USER_REJECTION = 0x01  # PS3.8 table 9-18
CALLING_UNKNOWN, CALLED_UNKNOWN = (1, 1, 3), (1, 1, 7)  # result, source, reason: PS3.8 table 9-21


@dataclass
class Node:
    estate: Estate
    port: int

    def call(self, title: str, called: str = TITLE) -> Association:
        entity = AE(ae_title=title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        for abstract in (VERIFICATION, CT, STUDY_FIND):
            entity.add_requested_context(abstract, EXPLICIT)
        return entity.associate("127.0.0.1", self.port, ae_title=called)


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
        server = DicomServer(
            ("127.0.0.1", 0),
            TITLE,
            made.built.store,
            lambda calling, called, address, identity: made.accounts.actor_of_title(calling, address, called),
        )
        server.start()
        yield Node(made, server.address[1])
        server.stop()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("DROP DATABASE dimse_matrix WITH (FORCE)")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("title", "stores"),
    [("ONLY_STORE", True), ("ONLY_QUERY", False), ("ONLY_RETRIEVE", False), ("ONLY_WORKLIST", False), ("HERE", True)],
)
def test_who_may_associate_echoes_and_stores_only_with_the_right_to(node: Node, title: str, stores: bool) -> None:
    association = node.call(title)
    try:
        assert association.is_established
        assert association.send_c_echo().Status == 0x0000
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        assert accepted == ({VERIFICATION, CT} if stores else {VERIFICATION})
        refused = {(str(context.abstract_syntax), context.result) for context in association.rejected_contexts}
        assert ((CT, USER_REJECTION) in refused) is not stores
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
    test_who_may_associate_echoes_and_stores_only_with_the_right_to(node, "HERE", True)
    with node.estate.built.database.unit(None) as unit:
        row = unit.execute(
            "SELECT code FROM study JOIN establishment USING (establishment_id) WHERE study_uid = '2.25.774'"
        ).fetchone()
    assert row == {"code": "B"}

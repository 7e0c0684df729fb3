"""C-FIND, C-GET and C-MOVE with pynetdicom: what DCMTK's tools cannot ask for, cancel, and endings in the middle."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from dimse_archive import FOREIGNER, READER, TITLE, Archive, archive, ask, data_set_bytes
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.servers.dicom_client import Proposal, associate
from negatoscope.wire.dimse.commands import C_FIND

logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
STUDY_FIND, STUDY_MOVE, STUDY_GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))
CT, MR, PLAN = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.481.5"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
PENDING = (0xFF00, 0xFF01)
STUDIES, ANSWERS = 5, 5
LIMITS = replace(DEFAULT_LIMITS, find_answers=ANSWERS, identifier=4096)
NAMES = ("DUPONT^Jean", "Dupond^Éric", "MARTIN^Jean", "LE GOFF^Anne Marie", "Ünal^Ada")


def uid(*numbers: int) -> str:
    return "2.25.77" + "".join(f".{number}" for number in numbers)


@pytest.fixture(scope="module")
def here(postgresql: EmbeddedPostgreSQL) -> Iterator[Archive]:
    """Five studies; the first has three images: two CT and an MR."""
    with archive(postgresql, LIMITS) as made:
        for study in range(1, STUDIES + 1):
            for number, name in ((1, "CT_small.dcm"), (2, "CT_small.dcm"), (3, "MR_small.dcm"))[
                : 3 if study == 1 else 1
            ]:
                series = 2 if number == 3 else 1
                made.keep_file(
                    str(get_testdata_file(name)),
                    SpecificCharacterSet="ISO_IR 192",
                    PatientID=f"P{study}",
                    PatientName=NAMES[study - 1],
                    StudyInstanceUID=uid(study),
                    SeriesInstanceUID=uid(study, series),
                    SOPInstanceUID=uid(study, series, number),
                    AccessionNumber="" if study == 2 else f"A{study}",
                )
        yield made


@contextmanager
def associated(here: Archive, *contexts: tuple[str, str], extended: bytes = b"", **more: Any) -> Iterator[Any]:
    ae = AE(READER)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 20
    for abstract, syntax in contexts:
        ae.add_requested_context(abstract, syntax)
    options = list(more.pop("roles", ()))
    if extended:
        one = SOPClassExtendedNegotiation()
        one.sop_class_uid, one.service_class_application_information = contexts[0][0], extended
        options.append(one)
    association = ae.associate("127.0.0.1", int(here.port), ae_title=TITLE, ext_neg=options, **more)
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def identifier(level: str, **keys: Any) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = level
    for name, value in keys.items():
        setattr(made, name, value)
    return made


def find(here: Archive, wanted: Dataset, extended: bytes = b"", syntax: str = EXPLICIT) -> tuple[int, list[Dataset]]:
    with associated(here, (STUDY_FIND, syntax), extended=extended) as association:
        answers = list(association.send_c_find(wanted, STUDY_FIND))
    return answers[-1][0].Status, [dataset for status, dataset in answers if status.Status in PENDING]


# Queries -------------------------------------------------------------------------------------------


def test_a_relational_query_must_be_negotiated(here: Archive) -> None:
    wanted = identifier("SERIES", PatientID="P1", Modality="MR", SeriesInstanceUID="")
    assert find(here, wanted) == (0xA900, [])
    assert find(here, wanted, b"\0") == (0xA900, [])
    status, [series] = find(here, wanted, b"\1")
    assert (status, series.SeriesInstanceUID) == (0, uid(1, 2))
    wanted = identifier("IMAGE", PatientID="P1", SOPInstanceUID="")
    status, images = find(here, wanted, b"\1")
    assert (status, {one.SOPInstanceUID for one in images}) == (0, {uid(1, 1, 1), uid(1, 1, 2), uid(1, 2, 3)})
    wanted = identifier("IMAGE", SOPInstanceUID=[uid(1, 2, 3), uid(2, 1, 1)])
    assert len(find(here, wanted, b"\1")[1]) == 2


def test_words_of_a_name_in_any_order_are_found_when_negotiated(here: Archive) -> None:
    wanted = identifier("STUDY", PatientName="jean dup", PatientID="")
    assert find(here, wanted)[1] == []
    [study] = find(here, wanted, b"\0\0\1")[1]
    assert study.PatientID == "P1"


def test_no_value_is_asked_for_by_two_quotation_marks_when_negotiated(here: Archive) -> None:
    wanted = identifier("STUDY", AccessionNumber='""', PatientID="")
    assert find(here, wanted)[1] == []
    [study] = find(here, wanted, b"\0\0\0\0\0\1")[1]
    assert study.PatientID == "P2"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_accents_in_the_query_and_in_the_answer(here: Archive, syntax: str) -> None:
    for character_set, key in (("ISO_IR 100", "üNAL^*"), ("ISO_IR 192", "ÜNAL*"), ("", "unal*")):
        wanted = identifier("STUDY", PatientID="", PatientName=key)
        if character_set:
            wanted.SpecificCharacterSet = character_set
        [study] = find(here, wanted, syntax=syntax)[1]
        assert study.SpecificCharacterSet == (character_set or "ISO_IR 192")
        study.decode()
        assert study.PatientName == "Ünal^Ada"


def test_sequences_are_answered_with_what_was_asked_of_their_items(here: Archive) -> None:
    dataset = here.keep_file(str(get_testdata_file("CT_small.dcm")), "B")
    code, more = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T1", "99X", "Thorax"
    dataset.ProcedureCodeSequence = [code]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid(8), uid(8, 1), uid(8, 1, 1)
    dataset.PatientID = "SEQ"
    here.keep(data_set_bytes(dataset), EXPLICIT, "B")
    more.CodeValue, more.CodeMeaning = "", ""
    wanted = identifier("STUDY", StudyInstanceUID=uid(8), ProcedureCodeSequence=[more])
    ae = AE(FOREIGNER)
    ae.add_requested_context(STUDY_FIND, EXPLICIT)
    association = ae.associate("127.0.0.1", int(here.port), ae_title=TITLE)
    [(status, study), (last, _)] = list(association.send_c_find(wanted, STUDY_FIND))
    association.release()
    assert (status.Status, last.Status) == (0xFF00, 0)
    assert study is not None
    [item] = study.ProcedureCodeSequence
    assert {element.keyword: element.value for element in item} == {"CodeValue": "T1", "CodeMeaning": "Thorax"}


@pytest.mark.parametrize(("named", "status"), [(ANSWERS - 1, 0), (ANSWERS, 0), (ANSWERS + 1, 0xA700)])
def test_more_answers_than_the_limit_end_with_out_of_resources(here: Archive, named: int, status: int) -> None:
    if named > STUDIES:
        here.keep_file(
            str(get_testdata_file("CT_small.dcm")),
            PatientID="P6", StudyInstanceUID=uid(6), SeriesInstanceUID=uid(6, 1), SOPInstanceUID=uid(6, 1, 1),
        )  # fmt: skip
    last, studies = find(here, identifier("STUDY", StudyInstanceUID=[uid(study) for study in range(1, named + 1)]))
    assert (last, len(studies)) == (status, min(named, ANSWERS))


@pytest.mark.parametrize(("size", "status"), [(4095, 0), (4096, 0), (4097, 0xC004)])
def test_an_identifier_over_its_limit_is_refused(here: Archive, size: int, status: int) -> None:
    level, uids = b"\x08\x00\x52\x00CS\x06\x00STUDY ", b"\x20\x00\x0d\x00UI\x04\x001.2\0"
    room = size - len(level) - len(uids) - 8
    raw = level + b"\x10\x00\x00\x40LT" + (room & ~1).to_bytes(2, "little") + b" " * (room & ~1) + uids
    raw += bytes(size - len(raw))  # filler, which is read over
    with associate(here.address, Proposal(TITLE, READER, ((STUDY_FIND, (EXPLICIT,)),))) as sender:
        assert ask(sender, C_FIND, raw).status == status


# Retrieval -----------------------------------------------------------------------------------------


class Receiver:
    """What arrived by C-STORE; ``answer`` decides on the status."""

    def __init__(self, answer: Callable[[int], int] = lambda count: 0) -> None:
        self.datasets: list[Dataset] = []
        self.syntaxes: list[str] = []
        self.originators: list[tuple[str, int]] = []
        self._answer = answer

    def store(self, event: Any) -> int:
        request = event.request
        if request.MoveOriginatorMessageID is not None:
            self.originators.append((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        self.datasets.append(event.dataset)
        self.syntaxes.append(str(event.context.transfer_syntax))
        return self._answer(len(self.datasets))

    @property
    def handlers(self) -> list[Any]:
        return [(evt.EVT_C_STORE, self.store)]


def get(
    here: Archive, wanted: Dataset, receiver: Receiver, *kept: tuple[str, str], extended: bytes = b""
) -> list[tuple[Dataset, Dataset | None]]:
    roles = [build_role(abstract, scp_role=True) for abstract, _ in dict(kept).items()]
    with associated(
        here, (STUDY_GET, EXPLICIT), *kept, extended=extended, roles=roles, evt_handlers=receiver.handlers
    ) as association:
        return list(association.send_c_get(wanted, STUDY_GET))


def test_objects_come_in_the_first_syntax_that_was_accepted_or_that_they_are_kept_in(here: Archive) -> None:
    receiver = Receiver()
    answers = get(here, identifier("STUDY", StudyInstanceUID=uid(1)), receiver, (CT, IMPLICIT), (MR, EXPLICIT))
    assert [status.Status for status, _ in answers] == [0xFF00, 0xFF00, 0]
    assert receiver.syntaxes == [IMPLICIT, IMPLICIT, EXPLICIT]
    last = answers[-1][0]
    assert (last.NumberOfCompletedSuboperations, last.NumberOfFailedSuboperations) == (3, 0)
    assert "NumberOfRemainingSuboperations" not in last
    assert [status.NumberOfRemainingSuboperations for status, _ in answers[:-1]] == [2, 1]
    assert all(len(dataset.PixelData) in (128 * 128 * 2, 64 * 64 * 2) for dataset in receiver.datasets)


def test_objects_of_a_class_that_was_not_accepted_are_listed_as_failed(here: Archive) -> None:
    receiver = Receiver()
    answers = get(here, identifier("STUDY", StudyInstanceUID=uid(1)), receiver, (CT, EXPLICIT))
    status, listed = answers[-1]
    assert (status.Status, status.NumberOfFailedSuboperations, len(receiver.datasets)) == (0xB000, 1, 2)
    assert listed is not None
    assert listed.FailedSOPInstanceUIDList == uid(1, 2, 3)


def test_nothing_sent_at_all_is_a_failure(here: Archive) -> None:
    receiver = Receiver()
    answers = get(here, identifier("STUDY", StudyInstanceUID=uid(1)), receiver, (PLAN, EXPLICIT))
    status, listed = answers[-1]
    assert (status.Status, status.NumberOfFailedSuboperations, receiver.datasets) == (0xA702, 3, [])
    assert listed is not None
    assert len(listed.FailedSOPInstanceUIDList) == 3


@pytest.mark.parametrize(
    ("said", "status", "counts"),
    [(0xA700, 0xB000, (2, 1, 0)), (0xB000, 0xB000, (2, 0, 1)), (0x0111, 0xB000, (2, 1, 0)), (0x0000, 0, (3, 0, 0))],
)
def test_what_the_receiver_says_is_counted(here: Archive, said: int, status: int, counts: tuple[int, int, int]) -> None:
    receiver = Receiver(lambda count: said if count == 2 else 0)
    kept = ((CT, EXPLICIT), (MR, EXPLICIT))
    last, listed = get(here, identifier("STUDY", StudyInstanceUID=uid(1)), receiver, *kept)[-1]
    assert last.Status == status
    assert counts == (
        last.NumberOfCompletedSuboperations,
        last.NumberOfFailedSuboperations,
        last.NumberOfWarningSuboperations,
    )
    assert bool(listed) is bool(counts[1])


def test_a_relational_retrieve_must_be_negotiated(here: Archive) -> None:
    wanted = identifier("IMAGE", SOPInstanceUID=[uid(1, 2, 3), uid(2, 1, 1)])
    kept = ((CT, EXPLICIT), (MR, EXPLICIT))
    receiver = Receiver()
    assert get(here, wanted, receiver, *kept)[-1][0].Status == 0xA900
    assert get(here, wanted, receiver, *kept, extended=b"\1")[-1][0].Status == 0
    assert {dataset.SOPInstanceUID for dataset in receiver.datasets} == {uid(1, 2, 3), uid(2, 1, 1)}


@contextmanager
def destination(here: Archive, receiver: Receiver, title: str, *contexts: tuple[str, str]) -> Iterator[Any]:
    ae: Any = AE(title)
    for abstract, syntax in contexts or ((CT, EXPLICIT), (MR, EXPLICIT)):
        ae.add_supported_context(abstract, syntax)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=receiver.handlers)
    here.destination(title, server.socket.getsockname()[1])
    try:
        yield server
    finally:
        server.shutdown()


def move(here: Archive, wanted: Dataset, to: str) -> list[tuple[Dataset, Dataset | None]]:
    with associated(here, (STUDY_MOVE, EXPLICIT)) as association:
        return list(association.send_c_move(wanted, to, STUDY_MOVE, msg_id=77, priority=1))


def test_a_move_names_who_asked_for_it(here: Archive) -> None:
    receiver = Receiver()
    with destination(here, receiver, "ORIGIN"):
        answers = move(here, identifier("STUDY", StudyInstanceUID=uid(1)), "ORIGIN")
    assert [status.Status for status, _ in answers] == [0xFF00, 0xFF00, 0]
    assert receiver.originators == [(READER, 77)] * 3


def test_a_destination_that_takes_some_classes_only_fails_the_rest(here: Archive) -> None:
    receiver = Receiver()
    with destination(here, receiver, "MR_ONLY", (MR, IMPLICIT)):
        status, listed = move(here, identifier("STUDY", StudyInstanceUID=uid(1)), "MR_ONLY")[-1]
    assert (status.Status, status.NumberOfCompletedSuboperations, status.NumberOfFailedSuboperations) == (0xB000, 1, 2)
    assert listed is not None
    assert set(listed.FailedSOPInstanceUIDList) == {uid(1, 1, 1), uid(1, 1, 2)}
    assert receiver.syntaxes == [IMPLICIT]


class Clumsy(Receiver):
    """Hangs up in the middle of its first objects."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times
        self.calls = 0

    def store(self, event: Any) -> int:
        self.calls += 1
        if self.left:
            self.left -= 1
            event.assoc.abort()
            return 0
        return super().store(event)


def test_a_destination_that_hangs_up_once_is_called_again(here: Archive) -> None:
    receiver = Clumsy(1)
    with destination(here, receiver, "CLUMSY"):
        status, _ = move(here, identifier("STUDY", StudyInstanceUID=uid(1)), "CLUMSY")[-1]
    assert (status.Status, status.NumberOfCompletedSuboperations) == (0, 3)
    assert receiver.calls == 4


def test_a_destination_that_always_hangs_up_is_given_up(here: Archive) -> None:
    receiver = Clumsy(1000)
    with destination(here, receiver, "BROKEN"):
        status, _ = move(here, identifier("STUDY", StudyInstanceUID=uid(1)), "BROKEN")[-1]
    assert (status.Status, status.NumberOfFailedSuboperations) == (0xA702, 3)
    assert 2 <= receiver.calls <= 6


# Cancel, and endings in the middle -----------------------------------------------------------------


def test_a_get_that_is_cancelled_stops_and_says_what_remains(here: Archive) -> None:
    receiver = Receiver()
    kept = ((CT, EXPLICIT), (MR, EXPLICIT))
    roles = [build_role(abstract, scp_role=True) for abstract, _ in kept]
    statuses = []
    with associated(here, (STUDY_GET, EXPLICIT), *kept, roles=roles, evt_handlers=receiver.handlers) as association:
        contexts = [one.context_id for one in association.accepted_contexts if one.abstract_syntax == STUDY_GET]
        receiver._answer = lambda count: association.send_c_cancel(9, contexts[0]) or 0
        for status, _ in association.send_c_get(identifier("STUDY", StudyInstanceUID=uid(1)), STUDY_GET, msg_id=9):
            statuses.append(status)
        assert statuses[-1].Status == 0xFE00
        assert statuses[-1].NumberOfRemainingSuboperations >= 1
        assert 1 <= len(receiver.datasets) <= 2
        receiver._answer = lambda count: 0
        again = list(association.send_c_get(identifier("STUDY", StudyInstanceUID=uid(2)), STUDY_GET, msg_id=10))
        assert again[-1][0].Status == 0


def test_a_move_that_is_cancelled_stops_and_says_what_remains(here: Archive) -> None:
    with associated(here, (STUDY_MOVE, EXPLICIT)) as association:

        def cancel(count: int) -> int:
            association.send_c_cancel(9, association.accepted_contexts[0].context_id)
            time.sleep(0.2)
            return 0

        receiver = Receiver(cancel)
        with destination(here, receiver, "SLOW"):
            wanted = identifier("STUDY", StudyInstanceUID=uid(1))
            statuses = [status for status, _ in association.send_c_move(wanted, "SLOW", STUDY_MOVE, msg_id=9)]
    assert statuses[-1].Status == 0xFE00
    assert statuses[-1].NumberOfRemainingSuboperations == 2
    assert len(receiver.datasets) == 1

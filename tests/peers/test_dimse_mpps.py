"""A modality's day with two stacks that we did not write: worklist, performed step, images, and what may go wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association

from dimse_archive import STORER, TITLE, Archive, archive
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.dicom.limits import DEFAULT_LIMITS
from negatoscope.model.actor import Right, Scope
from negatoscope.sharing import COMMAND_LINE
from negatoscope.worklist import Asking, Orders, PerformedSteps, StepStatus, read_order
from worklist_data import DAY, enter, order_of

MWL, MPPS, MPPS_GET = "1.2.840.10008.5.1.4.31", "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.3.1.2.3.4"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
MODALITY, FOREIGN = "CT_1", "CT_B"
MODULES = Path(os.environ.get("NEGATOSCOPE_NODE_MODULES", Path(__file__).parents[2] / "node_modules"))
LIMIT = 20_000  # bytes of a performed step


@pytest.fixture(scope="module")
def here(postgresql: EmbeddedPostgreSQL) -> Iterator[Archive]:
    with archive(postgresql, replace(DEFAULT_LIMITS, performed_step=LIMIT, find_answers=3)) as made:
        for title, code in ((MODALITY, "A"), (FOREIGN, "B")):
            made.built.accounts.add_entity(title, code, [Right.STORE, Right.WORKLIST], by=COMMAND_LINE)
        yield made


def book(here: Archive) -> tuple[Orders, Scope]:
    actor = here.built.accounts.actor_of_title(MODALITY, "127.0.0.1", TITLE)
    assert actor is not None
    return Orders(here.built.database, here.built.trail), Scope(actor)


def entered(here: Archive, number: int) -> tuple[int, Any]:
    """A fresh order like the first of the day, with numbers of its own."""
    line = replace(
        DAY[0], accession=f"N{number}", procedure=f"NR{number}", step=f"NS{number}", study=f"2.25.70{number}"
    )
    orders, scope = book(here)
    return enter(orders, scope, line)[0], line


def status(here: Archive, request_id: int) -> StepStatus:
    orders, scope = book(here)
    return orders.get(request_id, Asking(scope, "api")).status


@contextmanager
def called(here: Archive, title: str = MODALITY, syntax: str = EXPLICIT) -> Iterator[Association]:
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    for abstract in (MWL, MPPS, MPPS_GET, CT):
        entity.add_requested_context(abstract, syntax)
    association = entity.associate("127.0.0.1", int(here.port), ae_title=TITLE)
    assert association.is_established
    yield association
    association.release()


def question(**keys: str) -> Dataset:
    asked, step = Dataset(), Dataset()
    for name in ("AccessionNumber", "PatientName", "PatientID", "StudyInstanceUID", "RequestedProcedureID"):
        setattr(asked, name, keys.get(name, ""))
    for name in ("Modality", "ScheduledStationAETitle", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepID"):
        setattr(step, name, keys.get(name, ""))
    asked.ScheduledProcedureStepSequence = Sequence([step])
    return asked


def begun(entry: Dataset | None, station: str = MODALITY) -> Dataset:
    """N-CREATE of a step for this worklist entry; without one it was not scheduled."""
    item = Dataset()
    item.StudyInstanceUID = entry.StudyInstanceUID if entry else "2.25.555"
    item.AccessionNumber = entry.AccessionNumber if entry else ""
    item.RequestedProcedureID = entry.RequestedProcedureID if entry else ""
    item.ScheduledProcedureStepID = entry.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID if entry else ""
    item.ReferencedStudySequence = Sequence()
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.ScheduledStepAttributesSequence = Sequence([item])
    made.PatientName, made.PatientID = "DURAND^Émilie", "P1"
    made.PatientBirthDate, made.PatientSex = "19700101", "F"
    made.PerformedProcedureStepID, made.PerformedStationAETitle = "PPS1", station
    made.PerformedProcedureStepStartDate, made.PerformedProcedureStepStartTime = "20261123", "083100"
    made.PerformedProcedureStepStatus, made.Modality = "IN PROGRESS", "CT"
    made.PerformedSeriesSequence = Sequence()
    return made


def ended(how: str = "COMPLETED", images: int = 1) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID, series.ProtocolName = "2.25.556", "Chest"
    series.RetrieveAETitle, series.SeriesDescription = TITLE, "Thin"
    references = []
    for number in range(images):
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, f"2.25.556.{number + 1}"
        references.append(reference)
    series.ReferencedImageSequence = Sequence(references)
    made = Dataset()
    made.PerformedProcedureStepStatus = how
    made.PerformedProcedureStepEndDate, made.PerformedProcedureStepEndTime = "20261123", "084500"
    made.PerformedSeriesSequence = Sequence([series])
    made.ImageAndFluoroscopyAreaDoseProduct = "12.5"
    return made


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_a_day_of_a_modality(here: Archive, syntax: str) -> None:
    """Worklist, step in progress, images, step completed: one association, as pynetdicom speaks."""
    number = 1 if syntax == EXPLICIT else 2
    request_id, line = entered(here, number)
    with called(here, syntax=syntax) as association:
        answers = list(association.send_c_find(question(AccessionNumber=line.accession), MWL))
        assert [answer.Status for answer, _ in answers] == [0xFF00, 0x0000]
        entry = answers[0][1]
        assert entry is not None
        uid = f"2.25.66{number}"
        answer, _ = association.send_n_create(begun(entry), MPPS, uid)
        assert answer.Status == 0x0000
        assert status(here, request_id) is StepStatus.STARTED
        if syntax == EXPLICIT:
            image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
            image.StudyInstanceUID, image.SeriesInstanceUID = entry.StudyInstanceUID, "2.25.556"
            image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID("2.25.556.1")
            image.AccessionNumber = entry.AccessionNumber
            assert association.send_c_store(image).Status == 0x0000
        answer, _ = association.send_n_set(ended(), MPPS, uid)
        assert answer.Status == 0x0000
    orders, scope = book(here)
    order = orders.get(request_id, Asking(scope, "api"))
    assert order.status is StepStatus.COMPLETED
    [step] = order.performed
    assert (step.end_time, step.dose) == ("084500", {"dose_area_product_dgy_cm2": 12.5})
    assert [(one.series_uid, one.instances, one.protocol) for one in step.series] == [("2.25.556", 1, "Chest")]


def test_what_has_ended_is_never_updated(here: Archive) -> None:
    with called(here) as association:
        for number, how in ((10, "COMPLETED"), (11, "DISCONTINUED")):
            uid = f"2.25.66{number}"
            assert association.send_n_create(begun(None), MPPS, uid)[0].Status == 0x0000
            assert association.send_n_set(ended(how), MPPS, uid)[0].Status == 0x0000
            for again in ("IN PROGRESS", "COMPLETED", "DISCONTINUED"):
                answer, _ = association.send_n_set(ended(again), MPPS, uid)
                assert (answer.Status, answer.ErrorID) == (0x0110, 0xA710)


def test_a_step_in_progress_may_be_updated_many_times(here: Archive) -> None:
    with called(here) as association:
        assert association.send_n_create(begun(None), MPPS, "2.25.6620")[0].Status == 0x0000
        for images in (1, 2, 3):
            assert association.send_n_set(ended("IN PROGRESS", images), MPPS, "2.25.6620")[0].Status == 0x0000
        answer, held = association.send_n_get([Tag(0x00400340), Tag(0x00100010)], MPPS_GET, "2.25.6620")
        assert answer.Status == 0x0000
        assert held is not None
        assert str(held.PatientName) == "DURAND^Émilie"
        assert len(held.PerformedSeriesSequence[0].ReferencedImageSequence) == 3
        assert "PerformedProcedureStepStatus" not in held


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"PerformedProcedureStepStatus": "COMPLETED"}, 0x0106),
        ({"PerformedProcedureStepStatus": None}, 0x0120),
        ({"PerformedStationAETitle": ""}, 0x0121),
        ({"ScheduledStepAttributesSequence": Sequence()}, 0x0121),
        ({"PerformedProcedureStepStartDate": None}, 0x0120),
    ],
)
def test_a_step_that_cannot_begin_is_refused_and_not_kept(here: Archive, change: dict[str, Any], expected: int) -> None:
    wrong = begun(None)
    for name, value in change.items():
        if value is None:
            delattr(wrong, name)
        else:
            setattr(wrong, name, value)
    with called(here) as association:
        answer, _ = association.send_n_create(wrong, MPPS, "2.25.6630")
        assert answer.Status == expected
        assert association.send_n_set(ended(), MPPS, "2.25.6630")[0].Status == 0x0112


def test_a_second_step_of_the_same_uid_is_refused(here: Archive) -> None:
    with called(here) as association:
        assert association.send_n_create(begun(None), MPPS, "2.25.6640")[0].Status == 0x0000
        assert association.send_n_create(begun(None), MPPS, "2.25.6640")[0].Status == 0x0111


def test_a_step_of_another_establishment_is_answered_as_one_that_is_not_there(here: Archive) -> None:
    with called(here) as association:
        assert association.send_n_create(begun(None), MPPS, "2.25.6650")[0].Status == 0x0000
    with called(here, FOREIGN) as association:
        for uid in ("2.25.6650", "2.25.404"):
            assert association.send_n_set(ended(), MPPS, uid)[0].Status == 0x0112
            assert association.send_n_get([Tag(0x00400252)], MPPS_GET, uid)[0].Status == 0x0112


def test_a_step_without_a_uid_is_given_one(here: Archive) -> None:
    """pynetdicom does not show which; the index does."""
    made = begun(None)
    made.PerformedProcedureStepStartDate = "20300102"
    with called(here) as association:
        assert association.send_n_create(made, MPPS, None)[0].Status == 0x0000
        steps = PerformedSteps(here.built.database, here.built.trail)
        [step] = steps.listed(Asking(book(here)[1], "api"), first="20300102").steps
        assert association.send_n_set(ended(), MPPS, UID(step.sop_instance_uid))[0].Status == 0x0000


def test_who_may_only_store_reports_nothing(here: Archive) -> None:
    with called(here, STORER) as association:
        accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
    assert accepted == {CT}


def test_a_patient_that_a_modality_would_change_stays_and_it_is_told(here: Archive) -> None:
    with called(here) as association:
        association.send_n_create(begun(None), MPPS, "2.25.6660")
        other = ended("IN PROGRESS")
        other.PatientID = "P2"
        assert association.send_n_set(other, MPPS, "2.25.6660")[0].Status == 0x0107
        _, held = association.send_n_get([Tag(0x00100020)], MPPS_GET, "2.25.6660")
        assert held is not None
        assert held.PatientID == "P1"


@pytest.mark.parametrize(("beyond", "expected"), [(-1, 0x0000), (0, 0x0000), (1, 0xC004)])
def test_a_step_is_so_long_and_no_longer(here: Archive, beyond: int, expected: int) -> None:
    made = begun(None)
    made.CommentsOnRadiationDose = "xx"
    room = LIMIT - len(encoded(made)) + 2
    made.CommentsOnRadiationDose = "x" * (room + 2 * beyond)  # values have an even length
    assert len(encoded(made)) == LIMIT + 2 * beyond
    with called(here) as association:
        answer, _ = association.send_n_create(made, MPPS, f"2.25.667{beyond + 1}")
    assert answer.Status == expected


def encoded(dataset: Dataset) -> bytes:
    from pynetdicom.dsutils import encode

    made = encode(dataset, False, True)
    assert made is not None
    return bytes(made)


@pytest.mark.parametrize(("orders", "last"), [(2, 0x0000), (3, 0x0000), (4, 0xA700)])
def test_a_worklist_has_so_many_answers_and_says_when_there_are_more(here: Archive, orders: int, last: int) -> None:
    title = f"ROOM{orders}"
    book_, scope = book(here)
    for number in range(orders):
        one = order_of(replace(DAY[0], accession=f"{title}-{number}", station=title))
        one["procedures"][0] |= {"id": "", "study_uid": ""}
        one["procedures"][0]["steps"][0] |= {"id": ""}
        book_.add(read_order(one), Asking(scope, "api"))
    with called(here) as association:
        answers = list(association.send_c_find(question(ScheduledStationAETitle=title), MWL))
    assert len(answers) == min(orders, 3) + 1
    assert answers[-1][0].Status == last


@pytest.mark.parametrize(("asked", "shown"), [("", MODALITY), ("ROOM_9", "ROOM_9"), ("ROOM*", MODALITY)])
def test_a_step_of_any_station_is_answered_as_of_the_one_that_is_asked_for(
    here: Archive, asked: str, shown: str
) -> None:
    orders, scope = book(here)
    one = order_of(replace(DAY[0], accession=f"ANY{len(asked)}", station=""))
    one["procedures"][0] |= {"id": "", "study_uid": ""}
    one["procedures"][0]["steps"][0] |= {"id": ""}
    orders.add(read_order(one), Asking(scope, "api"))
    with called(here) as association:
        wanted = question(ScheduledStationAETitle=asked, AccessionNumber=f"ANY{len(asked)}")
        entry = next(association.send_c_find(wanted, MWL))[1]
    assert entry is not None
    assert entry.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == shown


def test_keys_that_we_do_not_know_are_said_to_be_so(here: Archive) -> None:
    _, line = entered(here, 80)
    asked = question(AccessionNumber=line.accession)
    asked.PatientTelephoneNumbers = "1"
    with called(here) as association:
        answers = list(association.send_c_find(asked, MWL))
    assert [answer.Status for answer, _ in answers] == [0xFF01, 0x0000]
    entry = answers[0][1]
    assert entry is not None
    assert "PatientTelephoneNumbers" not in entry


@pytest.mark.parametrize(("number", "pregnancy"), [(81, None), (82, 0), (83, 2)])
def test_what_the_standard_does_not_match_by_narrows_nothing(here: Archive, number: int, pregnancy: int | None) -> None:
    """PS3.4 table K.6-1: Pregnancy Status is returned. dcmjs-dimse writes 0 where it means no value."""
    _, line = entered(here, number)
    asked = question(AccessionNumber=line.accession)
    asked.PregnancyStatus = pregnancy
    asked.QueryRetrieveLevel = ""  # dcmjs-dimse sends that too, which is no attribute of a worklist
    with called(here) as association:
        answers = list(association.send_c_find(asked, MWL))
    assert [answer.Status for answer, _ in answers] == [0xFF00, 0x0000]


def test_an_identifier_that_means_nothing_is_refused(here: Archive) -> None:
    with called(here) as association:
        asked = question(ScheduledProcedureStepStartDate="tomorrow")
        asked["ScheduledProcedureStepSequence"].value[0]["ScheduledProcedureStepStartDate"]._value = "tomorrow"
        [(answer, _)] = association.send_c_find(asked, MWL)
        assert answer.Status == 0xA900
        two = question()
        two.ScheduledProcedureStepSequence.append(Dataset())
        [(answer, _)] = association.send_c_find(two, MWL)
        assert answer.Status == 0xA900


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "MÜLLER^Zoé"),
        ("ISO_IR 144", "Иванов^Иван"),
        ("ISO_IR 126", "Παπαδόπουλος^Νίκος"),
        ("ISO_IR 127", "محمد^علي"),
        ("ISO_IR 138", "כהן^דוד"),
        ("ISO_IR 192", "山田^太郎"),
        ("GB18030", "王^小东"),
    ],
)
def test_answers_are_in_the_letters_of_whoever_asks(here: Archive, charset: str, name: str) -> None:
    orders, scope = book(here)
    one = order_of(replace(DAY[0], accession=f"L{charset[-3:]}{len(name)}", name=name))
    one["procedures"][0] |= {"id": "", "study_uid": ""}
    one["procedures"][0]["steps"][0] |= {"id": ""}
    orders.add(read_order(one), Asking(scope, "api"))
    asked = question(PatientName=name)
    asked.SpecificCharacterSet = charset
    with called(here) as association:
        answers = list(association.send_c_find(asked, MWL))
    entry = answers[0][1]
    assert entry is not None
    assert (entry.SpecificCharacterSet, str(entry.PatientName)) == (charset, name)


# npm dcmjs-dimse ---------------------------------------------------------------------------------

SCRIPT = """
const { Client, Dataset, requests } = require('dcmjs-dimse');
const [port, called, calling, accession, image] = process.argv.slice(1);
const MPPS = '1.2.840.10008.3.1.2.3.3', uid = '2.25.6699';
const heard = { found: [], statuses: [] };
const fail = (error) => { console.error(String(error)); process.exit(2); };
function say(request) {
  return new Promise((resolve) => {
    const client = new Client();
    request.on('response', (response) => {
      if (response.hasDataset()) heard.found.push(response.getDataset().getElements());
      if (response.getStatus() !== 0xff00) heard.statuses.push(response.getStatus());
    });
    client.on('networkError', fail);
    client.on('closed', resolve);
    client.addRequest(request);
    client.send('127.0.0.1', Number(port), calling, called);
  });
}
(async () => {
  await say(requests.CFindRequest.createWorklistFindRequest({
    AccessionNumber: accession, PatientName: '', PatientID: '', StudyInstanceUID: '', RequestedProcedureID: '',
    ScheduledProcedureStepSequence: [{ Modality: '', ScheduledStationAETitle: '', ScheduledProcedureStepID: '' }],
  }));
  if (!heard.found.length) fail('no entry: ' + heard.statuses);
  const entry = heard.found[0], step = [].concat(entry.ScheduledProcedureStepSequence)[0];
  const create = new requests.NCreateRequest(MPPS, uid);
  create.setDataset(new Dataset({
    ScheduledStepAttributesSequence: [{ StudyInstanceUID: entry.StudyInstanceUID, AccessionNumber: accession,
      RequestedProcedureID: entry.RequestedProcedureID, ScheduledProcedureStepID: step.ScheduledProcedureStepID }],
    PatientName: entry.PatientName, PatientID: entry.PatientID, Modality: step.Modality,
    PerformedProcedureStepID: 'PPS9', PerformedStationAETitle: calling, PerformedProcedureStepStartDate: '20261123',
    PerformedProcedureStepStartTime: '090000', PerformedProcedureStepStatus: 'IN PROGRESS',
    PerformedSeriesSequence: [],
  }));
  await say(create);
  await say(new requests.CStoreRequest(image));
  const set = new requests.NSetRequest(MPPS, uid);
  set.setDataset(new Dataset({ PerformedProcedureStepStatus: 'COMPLETED', PerformedProcedureStepEndDate: '20261123',
    PerformedProcedureStepEndTime: '091500', PerformedSeriesSequence: [{ SeriesInstanceUID: '2.25.557' }] }));
  await say(set);
  console.log(JSON.stringify(heard));
  process.exit(0);
})().catch(fail);
"""


@pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "dcmjs-dimse").exists(),
    reason="npm dcmjs-dimse is not installed (tools/peers.py)",
)
def test_a_day_of_a_modality_as_dcmjs_speaks(here: Archive, tmp_path: Path) -> None:
    request_id, line = entered(here, 90)
    image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    image.StudyInstanceUID, image.SeriesInstanceUID, image.AccessionNumber = line.study, "2.25.557", line.accession
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID("2.25.557.1")
    image.save_as(tmp_path / "image.dcm")
    done = subprocess.run(
        ["node", "-e", SCRIPT, here.port, TITLE, MODALITY, line.accession, str(tmp_path / "image.dcm")],
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    heard = json.loads(done.stdout.splitlines()[-1])
    assert heard["statuses"] == [0, 0, 0, 0]
    assert heard["found"][0]["StudyInstanceUID"] == line.study
    assert status(here, request_id) is StepStatus.COMPLETED

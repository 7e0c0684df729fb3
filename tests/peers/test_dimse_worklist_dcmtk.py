"""Modality worklist asked by DCMTK's findscu -W, and the same questions to DCMTK's own server on the same data."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dimse_archive import FINDER, TITLE, Archive, archive, run
from negatoscope.db import EmbeddedPostgreSQL
from negatoscope.model.actor import Right, Scope
from negatoscope.sharing import COMMAND_LINE
from negatoscope.worklist import Orders
from worklist_data import DAY, enter, entry_of

FINDSCU, WLMSCPFS = Path("/usr/bin/findscu"), Path("/usr/bin/wlmscpfs")
pytestmark = pytest.mark.skipif(not FINDSCU.exists() or not WLMSCPFS.exists(), reason="DCMTK is not installed (apt)")
MODALITY = "CT_1"
STEP = "ScheduledProcedureStepSequence[0]."


@pytest.fixture(scope="module")
def here(postgresql: EmbeddedPostgreSQL) -> Iterator[Archive]:
    with archive(postgresql) as made:
        accounts = made.built.accounts
        for title, code in ((MODALITY, "A"), ("OTHER", "B")):
            accounts.add_entity(title, code, [Right.WORKLIST], by=COMMAND_LINE)
        scope = Scope(accounts.system_actor("A", "orders"))
        enter(Orders(made.built.database, made.built.trail), scope, *DAY)
        yield made


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The port of wlmscpfs with the same steps in files."""
    folder = tmp_path_factory.mktemp("wl")
    area = folder / TITLE
    area.mkdir()
    (area / "lockfile").touch()
    for line in DAY:
        dataset = entry_of(line)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID("1.2.276.0.7230010.3.1.0.1")
        dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"{line.study}.1")
        dataset.save_as(area / f"{line.accession}.wl", enforce_file_format=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(WLMSCPFS), "-dfp", str(folder), str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield str(port)
    finally:
        process.terminate()
        process.wait(10)


class Found:
    def __init__(self, output: str, folder: Path) -> None:
        self.output = output
        self.datasets = [pydicom.dcmread(file, force=True) for file in sorted(folder.glob("rsp*.dcm"))]

    @property
    def statuses(self) -> list[str]:
        return re.findall(r"DIMSE Status\s*: 0x([0-9a-f]{4})", self.output)

    @property
    def accessions(self) -> list[str]:
        return sorted(str(dataset.AccessionNumber) for dataset in self.datasets)


def ask(port: str, folder: Path, *keys: str, title: str = MODALITY, options: tuple[str, ...] = ()) -> Found:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("rsp*.dcm"):
        old.unlink()
    words = [word for key in keys for word in ("-k", key)]
    done = run(
        [FINDSCU, "-d", "-X", "-od", folder, "-W", *options, "-aet", title, "-aec", TITLE, *words, "127.0.0.1", port]
    )
    return Found(done.stdout + done.stderr, folder)


RETURN = (
    "AccessionNumber", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
    "RequestedProcedureID", "RequestedProcedureDescription", "ReferringPhysicianName", f"{STEP}Modality",
    f"{STEP}ScheduledStationAETitle", f"{STEP}ScheduledProcedureStepStartDate",
    f"{STEP}ScheduledProcedureStepStartTime", f"{STEP}ScheduledPerformingPhysicianName",
    f"{STEP}ScheduledProcedureStepDescription", f"{STEP}ScheduledProcedureStepID",
)  # fmt: skip
QUESTIONS = {
    "all": [],
    "name": ["PatientName=DURAND^EMILIE"],
    "name with wild cards": ["PatientName=DU*"],
    "name with one unknown letter": ["PatientName=D?PONT^MAX"],
    "identifier": ["PatientID=P1"],
    "accession": ["AccessionNumber=A3"],
    "procedure": ["RequestedProcedureID=RP4"],
    "modality": [f"{STEP}Modality=MR"],
    "station": [f"{STEP}ScheduledStationAETitle=MR_1"],
    "day": [f"{STEP}ScheduledProcedureStepStartDate=20261123"],
    "days": [f"{STEP}ScheduledProcedureStepStartDate=20261123-20261124"],
    "from a day on": [f"{STEP}ScheduledProcedureStepStartDate=20261125-"],
    "until a day": [f"{STEP}ScheduledProcedureStepStartDate=-20261123"],
    "day and time": [
        f"{STEP}ScheduledProcedureStepStartDate=20261123",
        f"{STEP}ScheduledProcedureStepStartTime=080000-120000",
    ],
    "from moment to moment": [
        f"{STEP}ScheduledProcedureStepStartDate=20261123-20261124",
        f"{STEP}ScheduledProcedureStepStartTime=100000-093000",
    ],
    "physician": [f"{STEP}ScheduledPerformingPhysicianName=HOUSE^GREG"],
    "physician with a wild card": [f"{STEP}ScheduledPerformingPhysicianName=H*"],
    "all of it": [
        "PatientName=DURAND*",
        "PatientID=P1",
        f"{STEP}Modality=CT",
        f"{STEP}ScheduledStationAETitle=CT_1",
        f"{STEP}ScheduledProcedureStepStartDate=20261101-20261130",
    ],
    "nobody": ["PatientID=NOBODY"],
}


def keys_of(question: list[str]) -> list[str]:
    named = {key.partition("=")[0] for key in question}
    return [*question, *(key for key in RETURN if key not in named)]


def shown(dataset: Dataset) -> dict[str, str]:
    [step] = dataset.ScheduledProcedureStepSequence
    return {element.keyword: str(element.value) for part in (dataset, step) for element in part if element.VR != "SQ"}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_has_the_answers_that_dcmtk_s_own_server_gives(
    here: Archive, theirs: str, tmp_path: Path, name: str
) -> None:
    keys = keys_of(QUESTIONS[name])
    ours, other = ask(here.port, tmp_path / "ours", *keys), ask(theirs, tmp_path / "theirs", *keys)
    assert ours.statuses[-1] == other.statuses[-1] == "0000", ours.output + other.output
    assert ours.accessions == other.accessions
    answers = {str(one.AccessionNumber): shown(one) for one in ours.datasets}
    for one in other.datasets:
        assert answers[str(one.AccessionNumber)] == shown(one)


def test_every_question_but_one_finds_something_and_only_one_finds_all(here: Archive, tmp_path: Path) -> None:
    """Else the comparison would compare nothing."""
    counts = {name: len(ask(here.port, tmp_path / "o", *keys_of(keys)).datasets) for name, keys in QUESTIONS.items()}
    assert [name for name, count in counts.items() if count == 0] == ["nobody"]
    assert [name for name, count in counts.items() if count == len(DAY)] == ["all"]


@pytest.mark.parametrize(
    ("keys", "accessions"),
    [
        (["PatientID=P?"], 6),
        (["AccessionNumber=B*"], 2),
        (["PatientName=durand^émilie"], 2),
        (["PatientBirthDate=19700101-19991231"], 4),
        (["PatientSex=M"], 2),
        (["StudyInstanceUID=2.25.9001\\2.25.9004"], 2),
        (["ReferringPhysicianName=referring*"], 6),
        (["RequestedProcedureDescription=* MR"], 3),
        ([f"{STEP}Modality=M?"], 3),
        ([f"{STEP}ScheduledStationAETitle=CT_*"], 2),
        ([f"{STEP}ScheduledProcedureStepID=S2"], 1),
        ([f"{STEP}ScheduledProcedureStepDescription=Chest*"], 2),
        ([f"{STEP}ScheduledProcedureStepStatus=SCHEDULED"], 6),
        ([f"{STEP}ScheduledProcedureStepStatus=COMPLETED"], 0),
        ([f"{STEP}ScheduledProcedureStepStartTime=080000-090000"], 3),
    ],
)
def test_keys_that_the_standard_leaves_free_match_too(
    here: Archive, tmp_path: Path, keys: list[str], accessions: int
) -> None:
    found = ask(here.port, tmp_path / "o", *keys_of(keys))
    assert len(found.datasets) == accessions, found.output


@pytest.mark.parametrize("option", ["-xi", "-xe", "-x="])
def test_every_transfer_syntax_of_a_modality(here: Archive, tmp_path: Path, option: str) -> None:
    found = ask(here.port, tmp_path / "o", *keys_of(["AccessionNumber=A1"]), options=(option,))
    assert found.accessions == ["A1"], found.output


@pytest.mark.parametrize("options", [("-pdu", "4096"), ("-pdu", "131072")])
def test_pdus_small_and_large(here: Archive, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert len(ask(here.port, tmp_path / "o", *keys_of([]), options=options).datasets) == len(DAY)


def test_another_establishment_sees_nothing(here: Archive, tmp_path: Path) -> None:
    found = ask(here.port, tmp_path / "o", *keys_of([]), title="OTHER")
    assert (found.datasets, found.statuses) == ([], ["0000"])


def test_without_the_right_the_service_is_refused(here: Archive, tmp_path: Path) -> None:
    found = ask(here.port, tmp_path / "o", *keys_of([]), title=FINDER)
    assert found.datasets == []
    assert "No Acceptable Presentation Contexts" in found.output


def test_a_cancelled_query_stops(here: Archive, tmp_path: Path) -> None:
    found = ask(here.port, tmp_path / "o", *keys_of([]), options=("--cancel", "1"))
    assert found.statuses[-1] in ("fe00", "0000")  # all may be on their way already


def test_the_query_is_audited_without_values(here: Archive, tmp_path: Path) -> None:
    ask(here.port, tmp_path / "o", *keys_of(["PatientName=DURAND^EMILIE", f"{STEP}Modality=CT"]))
    event = here.events("110112")[-1]
    assert event["detail"]["level"] == "MWL"
    assert event["detail"]["keys"] == "00100010 00400100.00080060"
    assert "DURAND" not in str(event)

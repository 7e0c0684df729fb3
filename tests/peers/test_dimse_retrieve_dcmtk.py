"""C-GET and C-MOVE with DCMTK: getscu, movescu, storescp."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from harness import synthetic
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from dimse_archive import FINDER, FOREIGNER, READER, TITLE, Archive, archive, raw_data_set, run
from negatoscope.db import EmbeddedPostgreSQL

GETSCU, MOVESCU, STORESCP = (Path("/usr/bin") / name for name in ("getscu", "movescu", "storescp"))
pytestmark = pytest.mark.skipif(not GETSCU.exists(), reason="DCMTK is not installed (apt install dcmtk)")
EXPLICIT, IMPLICIT, RLE, J2K = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.91",
)
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
PATIENT = "RETRIEVED"
# One patient: study 1 with series 1 (two CT) and 2 (MR in RLE), study 2 with lossy and lossless images, a plan.
HELD = (
    ("CT_small.dcm", 1, 1, 1),
    ("CT_small.dcm", 1, 1, 2),
    ("MR_small_RLE.dcm", 1, 2, 1),
    ("JPEG2000.dcm", 2, 1, 1),
    ("SC_rgb_jpeg_gdcm.dcm", 2, 2, 1),
    ("rtplan.dcm", 2, 3, 1),
)


def uid(*numbers: int) -> str:
    return "2.25.31" + "".join(f".{number}" for number in numbers)


@pytest.fixture(scope="module")
def held() -> dict[str, Dataset]:
    """What is stored, by SOP Instance UID."""
    return {}


@pytest.fixture(scope="module")
def here(postgresql: EmbeddedPostgreSQL, held: dict[str, Dataset]) -> Iterator[Archive]:
    with archive(postgresql) as made:
        for name, *numbers in HELD:
            study, series, number = numbers
            changes = {
                "PatientID": PATIENT,
                "PatientName": "R^S",
                "StudyInstanceUID": uid(study),
                "SeriesInstanceUID": uid(study, series),
                "SOPInstanceUID": uid(study, series, number),
            }
            dataset = made.keep_file(str(get_testdata_file(name)), **changes)
            held[dataset.SOPInstanceUID] = dataset
        made.keep_file(str(get_testdata_file("CT_small.dcm")), "B", StudyInstanceUID=uid(9), PatientID=PATIENT)
        yield made


class Got:
    def __init__(self, output: str, folder: Path) -> None:
        self.output = output
        self.datasets = {str(one.SOPInstanceUID): one for one in map(pydicom.dcmread, folder.iterdir())}
        self.files = {str(pydicom.dcmread(path).SOPInstanceUID): path for path in folder.iterdir()}

    @property
    def uids(self) -> set[str]:
        return set(self.datasets)

    @property
    def final(self) -> str:
        statuses = re.findall(r"DIMSE Status\s*: 0x([0-9a-f]{4})", self.output)
        assert statuses, self.output
        return str(statuses[-1])

    def counts(self) -> list[tuple[str, ...]]:
        """Remaining, completed, failed, warning of each response of the operation."""
        return [
            tuple(found.replace("none", "0") for found in row)
            for row in re.findall(
                r"Remaining Suboperations\s*: (\S+).*?Completed Suboperations\s*: (\S+).*?"
                r"Failed Suboperations\s*: (\S+).*?Warning Suboperations\s*: (\S+)",
                self.output,
                re.DOTALL,
            )
        ]


def keys(*named: str) -> list[str]:
    return [word for key in named for word in ("-k", key)]


def get(here: Archive, folder: Path, *options: str, title: str = READER) -> Got:
    into = folder / "got"
    into.mkdir(exist_ok=True)
    for old in into.iterdir():
        old.unlink()
    done = run([GETSCU, "-d", "+B", "-od", into, "-aet", title, "-aec", TITLE, *options, "127.0.0.1", here.port])
    return Got(done.stdout + done.stderr, into)


LEVELS = [
    (["-P"], ["QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}"], [1, 2]),
    (["-P"], ["QueryRetrieveLevel=STUDY", f"PatientID={PATIENT}", f"StudyInstanceUID={uid(1)}"], [1]),
    (["-S"], ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid(1)}"], [1]),
    (["-S"], ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid(1)}\\{uid(2)}\\{uid(1)}"], [1, 2]),
    (["-O"], ["QueryRetrieveLevel=STUDY", f"PatientID={PATIENT}", f"StudyInstanceUID={uid(2)}"], [2]),
    (["-S"], ["QueryRetrieveLevel=SERIES", f"StudyInstanceUID={uid(1)}", f"SeriesInstanceUID={uid(1, 1)}"], [1, 1]),
    (
        ["-S"],
        [
            "QueryRetrieveLevel=IMAGE",
            f"StudyInstanceUID={uid(1)}",
            f"SeriesInstanceUID={uid(1, 1)}",
            f"SOPInstanceUID={uid(1, 1, 2)}",
        ],
        [1, 1, 2],
    ),
    (["-P"], ["QueryRetrieveLevel=STUDY", "PatientID=SOMEBODY", f"StudyInstanceUID={uid(1)}"], None),
    (["-S"], ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid(9)}"], None),
    (["-S"], ["QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2.3.4.5"], None),
]


def expected(below: list[int] | None) -> set[str]:
    """The instances below these numbers; a list of studies where it has two different ones that are studies."""
    all_uids = {uid(study, series, number) for _, study, series, number in HELD}
    if below is None:
        return set()
    if below == [1, 2]:
        return all_uids
    return {one for one in all_uids if one == uid(*below) or one.startswith(uid(*below) + ".")}


@pytest.mark.parametrize(("model", "named", "below"), LEVELS)
def test_getscu_gets_every_level_of_every_model(
    here: Archive, tmp_path: Path, held: dict[str, Dataset], model: list[str], named: list[str], below: list[int] | None
) -> None:
    got = get(here, tmp_path, *model, *keys(*named))
    wanted = expected(below)
    assert got.uids == wanted, got.output
    assert got.final == "0000"
    assert got.counts()[-1] == ("0", str(len(wanted)), "0", "0")
    pending = [
        (int(remaining), int(completed)) for remaining, completed, *_ in got.counts()[:-2]
    ]  # getscu shows the last one twice
    assert pending == [(len(wanted) - n, n) for n in range(1, len(wanted))]
    for one, dataset in got.datasets.items():
        assert dataset.file_meta.TransferSyntaxUID == EXPLICIT
        assert (dataset.get("PatientName"), dataset.StudyInstanceUID) == ("R^S", held[one].StudyInstanceUID)


def test_an_object_in_an_accepted_syntax_leaves_byte_for_byte(here: Archive, tmp_path: Path) -> None:
    study = keys("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid(1)}")
    for options, name in ((["+xe"], uid(1, 1, 1)), (["+xr"], uid(1, 2, 1))):
        got = get(here, tmp_path, "-S", *options, *study)
        stored = next(item for item in stored_bytes(here, uid(1)) if item[0] == name)
        assert raw_data_set(got.files[name].read_bytes()) == stored[1]


def stored_bytes(here: Archive, study_uid: str) -> list[tuple[str, bytes]]:
    from negatoscope.model.actor import Scope

    actor = here.built.accounts.actor_of_title(READER, "127.0.0.1", TITLE)
    assert actor is not None
    holdings = here.built.retrieval.locate(Scope(actor), study_uid)
    return [
        (record.sop_instance_uid, b"".join(here.built.retrieval.read(record)))
        for holding in holdings
        for record in holding.instances
    ]


def test_what_the_peer_cannot_take_is_transcoded_without_a_pixel_changed(
    here: Archive, tmp_path: Path, held: dict[str, Dataset]
) -> None:
    got = get(here, tmp_path, "-P", "+xe", *keys("QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}"))
    assert got.uids == set(held)
    for one, dataset in got.datasets.items():
        assert dataset.file_meta.TransferSyntaxUID == EXPLICIT
        if "PixelData" in dataset:
            assert (dataset.pixel_array == held[one].pixel_array).all()


@pytest.mark.parametrize(
    "named",
    [
        ["QueryRetrieveLevel=STUDY"],
        ["QueryRetrieveLevel=STUDY", "StudyInstanceUID"],
        ["QueryRetrieveLevel=STUDY", "StudyInstanceUID=1.2*"],
        ["QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}"],
        ["QueryRetrieveLevel=SERIES", f"SeriesInstanceUID={uid(1, 1)}"],
        [f"StudyInstanceUID={uid(1)}"],
    ],
)
def test_an_identifier_that_names_nothing_is_refused(here: Archive, tmp_path: Path, named: list[str]) -> None:
    got = get(here, tmp_path, "-S", *keys(*named))
    assert got.final == "a900"
    assert got.uids == set()


def test_another_establishment_and_who_may_only_query_get_nothing(here: Archive, tmp_path: Path) -> None:
    named = keys("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid(1)}")
    foreign = get(here, tmp_path, "-S", *named, title=FOREIGNER)
    assert (foreign.uids, foreign.final, foreign.counts()[-1]) == (set(), "0000", ("0", "0", "0", "0"))
    assert get(here, tmp_path, "-S", *named, title=FINDER).uids == set()


def test_a_disclosure_is_recorded_for_each_study(here: Archive, tmp_path: Path) -> None:
    before = len(here.events("110104"))
    get(here, tmp_path, "-P", *keys("QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}"))
    events = [event for event in here.events("110104")[before:] if event["action"] == "R"]
    assert {event["study_uid"] for event in events} == {uid(1), uid(2)}
    assert {event["actor_name"] for event in events} == {READER}


# C-MOVE --------------------------------------------------------------------------------------------


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[int]:
    """A receiver of DCMTK's; its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [str(STORESCP), "+B", "-od", str(folder), *options, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)


_destinations = iter(range(1, 1000))


def move(
    here: Archive, folder: Path, *options: str, receiver: tuple[str, ...] = (), title: str = READER, to: str = ""
) -> Got:
    """Move to a fresh destination, or to the title ``to``."""
    into = folder / "moved"
    into.mkdir(exist_ok=True)
    with storescp(into, *receiver) as port:
        if not to:
            to = f"WS{next(_destinations)}"
            here.destination(to, port)
        done = run([MOVESCU, "-d", "-aet", title, "-aec", TITLE, "-aem", to, *options, "127.0.0.1", here.port])
    return Got(done.stdout + done.stderr, into)


@pytest.mark.parametrize(("model", "named", "below"), LEVELS)
def test_movescu_moves_every_level_of_every_model(
    here: Archive, tmp_path: Path, model: list[str], named: list[str], below: list[int] | None
) -> None:
    got = move(here, tmp_path, *model, *keys(*named), receiver=("+xa",))
    wanted = expected(below)
    assert got.uids == wanted, got.output
    assert got.final == "0000"
    assert got.counts()[-1] == ("0", str(len(wanted)), "0", "0")
    for one, data in stored_bytes(here, uid(1)) if below == [1] else ():
        assert raw_data_set(got.files[one].read_bytes()) == data


@pytest.mark.parametrize(
    ("receiver", "syntaxes"),
    [
        ((), {EXPLICIT, IMPLICIT}),
        (("+xi",), {IMPLICIT}),
        (("+xr",), {EXPLICIT, IMPLICIT, RLE}),
        (("+xa",), {EXPLICIT, IMPLICIT, RLE, J2K, JPEG_LOSSLESS}),
        (("-pdu", "4096"), {EXPLICIT, IMPLICIT}),
        (("-pdu", "131072"), {EXPLICIT, IMPLICIT}),
    ],
)
def test_a_destination_gets_the_syntaxes_that_it_takes(
    here: Archive, tmp_path: Path, held: dict[str, Dataset], receiver: tuple[str, ...], syntaxes: set[str]
) -> None:
    named = keys("QueryRetrieveLevel=PATIENT", f"PatientID={PATIENT}")
    got = move(here, tmp_path, "-P", *named, receiver=receiver)
    assert got.uids == set(held), got.output
    assert {str(one.file_meta.TransferSyntaxUID) for one in got.datasets.values()} == syntaxes
    for one, dataset in got.datasets.items():
        if "PixelData" in dataset:
            assert (dataset.pixel_array == held[one].pixel_array).all()


def test_a_destination_that_is_unknown_foreign_or_without_address_is_refused_and_recorded(
    here: Archive, tmp_path: Path
) -> None:
    here.destination("THEIRS", 104, "B")
    before = len(here.events("110113"))
    named = keys("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid(1)}")
    for title in ("NOWHERE", "THEIRS", READER):
        got = move(here, tmp_path, "-S", *named, to=title)
        assert got.final == "a801"
        assert got.uids == set()
    events = here.events("110113")[before:]
    assert [event["detail"]["reason"] for event in events] == ["move-destination"] * 3


def test_another_establishment_moves_nothing(here: Archive, tmp_path: Path) -> None:
    into = tmp_path / "moved"
    into.mkdir()
    named = keys("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid(1)}")
    with storescp(into) as port:
        here.destination("B_OWN", port, "B")
        got = move(here, tmp_path, "-S", *named, title=FOREIGNER, to="B_OWN")
    assert (got.uids, got.final) == (set(), "0000")


def test_a_destination_that_does_not_answer_fails_every_sub_operation(here: Archive, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    here.destination("DOWN", port)
    got = move(here, tmp_path, "-S", *keys("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid(1)}"), to="DOWN")
    assert got.final == "a702"
    assert got.counts()[-1] == ("0", "0", "3", "0")
    assert uid(1, 1, 1) in got.output


def test_a_move_says_where_it_goes_before_it_begins(here: Archive, tmp_path: Path) -> None:
    before = len(here.events("110102"))
    move(here, tmp_path, "-S", *keys("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={uid(1)}"))
    [event] = here.events("110102")[before:]
    assert (event["study_uid"], event["detail"]["instances"]) == (uid(1), 3)
    assert event["detail"]["destination"].startswith("WS")


@pytest.mark.parametrize("receiver", [("+xa",), ("+xa", "-B")])
def test_a_data_set_of_odd_length_leaves_with_a_nul_behind_it(
    here: Archive, tmp_path: Path, receiver: tuple[str, ...]
) -> None:
    """Some senders write odd values. DCMTK aborts at a fragment of odd length, which PS3.8 annex E does not allow."""
    study = "2.25.3199"
    odd = synthetic(study=study, series=f"{study}.1", sop=f"{study}.1.1", patient="ODD")
    odd += bytes.fromhex("fcfffcff") + b"OB\0\0" + (3).to_bytes(4, "little") + b"odd"
    assert len(odd) % 2
    here.keep(odd, EXPLICIT)
    got = move(here, tmp_path, "-S", *keys("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"), receiver=receiver)
    assert got.final == "0000"
    assert got.datasets[f"{study}.1.1"].PatientID == "ODD"
    if "-B" not in receiver:
        assert raw_data_set(got.files[f"{study}.1.1"].read_bytes()) == odd + b"\0"
    fetched = get(here, tmp_path, "-S", "+xe", *keys("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"))
    assert fetched.uids == {f"{study}.1.1"}

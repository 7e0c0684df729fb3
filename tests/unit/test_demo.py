"""The demonstration is invented, the same everywhere, readable by others, and quick to make."""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels.processing import apply_modality_lut

from negatoscope.archive.ports import Buffer
from negatoscope.demo import (
    APPLICATION_ENTITIES,
    CURRENT_CT,
    ESTABLISHMENTS,
    PATIENTS,
    PRIOR_CT,
    USERS,
    DemoObject,
    demonstration_objects,
    load,
    orders,
    split,
    synthetic_ct,
    synthetic_enhanced_ct,
    synthetic_mg,
    synthetic_mr,
    synthetic_us,
    tiny_studies,
)
from negatoscope.demo import samples as samples_module
from negatoscope.demo.phantom import label_mask
from negatoscope.demo.samples import sample_files
from negatoscope.errors import OutOfResources
from negatoscope.model.actor import Role
from negatoscope.model.source import Announced, Door, Source
from negatoscope.model.stored import Outcome, StoreResult

IDENTIFYING = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "OtherPatientIDs",
    "PatientComments",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
    "StudyDate",
    "AccessionNumber",
    "InstitutionName",
    "InstitutionAddress",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "StationName",
    "DeviceSerialNumber",
)


@pytest.fixture(scope="module")
def objects() -> list[DemoObject]:
    return list(demonstration_objects(slices=12))


def read(file: bytes) -> pydicom.FileDataset:
    return pydicom.dcmread(io.BytesIO(file))


def test_all_of_it_is_made_in_less_than_ten_seconds_of_processor_time() -> None:
    began = time.process_time()
    count = sum(1 for _ in demonstration_objects())
    assert count > 290
    assert time.process_time() - began < 10


def test_the_same_bytes_come_out_every_time(objects: list[DemoObject]) -> None:
    again = [hashlib.sha256(item.part10).digest() for item in demonstration_objects(slices=12)]
    assert again == [hashlib.sha256(item.part10).digest() for item in objects]


def test_every_object_has_a_uid_of_its_own_and_announces_it(objects: list[DemoObject]) -> None:
    assert len({item.sop_instance_uid for item in objects}) == len(objects)
    for item in objects:
        made = read(item.part10)
        assert made.file_meta.TransferSyntaxUID == item.transfer_syntax_uid
        assert (made.SOPClassUID, made.SOPInstanceUID) == (item.sop_class_uid, item.sop_instance_uid)
        assert item.part10.endswith(item.data_set)
        assert all(
            re.fullmatch(r"2\.25\.[1-9][0-9]{0,38}", uid) for uid in (made.StudyInstanceUID, item.sop_instance_uid)
        )


def test_patients_are_invented_and_belong_to_the_establishment_that_sends(objects: list[DemoObject]) -> None:
    known = {(patient.establishment_code, patient.identifier, patient.name) for patient in PATIENTS}
    for item in objects:
        made = read(item.part10)
        assert (item.establishment_code, made.PatientID, str(made.PatientName)) in known
        assert str(made.PatientName).startswith("DEMO")


def test_nothing_of_the_published_samples_identity_is_left() -> None:
    """Every text, date and identifier of the originals is looked for in what we made of them."""
    folders = samples_module.wheel_folders()
    originals = {
        study.key: [pydicom.dcmread(next(f / name for f in folders if (f / name).exists())) for name, _ in study.files]
        for study in samples_module.STUDIES
    }
    for study, file in sample_files():
        made = read(file)
        kept = {
            str(element.value) for element in made.iterall() if element.VR in ("PN", "LO", "SH", "DA", "UI", "LT", "ST")
        }
        for original in originals[study.key]:
            for keyword in IDENTIFYING:
                value = str(original.get(keyword, "") or "")
                assert not value or value not in kept, (study.key, keyword)
        assert not any(element.tag.is_private for element in made.iterall())


def test_the_pixels_of_the_samples_are_as_published() -> None:
    folders = samples_module.wheel_folders()
    made = {(study.key, read(file).SeriesNumber): read(file) for study, file in sample_files()}
    assert len(made) == sum(len(study.files) for study in samples_module.STUDIES)
    for study in samples_module.STUDIES:
        for number, (name, _) in enumerate(study.files, start=1):
            original = pydicom.dcmread(next(f / name for f in folders if (f / name).exists()))
            assert made[study.key, number].get("PixelData") == original.get("PixelData")
            assert made[study.key, number].file_meta.TransferSyntaxUID == original.file_meta.TransferSyntaxUID


def test_the_demonstration_covers_what_a_territory_sends(objects: list[DemoObject]) -> None:
    modalities = {str(read(item.part10).Modality) for item in objects}
    assert modalities >= {"CT", "MR", "US", "NM", "CR", "SR", "ECG", "DOC"}
    assert len({item.transfer_syntax_uid for item in objects}) >= 7
    assert {item.establishment_code for item in objects} == {one.code for one in ESTABLISHMENTS}


def test_drawn_images_say_that_they_are_synthetic() -> None:
    for file in (
        next(synthetic_ct(3, 64, 64)),
        next(synthetic_mr(3, 64, 64)),
        synthetic_mg(128, 96),
        synthetic_us(2, 64, 64),
    ):
        made = read(file)
        assert made.ImageType[0] == "DERIVED"
        assert made.SeriesDescription == "Fantôme synthétique"
        assert "SYNTHETIC" in made.StudyDescription
        assert made.BurnedInAnnotation == "NO"
        first = made.pixel_array[0, :, :, 0] if made.Modality == "US" else made.pixel_array
        rows, columns = first.shape
        drawn = first[label_mask(rows, columns, "SYNTHETIC")]
        assert drawn.size > 30
        assert drawn.min() == drawn.max() > np.median(first)


def test_the_chest_has_the_densities_of_a_chest() -> None:
    slices = [read(file) for file in synthetic_ct(60, 256, 256, seed=1)]
    middle = slices[20]
    hounsfield = apply_modality_lut(middle.pixel_array, middle)
    assert abs(float(np.median(hounsfield[120:140, 60:80])) + 860) < 40  # lung
    assert abs(float(np.median(hounsfield[155:162, 139:146])) - 180) < 40  # aorta
    assert hounsfield.min() >= -1024
    assert hounsfield.max() <= 3071
    positions = [float(one.ImagePositionPatient[2]) for one in slices]
    assert np.allclose(np.diff(positions), -2.5)
    assert {str(one.FrameOfReferenceUID) for one in slices} == {slices[0].FrameOfReferenceUID}


def test_the_nodule_has_grown_since_the_prior() -> None:
    """14 mm against 8: the difference of two phantoms that differ in nothing else is where the nodule is."""

    def soft_pixels(nodule_mm: float) -> int:
        with_it, without = (
            synthetic_ct(60, 256, 256, seed=1, nodule_mm=nodule_mm),
            synthetic_ct(60, 256, 256, 1, nodule_mm=0),
        )
        pairs = zip(with_it, without, strict=True)
        return sum(int((read(a).pixel_array != read(b).pixel_array).sum()) for a, b in pairs)

    assert soft_pixels(14) > 3 * soft_pixels(8) > 0


def test_the_prior_is_the_same_patient_a_year_before() -> None:
    assert (PRIOR_CT.patient_id, PRIOR_CT.patient_name) == (CURRENT_CT.patient_id, CURRENT_CT.patient_name)
    assert PRIOR_CT.study_uid != CURRENT_CT.study_uid
    assert int(CURRENT_CT.study_date[:4]) - int(PRIOR_CT.study_date[:4]) == 1


def test_an_enhanced_object_says_where_each_frame_lies() -> None:
    made = read(synthetic_enhanced_ct(5, 64, 64))
    assert made.NumberOfFrames == 5
    groups = made.PerFrameFunctionalGroupsSequence
    positions = [float(item.PlanePositionSequence[0].ImagePositionPatient[2]) for item in groups]
    assert np.allclose(np.diff(positions), -2.5)
    assert [item.FrameContentSequence[0].DimensionIndexValues for item in groups] == [[1, n] for n in range(1, 6)]
    assert made.pixel_array.shape == (5, 64, 64)


def test_an_ultrasound_loop_is_colour_and_timed() -> None:
    made = read(synthetic_us(3, 48, 64))
    assert made.pixel_array.shape == (3, 48, 64, 3)
    assert made.FrameIncrementPointer == 0x00181063


def test_tiny_studies_are_each_someone_elses() -> None:
    made = [read(file) for file in tiny_studies(200)]
    assert len({one.StudyInstanceUID for one in made}) == len({one.PatientID for one in made}) == 200
    assert all(len(file) < 2_048 for file in tiny_studies(5))
    assert [split("X", file).sop_instance_uid for file in tiny_studies(3)] == [one.SOPInstanceUID for one in made[:3]]


def test_other_seeds_are_other_objects() -> None:
    assert (
        split("X", next(synthetic_ct(2, 32, 32, seed=1))).sop_instance_uid
        != split("X", next(synthetic_ct(2, 32, 32, seed=2))).sop_instance_uid
    )


def test_the_encapsulated_report_is_a_pdf(objects: list[DemoObject]) -> None:
    (report,) = [read(item.part10) for item in objects if read(item.part10).Modality == "DOC"]
    document = bytes(report.EncapsulatedDocument)
    assert document.startswith(b"%PDF-1.4")
    start = int(re.findall(rb"startxref\n(\d+)", document)[0])
    assert document[start : start + 4] == b"xref"
    assert report.StudyInstanceUID == CURRENT_CT.study_uid


# People ------------------------------------------------------------------------------------------


def test_there_is_one_user_for_each_role_and_demo_reads_images() -> None:
    assert {user.role for user in USERS} == set(Role)
    (demo,) = [user for user in USERS if user.login == "demo"]
    assert demo.role is Role.RADIOLOGIST
    assert len({user.login for user in USERS}) == len(USERS)


def test_establishments_cannot_be_taken_for_real_ones() -> None:
    for one in ESTABLISHMENTS:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,32}", one.code)
        assert one.oid.startswith("2.999.")
        assert re.fullmatch(r"99[0-9]{7}", one.finess)
    codes = {one.code for one in ESTABLISHMENTS}
    assert {user.establishment_code for user in USERS} == codes
    assert all(len(ae.title) <= 16 and ae.establishment_code in codes for ae in APPLICATION_ENTITIES)


def test_the_worklist_is_of_the_day() -> None:
    today = date(2026, 11, 22)
    made = orders(today)
    assert {order.scheduled.date() for order in made} == {today}
    assert len({order.accession_number for order in made}) == len(made)
    assert all(len(order.accession_number) <= 16 for order in made)
    assert {order.station_ae for order in made} <= {ae.title for ae in APPLICATION_ENTITIES}


# Loading -----------------------------------------------------------------------------------------


class Shelf:
    """A receiver that keeps data sets by UID, and refuses to write once it is full."""

    def __init__(self, room: int = 1 << 40) -> None:
        self.kept: dict[str, bytes] = {}
        self.room = room
        self.aborted = 0

    def begin(self, source: Source, announced: Announced) -> Incoming:
        return Incoming(self, source, announced)


class Incoming:
    def __init__(self, shelf: Shelf, source: Source, announced: Announced) -> None:
        self.shelf, self.source, self.announced, self.data = shelf, source, announced, b""

    def write(self, fragments: Sequence[Buffer]) -> None:
        self.data += b"".join(bytes(fragment) for fragment in fragments)
        if len(self.data) > self.shelf.room:
            raise OutOfResources("full")

    def commit(self) -> StoreResult:
        uid = self.announced.sop_instance_uid or ""
        outcome = Outcome.ALREADY_STORED if uid in self.shelf.kept else Outcome.CREATED
        self.shelf.kept.setdefault(uid, self.data)
        return StoreResult(outcome, self.source.establishment_id, "", "", self.announced.sop_class_uid or "", uid)

    def abort(self) -> None:
        self.shelf.aborted += 1


def source_of(code: str) -> Source:
    return Source(1, 1, code, "2.999.250.1", "demo", "", Door.IMPORT)


def test_loading_stores_everything_once(objects: list[DemoObject]) -> None:
    shelf = Shelf()
    seen: list[int] = []
    assert load(lambda code: (shelf, source_of(code)), objects, seen.append) == Counter({Outcome.CREATED: len(objects)})
    assert seen == list(range(1, len(objects) + 1))
    assert shelf.kept == {item.sop_instance_uid: item.data_set for item in objects}
    assert load(lambda code: (shelf, source_of(code)), objects) == Counter({Outcome.ALREADY_STORED: len(objects)})


def test_a_full_disk_ends_the_loading_and_leaves_nothing_half_open(objects: list[DemoObject]) -> None:
    shelf = Shelf(room=10)
    with pytest.raises(OutOfResources):
        load(lambda code: (shelf, source_of(code)), objects)
    assert shelf.aborted == 1
    assert not shelf.kept


def test_samples_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(samples_module, "wheel_folders", lambda: [tmp_path])
    made = list(demonstration_objects(slices=3))
    assert {str(read(item.part10).Modality) for item in made} == {"CT", "MR", "DOC"}

"""Real images of the pydicom and pydicom-data wheels (MIT), given to invented people.

The pixels are as published; everything that says whose they are is replaced or dropped. What may stay is
listed, not what must go: a sample that gains an attribute tomorrow does not leak it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from negatoscope.demo.encode import IMPLEMENTATION_CLASS_UID, stable_uid
from negatoscope.demo.people import FABRE, GARNIER, LECOMTE, MARIN_RURAL, NOEL, ROUX, DemoPatient


@dataclass(frozen=True, slots=True)
class SampleStudy:
    """Files that become one study, each a series of its own."""

    key: str
    patient: DemoPatient
    date: str  # YYYYMMDD
    description: str
    files: tuple[tuple[str, str], ...]  # (file name in either wheel, series description)


STUDIES = (
    SampleStudy(
        "head-ct",
        GARNIER,
        "20260218",
        "Scanner cérébral",
        (("693_UNCR.dcm", "Axial"), ("693_J2KR.dcm", "Axial, JPEG 2000"), ("eCT_Supplemental.dcm", "Perfusion")),
    ),
    SampleStudy(
        "shoulder-mr",
        LECOMTE,
        "20260304",
        "IRM de l’épaule",
        (("MR2_UNCI.dcm", "T1 coronal"), ("MR2_J2KR.dcm", "T1 coronal, JPEG 2000")),
    ),
    SampleStudy(
        "abdomen-mr",
        FABRE,
        "20260120",
        "IRM hépatique",
        (("examples_overlay.dcm", "T1 axial, calques"), ("emri_small_jpeg_ls_lossless.dcm", "Multi-images, JPEG-LS")),
    ),
    SampleStudy(
        "small-mr",
        FABRE,
        "20240611",
        "IRM, essais de compression",
        (("MR_small.dcm", "Brut"), ("MR_small_jpeg_ls_lossless.dcm", "JPEG-LS"), ("MR_small_RLE.dcm", "RLE")),
    ),
    SampleStudy(
        "echocardiography",
        LECOMTE,
        "20251127",
        "Échocardiographie",
        (
            ("color3d_jpeg_baseline.dcm", "Boucle, JPEG"),
            ("JPGLosslessP14SV1_1s_1f_8b.dcm", "Vue fixe, JPEG sans perte"),
            ("waveform_ecg.dcm", "ECG 12 dérivations"),
        ),
    ),
    SampleStudy("obstetric-us", FABRE, "20251003", "Échographie", (("OBXXXX1A_rle.dcm", "Palette, RLE"),)),
    SampleStudy(
        "bone-nm",
        GARNIER,
        "20250909",
        "Scintigraphie osseuse",
        (("JPEG2000_UNC.dcm", "Corps entier"), ("test-SR.dcm", "Rapport structuré")),
    ),
    SampleStudy("chest-cr", MARIN_RURAL, "20250114", "Radiographie du thorax", (("RG1_UNCR.dcm", "Face"),)),
    SampleStudy("ankle-cr", ROUX, "20260301", "Radiographie de la cheville", (("RG3_J2KR.dcm", "Profil"),)),
    SampleStudy(
        "captures",
        NOEL,
        "20260110",
        "Captures couleur",
        (("SC_rgb_jpeg_dcmtk.dcm", "JPEG"), ("SC_rgb_rle.dcm", "RLE"), ("image_dfl.dcm", "Deflate")),
    ),
)

_SOP_ATTRIBUTES = {0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00080064, 0x00080068, 0x00082144}
_NESTED = {0x00080100, 0x00080102, 0x00080104, 0x00081140, 0x00081150, 0x00081155, 0x00081160, 0x00081199}
_TECHNICAL_GROUPS = {0x0018, 0x0020, 0x0028, 0x003A, 0x0040, 0x0054, 0x5200, 0x5400, 0x7FE0}
_FREE_TEXT = {"LO", "SH", "LT", "ST", "UC", "UR", "AE", "AS", "UN"}
_MEANINGFUL_TEXT = {0x00081160, 0x00080100, 0x00080102, 0x00080104, 0x00281054, 0x003A0203, 0x00209421}


def wheel_folders() -> list[Path]:
    """Where the wheels keep their files; a wheel that is not installed is left out."""
    found = []
    for package, below in (("pydicom", "data/test_files"), ("data_store", "data")):
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            found.append(Path(place) / below)
    return found


def sample_files() -> Iterator[tuple[SampleStudy, bytes]]:
    """Every sample that is there, as a Part 10 file of its invented study. The same bytes on every call."""
    folders = wheel_folders()
    for study in STUDIES:
        for number, (name, series) in enumerate(study.files, start=1):
            for path in (folder / name for folder in folders if (folder / name).exists()):
                yield study, given_to(path, study, number, series)
                break


def given_to(path: Path, study: SampleStudy, series_number: int, series: str) -> bytes:
    """The sample at ``path`` as a file of ``study``: same pixels, same transfer syntax, other identity."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the samples are odd on purpose; we look at what comes out
        original = dcmread(path)
        made = _filtered(original, study, nested=False)
        _identify(made, original, study, series_number, series)
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = original.file_meta.TransferSyntaxUID
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        made.file_meta.ImplementationVersionName = "NEGATOSCOPEDEMO"
        buffer = io.BytesIO()
        dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def _filtered(source: Dataset, study: SampleStudy, *, nested: bool) -> Dataset:
    made = Dataset()
    for element in source:
        if kept := _kept(element, study, nested=nested):
            made.add(kept)
    return made


def _kept(element: DataElement, study: SampleStudy, *, nested: bool) -> DataElement | None:
    """The element as it may stay, or ``None``."""
    tag, group = int(element.tag), element.tag.group
    overlay = 0x6000 <= group <= 0x601E and group % 2 == 0
    known = tag in _SOP_ATTRIBUTES or group in _TECHNICAL_GROUPS or overlay or (nested and tag in _NESTED)
    if element.tag.is_private or not known:
        return None
    if element.VR == "SQ":
        items = [_filtered(item, study, nested=True) for item in element.value]
        return DataElement(element.tag, "SQ", items)
    if element.VR == "PN":
        return DataElement(element.tag, "PN", "DEMO^PRATICIEN")
    if element.VR in ("DA", "DT"):
        return DataElement(element.tag, element.VR, study.date)
    if element.VR == "TM":
        return DataElement(element.tag, "TM", "101500")
    if element.VR in _FREE_TEXT and tag not in _MEANINGFUL_TEXT:
        return None
    if element.VR == "UI" and element.value and not str(element.value).startswith("1.2.840.10008."):
        values = element.value if isinstance(element.value, list) else [element.value]
        return DataElement(element.tag, "UI", [stable_uid("sample", study.key, str(value)) for value in values])
    return element


def _identify(made: Dataset, original: Dataset, study: SampleStudy, number: int, series: str) -> None:
    patient = study.patient
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientName, made.PatientID = patient.name, patient.identifier
    made.PatientBirthDate, made.PatientSex = patient.birth_date, patient.sex
    made.StudyInstanceUID = stable_uid("demo study", study.key)
    made.SeriesInstanceUID = stable_uid("demo series", study.key, number)
    made.SOPInstanceUID = stable_uid("demo instance", study.key, number)
    made.Modality = original.get("Modality") or "OT"
    made.StudyDate = made.SeriesDate = made.ContentDate = study.date
    made.StudyTime = made.SeriesTime = made.ContentTime = "101500"
    made.AccessionNumber = f"DEMO{study.date}"
    made.StudyID, made.SeriesNumber, made.InstanceNumber = "1", number, 1
    made.StudyDescription, made.SeriesDescription = study.description, series
    made.ReferringPhysicianName = "DEMO^PRESCRIPTEUR"
    made.InstitutionName = "Négatoscope demonstration"
    made.PatientIdentityRemoved, made.DeidentificationMethod = "YES", "Published sample, identity replaced"

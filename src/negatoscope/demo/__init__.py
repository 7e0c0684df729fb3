"""Demonstration content: invented establishments and people, real sample images and drawn ones.

:func:`demonstration_objects` is what there is, :func:`load` puts it into an archive through the ordinary
door. Nothing here reads a clock or a socket: the same bytes come out on every machine.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from negatoscope.archive.ports import Receiver
from negatoscope.demo.people import (
    APPLICATION_ENTITIES,
    CHU,
    ESTABLISHMENTS,
    FABRE,
    MARIN,
    PATIENTS,
    USERS,
    DemoApplicationEntity,
    DemoEstablishment,
    DemoOrder,
    DemoPatient,
    DemoUser,
    orders,
)
from negatoscope.demo.samples import sample_files
from negatoscope.demo.synthetic import (
    Labels,
    synthetic_ct,
    synthetic_enhanced_ct,
    synthetic_mg,
    synthetic_mr,
    synthetic_pdf_report,
    synthetic_us,
    tiny_studies,
)
from negatoscope.model.source import Announced, Source
from negatoscope.model.stored import Outcome

__all__ = [
    "APPLICATION_ENTITIES",
    "CURRENT_CT",
    "ESTABLISHMENTS",
    "PATIENTS",
    "PRIOR_CT",
    "USERS",
    "DemoApplicationEntity",
    "DemoEstablishment",
    "DemoObject",
    "DemoOrder",
    "DemoPatient",
    "DemoUser",
    "Labels",
    "demonstration_objects",
    "load",
    "orders",
    "split",
    "synthetic_ct",
    "synthetic_enhanced_ct",
    "synthetic_mg",
    "synthetic_mr",
    "synthetic_us",
    "tiny_studies",
]


def _labels(patient: DemoPatient, study: str, date: str, description: str) -> Labels:
    return Labels(
        study=f"demo {study}",
        patient_id=patient.identifier,
        patient_name=patient.name,
        birth_date=patient.birth_date,
        sex=patient.sex,
        study_date=date,
        accession_number=f"DEMO{date}",
        study_description=f"{description} (SYNTHETIC)",
        institution=CHU.name,
    )


CURRENT_CT = _labels(MARIN, "chest ct 2026", "20260312", "Scanner thoracique")
PRIOR_CT = _labels(MARIN, "chest ct 2025", "20250310", "Scanner thoracique")
HEAD_MR = _labels(FABRE, "head mr 2026", "20260210", "IRM cérébrale")
REPORT = [
    "CHU de Démonstration - Compte rendu (SYNTHETIC)",
    "",
    "Scanner thoracique du 12/03/2026, comparé au 10/03/2025.",
    "Nodule du lobe inférieur droit de 14 mm, contre 8 mm.",
    "",
    "Document d'exemple : ni patient, ni médecin, ni image réels.",
]


@dataclass(frozen=True, slots=True)
class DemoObject:
    """One object and the establishment that sends it. ``data_set`` is as a C-STORE would carry it."""

    establishment_code: str
    transfer_syntax_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    data_set: bytes
    part10: bytes  # the same with preamble and file meta


def split(establishment_code: str, file: bytes) -> DemoObject:
    """A Part 10 file written here, taken apart (explicit VR little endian meta, PS3.10 7.1)."""
    end = 144 + struct.unpack_from("<I", file, 140)[0]
    meta: dict[int, str] = {}
    at = 144
    while at < end:
        element, vr, length = struct.unpack_from("<2x H 2s H", file, at)
        start = at + 8
        if vr == b"OB":
            length, start = struct.unpack_from("<I", file, at + 8)[0], at + 12
        meta[element] = file[start : start + length].decode("latin-1").rstrip("\0 ")
        at = start + length
    return DemoObject(establishment_code, meta[0x10], meta[0x02], meta[0x03], file[end:], file)


def demonstration_objects(slices: int = 120) -> Iterator[DemoObject]:
    """Everything that ``negatoscope demo`` stores: the samples, then the drawn studies of ``slices`` slices."""
    for study, file in sample_files():
        yield split(study.patient.establishment_code, file)
    for file in synthetic_ct(slices, seed=1, labels=CURRENT_CT, nodule_mm=14.0):
        yield split(CHU.code, file)
    yield split(CHU.code, synthetic_pdf_report(CURRENT_CT, REPORT))
    for file in synthetic_ct(slices, seed=2, labels=PRIOR_CT, nodule_mm=8.0):
        yield split(CHU.code, file)
    for file in synthetic_mr(40, seed=3, labels=HEAD_MR):
        yield split(CHU.code, file)


def load(
    door: Callable[[str], tuple[Receiver, Source]],
    objects: Iterable[DemoObject] | None = None,
    progress: Callable[[int], None] = lambda stored: None,
) -> Counter[Outcome]:
    """Store the objects (default: all) one after the other; loading twice adds nothing the second time.

    Args:
        door: an establishment's code -> what receives, and who sends.
        progress: called after each object with the number stored so far.

    Returns:
        How many were created, already there, or set aside.

    Raises:
        NegatoscopeError: the first object that is refused ends the loading.
    """
    outcomes: Counter[Outcome] = Counter()
    for item in demonstration_objects() if objects is None else objects:
        receiver, source = door(item.establishment_code)
        announced = Announced(item.transfer_syntax_uid, item.sop_class_uid, item.sop_instance_uid)
        reception = receiver.begin(source, announced)
        try:
            reception.write([item.data_set])
        except BaseException:
            reception.abort()
            raise
        outcomes[reception.commit().outcome] += 1
        progress(outcomes.total())
    return outcomes

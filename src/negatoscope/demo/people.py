"""The demonstration's establishments, users and patients. All invented; no identifier can be a real one.

Object identifiers are below 2.999, the arc that ITU-T X.660 keeps for examples. FINESS-like numbers start
with 99, which is no department. Family names start with DEMO, so that nobody takes them for someone's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from negatoscope.model.actor import Right, Role

EXAMPLE_ARC = "2.999.250"  # ITU-T X.660 example arc, then France's country number: local to this file


@dataclass(frozen=True, slots=True)
class DemoEstablishment:
    code: str
    name: str
    oid: str  # assigning authority of its patient numbers
    finess: str


@dataclass(frozen=True, slots=True)
class DemoUser:
    login: str
    role: Role
    establishment_code: str
    display_name: str


@dataclass(frozen=True, slots=True)
class DemoApplicationEntity:
    title: str
    establishment_code: str
    rights: frozenset[Right]


@dataclass(frozen=True, slots=True)
class DemoPatient:
    """A person as one establishment knows them."""

    establishment_code: str
    identifier: str  # IPP
    name: str  # PN
    birth_date: str  # YYYYMMDD
    sex: str


@dataclass(frozen=True, slots=True)
class DemoOrder:
    """A worklist entry of the day."""

    establishment_code: str
    accession_number: str
    patient: DemoPatient
    modality: str
    station_ae: str
    scheduled: datetime
    description: str


CHU = DemoEstablishment("CHU-DEMO", "CHU de Démonstration", f"{EXAMPLE_ARC}.1", "990000011")
CLINIC = DemoEstablishment("CLINIQUE-DEMO", "Clinique des Exemples", f"{EXAMPLE_ARC}.2", "990000022")
RURAL = DemoEstablishment("CABINET-DEMO", "Cabinet d’imagerie du Val d’Essai", f"{EXAMPLE_ARC}.3", "990000033")
ESTABLISHMENTS = (CHU, CLINIC, RURAL)

USERS = (
    DemoUser("demo", Role.RADIOLOGIST, CHU.code, "Dr Alix Demoradio"),
    DemoUser("demo-admin", Role.ADMIN, CHU.code, "Sacha Demoadmin"),
    DemoUser("demo-referent", Role.REFERENT, CHU.code, "Camille Demoreferent"),
    DemoUser("demo-manip", Role.RADIOGRAPHER, CHU.code, "Charlie Demomanip"),
    DemoUser("demo-medecin", Role.CLINICIAN, CHU.code, "Dr Dominique Demomedecin"),
    DemoUser("demo-secretaire", Role.SECRETARY, CHU.code, "Claude Demosecretaire"),
    DemoUser("demo-dpo", Role.DPO, CHU.code, "Maxime Demodpo"),
    DemoUser("demo-clinique", Role.RADIOLOGIST, CLINIC.code, "Dr Lou Democlinique"),
    DemoUser("demo-cabinet", Role.RADIOLOGIST, RURAL.code, "Dr Noa Democabinet"),
)

_MODALITY = frozenset({Right.STORE, Right.WORKLIST})
_STATION = frozenset({Right.STORE, Right.QUERY, Right.RETRIEVE})
APPLICATION_ENTITIES = (
    DemoApplicationEntity("DEMO_SCANNER", CHU.code, _MODALITY),
    DemoApplicationEntity("DEMO_IRM", CHU.code, _MODALITY),
    DemoApplicationEntity("DEMO_STATION", CHU.code, _STATION),
    DemoApplicationEntity("DEMO_CLINIQUE", CLINIC.code, _MODALITY | _STATION),
    DemoApplicationEntity("DEMO_CABINET", RURAL.code, _MODALITY | _STATION),
)

MARIN = DemoPatient(CHU.code, "CHU0000101", "DEMOMARIN^JEANNE", "19580614", "F")
LECOMTE = DemoPatient(CHU.code, "CHU0000102", "DEMOLECOMTE^PAUL", "19720223", "M")
FABRE = DemoPatient(CHU.code, "CHU0000103", "DEMOFABRE^INÈS", "19891105", "F")
GARNIER = DemoPatient(CHU.code, "CHU0000104", "DEMOGARNIER^LOUIS", "19440930", "M")
MARIN_RURAL = DemoPatient(RURAL.code, "V-2044", MARIN.name, MARIN.birth_date, MARIN.sex)  # the same person
ROUX = DemoPatient(CLINIC.code, "EX55001", "DEMOROUX^LÉO", "20110719", "M")
NOEL = DemoPatient(CLINIC.code, "EX55002", "DEMONOËL^FRANÇOISE", "19660102", "F")
PATIENTS = (MARIN, LECOMTE, FABRE, GARNIER, MARIN_RURAL, ROUX, NOEL)


def orders(today: date) -> list[DemoOrder]:
    """What the worklists of ``today`` hold."""

    def order(number: int, patient: DemoPatient, modality: str, station: str, text: str) -> DemoOrder:
        start = datetime.combine(today, time(8, 30)) + timedelta(minutes=45 * number)
        accession = f"DEMO{today:%y%m%d}{number:02d}"
        return DemoOrder(patient.establishment_code, accession, patient, modality, station, start, text)

    return [
        order(1, MARIN, "CT", "DEMO_SCANNER", "Scanner thoracique de contrôle"),
        order(2, LECOMTE, "MR", "DEMO_IRM", "IRM de l’épaule droite"),
        order(3, GARNIER, "CT", "DEMO_SCANNER", "Scanner cérébral sans injection"),
        order(4, ROUX, "CR", "DEMO_CLINIQUE", "Radiographie de la cheville"),
        order(5, MARIN_RURAL, "CR", "DEMO_CABINET", "Radiographie du thorax"),
    ]

"""Orders of an invented day, entered by whoever tests worklists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from negatoscope.model.actor import Scope
from negatoscope.worklist import Asking, Orders, read_order


@dataclass(frozen=True)
class Line:
    """One scheduled step with an order of its own."""

    accession: str
    identifier: str
    name: str
    birth_date: str
    sex: str
    modality: str
    station: str
    date: str
    time: str  # HHMMSS
    physician: str
    description: str
    procedure: str
    step: str
    study: str
    referring: str = "REFERRING^DOCTOR"


# Each kind of key tells some of these apart.
_TABLE = """
A1|P1|DURAND^EMILIE|19700101|F|CT|CT_1|20261123|083000|HOUSE^GREG|Chest CT|RP1|S1|2.25.9001
A2|P2|DURAND^PAUL|19650505|M|CT|CT_2|20261123|101500|WHO^ALEX|Head CT|RP2|S2|2.25.9002
A3|P3|MARTIN^LEA|19991231|F|MR|MR_1|20261123|174500|HOUSE^GREG|Knee MR|RP3|S3|2.25.9003
A4|P4|DUPONT^MAX|19800229|M|MR|MR_1|20261124|090000|WHO^ALEX|Spine MR|RP4|S4|2.25.9004
B5|P5|MARTINEZ^ANA|20110719|F|US|US_1|20261125|083000|HOUSE^GREG|Abdomen|RP5|S5|2.25.9005
B6|P1|DURAND^EMILIE|19700101|F|MR|MR_1|20261130|120000||Chest MR|RP6|S6|2.25.9006
"""
DAY = tuple(Line(*row.split("|")) for row in _TABLE.strip().splitlines())


def order_of(line: Line, **changes: Any) -> dict[str, Any]:
    """What the JSON API takes for it."""
    day, time = line.date, line.time
    return {
        "accession_number": line.accession,
        "referring_physician": line.referring,
        "patient": {
            "identifier": line.identifier,
            "name": line.name,
            "birth_date": line.birth_date,
            "sex": line.sex,
        },
        "procedures": [
            {
                "id": line.procedure,
                "study_uid": line.study,
                "description": line.description,
                "steps": [
                    {
                        "id": line.step,
                        "modality": line.modality,
                        "station_ae": line.station,
                        "scheduled": f"{day[:4]}-{day[4:6]}-{day[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}",
                        "performing_physician": line.physician,
                        "description": line.description,
                    }
                ],
            }
        ],
        **changes,
    }


def enter(orders: Orders, scope: Scope, *lines: Line) -> list[int]:
    """Their ids."""
    return [orders.add(read_order(order_of(line)), Asking(scope, "api")) for line in lines]


def entry_of(line: Line) -> Dataset:
    """The same step as a worklist file of another server."""
    step = Dataset()
    step.Modality = line.modality
    step.ScheduledStationAETitle = line.station
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = line.date, line.time
    step.ScheduledPerformingPhysicianName = line.physician
    step.ScheduledProcedureStepDescription = line.description
    step.ScheduledProcedureStepID = line.step
    step.ScheduledProcedureStepStatus = "SCHEDULED"
    found = Dataset()
    found.AccessionNumber = line.accession
    found.ReferringPhysicianName = line.referring
    found.PatientName, found.PatientID = line.name, line.identifier
    found.PatientBirthDate, found.PatientSex = line.birth_date, line.sex
    found.StudyInstanceUID = line.study
    found.RequestedProcedureID, found.RequestedProcedureDescription = line.procedure, line.description
    found.ScheduledProcedureStepSequence = Sequence([step])
    return found

"""A scheduled step as a modality sees it: the Modality Worklist Information Model (PS3.4 table K.6-1). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from negatoscope.worklist.orders import PATIENT_MORE, PROCEDURE_MORE, REQUEST_MORE, STEP_MORE, Dataset, person

STEP_SEQUENCE = "00400100"
STATION_TITLE = "00400001"
STEP_DATE, STEP_TIME = "00400002", "00400003"
STEP_STATUS = "00400020"

# Matching and return keys. The index answers each of them, with an empty value where nothing is known.
STEP_KEYS = frozenset(
    {STATION_TITLE, STEP_DATE, STEP_TIME, "00400004", "00400005", "00080060", "00400006", "00400007", "00400008"}
    | {"00400009", STEP_STATUS, *(key for key, _ in STEP_MORE.values())}
)
KEYS = frozenset(
    {STEP_SEQUENCE, "00401001", "00321060", "00321064", "0020000D", "00401003", "00081110", "0040100A"}
    | {"00080050", "00402004", "00402005", "00081120", "00380008", "00101000", "00102160"}
    | {"00100010", "00100020", "00100021", "00100024", "00100030", "00100040", "001021C0"}
    | {key for table in (PATIENT_MORE, REQUEST_MORE, PROCEDURE_MORE) for key, _ in table.values()}
)
# Asked for by many modalities and not known before the study: answered empty, matched by everything.
EMPTY_KEYS = frozenset(
    {"00080020", "00080030", "00080080", "00081030", "00081032", "00081080", "00101001", "00101002", "00101010"}
    | {"00102180", "001021B0", "00200010", "00080051", "00102201", "00102203"}
)
# Table K.6-1 has no matching for it, and some modalities write 0 where they mean nothing.
RETURN_ONLY = frozenset({"001021C0"})


def entry(row: Mapping[str, Any], station: str) -> Dataset:
    """All that is known of one scheduled step, its procedure, request and patient, keys ascending at the top.

    Args:
        row: of the query ``entries``.
        station: the title that is shown for a step of any station: Scheduled Station AE Title may not be empty.
    """
    step: Dataset = {
        **row["step_attributes"],
        "00080060": _text("CS", row["modality"]),
        STATION_TITLE: _text("AE", row["station_title"] or station),
        STEP_DATE: _text("DA", row["start_date"]),
        STEP_TIME: _text("TM", row["start_time"]),
        "00400006": person(row["performing_physician"]),
        "00400007": _text("LO", row["step_description"] or row["description"] or row["modality"]),
        "00400009": _text("SH", row["scheduled_step_id"]),
        STEP_STATUS: _text("CS", row["status"]),
    }
    whole: Dataset = {
        **row["request_attributes"],
        **row["procedure_attributes"],
        "00080050": _text("SH", row["accession_number"]),
        "00100010": person(row["patient_name"]),
        "00100020": _text("LO", row["patient_identifier"]),
        "00100024": _issuer(row["authority_oid"]),
        "00100030": _text("DA", row["birth_date"]),
        "00100040": _text("CS", row["sex"]),
        "0020000D": _text("UI", row["study_uid"]),
        "00321060": _text("LO", row["description"] or row["step_description"] or row["modality"]),
        "00401001": _text("SH", row["requested_procedure_id"]),
        "00401003": _text("SH", row["priority"]),
        "00402004": _text("DA", row["issued_date"]),
        "00402005": _text("TM", row["issued_time"]),
        STEP_SEQUENCE: {"vr": "SQ", "Value": [dict(sorted(step.items()))]},
    }
    return dict(sorted(whole.items()))


def _text(vr: str, value: str) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value else {"vr": vr}


def _issuer(oid: str) -> dict[str, Any]:
    """Issuer of Patient ID Qualifiers: the assigning authority by its OID (PS3.3 table 10-18)."""
    return {"vr": "SQ", "Value": [{"00400032": _text("UT", oid), "00400033": _text("CS", "ISO")}]}

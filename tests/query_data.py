"""Rows of the index for query tests: made by hand, so that awkward values get in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
from harness import World

from negatoscope.archive import manifest
from negatoscope.archive.lookup import uid_hash
from negatoscope.archive.ports import Unit
from negatoscope.model.stored import Container, InstanceRecord, Location

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass(frozen=True)
class SeriesData:
    uid: str
    modality: str = "CT"
    number: int | None = 1
    instances: tuple[int | None, ...] = (1, 2)  # instance numbers; UIDs are the series' with .1, .2, ...
    closed: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyData:
    uid: str
    name: str = "DUPONT^JEAN"
    identifier: str = "P1"
    date: str = "20240102"
    time: str = "101112"
    accession: str = "A1"
    birth_date: str = "19700101"
    sex: str = "F"
    series: tuple[SeriesData, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


def element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def add(world: World, code: str, *studies: StudyData) -> None:
    """Insert ``studies`` into the establishment ``code``."""
    actor = world.modality[code]
    with world.database.unit([actor.establishment_id]) as unit:
        for study in studies:
            _add_study(unit, actor.establishment_id, actor.authority_oid, study)


def _add_study(unit: Unit, establishment_id: int, authority_oid: str, study: StudyData) -> None:
    patient_id = _one(
        unit,
        "INSERT INTO patient (authority_oid, identifier, nameless_study_uid, name, birth_date, sex)"
        " VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (authority_oid, identifier, nameless_study_uid) DO UPDATE SET name = excluded.name"
        " RETURNING patient_id",
        authority_oid, study.identifier, "" if study.identifier else study.uid, study.name, study.birth_date, study.sex,
    )  # fmt: skip
    attributes = {
        "00080005": element("CS", "ISO_IR 192"),
        "00080020": element("DA", *filter(None, [study.date])),
        "00080030": element("TM", *filter(None, [study.time])),
        "00080050": element("SH", *filter(None, [study.accession])),
        "0020000D": element("UI", study.uid),
        **study.attributes,
    }
    study_id = _one(
        unit,
        "INSERT INTO study (establishment_id, patient_id, study_uid, study_date, study_time, accession_number,"
        " modalities, number_of_series, number_of_instances, attributes)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING study_id",
        establishment_id, patient_id, study.uid, study.date, study.time, study.accession,
        sorted({series.modality for series in study.series}), len(study.series),
        sum(len(series.instances) for series in study.series), orjson.dumps(attributes).decode(),
    )  # fmt: skip
    for series in study.series:
        _add_series(unit, establishment_id, study_id, series)


def _add_series(unit: Unit, establishment_id: int, study_id: int, series: SeriesData) -> None:
    attributes = {"0020000E": element("UI", series.uid), "00080060": element("CS", series.modality)} | series.attributes
    records = [record_of(series, place, number) for place, number in enumerate(series.instances)]
    pack_id = None
    if series.closed:
        pack_id = _one(
            unit,
            "INSERT INTO pack (name, bytes, metadata_offset, metadata_length, frames_offset, frames_length)"
            " VALUES (%s, 0, 0, 0, 0, 0) RETURNING pack_id",
            series.uid,
        )
    series_id = _one(
        unit,
        "INSERT INTO series (study_id, establishment_id, series_uid, modality, series_number, number_of_instances,"
        " open, pack_id, manifest, attributes) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING series_id",
        study_id, establishment_id, series.uid, series.modality, series.number, len(records),
        not series.closed, pack_id, manifest.encode(records) if series.closed else None,
        orjson.dumps(attributes).decode(),
    )  # fmt: skip
    if series.closed:
        for record in records:
            unit.execute(
                "INSERT INTO closed_instance VALUES (%s, %s, %s)",
                (establishment_id, uid_hash(record.sop_instance_uid), series_id),
            )
        return
    for record in records:
        segment_id = _one(
            unit, "INSERT INTO segment (name) VALUES (%s) RETURNING segment_id", f"{record.sop_instance_uid}.seg"
        )
        unit.execute(
            "INSERT INTO instance (establishment_id, sop_instance_uid, series_id, sop_class_uid, transfer_syntax_uid,"
            " instance_number, rows, columns, number_of_frames, sha256, segment_id, segment_offset, length, crcs,"
            " actor_id) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 0, %s, %s, 1)",
            (
                establishment_id, record.sop_instance_uid, series_id, record.sop_class_uid,
                record.transfer_syntax_uid, record.instance_number, record.rows, record.columns,
                record.number_of_frames, record.sha256, segment_id, record.location.length, record.location.crcs,
            ),
        )  # fmt: skip


def record_of(series: SeriesData, place: int, number: int | None) -> InstanceRecord:
    return InstanceRecord(
        f"{series.uid}.{place + 1}", MR if series.modality == "MR" else CT, EXPLICIT, number, 512, 256, None,
        bytes([place]) * 32, Location(Container.SEGMENT, 0, 0, 100, b"\0\0\0\0"),
    )  # fmt: skip


def _one(unit: Unit, statement: str, *values: Any) -> int:
    row = unit.execute(statement, values).fetchone()
    assert row is not None
    return int(next(iter(row.values())))

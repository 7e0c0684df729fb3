"""Index rows of studies that never were: as many as a territory has, made inside PostgreSQL.

A mix of what archives hold: six in ten studies are two large projections, the rest ultrasound, MR and CT of up
to several hundred images. Manifests are real ones (checksums and digests of random bytes do not compress), drawn
from a pool; UIDs, names and dates differ from study to study.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from negatoscope.archive import manifest
from negatoscope.demo.synthetic import CT_IMAGE, MG_IMAGE, MR_IMAGE, US_MULTIFRAME
from negatoscope.dicom.uid import EXPLICIT_LITTLE_ENDIAN
from negatoscope.model.checksum import BLOCK
from negatoscope.model.stored import Container, InstanceRecord, Location

POOL = 50  # manifests of each kind
CHUNK = 100_000  # studies inserted at once


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of study. ``share``: of a hundred studies."""

    modality: str
    sop_class: str
    share: int
    series: int
    instances: int  # of each series
    length: int  # bytes of each instance


KINDS = (
    Kind("DX", MG_IMAGE, 60, 1, 2, 12_000_000),
    Kind("US", US_MULTIFRAME, 15, 1, 20, 3_000_000),
    Kind("MR", MR_IMAGE, 10, 6, 40, 136_000),
    Kind("CT", CT_IMAGE, 15, 3, 150, 530_000),
)
MEAN_INSTANCES = sum(kind.share * kind.series * kind.instances for kind in KINDS) / 100

_STUDIES = """
WITH made AS (
    SELECT n, 'GEN' || lpad((n %% greatest(%(patients)s, 1))::text, 9, '0') AS identifier,
        '2.25.9' || lpad(n::text, 32, '0') AS study_uid,
        to_char(date '2016-01-01' + (n * 7919 %% 3650)::int, 'YYYYMMDD') AS study_date,
        lpad((n * 31 %% 24)::text, 2, '0') || lpad((n * 17 %% 60)::text, 2, '0') || '00' AS study_time,
        'A' || n AS accession, k.modality, k.series, k.instances, k.series * k.instances * k.length::bigint AS bytes
    FROM generate_series(%(first)s::bigint, %(last)s) AS n
    JOIN generated_kind AS k ON n * 37 %% 100 >= k.low AND n * 37 %% 100 < k.high
), people AS (
    INSERT INTO patient (authority_oid, identifier, name, birth_date, sex)
    SELECT DISTINCT ON (identifier) '2.25.5001', identifier, 'GENERATED' || (n * 13 %% 9973) || '^PATIENT' || (n %% 97),
        (1930 + n %% 90)::text || '0415', substr('FMO', (n %% 3)::int + 1, 1)
    FROM made ON CONFLICT DO NOTHING RETURNING patient_id, identifier
), known AS (
    SELECT patient_id, identifier FROM people
    UNION SELECT patient_id, identifier FROM patient WHERE identifier IN (SELECT identifier FROM made)
)
INSERT INTO study (establishment_id, patient_id, study_uid, study_date, study_time, accession_number, modalities,
    number_of_series, number_of_instances, bytes, attributes)
SELECT %(establishment)s, patient_id, study_uid, study_date, study_time, accession, ARRAY[modality], series,
    series * instances, bytes, jsonb_build_object(
        '00080005', '{"vr": "CS", "Value": ["ISO_IR 192"]}'::jsonb,
        '00080020', jsonb_build_object('vr', 'DA', 'Value', ARRAY[study_date]),
        '00080030', jsonb_build_object('vr', 'TM', 'Value', ARRAY[study_time]),
        '00080050', jsonb_build_object('vr', 'SH', 'Value', ARRAY[accession]),
        '00080090', '{"vr": "PN", "Value": [{"Alphabetic": "REFERRING^PHYSICIAN"}]}'::jsonb,
        '00081030', '{"vr": "LO", "Value": ["SCANNER THORAX ABDOMEN PELVIS"]}'::jsonb,
        '00100010', jsonb_build_object('vr', 'PN', 'Value',
            jsonb_build_array(jsonb_build_object('Alphabetic', identifier))),
        '00100020', jsonb_build_object('vr', 'LO', 'Value', ARRAY[identifier]),
        '00100030', '{"vr": "DA", "Value": ["19700415"]}'::jsonb,
        '00100040', '{"vr": "CS", "Value": ["F"]}'::jsonb,
        '0020000D', jsonb_build_object('vr', 'UI', 'Value', ARRAY[study_uid]),
        '00200010', jsonb_build_object('vr', 'SH', 'Value', ARRAY[n::text]))
FROM made JOIN known USING (identifier)
"""

_SERIES = """
WITH made AS (
    SELECT study.study_id, study.study_uid, s, k.*
    FROM study JOIN generated_kind AS k ON k.modality = study.modalities[1]
    CROSS JOIN LATERAL generate_series(1, k.series) AS s
    WHERE study.study_id > %(after)s
), packs AS (
    INSERT INTO pack (name, bytes, metadata_offset, metadata_length, frames_offset, frames_length)
    SELECT encode(sha256((study_uid || '.' || s)::bytea), 'hex'), instances * length::bigint, 1, 1, 2, 1 FROM made
    RETURNING pack_id, name
)
INSERT INTO series (study_id, establishment_id, series_uid, modality, series_number, number_of_instances, bytes,
    version, open, pack_id, manifest, attributes)
SELECT study_id, %(establishment)s, study_uid || '.' || s, made.modality, s, instances, instances * length::bigint,
    2, false, pack_id, m.manifest, jsonb_build_object(
        '00080060', jsonb_build_object('vr', 'CS', 'Value', ARRAY[made.modality]),
        '0008103E', '{"vr": "LO", "Value": ["Axial 1.0 mm parenchyme"]}'::jsonb,
        '00200011', jsonb_build_object('vr', 'IS', 'Value', ARRAY[s]),
        '0020000E', jsonb_build_object('vr', 'UI', 'Value', ARRAY[study_uid || '.' || s]))
FROM made JOIN packs ON packs.name = encode(sha256((study_uid || '.' || s)::bytea), 'hex')
JOIN generated_manifest AS m ON m.modality = made.modality AND m.place = (study_id + s) %% %(pool)s
"""


def generate(
    connection: psycopg.Connection[Any], establishment_id: int, studies: int, log: Callable[[str], None]
) -> None:
    """Insert ``studies`` closed studies of a third as many patients; then VACUUM ANALYZE. As superuser."""
    connection.execute(
        "CREATE TEMP TABLE generated_kind (modality text, low int, high int, series int, instances int, length int)"
    )
    connection.execute("CREATE TEMP TABLE generated_manifest (modality text, place int, manifest bytea)")
    low = 0
    for kind in KINDS:
        connection.execute(
            "INSERT INTO generated_kind VALUES (%s, %s, %s, %s, %s, %s)",
            (kind.modality, low, low + kind.share, kind.series, kind.instances, kind.length),
        )
        low += kind.share
        for place in range(POOL):
            connection.execute(
                "INSERT INTO generated_manifest VALUES (%s, %s, %s)", (kind.modality, place, _manifest(kind, place))
            )
    connection.execute("ANALYZE generated_kind; ANALYZE generated_manifest")
    for first in range(0, studies, CHUNK):
        row = connection.execute("SELECT coalesce(max(study_id), 0) FROM study").fetchone()
        bounds = {
            "first": first,
            "last": min(first + CHUNK, studies) - 1,
            "patients": studies // 3,
            "establishment": establishment_id,
            "after": row[0] if row else 0,
            "pool": POOL,
        }
        with connection.transaction():
            connection.execute(_STUDIES, bounds)
            connection.execute(_SERIES, bounds)
        log(f"{bounds['last'] + 1:,} studies generated")
    connection.execute("VACUUM (ANALYZE)")


def _manifest(kind: Kind, place: int) -> bytes:
    dice = random.Random(f"{kind.modality} {place}")
    series = f"2.25.{dice.randrange(10**37, 10**38)}"
    records, offset = [], 0
    for number in range(1, kind.instances + 1):
        blocks = -(-kind.length // BLOCK)
        location = Location(Container.PACK, 1, offset, kind.length, os.urandom(4 * blocks))
        records.append(
            InstanceRecord(
                f"{series}.{number}", kind.sop_class, EXPLICIT_LITTLE_ENDIAN, number, 512, 512, None, os.urandom(32),
                location,
            )
        )  # fmt: skip
        offset += kind.length
    return manifest.encode(records)


def identifier(number: int) -> str:
    """Of the patient of study ``number``."""
    return f"GEN{number:09d}"


def size_of_lookup() -> float:
    """Bytes a study that the SOP UID lookup will take: 12 bytes an instance (see ``archive.lookup``)."""
    return 12 * MEAN_INSTANCES

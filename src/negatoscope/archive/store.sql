-- lock_establishments --
-- Shared: ingests go side by side. Packing takes it exclusively for the moment in which rows become a manifest.
SELECT pg_advisory_xact_lock_shared(20021, establishment_id) FROM unnest(%(establishment_ids)s::int[]) AS establishment_id;

-- store_instances --
SELECT segment_id, segment_offset FROM store_instances(%(establishments)s, %(receipts)s, %(known_new)s);

-- insert_patient --
INSERT INTO patient (authority_oid, identifier, nameless_study_uid, name, birth_date, sex)
VALUES (%(authority_oid)s, %(identifier)s, %(nameless_study_uid)s, %(name)s, %(birth_date)s, %(sex)s)
ON CONFLICT DO NOTHING;

-- insert_study --
INSERT INTO study (establishment_id, patient_id, study_uid, study_date, study_time, accession_number, attributes)
SELECT %(establishment_id)s, patient_id, %(study_uid)s, %(study_date)s, %(study_time)s, %(accession_number)s, %(attributes)s
FROM patient
WHERE authority_oid = %(authority_oid)s AND identifier = %(identifier)s AND nameless_study_uid = %(nameless_study_uid)s
ON CONFLICT DO NOTHING RETURNING study_id;

-- study --
SELECT study_id, authority_oid, identifier FROM study JOIN patient USING (patient_id)
WHERE establishment_id = %(establishment_id)s AND study_uid = %(study_uid)s;

-- insert_series --
INSERT INTO series (study_id, establishment_id, series_uid, modality, series_number, attributes)
VALUES (%(study_id)s, %(establishment_id)s, %(series_uid)s, %(modality)s, %(series_number)s, %(attributes)s)
ON CONFLICT DO NOTHING RETURNING series_id;

-- series --
SELECT series_id, study_id FROM series
WHERE establishment_id = %(establishment_id)s AND series_uid = %(series_uid)s;

-- count_series --
UPDATE study SET number_of_series = number_of_series + 1,
    modalities = CASE WHEN %(modality)s = '' OR %(modality)s = ANY (modalities) THEN modalities
        ELSE (SELECT array_agg(m ORDER BY m) FROM unnest(modalities || %(modality)s::text) AS m) END
WHERE study_id = %(study_id)s;

-- held_open --
SELECT series_id, sop_class_uid, transfer_syntax_uid, sha256 FROM instance
WHERE establishment_id = %(establishment_id)s AND sop_instance_uid = %(sop_instance_uid)s;

-- manifest --
SELECT pack_id, manifest FROM series WHERE series_id = %(series_id)s AND pack_id IS NOT NULL;

-- quarantine --
INSERT INTO quarantine (establishment_id, reason, sop_class_uid, sop_instance_uid, series_uid, study_uid,
    patient_identifier, transfer_syntax_uid, sha256, segment_id, segment_offset, length, crcs, actor_id)
VALUES (%(establishment_id)s, %(reason)s, %(sop_class_uid)s, %(sop_instance_uid)s, %(series_uid)s, %(study_uid)s,
    %(patient_identifier)s, %(transfer_syntax_uid)s, %(sha256)s, %(segment_id)s, %(segment_offset)s, %(length)s,
    %(crcs)s, %(actor_id)s)
ON CONFLICT DO NOTHING RETURNING quarantine_id;

-- change --
INSERT INTO change_feed (establishment_id, study_uid, kind) VALUES (%(establishment_id)s, %(study_uid)s, %(kind)s);

-- create_segment --
INSERT INTO segment (name) VALUES (gen_random_uuid()::text) RETURNING segment_id;

-- seal_segment --
UPDATE segment SET indexed_to = greatest(indexed_to, %(end)s), sealed_at = now() WHERE segment_id = %(segment_id)s;

-- advance_segment --
UPDATE segment SET indexed_to = greatest(indexed_to, %(end)s) WHERE segment_id = %(segment_id)s;

-- unsealed_segments --
SELECT segment_id, indexed_to FROM segment WHERE sealed_at IS NULL ORDER BY segment_id;

-- referred_to --
SELECT segment_offset FROM instance WHERE segment_id = %(segment_id)s
UNION ALL
SELECT segment_offset FROM quarantine WHERE segment_id = %(segment_id)s;

-- establishment --
SELECT establishment_id FROM establishment WHERE code = %(code)s;

-- pack_name --
SELECT name FROM pack WHERE pack_id = %(pack_id)s;

-- damaged --
SELECT 1 AS one FROM damage
WHERE repaired_at IS NULL
  AND (sop_instance_uid = %(sop_instance_uid)s
       OR (container = 'pack' AND byte_offset = -1
           AND container_id = (SELECT pack_id FROM series WHERE series_id = %(series_id)s)))
LIMIT 1;

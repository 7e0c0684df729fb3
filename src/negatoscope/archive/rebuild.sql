-- any_study --
SELECT 1 AS one FROM study LIMIT 1;

-- insert_establishment --
INSERT INTO establishment (code, name, authority_oid) VALUES (%(code)s, %(code)s, %(authority_oid)s)
ON CONFLICT (code) DO NOTHING;

-- insert_pack --
INSERT INTO pack (name, bytes, metadata_offset, metadata_length, frames_offset, frames_length, retired_at)
VALUES (%(name)s, %(bytes)s, %(metadata_offset)s, %(metadata_length)s, %(frames_offset)s, %(frames_length)s,
        CASE WHEN %(retired)s THEN now() END)
RETURNING pack_id;

-- insert_series --
INSERT INTO series (study_id, establishment_id, series_uid, modality, series_number, number_of_instances, bytes,
    version, open, received_at, pack_id, manifest, attributes)
VALUES (%(study_id)s, %(establishment_id)s, %(series_uid)s, %(modality)s, %(series_number)s, %(instances)s, %(bytes)s,
    %(version)s, false, %(received_at)s, %(pack_id)s, %(manifest)s, %(attributes)s)
RETURNING series_id;

-- count_instances --
UPDATE study SET number_of_instances = number_of_instances + %(instances)s, bytes = bytes + %(bytes)s
WHERE study_id = %(study_id)s;

-- insert_closed --
INSERT INTO closed_instance (establishment_id, uid_hash, series_id)
SELECT %(establishment_id)s, uid_hash, %(series_id)s FROM unnest(%(uid_hashes)s::bigint[]) AS uid_hash
ON CONFLICT DO NOTHING;

-- insert_segment --
INSERT INTO segment (segment_id, name) OVERRIDING SYSTEM VALUE VALUES (%(segment_id)s, gen_random_uuid()::text)
ON CONFLICT DO NOTHING;

-- advance_segment_numbers --
SELECT setval(pg_get_serial_sequence('segment', 'segment_id'), greatest(1, (SELECT max(segment_id) FROM segment)));

-- quiet_series --
SELECT series_id FROM series
WHERE open AND received_at <= now() - make_interval(secs => %(quiet_s)s)
ORDER BY received_at LIMIT %(most)s;

-- try_lock --
SELECT pg_try_advisory_xact_lock(20022, (%(series_id)s::bigint %% 2147483647)::int) AS locked;

-- series --
SELECT series.series_id, series.establishment_id, series.series_uid, series.version, series.open, series.pack_id,
       series.manifest, pack.name AS pack_name, study.study_uid, establishment.code, establishment.authority_oid
FROM series
JOIN study USING (study_id)
JOIN establishment ON establishment.establishment_id = series.establishment_id
LEFT JOIN pack USING (pack_id)
WHERE series.series_id = %(series_id)s;

-- instances --
SELECT * FROM instance WHERE series_id = %(series_id)s;

-- senders --
SELECT sop_instance_uid, received_at, instance.actor_id, actor.name AS actor_name
FROM instance JOIN actor USING (actor_id) WHERE series_id = %(series_id)s;

-- lock_establishment --
SELECT pg_advisory_xact_lock(20021, %(establishment_id)s);

-- lock_series --
SELECT version FROM series WHERE series_id = %(series_id)s AND open FOR UPDATE;

-- insert_pack --
INSERT INTO pack (name, bytes, metadata_offset, metadata_length, frames_offset, frames_length)
VALUES (%(name)s, %(bytes)s, %(metadata_offset)s, %(metadata_length)s, %(frames_offset)s, %(frames_length)s)
RETURNING pack_id;

-- close_series --
UPDATE series SET open = false, version = version + 1, pack_id = %(new_pack_id)s, manifest = %(new_manifest)s
WHERE series_id = %(series_id)s;

-- retire_pack --
UPDATE pack SET retired_at = now() WHERE pack_id = %(pack_id)s;

-- delete_instances --
DELETE FROM instance WHERE series_id = %(series_id)s;

-- insert_closed --
INSERT INTO closed_instance (establishment_id, uid_hash, series_id)
SELECT %(establishment_id)s, uid_hash, %(series_id)s FROM unnest(%(uid_hashes)s::bigint[]) AS uid_hash
ON CONFLICT DO NOTHING;

-- change --
INSERT INTO change_feed (establishment_id, study_uid, kind)
VALUES (%(establishment_id)s, %(study_uid)s, 'series-closed');

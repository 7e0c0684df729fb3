-- packs --
SELECT pack.pack_id, pack.name, series.manifest, study.study_uid
FROM pack LEFT JOIN series USING (pack_id) LEFT JOIN study USING (study_id)
WHERE pack.retired_at IS NULL AND pack.pack_id > %(after)s
ORDER BY pack.pack_id LIMIT %(most)s;

-- oldest_packs --
SELECT pack.pack_id, pack.name, series.manifest, study.study_uid
FROM pack LEFT JOIN series USING (pack_id) LEFT JOIN study USING (study_id)
WHERE pack.retired_at IS NULL
  AND coalesce(pack.scrubbed_at, pack.written_at) < now() - make_interval(secs => %(interval_s)s)
ORDER BY coalesce(pack.scrubbed_at, pack.written_at) LIMIT %(most)s;

-- scrubbed --
UPDATE pack SET scrubbed_at = now() WHERE pack_id = %(pack_id)s;

-- open_instances --
SELECT instance.*, study.study_uid, instance.establishment_id || ' ' || instance.sop_instance_uid AS key
FROM instance JOIN series USING (series_id) JOIN study USING (study_id)
WHERE (instance.establishment_id || ' ' || instance.sop_instance_uid) COLLATE "C" > %(after)s
ORDER BY (instance.establishment_id || ' ' || instance.sop_instance_uid) COLLATE "C" LIMIT %(most)s;

-- quarantined --
SELECT quarantine_id, sop_class_uid, sop_instance_uid, study_uid, transfer_syntax_uid, sha256, segment_id,
       segment_offset, length, crcs
FROM quarantine WHERE quarantine_id > %(after)s ORDER BY quarantine_id LIMIT %(most)s;

-- repaired --
UPDATE damage SET repaired_at = now()
WHERE container = %(container)s AND container_id = %(container_id)s AND repaired_at IS NULL
  AND byte_offset <> ALL (%(offsets)s::bigint[]);

-- damaged --
INSERT INTO damage (container, container_id, byte_offset, sop_instance_uid, study_uid, kind)
VALUES (%(container)s, %(container_id)s, %(byte_offset)s, %(sop_instance_uid)s, %(study_uid)s, %(kind)s)
ON CONFLICT (container, container_id, byte_offset)
DO UPDATE SET kind = excluded.kind, repaired_at = NULL, found_at = now() WHERE damage.repaired_at IS NOT NULL
RETURNING damage_id;

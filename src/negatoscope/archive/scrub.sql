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
SELECT quarantine_id AS key, sop_class_uid, sop_instance_uid, study_uid, transfer_syntax_uid, sha256, segment_id,
       segment_offset, length, crcs
FROM quarantine WHERE quarantine_id > %(after)s ORDER BY quarantine_id LIMIT %(most)s;

-- still_there --
SELECT 1 AS one FROM instance WHERE segment_id = %(segment_id)s AND segment_offset = %(segment_offset)s
UNION ALL
SELECT 1 FROM quarantine WHERE segment_id = %(segment_id)s AND segment_offset = %(segment_offset)s;

-- walk --
-- "at" is when it came to where it is: for a walk that has ended, when it ended.
SELECT value::jsonb ->> 'stage' AS stage, value::jsonb ->> 'after' AS after,
       (value::jsonb ->> 'at')::timestamptz <= now() - make_interval(secs => %(interval_s)s) AS due
FROM installation WHERE key = 'scrub-walk';

-- keep_walk --
INSERT INTO installation (key, value)
VALUES ('scrub-walk', jsonb_build_object('stage', %(stage)s::text, 'after', %(after)s::text, 'at', now())::text)
ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- repaired_in_segments --
UPDATE damage SET repaired_at = now()
FROM unnest(%(segments)s::bigint[], %(offsets)s::bigint[]) AS sound (container_id, byte_offset)
WHERE damage.container = 'segment' AND damage.repaired_at IS NULL
  AND damage.container_id = sound.container_id AND damage.byte_offset = sound.byte_offset;

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

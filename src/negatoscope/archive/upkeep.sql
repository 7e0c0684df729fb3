-- reclaim_segments --
DELETE FROM segment
WHERE sealed_at < now() - make_interval(secs => %(grace_s)s)
  AND NOT EXISTS (SELECT FROM instance WHERE instance.segment_id = segment.segment_id)
  AND NOT EXISTS (SELECT FROM quarantine WHERE quarantine.segment_id = segment.segment_id)
RETURNING segment_id;

-- reclaim_packs --
DELETE FROM pack WHERE retired_at < now() - make_interval(secs => %(grace_s)s)
  AND NOT EXISTS (SELECT FROM series WHERE series.pack_id = pack.pack_id)
RETURNING name;

-- known_packs --
SELECT name FROM pack WHERE name = ANY (%(names)s);

-- establishment_of --
SELECT establishment_id FROM establishment WHERE code = %(code)s;

-- open_copy --
SELECT sha256 FROM instance
WHERE establishment_id = %(establishment_id)s AND sop_instance_uid = %(sop_instance_uid)s;

-- closed_copies --
SELECT pack_id, manifest FROM series WHERE series_id = %(series_id)s AND pack_id IS NOT NULL;

-- establishments_to_fold --
SELECT establishment_id FROM closed_instance GROUP BY establishment_id HAVING count(*) >= %(fold_from)s;

-- take_rows --
DELETE FROM closed_instance WHERE establishment_id = %(establishment_id)s RETURNING uid_hash, series_id;

-- runs --
SELECT run, count(*)::int AS blocks FROM closed_instance_block
WHERE establishment_id = %(establishment_id)s GROUP BY run;

-- blocks_of_run --
SELECT first_hash, entries FROM closed_instance_block
WHERE establishment_id = %(establishment_id)s AND run = %(run)s AND first_hash > %(after)s
ORDER BY first_hash LIMIT 64;

-- insert_block --
INSERT INTO closed_instance_block (establishment_id, run, first_hash, entries)
VALUES (%(establishment_id)s, %(run)s, %(first_hash)s, %(entries)s);

-- insert_run --
INSERT INTO closed_instance_run (establishment_id, run) VALUES (%(establishment_id)s, %(run)s);

-- delete_runs --
WITH gone AS (
    DELETE FROM closed_instance_block WHERE establishment_id = %(establishment_id)s AND run = ANY (%(runs)s::bigint[])
)
DELETE FROM closed_instance_run WHERE establishment_id = %(establishment_id)s AND run = ANY (%(runs)s::bigint[]);

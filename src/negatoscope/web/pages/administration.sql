-- What the administration's screens show. Only people who administer reach these; establishment_id bounds
-- what a referent sees, NULL is the platform.

-- holdings --
SELECT count(*) AS studies, coalesce(sum(number_of_series), 0)::bigint AS series,
       coalesce(sum(number_of_instances), 0)::bigint AS instances, coalesce(sum(bytes), 0)::bigint AS bytes,
       count(*) FILTER (WHERE created_at > now() - interval '1 day') AS studies_day
FROM study
WHERE %(establishment_id)s::int IS NULL OR establishment_id = %(establishment_id)s

-- open_work --
SELECT (SELECT count(*) FROM series
        WHERE open AND (%(establishment_id)s::int IS NULL OR establishment_id = %(establishment_id)s)) AS series_open,
       (SELECT count(*) FROM quarantine WHERE resolved_at IS NULL
        AND (%(establishment_id)s::int IS NULL OR establishment_id = %(establishment_id)s)) AS quarantine_open

-- containers --
SELECT (SELECT count(*) FROM pack WHERE retired_at IS NULL) AS packs,
       (SELECT coalesce(sum(bytes), 0)::bigint FROM pack WHERE retired_at IS NULL) AS pack_bytes,
       (SELECT count(*) FROM pack WHERE retired_at IS NULL
        AND scrubbed_at > now() - make_interval(secs => %(interval_s)s)) AS packs_scrubbed,
       (SELECT floor(extract(epoch FROM now() - min(coalesce(scrubbed_at, written_at))) / 86400)::int
        FROM pack WHERE retired_at IS NULL) AS scrub_age_days,
       (SELECT count(*) FROM segment) AS segments,
       (SELECT count(*) FROM segment WHERE sealed_at IS NULL) AS segments_open,
       (SELECT count(*) FROM damage WHERE repaired_at IS NULL) AS damage_open,
       pg_database_size(current_database()) AS database_bytes

-- damaged --
SELECT damage_id, container, container_id, byte_offset, sop_instance_uid, study_uid, kind, found_at, repaired_at
FROM damage
ORDER BY (repaired_at IS NULL) DESC, found_at DESC
LIMIT %(limit)s

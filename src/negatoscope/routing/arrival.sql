-- lock --
SELECT pg_try_advisory_xact_lock(7402001) AS locked

-- state --
SELECT change_id, problem FROM routing_state

-- closed_series --
-- Closed series of studies in which a series has closed since. An entry may become visible after one of a higher
-- number, so the mark moves only past what is old enough for no transaction before it to be open still.
SELECT feed.newest, establishment.code, study.establishment_id, study.study_uid, study.attributes AS study_attributes,
       series.series_id, series.series_uid, series.version, series.attributes AS series_attributes
FROM (
    SELECT establishment_id, study_uid, max(change_id) AS newest
    FROM (SELECT establishment_id, study_uid, change_id, kind FROM change_feed
          WHERE change_id > %(after)s ORDER BY change_id LIMIT %(most)s) AS entry
    WHERE kind = 'series-closed'
    GROUP BY establishment_id, study_uid) AS feed
JOIN study ON study.establishment_id = feed.establishment_id AND study.study_uid = feed.study_uid
JOIN establishment ON establishment.establishment_id = study.establishment_id
JOIN series ON series.study_id = study.study_id AND NOT series.open
WHERE feed.establishment_id = ANY (%(establishments)s)

-- settled --
-- The highest number behind which nothing can become visible any more, among those just read.
SELECT max(change_id) AS change_id, count(*) AS count
FROM (SELECT change_id, at FROM change_feed WHERE change_id > %(after)s ORDER BY change_id LIMIT %(most)s) AS entry
WHERE at < clock_timestamp() - make_interval(secs => %(settle_s)s)

-- advance --
UPDATE routing_state SET change_id = greatest(change_id, %(change_id)s)

-- newest --
SELECT coalesce(max(change_id), 0) AS change_id FROM change_feed

-- problem --
UPDATE routing_state SET problem = %(problem)s WHERE problem <> %(problem)s

-- establishments --
SELECT establishment_id, code FROM establishment WHERE code = ANY (%(codes)s)

-- nodes --
SELECT node_id, establishment_id, name FROM node

-- route --
INSERT INTO delivery (establishment_id, node_id, study_uid, series_uid, series_id, series_version, rule, actor_id,
                      priority, syntax, state, not_before)
VALUES (%(establishment_id)s, %(node_id)s, %(study_uid)s, %(series_uid)s, %(series_id)s, %(version)s, %(rule)s,
        %(actor_id)s, %(priority)s, %(syntax)s, CASE WHEN %(hold)s THEN 'held' ELSE 'waiting' END,
        now() + make_interval(secs => %(delay_s)s))
ON CONFLICT (node_id, rule, series_id, series_version) DO NOTHING
RETURNING delivery_id

-- lock_head --
SELECT sequence, hash, clock_timestamp() AS at FROM audit_head FOR UPDATE

-- append_events --
WITH appended AS (
    INSERT INTO audit_event (sequence, at, actor_id, establishment_code, study_uid, event, hash)
    SELECT sequence, %(at)s, actor_id, establishment_code, study_uid, event, decode(hash, 'hex')
    FROM json_to_recordset(%(records)s::json) AS record (
        sequence bigint, actor_id bigint, establishment_code text, study_uid text, event text, hash text)
)
UPDATE audit_head SET sequence = %(sequence)s, hash = %(hash)s

-- read_head --
SELECT sequence, hash FROM audit_head

-- read_events --
SELECT sequence, at, actor_id, establishment_code, study_uid, event, hash
FROM audit_event
WHERE sequence > coalesce(%(after)s::bigint, -9223372036854775808)
ORDER BY sequence
LIMIT %(limit)s

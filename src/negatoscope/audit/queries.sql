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

-- search_events --
-- Newest first; fragments are pieces of the canonical JSON, all of which an event must hold.
SELECT sequence, event FROM audit_event
WHERE sequence < coalesce(%(before)s::bigint, 9223372036854775807)
  AND at >= %(since)s AND at < %(until)s
  AND (%(establishment_code)s::text IS NULL OR establishment_code = %(establishment_code)s)
  AND (%(study_uid)s::text IS NULL OR study_uid = %(study_uid)s)
  AND NOT EXISTS (SELECT FROM unnest(%(fragments)s::text[]) AS fragment WHERE position(fragment IN event) = 0)
  AND (%(patient)s::text IS NULL
       OR EXISTS (SELECT FROM unnest(%(patients)s::text[]) AS fragment WHERE position(fragment IN event) > 0)
       OR study_uid IN (SELECT study.study_uid FROM study JOIN patient USING (patient_id)
                        WHERE patient.identifier = %(patient)s
                          AND (%(establishment_code)s::text IS NULL OR study.establishment_id = (
                              SELECT establishment_id FROM establishment WHERE code = %(establishment_code)s))))
ORDER BY sequence DESC LIMIT %(most)s

-- authorities --
SELECT DISTINCT authority_oid FROM establishment

-- Comments that begin with a colon are filled in by the code.

-- add --
INSERT INTO workitem (establishment_id, sop_instance_uid, start_at, attributes, created_by)
VALUES (%(establishment_id)s, %(sop_instance_uid)s, %(start_at)s, %(attributes)s, %(created_by)s)
ON CONFLICT (establishment_id, sop_instance_uid) DO NOTHING
RETURNING workitem_id

-- moment --
SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISS.US') || '+0000' AS moment

-- one --
SELECT attributes FROM readable_workitem(%(actor_id)s, %(purpose)s) WHERE sop_instance_uid = %(sop_instance_uid)s

-- to_change --
SELECT w.workitem_id, w.state, w.transaction_uid, w.attributes
FROM readable_workitem(%(actor_id)s, %(purpose)s) AS mine
JOIN workitem AS w ON w.workitem_id = mine.workitem_id  -- a relation made by a function cannot be locked
WHERE mine.sop_instance_uid = %(sop_instance_uid)s
FOR UPDATE OF w

-- change --
UPDATE workitem SET state = %(state)s, transaction_uid = %(transaction_uid)s, start_at = %(start_at)s,
    attributes = %(attributes)s, changed_at = now()
WHERE workitem_id = %(workitem_id)s

-- page --
SELECT workitem_id, start_at, sop_instance_uid, state, attributes
FROM readable_workitem(%(actor_id)s, %(purpose)s)
WHERE (start_at, workitem_id) > (%(after_start)s, %(after_id)s) /*:conditions*/
ORDER BY start_at, workitem_id
LIMIT %(rows)s

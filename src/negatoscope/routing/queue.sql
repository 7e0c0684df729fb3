-- ask --
INSERT INTO delivery (establishment_id, node_id, study_uid, series_uid, actor_id, priority, syntax, state, not_before)
VALUES (%(establishment_id)s, %(node_id)s, %(study_uid)s, %(series_uid)s, %(actor_id)s, %(priority)s, %(syntax)s,
        CASE WHEN %(hold)s THEN 'held' ELSE 'waiting' END, now() + make_interval(secs => %(delay_s)s))
RETURNING delivery_id

-- due_nodes --
-- Nodes with something to send now, the one with the most urgent first. Their rows are locked: who counts the
-- places of a node and takes one is alone with it.
SELECT node.node_id, node.concurrency
FROM node
WHERE node.paused_at IS NULL AND node.retry_at <= clock_timestamp()
  AND EXISTS (
      SELECT FROM delivery
      WHERE delivery.node_id = node.node_id
        AND (delivery.state = 'waiting' AND delivery.not_before <= clock_timestamp()
             OR delivery.state = 'sending' AND delivery.lease_until <= clock_timestamp()))
ORDER BY (
    SELECT min(delivery.priority) FROM delivery
    WHERE delivery.node_id = node.node_id AND delivery.state IN ('waiting', 'sending')), node.contact_at NULLS FIRST
LIMIT %(most)s
FOR NO KEY UPDATE OF node SKIP LOCKED

-- busy --
-- Leases that run, of urgent deliveries and of others.
SELECT count(*) FILTER (WHERE priority = 0) AS urgent, count(*) FILTER (WHERE priority > 0) AS others
FROM delivery
WHERE node_id = %(node_id)s AND state = 'sending' AND lease_until > clock_timestamp()

-- claim --
UPDATE delivery
SET state = 'sending', lease_owner = %(owner)s, lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE delivery_id = (
    SELECT due.delivery_id FROM delivery AS due
    WHERE due.node_id = %(node_id)s AND due.priority <= %(least)s
      AND (due.state = 'waiting' AND due.not_before <= clock_timestamp()
           OR due.state = 'sending' AND due.lease_until <= clock_timestamp())
      AND NOT EXISTS (  -- a series that closed again waits for its first delivery: what that sent is not sent twice
          SELECT FROM delivery AS earlier
          WHERE earlier.node_id = due.node_id AND earlier.series_id = due.series_id
            AND earlier.delivery_id < due.delivery_id AND earlier.state IN ('waiting', 'sending'))
    ORDER BY due.priority, due.delivery_id
    LIMIT 1
    FOR UPDATE OF due SKIP LOCKED)
RETURNING delivery_id, establishment_id, node_id, study_uid, series_uid, series_id, rule, actor_id, priority, syntax,
          planned, attempts, created_at < clock_timestamp() - make_interval(secs => %(give_up_s)s) AS old

-- delivered_by_rules --
SELECT hashes FROM delivered_series WHERE node_id = %(node_id)s AND series_id = %(series_id)s FOR UPDATE

-- plan --
INSERT INTO delivery_object (delivery_id, position, series_uid, sop_class_uid, sop_instance_uid, bytes)
SELECT %(delivery_id)s, position, series_uid, sop_class_uid, sop_instance_uid, bytes
FROM jsonb_to_recordset(%(objects)s::jsonb) AS one
    (position int, series_uid text, sop_class_uid text, sop_instance_uid text, bytes bigint)

-- planned --
UPDATE delivery SET planned = true, objects = %(objects)s, bytes = %(bytes)s
WHERE delivery_id = %(delivery_id)s AND lease_owner = %(owner)s AND state = 'sending'
RETURNING delivery_id

-- to_send --
SELECT position, series_uid, sop_class_uid, sop_instance_uid, bytes, losses
FROM delivery_object WHERE delivery_id = %(delivery_id)s AND state = 0
ORDER BY losses, position

-- note --
-- What became of objects. What was acknowledged stays so, whoever holds the lease by now.
WITH noted AS (
    UPDATE delivery_object AS o
    SET state = one.state, reason = one.reason, losses = o.losses + one.lost
    FROM jsonb_to_recordset(%(notes)s::jsonb) AS one
        (delivery_id bigint, position int, state smallint, reason text, lost smallint)
    WHERE o.delivery_id = one.delivery_id AND o.position = one.position AND o.state <> 1
    RETURNING o.delivery_id, o.bytes, o.state)
UPDATE delivery SET delivered = delivery.delivered + sums.objects, bytes_delivered = delivery.bytes_delivered + sums.bytes
FROM (SELECT delivery_id, count(*) AS objects, sum(bytes) AS bytes FROM noted WHERE state = 1 GROUP BY delivery_id) AS sums
WHERE delivery.delivery_id = sums.delivery_id

-- beat --
-- Leases of a process prolonged; for each whether to stop, and why.
WITH mine AS (
    UPDATE delivery
    SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
    WHERE delivery_id = ANY (%(delivery_ids)s) AND lease_owner = %(owner)s AND state = 'sending'
    RETURNING delivery_id, node_id, priority)
SELECT mine.delivery_id,
       CASE WHEN node.paused_at IS NOT NULL THEN 'paused'
            WHEN mine.priority > 0 AND EXISTS (
                SELECT FROM delivery AS other
                WHERE other.node_id = mine.node_id AND other.priority = 0 AND other.state IN ('waiting', 'sending')
                  AND other.not_before <= clock_timestamp()) THEN 'overtaken'
            ELSE '' END AS stop
FROM mine JOIN node USING (node_id)

-- give_back --
UPDATE delivery SET state = 'waiting', lease_owner = NULL, lease_until = NULL, reason = %(reason)s,
       attempts = attempts + %(failed)s, not_before = clock_timestamp() + make_interval(secs => %(pause_s)s)
WHERE delivery_id = %(delivery_id)s AND lease_owner = %(owner)s AND state = 'sending'

-- try_refused_again --
UPDATE delivery_object SET state = 0, losses = 0 WHERE delivery_id = %(delivery_id)s AND state = 2

-- left --
SELECT count(*) FILTER (WHERE state = 0) AS unsent, count(*) FILTER (WHERE state = 2) AS refused,
       count(*) FILTER (WHERE state = 1) AS acknowledged
FROM delivery_object WHERE delivery_id = %(delivery_id)s

-- finish --
UPDATE delivery
SET state = %(state)s, reason = %(reason)s, lease_owner = NULL, lease_until = NULL,
    attempts = attempts + %(failed)s,
    finished_at = CASE WHEN %(state)s IN ('done', 'dead') THEN clock_timestamp() END,
    not_before = CASE WHEN %(state)s = 'committing' THEN clock_timestamp() ELSE not_before END
WHERE delivery_id = %(delivery_id)s AND lease_owner = %(owner)s AND state = 'sending'
RETURNING node_id, series_id, rule

-- sent_objects --
SELECT sop_class_uid, sop_instance_uid FROM delivery_object
WHERE delivery_id = %(delivery_id)s AND state = 1 ORDER BY position

-- remember --
INSERT INTO delivered_series (node_id, series_id, hashes) VALUES (%(node_id)s, %(series_id)s, %(hashes)s)
ON CONFLICT (node_id, series_id) DO UPDATE SET hashes = EXCLUDED.hashes

-- forget_objects --
DELETE FROM delivery_object WHERE delivery_id = %(delivery_id)s

-- deliveries --
SELECT delivery.delivery_id, delivery.establishment_id, establishment.code, delivery.node_id, node.name AS node,
       delivery.study_uid, delivery.series_uid, delivery.rule, actor.name AS actor, delivery.priority, delivery.state,
       delivery.reason, delivery.attempts, delivery.objects, delivery.delivered, delivery.bytes,
       delivery.bytes_delivered, delivery.created_at, delivery.not_before, delivery.finished_at
FROM delivery JOIN node USING (node_id) JOIN actor USING (actor_id)
JOIN establishment ON establishment.establishment_id = delivery.establishment_id
WHERE (%(establishment_id)s::int IS NULL OR delivery.establishment_id = %(establishment_id)s)
  AND (%(states)s::text[] IS NULL OR delivery.state = ANY (%(states)s))
  AND (%(delivery_id)s::bigint IS NULL OR delivery.delivery_id = %(delivery_id)s)
ORDER BY delivery.state IN ('done', 'cancelled'), delivery.state <> 'dead', delivery.priority, delivery.delivery_id DESC
LIMIT %(limit)s

-- unsent_objects --
SELECT sop_instance_uid, state, reason FROM delivery_object
WHERE delivery_id = %(delivery_id)s AND state <> 1 ORDER BY position LIMIT %(limit)s

-- retry --
UPDATE delivery SET state = 'waiting', attempts = 0, reason = '', not_before = now(), finished_at = NULL, created_at = now()
WHERE delivery_id = %(delivery_id)s AND state = 'dead'
RETURNING delivery_id

-- release --
UPDATE delivery SET state = 'waiting', not_before = now() WHERE delivery_id = %(delivery_id)s AND state = 'held'
RETURNING delivery_id

-- cancel --
UPDATE delivery SET state = 'cancelled', finished_at = now(), lease_owner = NULL, lease_until = NULL
WHERE delivery_id = %(delivery_id)s AND state IN ('held', 'waiting', 'sending', 'committing', 'dead')
RETURNING delivery_id

-- set_priority --
UPDATE delivery SET priority = %(priority)s
WHERE delivery_id = %(delivery_id)s AND state IN ('held', 'waiting', 'sending')
RETURNING delivery_id

-- forget_old --
DELETE FROM delivery WHERE state IN ('done', 'cancelled') AND finished_at < now() - make_interval(secs => %(age_s)s)

-- actor --
SELECT actor.actor_id, actor.kind, actor.name, actor.role, actor.rights, actor.disabled_at IS NOT NULL AS disabled,
       establishment.establishment_id, establishment.code, establishment.authority_oid
FROM actor JOIN establishment USING (establishment_id)
WHERE actor.actor_id = %(actor_id)s

-- ask --
INSERT INTO commitment (establishment_id, actor_id, title, transaction_uid, objects, not_before, lease_until)
VALUES (%(establishment_id)s, %(actor_id)s, %(title)s, %(transaction_uid)s, %(objects)s::jsonb, now(),
        clock_timestamp() + make_interval(secs => %(lease_s)s))
RETURNING commitment_id

-- claim --
UPDATE commitment SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE commitment_id = (
    SELECT commitment_id FROM commitment
    WHERE state IN ('asked', 'judged') AND not_before <= clock_timestamp()
      AND (lease_until IS NULL OR lease_until <= clock_timestamp())
    ORDER BY not_before
    LIMIT 1
    FOR UPDATE SKIP LOCKED)
RETURNING commitment_id, establishment_id, actor_id, title, transaction_uid, objects, verdicts, attempts,
          asked_at < clock_timestamp() - make_interval(secs => %(give_up_s)s) AS old

-- prolong --
UPDATE commitment SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE commitment_id = %(commitment_id)s

-- judged --
UPDATE commitment SET verdicts = %(verdicts)s::jsonb, state = 'judged'
WHERE commitment_id = %(commitment_id)s AND state = 'asked'

-- delivered --
UPDATE commitment SET state = 'delivered', delivered_at = clock_timestamp(), lease_until = NULL
WHERE commitment_id = %(commitment_id)s AND state = 'judged'

-- later --
UPDATE commitment SET attempts = attempts + 1, lease_until = NULL,
       state = CASE WHEN %(dead)s THEN 'dead' ELSE state END,
       not_before = clock_timestamp() + make_interval(
           secs => least(%(longest_s)s, %(first_s)s * power(2::float8, least(attempts, 30))))
WHERE commitment_id = %(commitment_id)s

-- now --
UPDATE commitment SET lease_until = NULL WHERE commitment_id = %(commitment_id)s AND state IN ('asked', 'judged')

-- listed --
SELECT commitment_id, title, transaction_uid, state, attempts, jsonb_array_length(objects) AS objects, verdicts, asked_at
FROM commitment
WHERE (%(establishment_id)s::int IS NULL OR establishment_id = %(establishment_id)s)
ORDER BY commitment_id DESC LIMIT %(limit)s

-- forget_old --
DELETE FROM commitment
WHERE state IN ('delivered', 'dead') AND asked_at < now() - make_interval(secs => %(age_s)s)

-- due_to_ask --
UPDATE delivery SET not_before = clock_timestamp() + make_interval(secs => %(answer_s)s), attempts = attempts + 1
WHERE delivery_id = (
    SELECT delivery.delivery_id FROM delivery JOIN node USING (node_id)
    WHERE delivery.state = 'committing' AND delivery.not_before <= clock_timestamp()
      AND node.paused_at IS NULL AND node.retry_at <= clock_timestamp()
    ORDER BY delivery.priority, delivery.delivery_id
    LIMIT 1
    FOR UPDATE OF delivery SKIP LOCKED)
RETURNING delivery_id, node_id, attempts

-- objects_to_ask --
SELECT sop_class_uid, sop_instance_uid FROM delivery_object
WHERE delivery_id = %(delivery_id)s AND state = 1 ORDER BY position

-- asked_of_node --
INSERT INTO commitment_asked (transaction_uid, delivery_id) VALUES (%(transaction_uid)s, %(delivery_id)s)

-- answered --
UPDATE commitment_asked SET answered_at = now()
FROM delivery JOIN node USING (node_id)
WHERE commitment_asked.delivery_id = delivery.delivery_id
  AND commitment_asked.transaction_uid = %(transaction_uid)s AND commitment_asked.answered_at IS NULL
  AND (%(establishment_id)s::int IS NULL OR delivery.establishment_id = %(establishment_id)s)
RETURNING commitment_asked.delivery_id

-- promised --
-- Whether every object of the delivery is among those that the node has promised to keep.
SELECT count(*) FILTER (WHERE NOT sop_instance_uid = ANY (%(committed)s)) AS missing
FROM delivery_object WHERE delivery_id = %(delivery_id)s

-- send_again --
UPDATE delivery_object SET state = 0, losses = 0, reason = 'not-committed'
WHERE delivery_id = %(delivery_id)s AND NOT sop_instance_uid = ANY (%(committed)s)

-- count_again --
UPDATE delivery SET delivered = sums.objects, bytes_delivered = sums.bytes
FROM (SELECT count(*) AS objects, coalesce(sum(bytes), 0) AS bytes FROM delivery_object
      WHERE delivery_id = %(delivery_id)s AND state = 1) AS sums
WHERE delivery.delivery_id = %(delivery_id)s

-- settle --
UPDATE delivery
SET state = %(state)s, reason = %(reason)s,
    not_before = clock_timestamp() + make_interval(secs => %(pause_s)s),
    finished_at = CASE WHEN %(state)s IN ('done', 'dead') THEN clock_timestamp() END
WHERE delivery_id = %(delivery_id)s AND state = 'committing'
RETURNING delivery_id

-- attempts --
SELECT attempts FROM delivery WHERE delivery_id = %(delivery_id)s AND state = 'committing' FOR UPDATE

-- forget_objects --
DELETE FROM delivery_object WHERE delivery_id = %(delivery_id)s

-- ask_again --
UPDATE delivery SET attempts = attempts - 1, not_before = clock_timestamp() + make_interval(secs => %(pause_s)s)
WHERE delivery_id = %(delivery_id)s AND state = 'committing'

-- add --
INSERT INTO node (establishment_id, name, kind, title, host, port, url, secret, concurrency, commitment, tls)
SELECT establishment_id, %(name)s, %(kind)s, %(title)s, %(host)s, %(port)s, %(url)s, %(secret)s, %(concurrency)s,
       %(commitment)s, %(tls)s
FROM establishment WHERE code = %(establishment)s AND establishment_id = ANY (%(mine)s)
RETURNING node_id

-- establishment --
SELECT establishment_id, code FROM establishment WHERE code = %(code)s

-- nodes --
SELECT node.node_id, node.establishment_id, establishment.code, node.name, node.kind, node.title, node.host, node.port,
       node.url, node.secret, node.concurrency, node.commitment, node.tls, node.paused_at, node.contact_at, node.failures,
       node.failure, node.retry_at,
       waiting.held, waiting.waiting, waiting.sending, waiting.committing, waiting.dead, waiting.oldest_at
FROM node JOIN establishment USING (establishment_id)
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state = 'held') AS held,
           count(*) FILTER (WHERE state = 'waiting') AS waiting,
           count(*) FILTER (WHERE state = 'sending') AS sending,
           count(*) FILTER (WHERE state = 'committing') AS committing,
           count(*) FILTER (WHERE state = 'dead') AS dead,
           min(created_at) FILTER (WHERE state IN ('waiting', 'sending')) AS oldest_at
    FROM delivery WHERE delivery.node_id = node.node_id AND state NOT IN ('done', 'cancelled')) AS waiting ON true
WHERE (%(establishment_id)s::int IS NULL OR node.establishment_id = %(establishment_id)s)
  AND (%(node_id)s::bigint IS NULL OR node.node_id = %(node_id)s)
  AND (%(name)s::text IS NULL OR node.name = %(name)s)
ORDER BY establishment.code, node.name

-- pause --
UPDATE node SET paused_at = CASE WHEN %(paused)s THEN coalesce(paused_at, now()) END WHERE node_id = %(node_id)s

-- try_now --
UPDATE node SET retry_at = now() WHERE node_id = %(node_id)s

-- answered --
UPDATE node SET contact_at = clock_timestamp(), failures = 0, failure = '', retry_at = clock_timestamp()
WHERE node_id = %(node_id)s

-- silent --
UPDATE node SET failures = failures + 1, failure = %(failure)s,
       retry_at = clock_timestamp() + make_interval(
           secs => least(%(longest_s)s, %(first_s)s * power(2::float8, least(failures, 30))))
WHERE node_id = %(node_id)s
RETURNING failures

-- open_deliveries --
SELECT count(*) AS count FROM delivery
WHERE node_id = %(node_id)s AND state IN ('held', 'waiting', 'sending', 'committing')

-- remove_history --
DELETE FROM delivery WHERE node_id = %(node_id)s

-- remove --
DELETE FROM node WHERE node_id = %(node_id)s

-- ping --
SELECT 1 AS one

-- state --
-- Rows of quarantine are never deleted, so their count is a counter that survives restarts.
SELECT (SELECT count(*) FROM quarantine) AS quarantined_total,
       (SELECT count(*) FROM damage WHERE repaired_at IS NULL) AS damaged,
       (SELECT extract(epoch FROM now() - min(received_at)) FROM series WHERE open) AS oldest_outbox_s,
       (SELECT extract(epoch FROM now() - min(coalesce(scrubbed_at, written_at))) / 86400
        FROM pack WHERE retired_at IS NULL) AS scrub_age_days,
       (SELECT count(*) FROM delivery WHERE state IN ('waiting', 'sending', 'committing')) AS deliveries_waiting,
       (SELECT count(*) FROM delivery WHERE state = 'dead') AS deliveries_dead,
       (SELECT extract(epoch FROM now() - min(created_at))
        FROM delivery WHERE state IN ('waiting', 'sending', 'committing')) AS oldest_delivery_s,
       (SELECT extract(epoch FROM now() - at) FROM audit_event ORDER BY sequence DESC LIMIT 1) AS audit_head_age_s

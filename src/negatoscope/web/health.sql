-- ping --
SELECT 1 AS one

-- state --
-- Rows of quarantine are never deleted, so their count is a counter that survives restarts.
SELECT (SELECT count(*) FROM quarantine) AS quarantined_total,
       (SELECT count(*) FROM damage WHERE repaired_at IS NULL) AS damaged,
       (SELECT extract(epoch FROM now() - min(received_at)) FROM series WHERE open) AS oldest_outbox_s,
       (SELECT extract(epoch FROM now() - min(coalesce(scrubbed_at, written_at))) / 86400
        FROM pack WHERE retired_at IS NULL) AS scrub_age_days,
       (SELECT extract(epoch FROM now() - at) FROM audit_event ORDER BY sequence DESC LIMIT 1) AS audit_head_age_s

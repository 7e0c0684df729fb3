-- What a receipt of a known series costs: one statement, one round trip, one transaction.

-- Receipts are JSON objects, one a line (JSON escapes line feeds). Establishments are those of the receipts, with commas.
-- The lock comes first, and each statement of a volatile function sees what was committed when it starts: so whatever
-- packing closed while we waited for the lock is known to be closed.
CREATE FUNCTION store_instances(establishments text, receipts text, known_new boolean)
RETURNS TABLE (segment_id bigint, segment_offset bigint)
LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
BEGIN
    -- Shared: ingests go side by side. Packing takes it exclusively for the moment in which rows become a manifest.
    PERFORM pg_advisory_xact_lock_shared(20021, establishment::int)
    FROM string_to_table(establishments, ',') AS establishment;
    RETURN QUERY
    WITH incoming AS (
        SELECT establishment_id, sop_instance_uid, uid_hash, series_id, sop_class_uid, transfer_syntax_uid,
            instance_number, rows, columns, number_of_frames, decode(sha256, 'hex') AS sha256, segment_id,
            segment_offset, length, decode(crcs, 'hex') AS crcs, actor_id
        -- Lines, and not json_to_recordset: for a hundred rows, as that is taken for, the planner would read all series.
        FROM unnest(string_to_array(receipts, E'\n')) AS receipt
        CROSS JOIN LATERAL json_to_record(receipt::json) AS t (establishment_id int, sop_instance_uid text,
            uid_hash bigint, series_id bigint, sop_class_uid text, transfer_syntax_uid text, instance_number int,
            rows int, columns int, number_of_frames int, sha256 text, segment_id bigint, segment_offset bigint,
            length bigint, crcs text, actor_id bigint)
    ), inserted AS (
        INSERT INTO instance (establishment_id, sop_instance_uid, series_id, sop_class_uid, transfer_syntax_uid,
            instance_number, rows, columns, number_of_frames, sha256, segment_id, segment_offset, length, crcs, actor_id)
        SELECT establishment_id, sop_instance_uid, series_id, sop_class_uid, transfer_syntax_uid,
            instance_number, rows, columns, number_of_frames, sha256, segment_id, segment_offset, length, crcs, actor_id
        FROM incoming WHERE known_new OR NOT may_be_closed(establishment_id, uid_hash)
        ON CONFLICT DO NOTHING
        RETURNING series_id, length, segment_id, segment_offset
    ), of_series AS (
        SELECT series_id, count(*) AS instances, sum(length) AS bytes FROM inserted GROUP BY series_id
    ), counted_series AS (
        UPDATE series SET number_of_instances = number_of_instances + instances, bytes = series.bytes + of_series.bytes,
            version = version + 1, open = true, received_at = now()
        FROM of_series WHERE series.series_id = of_series.series_id
        RETURNING study_id, instances, of_series.bytes
    ), of_study AS (
        SELECT study_id, sum(instances) AS instances, sum(bytes) AS bytes FROM counted_series GROUP BY study_id
    ), counted_study AS (
        UPDATE study SET number_of_instances = number_of_instances + instances, bytes = study.bytes + of_study.bytes,
            changed_at = now()
        FROM of_study WHERE study.study_id = of_study.study_id
    )
    SELECT segment_id, segment_offset FROM inserted;
END
$$;
COMMENT ON FUNCTION store_instances IS 'Inserts and counts what is new; the rows are the places of what was inserted';

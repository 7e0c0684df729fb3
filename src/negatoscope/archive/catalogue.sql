-- instances_of --
-- One statement, so one snapshot: a series that is being packed is seen before or after, never in between.
SELECT series.series_id, series.pack_id, series.manifest,
       NULL::text AS sop_instance_uid, NULL::text AS sop_class_uid, NULL::text AS transfer_syntax_uid,
       NULL::int AS instance_number, NULL::int AS rows, NULL::int AS columns, NULL::int AS number_of_frames,
       NULL::bytea AS sha256, NULL::bigint AS segment_id, NULL::bigint AS segment_offset, NULL::bigint AS length,
       NULL::bytea AS crcs
FROM series
WHERE series.series_id = ANY(%(series_ids)s::bigint[]) AND series.manifest IS NOT NULL
UNION ALL
SELECT instance.series_id, NULL, NULL,
       instance.sop_instance_uid, instance.sop_class_uid, instance.transfer_syntax_uid,
       instance.instance_number, instance.rows, instance.columns, instance.number_of_frames,
       instance.sha256, instance.segment_id, instance.segment_offset, instance.length, instance.crcs
FROM instance
WHERE instance.series_id = ANY(%(series_ids)s::bigint[])

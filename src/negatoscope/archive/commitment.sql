-- open_instance --
SELECT instance.sop_instance_uid, instance.sop_class_uid, instance.transfer_syntax_uid, instance.instance_number,
       instance.rows, instance.columns, instance.number_of_frames, instance.sha256, instance.segment_id,
       instance.segment_offset, instance.length, instance.crcs
FROM instance
WHERE instance.establishment_id = %(establishment_id)s AND instance.sop_instance_uid = %(sop_instance_uid)s

-- closed_series --
SELECT series.manifest, series.pack_id, pack.name
FROM series JOIN pack USING (pack_id)
WHERE series.series_id = %(series_id)s AND series.establishment_id = %(establishment_id)s

-- quarantined --
SELECT 1 AS quarantined FROM quarantine
WHERE establishment_id = %(establishment_id)s AND sop_instance_uid = %(sop_instance_uid)s AND resolved_at IS NULL

-- locate_series --
-- One row a series, or one an instance of an open one. A closed series is its manifest, left out when
-- this process knows that version already.
SELECT study.establishment_id, study.study_id, study.study_uid,
       series.series_id, series.series_uid, series.modality, series.version, series.open, series.pack_id,
       CASE WHEN EXISTS (
                SELECT FROM unnest(%(known_series)s::bigint[], %(known_versions)s::int[]) AS known (series_id, version)
                WHERE known.series_id = series.series_id AND known.version = series.version)
            THEN NULL ELSE series.manifest END AS manifest,
       instance.sop_instance_uid, instance.sop_class_uid, instance.transfer_syntax_uid, instance.instance_number,
       instance.rows, instance.columns, instance.number_of_frames, instance.sha256,
       instance.segment_id, instance.segment_offset, instance.length, instance.crcs
FROM readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) AS study
JOIN series USING (study_id)
LEFT JOIN instance ON series.open AND instance.series_id = series.series_id
WHERE study.study_uid = %(study_uid)s
  AND (%(series_uid)s::text IS NULL OR series.series_uid = %(series_uid)s)
ORDER BY series.series_number NULLS LAST, series.series_uid, series.series_id,
         instance.instance_number NULLS LAST, instance.sop_instance_uid

-- locate_instances --
SELECT study.establishment_id, study.study_id, study.study_uid,
       series.series_id, series.series_uid, series.modality, series.version, series.open, series.pack_id,
       CASE WHEN EXISTS (
                SELECT FROM unnest(%(known_series)s::bigint[], %(known_versions)s::int[]) AS known (series_id, version)
                WHERE known.series_id = series.series_id AND known.version = series.version)
            THEN NULL ELSE series.manifest END AS manifest,
       instance.sop_instance_uid, instance.sop_class_uid, instance.transfer_syntax_uid, instance.instance_number,
       instance.rows, instance.columns, instance.number_of_frames, instance.sha256,
       instance.segment_id, instance.segment_offset, instance.length, instance.crcs
FROM readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) AS study
JOIN series USING (study_id)
LEFT JOIN instance ON series.open
     AND instance.establishment_id = study.establishment_id
     AND instance.sop_instance_uid = ANY(%(sop_instance_uids)s::text[])
     AND instance.series_id = series.series_id
WHERE study.study_uid = %(study_uid)s
  AND series.series_uid = %(series_uid)s

-- stored_metadata --
SELECT metadata_offset, metadata_length FROM pack WHERE pack_id = %(pack_id)s

-- record_damage --
INSERT INTO damage (container, container_id, byte_offset, sop_instance_uid, study_uid, kind)
VALUES (%(container)s, %(container_id)s, %(byte_offset)s, %(sop_instance_uid)s, %(study_uid)s, %(kind)s)
ON CONFLICT DO NOTHING
RETURNING damage_id

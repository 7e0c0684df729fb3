-- list --
SELECT quarantine_id, code AS establishment_code, reason, sop_class_uid, sop_instance_uid, series_uid, study_uid,
       patient_identifier, transfer_syntax_uid, sha256, received_at, resolved_at, resolution,
       segment_id, segment_offset, length, crcs
FROM quarantine JOIN establishment USING (establishment_id)
WHERE quarantine_id > %(after)s AND (%(resolved)s OR resolved_at IS NULL)
ORDER BY quarantine_id LIMIT %(most)s;

-- resolve --
UPDATE quarantine SET resolved_at = now(), resolution = %(resolution)s WHERE quarantine_id = %(quarantine_id)s;

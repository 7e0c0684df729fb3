-- Queries of C-FIND and QIDO-RS. /*:conditions*/ is filled in by query.py from query_conditions.py.

-- studies --
SELECT study.study_uid, study.modalities, study.number_of_series, study.number_of_instances,
       study.attributes::text AS attributes,
       patient.name, patient.identifier, patient.birth_date, patient.sex
FROM readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) AS study
JOIN patient ON patient.patient_id = study.patient_id
WHERE true /*:conditions*/
ORDER BY study.study_date DESC, study.study_id DESC

-- series --
SELECT study.study_uid, study.modalities, study.number_of_series, study.number_of_instances,
       study.attributes::text AS attributes,
       patient.name, patient.identifier, patient.birth_date, patient.sex,
       series.series_id, series.series_uid, series.modality, series.series_number,
       series.number_of_instances AS series_instances, series.attributes::text AS series_attributes
FROM readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) AS study
JOIN patient ON patient.patient_id = study.patient_id
JOIN series ON series.study_id = study.study_id
WHERE true /*:conditions*/
ORDER BY study.study_date DESC, study.study_id DESC, series.series_number NULLS LAST, series.series_uid

-- patients --
-- One row a patient with a study that matches; attributes and counts are of all that can be read of them.
SELECT patient.name, patient.identifier, patient.birth_date, patient.sex, known.attributes,
       known.patient_studies, known.patient_series, known.patient_instances
FROM patient
CROSS JOIN LATERAL (
    SELECT (array_agg(study.attributes::text ORDER BY study.study_date DESC, study.study_id DESC))[1] AS attributes,
           count(*) AS patient_studies, sum(study.number_of_series)::bigint AS patient_series,
           sum(study.number_of_instances)::bigint AS patient_instances
    FROM readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) AS study
    WHERE study.patient_id = patient.patient_id
) AS known
WHERE patient.patient_id IN (
    SELECT study.patient_id
    FROM readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) AS study
    JOIN patient ON patient.patient_id = study.patient_id
    WHERE true /*:conditions*/)
ORDER BY patient.name_folded, patient.patient_id

-- page --
LIMIT %(limit)s OFFSET %(offset)s

-- open_series_of --
SELECT series_id FROM instance
WHERE establishment_id = %(establishment_id)s AND sop_instance_uid = ANY(%(uids)s::text[])

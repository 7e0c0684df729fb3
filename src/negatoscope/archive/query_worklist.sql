-- The study list of the pages. Comments that begin with a colon are filled in by query_worklist.py.

-- worklist --
SELECT study.study_id, study.study_uid, study.study_date, study.study_time, study.accession_number,
       study.modalities, study.number_of_series, study.number_of_instances, study.changed_at,
       coalesce(study.attributes -> '00081030' -> 'Value' ->> 0, '') AS description,
       patient.name, patient.identifier, patient.birth_date, patient.sex,
       establishment.code AS establishment_code
FROM readable_study(%(actor_id)s, %(purpose)s, %(only_study_uid)s) AS study
JOIN patient ON patient.patient_id = study.patient_id
JOIN establishment ON establishment.establishment_id = study.establishment_id
WHERE true /*:conditions*/
ORDER BY study.study_date DESC, study.study_id DESC
LIMIT %(limit)s

-- dates --
AND study.study_date >= %(date_from)s AND study.study_date <= %(date_to)s

-- modality --
AND study.modalities @> ARRAY[%(modality)s]::text[]

-- after --
AND (study.study_date, study.study_id) < (%(after_date)s, %(after_id)s)

-- people --
-- Whom a word may mean, few or "too many to list": that decides between the two forms below.
SELECT patient_id FROM patient
WHERE name_words @@ to_tsquery('simple', %(words)s)
   OR identifier >= %(text)s AND identifier < %(end)s
   OR birth_date = %(date)s
LIMIT %(enough)s

-- few --
-- Each arm has an index of study, so that OR becomes a union of bitmaps.
AND (study.patient_id = ANY(%(people_{n})s::bigint[])
     OR study.accession_number <> '' AND study.accession_number >= %(text_{n})s AND study.accession_number < %(end_{n})s
     OR study.study_date = %(date_{n})s)

-- few_or_modality --
AND (study.patient_id = ANY(%(people_{n})s::bigint[]) OR study.modalities @> ARRAY[%(upper_{n})s]::text[])

-- many --
-- So common that reading from the newest study on finds a page sooner than any list of people would.
AND (patient.name_words @@ to_tsquery('simple', %(words_{n})s)
     OR patient.identifier >= %(text_{n})s AND patient.identifier < %(end_{n})s
     OR study.accession_number >= %(text_{n})s AND study.accession_number < %(end_{n})s
     OR study.modalities @> ARRAY[%(upper_{n})s]::text[])

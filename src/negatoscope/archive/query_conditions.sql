-- One condition a fragment. {column} and {document} are columns named in query_conditions.py, {n} numbers the
-- parameters; what a peer wrote is only ever a parameter. Behind row security only leakproof operators reach an
-- index (=, <, >= on text and numbers), so LIKE and arrays come with a range beside them where there can be one.

-- study --
AND study.study_uid = %(study_uid)s

-- series --
AND series.series_uid = %(series_uid)s

-- only_series --
AND series.series_id = ANY(%(series_ids)s::bigint[])

-- any_of --
AND {column} = ANY(%(values_{n})s::text[])

-- like_any --
AND {column} LIKE ANY(%(patterns_{n})s::text[])

-- begins --
AND {column} >= %(low_{n})s AND {column} < %(end_{n})s

-- given --
AND {column} <> ''

-- from --
AND {column} >= %(low_{n})s

-- to --
AND {column} <= %(high_{n})s

-- absent --
AND {column} = ''

-- hours --
-- Times are kept as they came (HH to HHMMSS.FFFFFF): their hours narrow, the rest is judged on the answer.
AND left({column}, 2) >= %(low_{n})s AND left({column}, 2) <= %(high_{n})s

-- has_series --
AND EXISTS (SELECT 1 FROM series AS named WHERE named.study_id = study.study_id
            AND named.series_uid = ANY(%(values_{n})s::text[]))

-- modality_any --
AND study.modalities && %(values_{n})s::text[]

-- modality_like --
AND EXISTS (SELECT 1 FROM unnest(study.modalities) AS code WHERE code LIKE ANY(%(patterns_{n})s::text[]))

-- modality_absent --
AND study.modalities = '{}'

-- name_words --
AND patient.name_words @@ to_tsquery('simple', %(words_{n})s)

-- name_like --
-- Any component group (between =) may match; carets at the end say nothing.
AND EXISTS (SELECT 1 FROM unnest(string_to_array(patient.name_folded, '=')) AS component_group
            WHERE rtrim(component_group, '^ ') LIKE ANY(%(patterns_{n})s::text[]))

-- json_any --
AND {document} -> %(key_{n})s::text -> 'Value' ?| %(values_{n})s::text[]

-- json_like --
AND EXISTS (SELECT 1 FROM jsonb_array_elements_text({document} -> %(key_{n})s::text -> 'Value') AS element
            WHERE element LIKE ANY(%(patterns_{n})s::text[]))

-- json_name_like --
AND EXISTS (SELECT 1 FROM jsonb_array_elements({document} -> %(key_{n})s::text -> 'Value') AS element,
            jsonb_each_text(CASE jsonb_typeof(element) WHEN 'object' THEN element ELSE '{}' END) AS component_group
            WHERE rtrim(fold(component_group.value), '^ ') LIKE ANY(%(patterns_{n})s::text[]))

-- json_name_words --
AND EXISTS (SELECT 1 FROM jsonb_array_elements({document} -> %(key_{n})s::text -> 'Value') AS element,
            jsonb_each_text(CASE jsonb_typeof(element) WHEN 'object' THEN element ELSE '{}' END) AS component_group
            WHERE to_tsvector('simple', translate(fold(component_group.value), %(breaks_{n})s, repeat(' ', 40)))
                  @@ to_tsquery('simple', %(words_{n})s))

-- json_given --
AND {document} ? %(key_{n})s::text

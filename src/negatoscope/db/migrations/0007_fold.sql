-- Letters that are one again: Hangul syllables, voiced kana and the like stand for one character of a wild card,
-- and a sigma is the same at the end of a word as within it.

CREATE OR REPLACE FUNCTION fold(value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
AS $$
    SELECT replace(
        normalize(lower(regexp_replace(normalize(value, NFKD), U&'[\0300-\036F]', '', 'g')), NFC),
        U&'\03C2', U&'\03C3') COLLATE "C"
$$;

-- What is kept of names that were folded otherwise is folded again.
UPDATE patient SET name = name WHERE name_folded <> fold(name);
UPDATE imaging_service_request SET patient_name = patient_name WHERE patient_name_folded <> fold(patient_name);

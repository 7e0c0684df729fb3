-- The first form of the index. All text keys compare bytewise (COLLATE "C"): UIDs, dates, folded names.
-- Roles: this file runs as the owner; every connection of a server then does SET ROLE negatoscope_app,
-- which owns nothing, so row security applies to it and the audit trail can only grow.

CREATE FUNCTION fold(value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
AS $$ SELECT lower(regexp_replace(normalize(value, NFKD), U&'[\0300-\036F]', '', 'g')) COLLATE "C" $$;
COMMENT ON FUNCTION fold IS 'Accents and case removed, the same as dicom.charset.fold';

-- Establishments, actors -------------------------------------------------------------------------

CREATE TABLE establishment (
    establishment_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text COLLATE "C" NOT NULL UNIQUE CHECK (code ~ '^[A-Za-z0-9._-]{1,32}$'),
    name text NOT NULL,
    authority_oid text COLLATE "C" NOT NULL CHECK (authority_oid ~ '^[0-9.]{1,64}$'),
    finess text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Whoever can ask for anything: the left side of every access relation.
CREATE TABLE actor (
    actor_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('user', 'application-entity', 'system')),
    name text COLLATE "C" NOT NULL,                     -- login or AE title
    role text CHECK (role IN ('admin', 'referent', 'radiographer', 'radiologist', 'clinician', 'secretary', 'dpo')),
    establishment_id int NOT NULL REFERENCES establishment,
    rights text[] NOT NULL,
    reads_images boolean NOT NULL,                      -- false for admin, dpo, worklist-only AEs
    disabled_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX actor_login ON actor (name) WHERE kind = 'user';

CREATE TABLE application_entity (
    actor_id bigint PRIMARY KEY REFERENCES actor,
    title text COLLATE "C" NOT NULL CHECK (length(title) BETWEEN 1 AND 16),
    host text COLLATE "C",                              -- NULL: any address, and no move destination
    port int CHECK (port BETWEEN 1 AND 65535),
    last_seen_at timestamptz,
    UNIQUE NULLS NOT DISTINCT (title, host)
);

CREATE TABLE user_account (
    actor_id bigint PRIMARY KEY REFERENCES actor,
    display_name text NOT NULL,
    password_hash text,                                 -- argon2id; NULL: tokens only
    demonstration boolean NOT NULL DEFAULT false,       -- one-click login, demonstration folders only
    language text NOT NULL DEFAULT 'fr'
);

-- Bearer tokens and browser sessions: only the SHA-256 of the secret is kept.
CREATE TABLE credential (
    secret_sha256 bytea PRIMARY KEY,
    credential_id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    kind text NOT NULL CHECK (kind IN ('token', 'session')),
    actor_id bigint NOT NULL REFERENCES actor,
    only_study_uid text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX credential_actor ON credential (actor_id);

CREATE TABLE login_attempt (                            -- rate limit across processes
    subject text COLLATE "C" NOT NULL,                  -- 'login:NAME' or 'address:IP'
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX login_attempt_subject ON login_attempt (subject, at);

-- Platform state: key/value of the installation (demonstration folder, session key, schema facts).
CREATE TABLE installation (key text COLLATE "C" PRIMARY KEY, value text NOT NULL);

-- Patients, studies, series, instances -----------------------------------------------------------

CREATE TABLE patient (
    patient_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    authority_oid text COLLATE "C" NOT NULL,
    identifier text COLLATE "C" NOT NULL,               -- Patient ID (0010,0020), '' when the object has none
    nameless_study_uid text COLLATE "C" NOT NULL DEFAULT '',  -- set when identifier = '': nobody is merged with nobody
    name text NOT NULL DEFAULT '',                      -- PN as decoded, components with ^ and groups with =
    name_folded text COLLATE "C" GENERATED ALWAYS AS (fold(name)) STORED,
    name_words tsvector GENERATED ALWAYS AS             -- between the punctuation of archive.query_names.BREAKS
        (to_tsvector('simple', translate(fold(name), '^=,-''’.;:/\()[]{}"_*?!&|<>+#@~`', repeat(' ', 32)))) STORED,
    birth_date text COLLATE "C" NOT NULL DEFAULT '',    -- YYYYMMDD or ''
    sex text COLLATE "C" NOT NULL DEFAULT '',
    UNIQUE (authority_oid, identifier, nameless_study_uid),
    CHECK ((identifier = '') = (nameless_study_uid <> ''))
);
CREATE INDEX patient_identifier ON patient (identifier);
CREATE INDEX patient_name ON patient (name_folded);
CREATE INDEX patient_words ON patient USING gin (name_words);
CREATE INDEX patient_birth ON patient (birth_date);

CREATE TABLE study (
    study_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    establishment_id int NOT NULL REFERENCES establishment,
    patient_id bigint NOT NULL REFERENCES patient,
    study_uid text COLLATE "C" NOT NULL,
    study_date text COLLATE "C" NOT NULL DEFAULT '',    -- YYYYMMDD or ''
    study_time text COLLATE "C" NOT NULL DEFAULT '',
    accession_number text COLLATE "C" NOT NULL DEFAULT '',
    modalities text[] NOT NULL DEFAULT '{}',            -- sorted, distinct
    number_of_series int NOT NULL DEFAULT 0,
    number_of_instances int NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    attributes jsonb NOT NULL,                          -- DICOM JSON, patient and study level attributes as first received
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (establishment_id, study_uid)
);
CREATE INDEX study_recent ON study (establishment_id, study_date DESC, study_id DESC);
CREATE INDEX study_patient ON study (patient_id);
CREATE INDEX study_accession ON study (accession_number) WHERE accession_number <> '';
CREATE INDEX study_uid ON study (study_uid);

CREATE TABLE pack (
    pack_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,              -- object name in the store: a SHA-256, never received text
    bytes bigint NOT NULL,
    metadata_offset bigint NOT NULL,                    -- gzip of the DICOM JSON array of all its instances
    metadata_length bigint NOT NULL,
    frames_offset bigint NOT NULL,                      -- gzip of the frame table: fragments of each encapsulated frame
    frames_length bigint NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    scrubbed_at timestamptz,
    retired_at timestamptz                              -- replaced by a newer pack; bytes go after a delay
);

CREATE TABLE series (
    series_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_id bigint NOT NULL REFERENCES study,
    establishment_id int NOT NULL,                      -- of its study; here for row security and the unique key
    series_uid text COLLATE "C" NOT NULL,
    modality text COLLATE "C" NOT NULL DEFAULT '',
    series_number int,
    number_of_instances int NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    version int NOT NULL DEFAULT 1,                     -- grows with every stored instance batch and every pack
    open boolean NOT NULL DEFAULT true,                 -- has instance rows; false: all is in the pack
    received_at timestamptz NOT NULL DEFAULT now(),     -- of its newest instance
    pack_id bigint REFERENCES pack,
    manifest bytea,                                     -- compressed list of the pack's instances
    attributes jsonb NOT NULL,                          -- DICOM JSON, series level attributes as first received
    UNIQUE (establishment_id, series_uid)
);
CREATE INDEX series_study ON series (study_id);
-- Not on received_at, which every stored instance changes: so the update of a series stays within its page (HOT).
CREATE INDEX series_open ON series (series_id) WHERE open;
CREATE INDEX series_pack ON series (pack_id);

CREATE TABLE segment (
    segment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,              -- file name below DATA/segments
    indexed_to bigint NOT NULL DEFAULT 0,               -- all records before this offset are in the index
    sealed_at timestamptz                               -- no writer will come back
);

CREATE TABLE instance (                                 -- only of open series
    establishment_id int NOT NULL,
    sop_instance_uid text COLLATE "C" NOT NULL,
    series_id bigint NOT NULL REFERENCES series,
    sop_class_uid text COLLATE "C" NOT NULL,
    transfer_syntax_uid text COLLATE "C" NOT NULL,
    instance_number int,
    rows int,
    columns int,
    number_of_frames int,
    sha256 bytea NOT NULL,
    segment_id bigint NOT NULL REFERENCES segment,
    segment_offset bigint NOT NULL,                     -- of the data set, past the record header
    length bigint NOT NULL,
    crcs bytea NOT NULL,
    actor_id bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (establishment_id, sop_instance_uid)
);
CREATE INDEX instance_series ON instance (series_id);
CREATE INDEX instance_segment ON instance (segment_id);

-- A SOP Instance UID alone must still be found once its series is closed: 48 bits of
-- SHA-256(uid), many per row. Level 0 is one row a closed instance, folded into blocks by the worker.
CREATE TABLE closed_instance (
    establishment_id int NOT NULL,
    uid_hash bigint NOT NULL,                           -- first 48 bits of SHA-256 of the SOP Instance UID
    series_id bigint NOT NULL,
    PRIMARY KEY (establishment_id, uid_hash, series_id)
);
CREATE TABLE closed_instance_run (                      -- runs are merged, larger with age
    establishment_id int NOT NULL,
    run bigint NOT NULL,
    PRIMARY KEY (establishment_id, run)
);
CREATE TABLE closed_instance_block (
    establishment_id int NOT NULL,
    run bigint NOT NULL,
    first_hash bigint NOT NULL,
    entries bytea NOT NULL,                             -- sorted; per entry 6 bytes hash, 6 bytes series_id, big endian
    PRIMARY KEY (establishment_id, run, first_hash)
);

-- Blocks that may hold a hash, one a run. Whoever asks looks the 12-byte entry up in them.
CREATE FUNCTION closed_blocks(establishment int, hash bigint) RETURNS SETOF bytea
LANGUAGE sql STABLE
AS $$
    SELECT block.entries FROM closed_instance_run AS run
    CROSS JOIN LATERAL (
        SELECT b.entries FROM closed_instance_block AS b
        WHERE b.establishment_id = $1 AND b.run = run.run AND b.first_hash <= $2
        ORDER BY b.first_hash DESC LIMIT 1) AS block
    WHERE run.establishment_id = $1
$$;

-- Whether a closed instance may have this hash; a chance hit only costs a closer look.
CREATE FUNCTION may_be_closed(establishment int, hash bigint) RETURNS boolean
LANGUAGE sql STABLE
AS $$
    SELECT EXISTS (SELECT FROM closed_instance c WHERE c.establishment_id = $1 AND c.uid_hash = $2)
        OR EXISTS (SELECT FROM closed_blocks($1, $2) AS entries
                   WHERE position(substring(int8send($2) FROM 3) IN entries) > 0)
$$;

CREATE TABLE quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    establishment_id int NOT NULL REFERENCES establishment,
    reason text COLLATE "C" NOT NULL,
    sop_class_uid text COLLATE "C" NOT NULL DEFAULT '',
    sop_instance_uid text COLLATE "C" NOT NULL DEFAULT '',
    series_uid text COLLATE "C" NOT NULL DEFAULT '',
    study_uid text COLLATE "C" NOT NULL DEFAULT '',
    patient_identifier text NOT NULL DEFAULT '',
    transfer_syntax_uid text COLLATE "C" NOT NULL,
    sha256 bytea NOT NULL,
    segment_id bigint NOT NULL REFERENCES segment,
    segment_offset bigint NOT NULL,
    length bigint NOT NULL,
    crcs bytea NOT NULL,
    actor_id bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    resolution text,
    UNIQUE (establishment_id, sop_instance_uid, sha256)
);
CREATE INDEX quarantine_segment ON quarantine (segment_id);

-- Locations found corrupt, by scrub or by a read. Nothing is served from them as whole.
CREATE TABLE damage (
    damage_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    container text NOT NULL CHECK (container IN ('segment', 'pack')),
    container_id bigint NOT NULL,
    byte_offset bigint NOT NULL,                             -- of the object in the container, -1 for the container itself
    sop_instance_uid text COLLATE "C" NOT NULL DEFAULT '',
    study_uid text COLLATE "C" NOT NULL DEFAULT '',
    kind text NOT NULL CHECK (kind IN ('missing', 'truncated', 'altered', 'swapped')),
    found_at timestamptz NOT NULL DEFAULT now(),
    repaired_at timestamptz,
    UNIQUE (container, container_id, byte_offset)
);

CREATE TABLE change_feed (                              -- ordered, immutable; one entry a study change batch
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    establishment_id int NOT NULL,
    study_uid text COLLATE "C" NOT NULL,
    kind text NOT NULL,                                 -- study-created, series-created, series-closed
    at timestamptz NOT NULL DEFAULT now()
);

-- Audit trail -------------------------------------------------------------------------------------

CREATE TABLE audit_event (
    sequence bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    actor_id bigint,
    establishment_code text COLLATE "C" NOT NULL,
    study_uid text COLLATE "C" NOT NULL,
    event text NOT NULL,                                -- canonical JSON: what the hash is over
    hash bytea NOT NULL                                 -- SHA-256(previous hash || event)
);
CREATE INDEX audit_event_study ON audit_event (study_uid) WHERE study_uid <> '';
CREATE INDEX audit_event_actor ON audit_event (actor_id, at);
CREATE TABLE audit_head (                               -- one row; locked by whoever appends
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    sequence bigint NOT NULL,
    hash bytea NOT NULL
);
INSERT INTO audit_head (sequence, hash) VALUES (0, '\x0000000000000000000000000000000000000000000000000000000000000000');

-- Access ------------------------------------------------------------------------------------------

-- The one relation joined into every query. Later relations (grant, care team, break-glass) become
-- further branches here and nowhere else. It is plain SQL so that the planner sees through it.
CREATE FUNCTION readable_study(actor bigint, purpose text, only_study_uid text) RETURNS SETOF study
LANGUAGE sql STABLE
AS $$
    SELECT study.* FROM study
    WHERE study.establishment_id = (
            SELECT a.establishment_id FROM actor a
            WHERE a.actor_id = $1 AND a.reads_images AND a.disabled_at IS NULL AND $2 = 'normal')
      AND ($3 IS NULL OR study.study_uid = $3)
$$;

-- Second wall: a connection sees the establishments named in its setting, '*' for our own jobs. The policies
-- call these in a sub-select, so that they are computed once a statement and not once a row.
CREATE FUNCTION sees_all_establishments() RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
AS $$ SELECT current_setting('negatoscope.establishments', true) = '*' $$;
CREATE FUNCTION visible_establishments() RETURNS int[]
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE current_setting('negatoscope.establishments', true) WHEN '*' THEN NULL
        ELSE string_to_array(current_setting('negatoscope.establishments', true), ',')::int[] END
$$;

ALTER TABLE study ENABLE ROW LEVEL SECURITY;
ALTER TABLE series ENABLE ROW LEVEL SECURITY;
ALTER TABLE instance ENABLE ROW LEVEL SECURITY;
ALTER TABLE quarantine ENABLE ROW LEVEL SECURITY;
CREATE POLICY establishment_wall ON study
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON series
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON instance
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON quarantine
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));

GRANT USAGE ON SCHEMA public TO negatoscope_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO negatoscope_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO negatoscope_app;
GRANT UPDATE ON SEQUENCE segment_segment_id_seq TO negatoscope_app;  -- rebuild-index goes on after the files found
REVOKE UPDATE, DELETE, TRUNCATE ON audit_event FROM negatoscope_app;
REVOKE INSERT, DELETE ON audit_head FROM negatoscope_app;
REVOKE UPDATE, DELETE ON change_feed FROM negatoscope_app;

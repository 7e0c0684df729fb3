-- Orders, the modality worklist and what modalities report of their work (PS3.3 C.4.10 to C.4.17, PS3.4 F and K).
-- Images belong to an order by Study Instance UID or accession number within one establishment. That is asked
-- when it is shown, so that nothing of this stands in the way of an object being stored.

CREATE SEQUENCE order_number;                           -- of accession numbers and ids that nobody gave

-- One order as it was asked for, with the patient as the one who ordered knows them.
CREATE TABLE imaging_service_request (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    establishment_id int NOT NULL REFERENCES establishment,
    accession_number text COLLATE "C" NOT NULL CHECK (accession_number <> ''),
    authority_oid text COLLATE "C" NOT NULL,            -- of the patient's identifier
    patient_identifier text COLLATE "C" NOT NULL CHECK (patient_identifier <> ''),
    patient_name text NOT NULL,                         -- PN, components with ^ and groups with =
    patient_name_folded text COLLATE "C" GENERATED ALWAYS AS (fold(patient_name)) STORED,
    birth_date text COLLATE "C" NOT NULL DEFAULT '',    -- YYYYMMDD or ''
    sex text COLLATE "C" NOT NULL DEFAULT '',
    attributes jsonb NOT NULL DEFAULT '{}',             -- DICOM JSON: all else that was given of patient, visit and request
    created_by bigint NOT NULL REFERENCES actor,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (establishment_id, accession_number)
);
CREATE INDEX request_patient ON imaging_service_request (establishment_id, patient_identifier);

CREATE TABLE requested_procedure (                      -- what is to be reported as one: one study
    procedure_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id bigint NOT NULL REFERENCES imaging_service_request,
    establishment_id int NOT NULL REFERENCES establishment,
    requested_procedure_id text COLLATE "C" NOT NULL,   -- (0040,1001)
    study_uid text COLLATE "C" NOT NULL,                -- given to every image of it
    description text NOT NULL DEFAULT '',
    priority text COLLATE "C" NOT NULL DEFAULT '',      -- STAT, HIGH, ROUTINE, MEDIUM, LOW or ''
    attributes jsonb NOT NULL DEFAULT '{}',
    UNIQUE (establishment_id, requested_procedure_id),
    UNIQUE (establishment_id, study_uid)
);
CREATE INDEX requested_procedure_request ON requested_procedure (request_id);

CREATE TABLE scheduled_procedure_step (                 -- one line of a modality's worklist
    step_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    procedure_id bigint NOT NULL REFERENCES requested_procedure,
    establishment_id int NOT NULL REFERENCES establishment,
    scheduled_step_id text COLLATE "C" NOT NULL,        -- (0040,0009)
    modality text COLLATE "C" NOT NULL,
    station_title text COLLATE "C" NOT NULL DEFAULT '', -- Scheduled Station AE Title; '' for any of the establishment
    start_date text COLLATE "C" NOT NULL,               -- YYYYMMDD, the establishment's clock
    start_time text COLLATE "C" NOT NULL,               -- HHMMSS
    performing_physician text NOT NULL DEFAULT '',
    description text NOT NULL DEFAULT '',
    status text COLLATE "C" NOT NULL DEFAULT 'SCHEDULED' CHECK (status IN
        ('SCHEDULED', 'ARRIVED', 'READY', 'STARTED', 'DEPARTED', 'COMPLETED', 'DISCONTINUED', 'CANCELLED')),
    status_reason text NOT NULL DEFAULT '',             -- of a cancellation, as it was typed
    status_at timestamptz NOT NULL DEFAULT now(),
    attributes jsonb NOT NULL DEFAULT '{}',
    UNIQUE (establishment_id, scheduled_step_id)
);
CREATE INDEX scheduled_step_procedure ON scheduled_procedure_step (procedure_id);
CREATE INDEX scheduled_step_day ON scheduled_procedure_step (establishment_id, start_date, start_time, step_id);
-- The worklist of a modality that names no day: what is open is little, what is over grows for ever.
CREATE INDEX scheduled_step_open ON scheduled_procedure_step (establishment_id, start_date, start_time, step_id)
    WHERE status IN ('SCHEDULED', 'ARRIVED', 'READY', 'STARTED', 'DEPARTED');

CREATE TABLE performed_procedure_step (                 -- what a modality said it did, with or without an order
    performed_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    establishment_id int NOT NULL REFERENCES establishment,
    sop_instance_uid text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('IN PROGRESS', 'COMPLETED', 'DISCONTINUED')),
    wrong_entry boolean NOT NULL DEFAULT false,         -- discontinued because the wrong worklist entry was chosen
    station_title text COLLATE "C" NOT NULL,
    modality text COLLATE "C" NOT NULL,
    study_uids text[] NOT NULL,                         -- of its scheduled step attributes
    start_date text COLLATE "C" NOT NULL,
    start_time text COLLATE "C" NOT NULL,
    attributes jsonb NOT NULL,                          -- DICOM JSON, as created and set: dose, performed series
    actor_id bigint NOT NULL REFERENCES actor,          -- the application entity that created it
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (establishment_id, sop_instance_uid)
);
CREATE INDEX performed_step_day ON performed_procedure_step (establishment_id, start_date, start_time, performed_id);

CREATE TABLE performed_of_scheduled (                   -- many to many: a group of steps done at once, a step done in parts
    performed_id bigint NOT NULL REFERENCES performed_procedure_step,
    step_id bigint NOT NULL REFERENCES scheduled_procedure_step,
    establishment_id int NOT NULL,
    PRIMARY KEY (performed_id, step_id)
);
CREATE INDEX performed_of_scheduled_step ON performed_of_scheduled (step_id);

-- Access: as readable_study, the relation that every query joins. Later branches (prescriber) belong here.
CREATE FUNCTION worklist_establishment(actor bigint, purpose text) RETURNS int
LANGUAGE sql STABLE
AS $$
    SELECT a.establishment_id FROM actor a
    WHERE a.actor_id = $1 AND 'worklist' = ANY (a.rights) AND a.disabled_at IS NULL AND $2 = 'normal'
$$;
CREATE FUNCTION readable_request(actor bigint, purpose text) RETURNS SETOF imaging_service_request
LANGUAGE sql STABLE
AS $$
    SELECT r.* FROM imaging_service_request r WHERE r.establishment_id = (SELECT worklist_establishment($1, $2))
$$;
CREATE FUNCTION readable_scheduled_step(actor bigint, purpose text) RETURNS SETOF scheduled_procedure_step
LANGUAGE sql STABLE
AS $$
    SELECT s.* FROM scheduled_procedure_step s WHERE s.establishment_id = (SELECT worklist_establishment($1, $2))
$$;
CREATE FUNCTION readable_performed_step(actor bigint, purpose text) RETURNS SETOF performed_procedure_step
LANGUAGE sql STABLE
AS $$
    SELECT p.* FROM performed_procedure_step p WHERE p.establishment_id = (SELECT worklist_establishment($1, $2))
$$;

ALTER TABLE imaging_service_request ENABLE ROW LEVEL SECURITY;
ALTER TABLE requested_procedure ENABLE ROW LEVEL SECURITY;
ALTER TABLE scheduled_procedure_step ENABLE ROW LEVEL SECURITY;
ALTER TABLE performed_procedure_step ENABLE ROW LEVEL SECURITY;
ALTER TABLE performed_of_scheduled ENABLE ROW LEVEL SECURITY;
CREATE POLICY establishment_wall ON imaging_service_request
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON requested_procedure
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON scheduled_procedure_step
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON performed_procedure_step
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON performed_of_scheduled
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));

GRANT SELECT, INSERT, UPDATE ON imaging_service_request, requested_procedure, scheduled_procedure_step,
    performed_procedure_step, performed_of_scheduled TO negatoscope_app;
GRANT USAGE ON SEQUENCE order_number, imaging_service_request_request_id_seq, requested_procedure_procedure_id_seq,
    scheduled_procedure_step_step_id_seq, performed_procedure_step_performed_id_seq TO negatoscope_app;

-- People who enter and follow orders have the right from now on; new accounts get it from their role.
UPDATE actor SET rights = (SELECT array_agg(DISTINCT one ORDER BY one) FROM unnest(rights || '{worklist}') AS one)
WHERE kind = 'user' AND role IN ('referent', 'radiographer', 'radiologist', 'secretary');

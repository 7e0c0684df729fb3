-- Unified procedure steps: workitems (PS3.4 CC, PS3.18 11).
-- A workitem belongs to the establishment whose actor made it; the same UID in another one is another workitem.

CREATE TABLE workitem (
    workitem_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    establishment_id int NOT NULL REFERENCES establishment,
    sop_instance_uid text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL DEFAULT 'SCHEDULED' CHECK (state IN
        ('SCHEDULED', 'IN PROGRESS', 'COMPLETED', 'CANCELED')),
    transaction_uid text COLLATE "C" NOT NULL DEFAULT '',  -- the performer's key, never shown; '' until it is claimed
    start_at text COLLATE "C" NOT NULL,                 -- Scheduled Procedure Step Start DateTime, as given
    attributes jsonb NOT NULL,                          -- DICOM JSON, all of it but the Transaction UID
    created_by bigint NOT NULL REFERENCES actor,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (establishment_id, sop_instance_uid),
    CHECK ((state = 'IN PROGRESS') <= (transaction_uid <> ''))
);
CREATE INDEX workitem_order ON workitem (establishment_id, start_at, workitem_id);
-- What waits or is being done is little, what is over grows for ever.
CREATE INDEX workitem_state ON workitem (establishment_id, state, start_at, workitem_id)
    WHERE state IN ('SCHEDULED', 'IN PROGRESS');

CREATE FUNCTION readable_workitem(actor bigint, purpose text) RETURNS SETOF workitem
LANGUAGE sql STABLE
AS $$
    SELECT w.* FROM workitem w WHERE w.establishment_id = (SELECT worklist_establishment($1, $2))
$$;

ALTER TABLE workitem ENABLE ROW LEVEL SECURITY;
CREATE POLICY establishment_wall ON workitem
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));

GRANT SELECT, INSERT, UPDATE ON workitem TO negatoscope_app;
GRANT USAGE ON SEQUENCE workitem_workitem_id_seq TO negatoscope_app;

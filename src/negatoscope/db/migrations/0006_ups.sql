-- Unified procedure steps (PS3.4 CC, PS3.18 11): workitems, who listens to them, and what they are to be told.
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

CREATE TABLE worklist_subscription (                    -- to all there is and all to come
    establishment_id int NOT NULL REFERENCES establishment,
    title text COLLATE "C" NOT NULL,                    -- under which the subscriber opens its channel
    filtered boolean NOT NULL,
    keys jsonb NOT NULL DEFAULT '[]',                   -- of a filtered one: names and values, as they were given
    deletion_lock boolean NOT NULL,
    created_by bigint NOT NULL REFERENCES actor,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (establishment_id, title, filtered)
);

CREATE TABLE workitem_subscription (
    workitem_id bigint NOT NULL REFERENCES workitem,
    title text COLLATE "C" NOT NULL,
    establishment_id int NOT NULL REFERENCES establishment,
    deletion_lock boolean NOT NULL,
    PRIMARY KEY (workitem_id, title)
);
CREATE INDEX workitem_subscription_title ON workitem_subscription (establishment_id, title);

CREATE TABLE workitem_event (                           -- kept for a day: a channel hears what comes while it is open
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- in the order of commits
    establishment_id int NOT NULL REFERENCES establishment,
    title text COLLATE "C" NOT NULL,
    sop_instance_uid text COLLATE "C" NOT NULL,
    kind smallint NOT NULL,                             -- Event Type ID, PS3.4 table CC.2.4-1
    content jsonb NOT NULL,                             -- DICOM JSON of the Event Information
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX workitem_event_title ON workitem_event (establishment_id, title, event_id);
CREATE INDEX workitem_event_age ON workitem_event (created_at);

CREATE FUNCTION readable_workitem(actor bigint, purpose text) RETURNS SETOF workitem
LANGUAGE sql STABLE
AS $$
    SELECT w.* FROM workitem w WHERE w.establishment_id = (SELECT worklist_establishment($1, $2))
$$;

ALTER TABLE workitem ENABLE ROW LEVEL SECURITY;
ALTER TABLE worklist_subscription ENABLE ROW LEVEL SECURITY;
ALTER TABLE workitem_subscription ENABLE ROW LEVEL SECURITY;
ALTER TABLE workitem_event ENABLE ROW LEVEL SECURITY;
CREATE POLICY establishment_wall ON workitem
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON worklist_subscription
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON workitem_subscription
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON workitem_event
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));

GRANT SELECT, INSERT, UPDATE ON workitem TO negatoscope_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON worklist_subscription, workitem_subscription TO negatoscope_app;
GRANT SELECT, INSERT, DELETE ON workitem_event TO negatoscope_app;
GRANT USAGE ON SEQUENCE workitem_workitem_id_seq, workitem_event_event_id_seq TO negatoscope_app;

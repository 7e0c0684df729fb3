-- Sending: remote nodes, the durable queue, storage commitment in both roles. ADR 12.

-- A remote node of an establishment: where its objects may be sent, by C-STORE or by STOW-RS.
CREATE TABLE node (
    node_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    establishment_id int NOT NULL REFERENCES establishment,
    name text COLLATE "C" NOT NULL CHECK (name ~ '^[A-Za-z0-9._-]{1,32}$'),
    kind text NOT NULL CHECK (kind IN ('dimse', 'dicomweb')),
    title text COLLATE "C" NOT NULL DEFAULT '',         -- AE title that we call; '' for DICOMweb
    host text COLLATE "C" NOT NULL DEFAULT '',
    port int CHECK (port BETWEEN 1 AND 65535),
    url text COLLATE "C" NOT NULL DEFAULT '',           -- DICOMweb base; '' for DIMSE
    secret text NOT NULL DEFAULT '',                    -- Authorization header that we send; never shown
    concurrency smallint NOT NULL DEFAULT 2 CHECK (concurrency BETWEEN 1 AND 16),
    commitment boolean NOT NULL DEFAULT false,          -- ask for storage commitment after sending
    tls boolean NOT NULL DEFAULT false,                 -- of a DIMSE node: it is called over TLS
    paused_at timestamptz,
    contact_at timestamptz,                             -- last time it answered
    failures int NOT NULL DEFAULT 0,                    -- times in a row that it did not
    failure text COLLATE "C" NOT NULL DEFAULT '',       -- why, the last time: a slug
    retry_at timestamptz NOT NULL DEFAULT now(),        -- nothing is tried before
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (establishment_id, name),
    CHECK (kind <> 'dimse' OR (title <> '' AND host <> '' AND port IS NOT NULL)),
    CHECK (kind <> 'dicomweb' OR url <> '')
);

-- One study, or one series of it, on its way to one node.
CREATE TABLE delivery (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    establishment_id int NOT NULL REFERENCES establishment,
    node_id bigint NOT NULL REFERENCES node,
    study_uid text COLLATE "C" NOT NULL,
    series_uid text COLLATE "C",                        -- NULL: the whole study
    series_id bigint,                                   -- of a delivery that a rule made
    series_version int,
    rule text COLLATE "C",                              -- NULL: asked for by a person
    actor_id bigint NOT NULL REFERENCES actor,          -- under whose rights it leaves
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 2),  -- 0 urgent, 1 normal, 2 bulk
    syntax text COLLATE "C" NOT NULL DEFAULT '',        -- transfer syntax preferred, '' as stored
    state text NOT NULL CHECK (state IN ('held', 'waiting', 'sending', 'committing', 'done', 'dead', 'cancelled')),
    not_before timestamptz NOT NULL DEFAULT now(),
    attempts int NOT NULL DEFAULT 0,                    -- that ended with objects refused
    reason text COLLATE "C" NOT NULL DEFAULT '',        -- why it is not done: a slug
    lease_owner text COLLATE "C",                       -- the process that sends it, while it lives
    lease_until timestamptz,
    planned boolean NOT NULL DEFAULT false,             -- its objects are listed
    objects int NOT NULL DEFAULT 0,
    delivered int NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    bytes_delivered bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    UNIQUE (node_id, rule, series_id, series_version)   -- a closed series is routed once a rule and node
);
CREATE INDEX delivery_due ON delivery (node_id, priority, delivery_id) WHERE state IN ('waiting', 'sending', 'committing');
CREATE INDEX delivery_recent ON delivery (establishment_id, delivery_id DESC);

-- Progress, object by object. Rows go when the delivery is done; those of a dead one name what is missing.
CREATE TABLE delivery_object (
    delivery_id bigint NOT NULL REFERENCES delivery ON DELETE CASCADE,
    position int NOT NULL,
    series_uid text COLLATE "C" NOT NULL,
    sop_class_uid text COLLATE "C" NOT NULL,
    sop_instance_uid text COLLATE "C" NOT NULL,
    bytes bigint NOT NULL,
    state smallint NOT NULL DEFAULT 0,                  -- 0 to send, 1 acknowledged, 2 refused
    losses smallint NOT NULL DEFAULT 0,                 -- associations that ended while it was on its way
    reason text COLLATE "C" NOT NULL DEFAULT '',        -- of the refusal: a slug, or a status in hexadecimal
    PRIMARY KEY (delivery_id, position)
);

-- What rules have sent to a node already: a series that opens and closes again is not sent twice.
CREATE TABLE delivered_series (
    node_id bigint NOT NULL REFERENCES node ON DELETE CASCADE,
    series_id bigint NOT NULL,
    hashes bytea NOT NULL,                              -- 6 bytes of SHA-256 of each SOP Instance UID, sorted
    PRIMARY KEY (node_id, series_id)
);

-- How far the rules have read the change feed, and what is wrong with their file, if anything.
CREATE TABLE routing_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    change_id bigint NOT NULL DEFAULT 0,
    problem text NOT NULL DEFAULT ''
);
INSERT INTO routing_state (change_id) SELECT coalesce(max(change_id), 0) FROM change_feed;

-- Storage commitment asked of us (SCP), PS3.4 annex J.
CREATE TABLE commitment (
    commitment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    establishment_id int NOT NULL REFERENCES establishment,
    actor_id bigint NOT NULL REFERENCES actor,          -- the application entity that asks
    title text COLLATE "C" NOT NULL,                    -- as which it called
    transaction_uid text COLLATE "C" NOT NULL,
    objects jsonb NOT NULL,                             -- [[SOP class, SOP instance], ...]
    verdicts jsonb,                                     -- failure reason of each, 0: committed; NULL: not judged yet
    state text NOT NULL DEFAULT 'asked' CHECK (state IN ('asked', 'judged', 'delivered', 'dead')),
    attempts int NOT NULL DEFAULT 0,                    -- to deliver the report
    not_before timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,
    asked_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz
);
CREATE INDEX commitment_due ON commitment (not_before) WHERE state IN ('asked', 'judged');
CREATE INDEX commitment_transaction ON commitment (actor_id, transaction_uid);

-- Storage commitment that we ask of a node (SCU) after a delivery.
CREATE TABLE commitment_asked (
    transaction_uid text COLLATE "C" PRIMARY KEY,
    delivery_id bigint NOT NULL REFERENCES delivery ON DELETE CASCADE,
    asked_at timestamptz NOT NULL DEFAULT now(),
    answered_at timestamptz
);
CREATE INDEX commitment_asked_delivery ON commitment_asked (delivery_id);

ALTER TABLE node ENABLE ROW LEVEL SECURITY;
ALTER TABLE delivery ENABLE ROW LEVEL SECURITY;
ALTER TABLE commitment ENABLE ROW LEVEL SECURITY;
CREATE POLICY establishment_wall ON node
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON delivery
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));
CREATE POLICY establishment_wall ON commitment
    USING ((SELECT sees_all_establishments()) OR establishment_id = ANY ((SELECT visible_establishments())::int[]));

GRANT SELECT, INSERT, UPDATE, DELETE ON node, delivery, delivery_object, delivered_series, routing_state, commitment,
    commitment_asked TO negatoscope_app;

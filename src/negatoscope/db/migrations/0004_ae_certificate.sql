-- Certificates bound to application entities: a title that has one is believed from that certificate alone.

CREATE TABLE ae_certificate (                           -- several while one is being renewed; one may have several titles
    actor_id bigint NOT NULL REFERENCES application_entity ON DELETE CASCADE,
    fingerprint text COLLATE "C" NOT NULL CHECK (fingerprint ~ '^[0-9a-f]{64}$'),  -- SHA-256 of its DER form
    bound_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor_id, fingerprint)
);

-- Whether we reach it over TLS. Then it must show a bound certificate, or without one a certificate of its host name.
ALTER TABLE application_entity ADD COLUMN tls boolean NOT NULL DEFAULT false;

GRANT SELECT, INSERT, DELETE ON ae_certificate TO negatoscope_app;

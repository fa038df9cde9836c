-- The Kingdom's state. Times are nanoseconds since 1970 on the Kingdom's clock; ids and names are the public texts.
-- What somebody signed is stored as the bytes that were received.

CREATE TABLE parties (
    name            TEXT PRIMARY KEY,          -- dataProviders/…, duchies/…, measurementConsumers/…
    display_name    TEXT NOT NULL,
    root_der        BLOB NOT NULL,             -- root of the party's TLS and consent certificates
    root_key_id     BLOB NOT NULL UNIQUE,      -- authority key identifier of the certificates below the root
    certificate     TEXT NOT NULL,             -- resource name of the preferred consent certificate
    public_key      BLOB,                      -- serialized SignedMessage of its EncryptionPublicKey
    configured      BLOB NOT NULL              -- SHA-256 of what the configuration file last said of the party
) STRICT;

CREATE TABLE certificates (
    parent          TEXT NOT NULL REFERENCES parties (name),
    id              TEXT NOT NULL,
    der             BLOB NOT NULL,
    subject_key_id  BLOB NOT NULL UNIQUE,
    not_before      INTEGER NOT NULL,          -- seconds since 1970
    not_after       INTEGER NOT NULL,          -- seconds since 1970
    revocation      INTEGER NOT NULL,          -- 0 good, 1 hold, 2 revoked
    PRIMARY KEY (parent, id)
) STRICT;

CREATE TABLE measurements (
    consumer        TEXT NOT NULL,             -- id below measurementConsumers/
    id              TEXT NOT NULL,
    computation     TEXT NOT NULL UNIQUE,
    request_id      TEXT,
    reference_id    TEXT NOT NULL,
    certificate     TEXT NOT NULL,
    spec_type_url   TEXT NOT NULL,
    spec            BLOB NOT NULL,
    spec_signature  BLOB NOT NULL,
    spec_signature_oid TEXT NOT NULL,
    protocol_config BLOB NOT NULL,
    aggregator      TEXT NOT NULL,
    state           INTEGER NOT NULL,
    create_time     INTEGER NOT NULL,
    update_time     INTEGER NOT NULL,
    deadline        INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    failure_reason  INTEGER,
    failure_message TEXT,
    failure_culprits TEXT,
    result_certificate TEXT,
    result_public_key BLOB,
    result_ciphertext BLOB,
    PRIMARY KEY (consumer, id)
) STRICT;
CREATE UNIQUE INDEX measurements_by_request ON measurements (consumer, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX measurements_by_update ON measurements (consumer, update_time, id);
CREATE INDEX measurements_by_deadline ON measurements (deadline) WHERE state <= 4;

CREATE TABLE requisitions (
    data_provider   TEXT NOT NULL,
    id              TEXT NOT NULL,
    computation     TEXT NOT NULL REFERENCES measurements (computation) ON DELETE CASCADE,
    position        INTEGER NOT NULL,
    certificate     TEXT NOT NULL,
    public_key_type_url TEXT NOT NULL,
    public_key      BLOB NOT NULL,
    spec_type_url   TEXT NOT NULL,
    spec_ciphertext BLOB NOT NULL,
    nonce_hash      BLOB NOT NULL,
    state           INTEGER NOT NULL,
    update_time     INTEGER NOT NULL,
    fulfilling_duchy TEXT,
    nonce           INTEGER,                   -- the 64 bits, read as a signed number
    key_list_hash   BLOB,
    body_sha256     BLOB,
    record_count    INTEGER,
    context         BLOB,                      -- serialized FulfillmentContext
    refusal_justification INTEGER,
    refusal_message TEXT,
    PRIMARY KEY (data_provider, id),
    UNIQUE (computation, position),
    UNIQUE (computation, data_provider)
) STRICT;
CREATE INDEX requisitions_by_update ON requisitions (data_provider, update_time, id);

CREATE TABLE participants (
    computation     TEXT NOT NULL REFERENCES measurements (computation) ON DELETE CASCADE,
    duchy           TEXT NOT NULL,
    state           INTEGER NOT NULL,
    update_time     INTEGER NOT NULL,
    certificate     TEXT,
    public_key      BLOB,                      -- serialized ElGamalPublicKey, as signed
    public_key_signature BLOB,
    public_key_signature_oid TEXT,
    failure_message TEXT,
    failure_culprits TEXT,
    PRIMARY KEY (computation, duchy)
) STRICT;

CREATE TABLE timeline (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    computation     TEXT NOT NULL REFERENCES measurements (computation) ON DELETE CASCADE,
    time            INTEGER NOT NULL,
    actor           TEXT NOT NULL,
    message         TEXT NOT NULL,
    stage_attempt   BLOB,                      -- serialized StageAttempt
    transient       INTEGER NOT NULL
) STRICT;
CREATE INDEX timeline_by_computation ON timeline (computation, seq);

-- Written in the transaction of the change. One writer at a time, so seq is commit order.
CREATE TABLE changes (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    computation     TEXT NOT NULL REFERENCES measurements (computation) ON DELETE CASCADE
) STRICT;
CREATE INDEX changes_by_computation ON changes (computation, seq);

CREATE TABLE event_groups (
    data_provider   TEXT NOT NULL,
    id              TEXT NOT NULL,
    consumer        TEXT NOT NULL,
    request_id      TEXT,
    body            BLOB NOT NULL,             -- serialized EventGroup
    PRIMARY KEY (data_provider, id)
) STRICT;
CREATE UNIQUE INDEX event_groups_by_request ON event_groups (data_provider, request_id) WHERE request_id IS NOT NULL;

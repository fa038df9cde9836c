-- One Duchy's state. Times are nanoseconds since 1970 on the Duchy's clock. Secrets are stored only sealed under the
-- key-encryption key. What somebody sent is stored as the bytes that were received.

CREATE TABLE computations (
    id              TEXT PRIMARY KEY,          -- the Kingdom's external id
    aggregator      INTEGER NOT NULL,          -- 1: this Duchy aggregates
    stage           INTEGER NOT NULL,          -- numbers of LiquidLegionsV2Stage.Stage
    kingdom_state   INTEGER NOT NULL,          -- numbers of system.v1alpha.Computation.State, the last one received
    received        BLOB NOT NULL,             -- the last Computation received, as it came
    secrets         BLOB,                      -- sealed key share and seed; NULL once destroyed
    engine_state    BLOB,                      -- sealed state of the engine
    failure         TEXT,                      -- why it ended without success
    finished        INTEGER NOT NULL DEFAULT 0, -- 1: keys destroyed, nothing left to do
    attempts        INTEGER NOT NULL DEFAULT 0, -- failed attempts since the last progress
    next_attempt    INTEGER NOT NULL,          -- not before this time
    lease_owner     TEXT,
    lease_expiry    INTEGER,
    fencing         INTEGER NOT NULL DEFAULT 0, -- grows with every lease
    created         INTEGER NOT NULL,
    updated         INTEGER NOT NULL
) STRICT;
CREATE INDEX computations_open ON computations (next_attempt) WHERE finished = 0;

CREATE TABLE requisitions (
    name            TEXT PRIMARY KEY,          -- dataProviders/{}/requisitions/{}
    computation     TEXT NOT NULL REFERENCES computations (id) ON DELETE CASCADE,
    fingerprint     BLOB NOT NULL,
    nonce_hash      BLOB NOT NULL,
    here            INTEGER NOT NULL,          -- 1: fulfilled at this Duchy
    nonce           INTEGER,                   -- bit pattern of the unsigned number
    key_list_hash   BLOB,
    sha256          BLOB,                      -- the body that is bound, for good
    length          INTEGER,
    records         INTEGER,
    announced       INTEGER NOT NULL DEFAULT 0 -- 1: the Kingdom has acknowledged it
) STRICT;
CREATE INDEX requisitions_of ON requisitions (computation);

CREATE TABLE slots (
    computation     TEXT NOT NULL REFERENCES computations (id) ON DELETE CASCADE,
    description     INTEGER NOT NULL,          -- numbers of LiquidLegionsV2.Description
    sender          TEXT NOT NULL,
    sha256          BLOB,                      -- the body that is bound, for good
    length          INTEGER,
    records         INTEGER,
    consumed        INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (computation, description, sender)
) STRICT;

CREATE TABLE outbox (
    computation     TEXT NOT NULL REFERENCES computations (id) ON DELETE CASCADE,
    seq             INTEGER NOT NULL,
    stage           INTEGER NOT NULL,          -- the stage that made it
    kind            INTEGER NOT NULL,          -- 1 body, 2 parameters, 3 confirmation, 4 result, 5 failure, 6 log entry
    receiver        TEXT,                      -- of a body
    description     INTEGER,
    sha256          BLOB,
    length          INTEGER,
    records         INTEGER,
    payload         BLOB,                      -- of everything else: the bytes to send
    acknowledged    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (computation, seq)
) STRICT;

CREATE TABLE transfers (
    target          TEXT NOT NULL,             -- name of the requisition, or computation/description/sender
    sha256          BLOB NOT NULL,
    computation     TEXT NOT NULL REFERENCES computations (id) ON DELETE CASCADE,
    length          INTEGER NOT NULL,          -- bytes that are safely in the spool file
    PRIMARY KEY (target, sha256)
) STRICT;

CREATE TABLE continuation (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    token           TEXT NOT NULL
) STRICT;

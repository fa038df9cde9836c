-- What may be known of secrets: which there were, what was done with them, and that they are gone. None of these rows
-- refers to a computation's row, because they outlive it.

-- Whose database this is: secrets of two Duchies are never kept together.
CREATE TABLE owner (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    duchy           TEXT NOT NULL
) STRICT;

CREATE TABLE keys (
    computation     TEXT NOT NULL,             -- the Kingdom's external id
    id              TEXT NOT NULL,             -- kind and beginning of the public half's digest
    kind            TEXT NOT NULL,             -- seed, elgamal, hpke
    public_sha256   BLOB,                      -- of the public half; NULL where there is none
    generated       INTEGER NOT NULL,
    destroyed       INTEGER,                   -- when it was certain that nothing of it is left
    PRIMARY KEY (computation, id)
) STRICT;
CREATE INDEX keys_alive ON keys (computation) WHERE destroyed IS NULL;

CREATE TABLE key_audit (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    at              INTEGER NOT NULL,
    event           TEXT NOT NULL,             -- generated, opened, rotated, destroyed
    computation     TEXT NOT NULL,             -- the Kingdom's external id
    keys            TEXT NOT NULL,             -- ids
    kek             TEXT NOT NULL              -- id of the key-encryption key
) STRICT;

CREATE TABLE destructions (
    computation     TEXT PRIMARY KEY,
    record          TEXT NOT NULL,
    signature       BLOB NOT NULL              -- by the Duchy's consent-signaling key, over the record's bytes
) STRICT;

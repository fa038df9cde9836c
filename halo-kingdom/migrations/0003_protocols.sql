-- Measurements of every protocol. Who takes part in which role is read from the protocol's configuration.

ALTER TABLE measurements DROP COLUMN aggregator;
ALTER TABLE participants ADD COLUMN attestation BLOB;           -- evidence of what runs at a trustee
ALTER TABLE requisitions ADD COLUMN result_certificate TEXT;    -- of a direct measurement: the publisher's, that signs its result
ALTER TABLE requisitions ADD COLUMN result_ciphertext BLOB;
ALTER TABLE parties ADD COLUMN capabilities BLOB;               -- serialized DataProvider.Capabilities
ALTER TABLE parties ADD COLUMN configured_capabilities BLOB;    -- the same, as the configuration file last said it

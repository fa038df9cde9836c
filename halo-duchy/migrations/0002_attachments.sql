-- What belongs to an upload and came with its header, in the protocol's form: the share shuffle's encrypted seed.

ALTER TABLE requisitions ADD COLUMN attachment BLOB;

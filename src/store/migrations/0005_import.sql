-- Accounts whose hash another program made (it does not begin with "$argon2id$"): a failed login asks whether there are any.
CREATE INDEX account_old_hash ON account (id) WHERE substr(hash, 1, 10) <> x'246172676f6e32696424';

-- The names that were ever imported, as in revocation.key: importing again must not bring a deleted account back.
CREATE TABLE imported (
    key BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

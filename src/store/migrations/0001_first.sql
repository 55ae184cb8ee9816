-- Times are milliseconds since 1970-01-01T00:00:00Z.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_key (
    kid       TEXT PRIMARY KEY,
    algorithm TEXT NOT NULL,
    secret    BLOB NOT NULL,
    created   INTEGER NOT NULL,
    state     TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Two processes that start at once must agree on the key.
CREATE UNIQUE INDEX signing_key_signing ON signing_key (state) WHERE state = 'signing';

-- AUTOINCREMENT: an id is never given twice, so that a deleted account's rows and tokens never meet a namesake's.
CREATE TABLE account (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    username   TEXT NOT NULL UNIQUE,
    hash       BLOB NOT NULL,
    generation INTEGER NOT NULL,
    disabled   INTEGER NOT NULL,
    created    INTEGER NOT NULL
) STRICT;

CREATE TABLE account_role (
    account INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    role    TEXT NOT NULL,
    PRIMARY KEY (account, role)
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    id         TEXT PRIMARY KEY,
    account    INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    created    INTEGER NOT NULL,
    last_used  INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    address    TEXT,
    user_agent TEXT
) STRICT;

CREATE INDEX session_account ON session (account);
CREATE INDEX session_expires ON session (expires);

-- AUTOINCREMENT: seq grows in the order of commits even when the newest rows were purged; the feed's cursor needs that.
CREATE TABLE revocation (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    key        BLOB NOT NULL UNIQUE,
    kind       INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    keep_until INTEGER NOT NULL
) STRICT;

CREATE INDEX revocation_keep_until ON revocation (keep_until);

-- The account's generation when the session was opened: raising that ends the session, without a look at each.
ALTER TABLE session ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
UPDATE session SET generation = (SELECT generation FROM account WHERE account.id = session.account);

-- The key of the refresh token that is to be used next; NULL until one is turned in for another.
ALTER TABLE session ADD COLUMN newest BLOB;

-- How often it was refreshed since when: it may be 30 times a minute.
ALTER TABLE session ADD COLUMN pace_begin INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN pace_uses INTEGER NOT NULL DEFAULT 0;

-- Refresh tokens that were turned in, and what for: the last one of each session, and those within the grace.
CREATE TABLE rotation (
    session   TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    token     BLOB NOT NULL,
    successor TEXT NOT NULL,
    issued    INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    -- How often it was turned in again within the grace.
    racers    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session, token)
) STRICT, WITHOUT ROWID;

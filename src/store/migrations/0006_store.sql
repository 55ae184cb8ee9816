-- Which store this is: a file that has another id is another store, whatever its path. And how many transactions have
-- changed it: a file with fewer is an older state.
CREATE TABLE store (
    id      BLOB NOT NULL,
    commits INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO store (id) VALUES (randomblob(16));

-- When the last access token of a session expires: how long the end of a session must be remembered whose row is gone.
ALTER TABLE session ADD COLUMN access_expires INTEGER NOT NULL DEFAULT 0;
UPDATE session SET access_expires = expires;

-- Sessions are listed by their last use, and the least recently used one gives way.
DROP INDEX session_account;
CREATE INDEX session_account_used ON session (account, generation, last_used, id);

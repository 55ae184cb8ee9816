-- Failed attempts: of an account from anywhere (account alone), of an address (address alone), and of an account from
-- an address that is known to it (both). An account is the hash of the name that was typed, existing or not; an address
-- is four bytes, or the first eight of IPv6. What does not count is empty.
CREATE TABLE attempt (
    account  BLOB NOT NULL,
    address  BLOB NOT NULL,
    failures INTEGER NOT NULL,
    until    INTEGER NOT NULL,
    forget   INTEGER NOT NULL,
    PRIMARY KEY (account, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempt_forget ON attempt (forget);
CREATE INDEX attempt_address ON attempt (address);

-- From where an account was entered with its password.
CREATE TABLE known_address (
    account INTEGER NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    address BLOB NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (account, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX known_address_expires ON known_address (expires);

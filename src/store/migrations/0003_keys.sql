-- When the state is over: a standby begins to sign, a verifying or revoked key is forgotten.
ALTER TABLE signing_key ADD COLUMN ends INTEGER;

-- 1: `secret` is encrypted under store.encryption_key.
ALTER TABLE signing_key ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0;

CREATE UNIQUE INDEX signing_key_standby ON signing_key (state) WHERE state = 'standby';

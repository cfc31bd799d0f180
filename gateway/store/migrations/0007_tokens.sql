-- What programs and apps hold: refresh tokens of a login, authorization codes on the way to one, API tokens.
-- All secrets have 256 random bits and are stored as SHA-256 only.

-- A login of a program or an app has no cookie, and its refresh tokens are good for this client alone.
ALTER TABLE logins ALTER COLUMN token_sha256 DROP NOT NULL;
ALTER TABLE logins ADD COLUMN client_id text;          -- NULL: a browser's login

-- The refresh tokens of one login, of which one is good. A token names its family, so that any other one that
-- does so is a used one, however old: nothing needs to be kept of those (decision 0018).
CREATE TABLE refresh_families (
    id              uuid PRIMARY KEY,                  -- random, in the tokens and nowhere else
    login_id        uuid NOT NULL UNIQUE REFERENCES logins ON DELETE CASCADE,
    current_sha256  bytea NOT NULL CHECK (octet_length(current_sha256) = 32),
    previous_sha256 bytea CHECK (octet_length(previous_sha256) = 32),  -- traded for the current one; NULL: none yet
    rotated_at      timestamptz NOT NULL,              -- when the previous one was first traded
    expires_at      timestamptz NOT NULL               -- the current one's idle end
);

CREATE TABLE authorization_codes (
    code_sha256    bytea PRIMARY KEY CHECK (octet_length(code_sha256) = 32),
    login_id       uuid NOT NULL REFERENCES logins ON DELETE CASCADE,  -- the browser's, in which the person said yes
    client_id      text NOT NULL,
    redirect_uri   text NOT NULL,
    code_challenge text NOT NULL,                      -- S256
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    used_at        timestamptz,
    gave_login_id  uuid REFERENCES logins ON DELETE SET NULL  -- a second use ends what the first gave
);
CREATE INDEX authorization_codes_expiry ON authorization_codes (expires_at);

CREATE TABLE api_tokens (
    id           uuid PRIMARY KEY,
    token_sha256 bytea NOT NULL UNIQUE CHECK (octet_length(token_sha256) = 32),
    user_id      uuid NOT NULL REFERENCES users,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    scopes       text[] NOT NULL CHECK (cardinality(scopes) > 0),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,                          -- to the hour
    ended_at     timestamptz
);
CREATE INDEX api_tokens_user ON api_tokens (user_id, created_at DESC) WHERE ended_at IS NULL;

-- Ending an API token ends what it opened, as logging out does.
ALTER TABLE sessions ADD COLUMN api_token_id uuid REFERENCES api_tokens ON DELETE SET NULL;
CREATE INDEX sessions_api_token ON sessions (api_token_id) WHERE ended_at IS NULL;

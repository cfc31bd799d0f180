-- People, their logins, the devices they own. Secrets (login cookies, registration tokens, poll secrets,
-- nonces) are stored as SHA-256 only: they hold 256 random bits, so a plain hash cannot be searched.

CREATE TABLE users (
    id            uuid PRIMARY KEY,
    username      text NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 64),
    password_hash text,                       -- Argon2id, encoded form; NULL: no password login
    created_at    timestamptz NOT NULL,
    disabled_at   timestamptz
);

CREATE TABLE logins (
    id           uuid PRIMARY KEY,
    token_sha256 bytea NOT NULL UNIQUE,
    user_id      uuid NOT NULL REFERENCES users,
    kind         text NOT NULL CHECK (kind IN ('password', 'welcome')),
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz
);
CREATE INDEX logins_expiry ON logins (expires_at);

CREATE TABLE devices (
    id                text PRIMARY KEY CHECK (id ~ '^d_[a-z2-7]{16}$'),
    owner_id          uuid NOT NULL REFERENCES users,
    name              text NOT NULL,
    hardware_id       text NOT NULL,
    status            text NOT NULL CHECK (status IN ('pending', 'approved', 'rejected', 'revoked')),
    public_key        bytea NOT NULL,         -- SubjectPublicKeyInfo, DER
    key_id            bytea NOT NULL CHECK (octet_length(key_id) = 16),
    software          text NOT NULL DEFAULT '',
    services          jsonb NOT NULL DEFAULT '[]',
    created_at        timestamptz NOT NULL,
    -- presence
    instance          bytea,                  -- the newest instance that connected
    instance_at       timestamptz,
    since             timestamptz,            -- since when it is online or offline; NULL: never connected
    last_seen         timestamptz,
    last_error        text,
    rtt_ms            double precision,
    flap_reported_at  timestamptz
);
CREATE INDEX devices_owner ON devices (owner_id, id);
-- A device that somebody owns cannot be bound again before it is revoked (a hardware id proves nothing).
CREATE UNIQUE INDEX devices_hardware ON devices (hardware_id) WHERE status IN ('pending', 'approved');

CREATE TABLE registration_tokens (
    token_sha256 bytea PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users,
    name         text,
    approve      boolean NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz
);

CREATE TABLE enrolments (
    id          uuid PRIMARY KEY,
    device_id   text NOT NULL REFERENCES devices,
    poll_sha256 bytea NOT NULL UNIQUE,
    created_at  timestamptz NOT NULL
);

CREATE TABLE device_certificates (
    serial     text PRIMARY KEY,              -- hexadecimal
    device_id  text NOT NULL REFERENCES devices,
    pem        text NOT NULL,
    issued_at  timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX device_certificates_device ON device_certificates (device_id, issued_at DESC);

CREATE TABLE renewal_nonces (
    nonce_sha256 bytea PRIMARY KEY,
    device_id    text NOT NULL REFERENCES devices,
    expires_at   timestamptz NOT NULL
);

CREATE TABLE rate_limits (
    key text PRIMARY KEY,
    tat timestamptz NOT NULL                  -- theoretical arrival time of the generic cell rate algorithm
);
CREATE INDEX rate_limits_tat ON rate_limits (tat);

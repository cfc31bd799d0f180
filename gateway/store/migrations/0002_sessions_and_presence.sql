-- Sessions, the links that open them, and where devices are connected.

CREATE TABLE sessions (
    id            uuid PRIMARY KEY,
    label         text NOT NULL UNIQUE CHECK (label ~ '^[a-z2-7]{26}$'),
    device_id     text NOT NULL REFERENCES devices,
    user_id       uuid NOT NULL REFERENCES users,
    service       text NOT NULL,
    service_kind  text NOT NULL CHECK (service_kind IN ('web', 'tcp')),
    grant_id      uuid NOT NULL UNIQUE,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL,
    ended_at      timestamptz,
    redeemed_at   timestamptz,
    cookie_sha256 bytea                       -- NULL until the link is redeemed
);
CREATE INDEX sessions_user ON sessions (user_id, created_at DESC);
CREATE INDEX sessions_device ON sessions (device_id) WHERE ended_at IS NULL;

CREATE TABLE links (
    jti             uuid PRIMARY KEY,
    session_id      uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    binding         text NOT NULL CHECK (binding IN ('browser', 'click')),
    expires_at      timestamptz NOT NULL,
    burnt_at        timestamptz,
    code_sha256     bytea UNIQUE,
    code_expires_at timestamptz
);
CREATE INDEX links_session ON links (session_id);

CREATE TABLE nodes (
    name           text PRIMARY KEY,
    boot           text NOT NULL,
    last_heartbeat timestamptz NOT NULL
);

CREATE TABLE tunnels (
    node         text NOT NULL REFERENCES nodes,
    device_id    text NOT NULL REFERENCES devices,
    instance     bytea NOT NULL,
    connection   bigint NOT NULL,
    connected_at timestamptz NOT NULL,
    rtt_ms       double precision,
    PRIMARY KEY (node, device_id, instance, connection)
);
CREATE INDEX tunnels_device ON tunnels (device_id);

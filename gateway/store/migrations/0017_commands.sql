-- Commands to devices: every state with its time, and when something is next to be done about it.

CREATE TABLE commands (
    id           uuid        PRIMARY KEY,
    n            bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    device_id    text        NOT NULL REFERENCES devices,
    site_id      text        NOT NULL,  -- where the device was, and
    device_type  text        NOT NULL,  -- what it was, when somebody asked this of it
    author       text        NOT NULL,
    origin       text        NOT NULL CHECK (origin IN ('api', 'automation', 'reset')),
    name         text        NOT NULL,
    params       jsonb       NOT NULL,
    state        text        NOT NULL CHECK (
        state IN ('queued', 'sent', 'delivered', 'succeeded', 'failed', 'timed_out', 'expired')),
    queue        boolean     NOT NULL,  -- false: fail rather than wait for the device
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    timeout_s    integer     NOT NULL,
    sent_at      timestamptz,
    delivered_at timestamptz,
    finished_at  timestamptz,
    late_at      timestamptz,
    late         jsonb,
    result       jsonb,
    error        text,
    publishes    integer     NOT NULL DEFAULT 0,
    next_at      timestamptz,  -- NULL: final
    leased_until timestamptz,
    trace        text,
    -- Who asked and by what they may: looked at again before the device is told.
    user_id      uuid        REFERENCES users,  -- NULL: no person
    role         site_role,  -- the least that is needed; NULL: it is by a consent
    support_id   uuid        REFERENCES support_requests,
    login_id     uuid        REFERENCES logins ON DELETE SET NULL,
    api_token_id uuid        REFERENCES api_tokens ON DELETE SET NULL,
    -- When by the device's own clock it had stored the command and when it was through with it, and where in
    -- the log its last answer stands.
    took_at      timestamptz,
    done_at      timestamptz,
    logged_at    timestamptz,
    log_place    text,
    CHECK (user_id IS NULL OR (role IS NULL) = (support_id IS NOT NULL)),
    CHECK ((next_at IS NULL) = (finished_at IS NOT NULL))
);
CREATE INDEX commands_due ON commands (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX commands_login ON commands (login_id) WHERE next_at IS NOT NULL;
CREATE INDEX commands_device ON commands (device_id, n DESC);

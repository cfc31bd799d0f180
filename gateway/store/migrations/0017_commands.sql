-- Commands to devices: every state with its time, and when something is next to be done about it.

CREATE TABLE commands (
    id           uuid        PRIMARY KEY,
    n            bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    device_id    text        NOT NULL REFERENCES devices,
    site_id      text        NOT NULL,
    author       text        NOT NULL,
    origin       text        NOT NULL CHECK (origin IN ('api', 'automation', 'reset')),
    name         text        NOT NULL,
    params       jsonb       NOT NULL,
    state        text        NOT NULL CHECK (
        state IN ('queued', 'sent', 'delivered', 'succeeded', 'failed', 'timed_out', 'expired')),
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
    CHECK ((next_at IS NULL) = (finished_at IS NOT NULL))
);
CREATE INDEX commands_due ON commands (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX commands_device ON commands (device_id, n DESC);

-- One-time values of the short-lived store, while no Redis keeps them. Unlogged: cheap, and empty after a crash
-- of the server or a failover, which is what this store promises: a login under way begins again.
CREATE UNLOGGED TABLE short_lived (
    digest     bytea PRIMARY KEY CHECK (length(digest) = 32),  -- of kind and key; the key is a bearer's secret
    value      bytea NOT NULL CHECK (length(value) <= 4096),
    expires_at timestamptz NOT NULL
);
CREATE INDEX short_lived_expires ON short_lived (expires_at);

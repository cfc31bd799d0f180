-- What each device should run with: every version that people set, and whether it is still to be told.

CREATE TABLE configurations (
    device_id  text        NOT NULL REFERENCES devices,
    version    bigint      NOT NULL CHECK (version > 0),
    site_id    text        NOT NULL,  -- where the device was then: another site does not see it, nor mean it
    body       jsonb       NOT NULL,
    sha256     text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    author     text        NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (device_id, version)
);

-- The newest version of each device, which it should run with as long as it is at that site.
CREATE TABLE configuration_heads (
    device_id    text        PRIMARY KEY REFERENCES devices,
    version      bigint      NOT NULL CHECK (version > 0),
    site_id      text        NOT NULL,
    sent_at      timestamptz,  -- when the broker first took it; NULL: not yet
    publishes    integer     NOT NULL DEFAULT 0,
    next_at      timestamptz,  -- when it is told (again); NULL: the device answered, or is waited for
    leased_until timestamptz,
    greeted_at   timestamptz   -- from when on the last hello with another version is answered
) WITH (fillfactor = 70);
CREATE INDEX configuration_heads_due ON configuration_heads (next_at) WHERE next_at IS NOT NULL;

-- What the agent itself takes is checked here; the other members are the device's own, which it refuses if it has
-- not declared them. Slower than each minute and the device would pass for offline.
UPDATE device_types SET version = version + 1, capabilities = capabilities || '{"config": {
    "type": "object", "maxProperties": 64,
    "propertyNames": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$"},
    "properties": {
        "health_every_s": {"type": "number", "minimum": 1, "maximum": 60},
        "log_level": {"type": "string", "enum": ["debug", "info", "warning", "error"]}},
    "additionalProperties": {"anyOf": [
        {"type": ["number", "boolean"]}, {"type": "string", "maxLength": 256}]}}}'
WHERE id = 'linux' AND NOT capabilities ? 'config';

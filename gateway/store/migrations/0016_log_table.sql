-- The log's twin for one machine: what Kafka is in a larger installation.

-- An append takes its part's row and holds it to its commit: offsets become visible in their order.
CREATE TABLE log_heads (
    topic text    NOT NULL,
    part  integer NOT NULL,
    next  bigint  NOT NULL,
    bytes bigint  NOT NULL DEFAULT 0,  -- of all records that ever were in it
    PRIMARY KEY (topic, part)
);
CREATE TABLE log_records (
    topic    text        NOT NULL,
    part     integer     NOT NULL,
    "offset" bigint      NOT NULL,
    at       timestamptz NOT NULL,
    key      bytea       NOT NULL,
    headers  text        NOT NULL,  -- JSON, which nothing here looks into
    value    bytea       NOT NULL,
    behind   bigint      NOT NULL,  -- bytes of all that were in the part before it
    PRIMARY KEY (topic, part, "offset")
);

-- What a device shows the embedded broker; real brokers ask for its certificate.
CREATE TABLE device_broker_passwords (
    device_id  text        PRIMARY KEY REFERENCES devices,
    sha256     bytea       NOT NULL,  -- of 256 random bits: nothing to guess
    created_at timestamptz NOT NULL
);

-- What devices say: their types, the line of their numbered messages, latest state, history, and what was wrong.

CREATE TABLE device_types (
    id           text        PRIMARY KEY CHECK (id ~ '^[a-z0-9_-]{1,64}$'),
    name         text        NOT NULL,
    capabilities jsonb       NOT NULL,  -- {"commands": {NAME: {"params": schema, …}}, "config": schema}
    version      bigint      NOT NULL DEFAULT 1,
    changed_at   timestamptz NOT NULL
);
INSERT INTO device_types (id, name, capabilities, changed_at) VALUES
    ('generic', 'Device', '{"commands": {}}', 'epoch'),
    ('linux', 'Linux device', '{"commands": {
        "ping": {"params": {"type": "object", "additionalProperties": false}, "timeout_s": 10},
        "reboot": {"params": {"type": "object", "additionalProperties": false}, "timeout_s": 300, "role": "admin"},
        "log_level": {"params": {"type": "object", "additionalProperties": false, "required": ["level"],
            "properties": {"level": {"type": "string", "enum": ["debug", "info", "warning", "error"]}}},
            "timeout_s": 10},
        "run": {"params": {"type": "object", "additionalProperties": false, "required": ["name"],
            "properties": {"name": {"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"}}}, "timeout_s": 120}}}', 'epoch');

ALTER TABLE devices ADD COLUMN type text NOT NULL DEFAULT 'linux' REFERENCES device_types;

-- How far each device's numbered messages were taken, in order. Its lock is what two consumers meet at.
CREATE TABLE device_lines (
    device_id text   PRIMARY KEY REFERENCES devices,
    boot      bigint NOT NULL,
    seq       bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE device_boots (
    device_id  text        NOT NULL REFERENCES devices,
    boot       bigint      NOT NULL,
    first_seen timestamptz NOT NULL,
    started_at timestamptz,  -- of the first message that told how long the device was up
    PRIMARY KEY (device_id, boot)
);

CREATE TABLE device_states (
    device_id   text        NOT NULL REFERENCES devices,
    kind        text        NOT NULL,
    site_id     text        NOT NULL,  -- where the device was then: another site does not see it
    boot        bigint      NOT NULL,
    seq         bigint      NOT NULL,
    type        text        NOT NULL,
    at          timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    body        jsonb       NOT NULL,
    PRIMARY KEY (device_id, kind)
) WITH (fillfactor = 70);

-- Whether the device holds its message connection: its hello, and the will that tells of its end.
CREATE TABLE device_connections (
    device_id text        PRIMARY KEY REFERENCES devices,
    online    boolean     NOT NULL,
    since     timestamptz NOT NULL,
    seen_at   timestamptz NOT NULL,
    instance  text,
    hello     jsonb,
    started_at timestamptz  -- when the boot began that says hello
);

-- Where a device was, and as what type, until it moved, changed or was revoked: what it said there stays there.
CREATE TABLE device_places (
    device_id text        NOT NULL REFERENCES devices,
    until     timestamptz NOT NULL,
    org_id    text        NOT NULL,
    site_id   text        NOT NULL,
    type      text        NOT NULL,
    PRIMARY KEY (device_id, until)
);

CREATE TABLE device_history (
    device_id   text        NOT NULL,
    at          timestamptz NOT NULL,
    boot        bigint      NOT NULL,
    seq         bigint      NOT NULL,
    id          uuid        NOT NULL,
    kind        text        NOT NULL,
    type        text        NOT NULL,
    site_id     text        NOT NULL,
    received_at timestamptz NOT NULL,
    body        jsonb       NOT NULL,
    PRIMARY KEY (device_id, at, boot, seq)
) PARTITION BY RANGE (at);

-- Makes the days from `first` to `last` and drops those before `drop_before`; how many it made or dropped.
-- The service may not make tables: it calls this.
CREATE FUNCTION keep_history_parts(first date, last date, drop_before date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    day   date := first;
    part  text;
    done  integer := 0;
BEGIN
    IF last - first > 400 THEN
        RAISE EXCEPTION 'too many parts: % to %', first, last;
    END IF;
    PERFORM set_config('lock_timeout', '2s', true);  -- long reads go on; the next hour tries again
    WHILE day <= last LOOP
        part := 'device_history_' || to_char(day, 'YYYYMMDD');
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE device_history INCLUDING ALL)', part);
            EXECUTE format(
                'ALTER TABLE device_history ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                part, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
            );
            done := done + 1;
        END IF;
        day := day + 1;
    END LOOP;
    FOR part IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'device_history'::regclass AND c.relname ~ '^device_history_[0-9]{8}$'
            AND c.relname < 'device_history_' || to_char(drop_before, 'YYYYMMDD')
    LOOP
        EXECUTE format('DROP TABLE %I', part);
        done := done + 1;
    END LOOP;
    RETURN done;
END
$$;
REVOKE ALL ON FUNCTION keep_history_parts(date, date, date) FROM PUBLIC;

-- What could not be taken, with its reason. The body is the site's own data: no route shows it.
CREATE TABLE dead_letters (
    n          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL,
    reason     text        NOT NULL,
    detail     text        NOT NULL,
    topic      text        NOT NULL,
    device_id  text,
    site_id    text,
    size       integer     NOT NULL,
    body       bytea       NOT NULL CHECK (length(body) <= 65536),
    log_topic  text        NOT NULL,
    log_part   integer     NOT NULL,
    log_offset bigint      NOT NULL,
    left_out   bigint      NOT NULL DEFAULT 0,  -- of reason no_space: how many there was no room for
    replayed_at timestamptz,
    UNIQUE (log_topic, log_part, log_offset)
);
CREATE INDEX dead_letters_site ON dead_letters (site_id, n DESC);
-- Of those that wait to be replayed, which alone take room.
CREATE INDEX dead_letters_device ON dead_letters (device_id) WHERE replayed_at IS NULL;
CREATE INDEX dead_letters_room ON dead_letters (site_id) WHERE replayed_at IS NULL;
CREATE INDEX dead_letters_no_space ON dead_letters (device_id, n) WHERE reason = 'no_space';

-- How far the log was read, and which consumer reads each part until when.
CREATE TABLE log_positions (
    topic       text    NOT NULL,
    part        integer NOT NULL,
    next        bigint  NOT NULL,
    owner       uuid,
    lease_until timestamptz,
    PRIMARY KEY (topic, part)
);

-- The consumers that live: each takes its share of the parts.
CREATE TABLE log_consumers (
    id    uuid        PRIMARY KEY,
    until timestamptz NOT NULL
);

-- The revocation feed. A number is taken by updating the head row, whose lock lasts until commit: numbers
-- become visible in order and without gaps that fill later (a bare sequence would lose late committers).

CREATE TABLE revocation_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    n        bigint NOT NULL,
    pruned   bigint NOT NULL                  -- the highest number that was deleted
);
INSERT INTO revocation_head (n, pruned) VALUES (0, 0);

CREATE TABLE revocations (
    n      bigint PRIMARY KEY,
    kind   text NOT NULL CHECK (kind IN ('session', 'device', 'replaced')),
    ref    text NOT NULL,                     -- session id or device id
    keep   bytea,                             -- kind replaced: the instance that stays
    exp    timestamptz,                       -- kind session: when it would have ended anyway
    at     timestamptz NOT NULL
);
CREATE INDEX revocations_ref ON revocations (ref, kind, at);

-- The audit log. `record` is canonical JSON and the truth; the other columns are computed from it, so they
-- cannot say something else. hash = SHA-256(prev_hash ‖ record). Rows are never changed or deleted.

CREATE TABLE audit_events (
    seq       bigint PRIMARY KEY,
    record    text NOT NULL,
    prev_hash bytea NOT NULL CHECK (octet_length(prev_hash) = 32),
    hash      bytea NOT NULL CHECK (octet_length(hash) = 32),
    kind      text GENERATED ALWAYS AS ((record::jsonb) ->> 'kind') STORED,
    actor     text GENERATED ALWAYS AS ((record::jsonb) ->> 'actor') STORED,
    owner     text GENERATED ALWAYS AS ((record::jsonb) ->> 'owner') STORED,
    device    text GENERATED ALWAYS AS ((record::jsonb) ->> 'device') STORED
);
CREATE INDEX audit_events_owner ON audit_events (owner, seq);
CREATE INDEX audit_events_device ON audit_events (device, seq);

CREATE TABLE audit_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    seq      bigint NOT NULL,
    hash     bytea NOT NULL
);
INSERT INTO audit_head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_events is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

-- Support: an engineer asks, the owner consents for a time, what was done is written down for the owner.

CREATE TABLE support_requests (
    id           uuid PRIMARY KEY,
    n            bigint GENERATED ALWAYS AS IDENTITY UNIQUE,  -- the order of lists
    device_id    text NOT NULL REFERENCES devices,
    site_id      text NOT NULL REFERENCES sites,              -- where it was when asked: whose consent this is
    engineer_id  uuid NOT NULL REFERENCES users,
    reason       text NOT NULL,
    duration_s   integer NOT NULL CHECK (duration_s > 0),
    state        text NOT NULL CHECK (
        state IN ('pending', 'approved', 'refused', 'withdrawn', 'ended', 'lapsed', 'expired')),
    created_at   timestamptz NOT NULL,
    lapses_at    timestamptz NOT NULL,                        -- pending until then at the longest
    decided_by   uuid REFERENCES users,
    decided_at   timestamptz,
    until        timestamptz,                                 -- approved until then
    ended_by     uuid REFERENCES users,                       -- NULL in state ended: the device left the site
    ended_at     timestamptz
);
CREATE INDEX support_requests_site ON support_requests (site_id, n);
CREATE INDEX support_requests_engineer ON support_requests (engineer_id, n);
CREATE UNIQUE INDEX support_requests_open ON support_requests (engineer_id, device_id)
    WHERE state IN ('pending', 'approved');

ALTER TABLE sessions ADD COLUMN support_id uuid REFERENCES support_requests;
CREATE INDEX sessions_support ON sessions (support_id) WHERE support_id IS NOT NULL;

-- What passed in a support session: the path without its query, sizes, never bodies.
CREATE TABLE request_log (
    n          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    support_id uuid NOT NULL REFERENCES support_requests,
    node       text NOT NULL,
    at         timestamptz NOT NULL,
    method     text NOT NULL,
    path       text NOT NULL,
    status     integer NOT NULL,                              -- 0: cut before an answer
    received   bigint NOT NULL,                               -- bytes of the request's body
    sent       bigint NOT NULL,                               -- bytes of the answer's body
    ms         double precision NOT NULL
);
CREATE INDEX request_log_support ON request_log (support_id, n);

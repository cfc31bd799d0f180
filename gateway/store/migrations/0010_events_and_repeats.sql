-- What happened, for those who follow it live; and what a creation answered, for who asks again.

-- Numbers are taken like those of the revocation feed: visible in order, without gaps that fill later.
CREATE TABLE event_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    n        bigint NOT NULL,
    pruned   bigint NOT NULL                  -- the highest number that was deleted
);
INSERT INTO event_head (n, pruned) VALUES (0, 0);

-- An event says what changed, never to what: who may read the thing asks for it.
CREATE TABLE events (
    n         bigint PRIMARY KEY,
    kind      text NOT NULL,
    at        timestamptz NOT NULL,
    org_id    text,
    site_id   text,                           -- where it happened: who has a role there may see it
    user_id   uuid,                           -- whom it is about, who sees it wherever it happened
    device_id text,
    ref       text                            -- id of the session, request … that it is about
);
CREATE INDEX events_at ON events (at);

-- A node that fell silent takes its devices offline without writing anything: whether that was told.
ALTER TABLE nodes ADD COLUMN told_lost boolean NOT NULL DEFAULT false;

ALTER TABLE users ADD COLUMN version bigint NOT NULL DEFAULT 1;  -- counts changes: the ETag

-- Answers to creations that carried an Idempotency-Key. The answer is sealed with a key that is made of the
-- client's own, of which nothing is stored: a secret that is shown once is not kept in clear here either.
CREATE TABLE idempotency_keys (
    lookup     bytea PRIMARY KEY CHECK (octet_length(lookup) = 32),
    request    bytea NOT NULL CHECK (octet_length(request) = 32),  -- SHA-256 of method, path and body
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

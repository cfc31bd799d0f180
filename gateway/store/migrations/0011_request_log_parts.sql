-- The request log says what still runs and what is missing, and takes each entry once.

ALTER TABLE request_log
    ADD COLUMN entry uuid,                                    -- the node's id of the request; one for its parts
    ADD COLUMN part  text NOT NULL DEFAULT 'whole' CHECK (
        part IN ('whole', 'began', 'ended', 'lost')),         -- lost: entries that found no room at the node
    ADD COLUMN lost  bigint NOT NULL DEFAULT 0;               -- how many
CREATE UNIQUE INDEX request_log_entry ON request_log (session_id, entry, part);

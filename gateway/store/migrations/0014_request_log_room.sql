-- How much a consent's request log holds, so that it can be full, and what then found no room.

ALTER TABLE support_requests
    ADD COLUMN log_lines    bigint NOT NULL DEFAULT 0,
    ADD COLUMN log_left_out bigint NOT NULL DEFAULT 0;
UPDATE support_requests q SET log_lines = held.lines
    FROM (SELECT support_id, count(*) AS lines FROM request_log GROUP BY support_id) held
    WHERE held.support_id = q.id;

-- Rows of schema 0010, as that program wrote them. Never edit: it is what lies in databases.
UPDATE event_head SET n = 1;
INSERT INTO events (n, kind, at, site_id, user_id, device_id) VALUES
    (1, 'device.online', '2026-08-01 08:00:00+00', NULL, '11111111-1111-4111-8111-111111111111', 'd_aaaaaaaaaaaaaaaa');
INSERT INTO idempotency_keys (lookup, request, sealed, created_at) VALUES
    (sha256('lookup'), sha256('request'), 'sealed', '2026-08-01 08:00:00+00');

-- Rows of schema 0008, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO support_requests (id, device_id, site_id, engineer_id, reason, duration_s, state, created_at, lapses_at, decided_by,
                              decided_at, until, ended_by, ended_at)
    SELECT 'cccccccc-cccc-4ccc-8ccc-cccccccccccc', id, site_id, '22222222-2222-4222-8222-222222222222', 'It hums.', 3600, 'ended',
           '2026-07-01 08:00:00+00', '2026-07-02 08:00:00+00', '11111111-1111-4111-8111-111111111111', '2026-07-01 08:05:00+00',
           '2026-07-01 09:05:00+00', '11111111-1111-4111-8111-111111111111', '2026-07-01 08:30:00+00'
    FROM devices WHERE id = 'd_aaaaaaaaaaaaaaaa';
INSERT INTO support_requests (id, device_id, site_id, engineer_id, reason, duration_s, state, created_at, lapses_at, decided_by,
                              decided_at, until)
    SELECT 'cccccccc-dddd-4ccc-8ccc-cccccccccccc', id, site_id, '22222222-2222-4222-8222-222222222222', 'Again.', 3600, 'approved',
           '2026-07-01 10:00:00+00', '2026-07-02 10:00:00+00', '11111111-1111-4111-8111-111111111111', '2026-07-01 10:00:00+00',
           '2026-07-01 11:00:00+00'
    FROM devices WHERE id = 'd_aaaaaaaaaaaaaaaa';
INSERT INTO request_log (session_id, support_id, node, at, method, path, status, received, sent, ms) VALUES
    ('66666666-6666-4666-8666-666666666666', 'cccccccc-cccc-4ccc-8ccc-cccccccccccc', 'node-a', '2026-07-01 08:10:00+00', 'GET', '/',
     200, 0, 5120, 12.5);

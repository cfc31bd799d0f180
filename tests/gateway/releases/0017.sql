-- Rows of schema 0017, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO commands (id, device_id, site_id, author, origin, name, params, state, created_at, expires_at, timeout_s,
    sent_at, delivered_at, finished_at, result, publishes, next_at) VALUES
    ('01980000-0000-7000-8000-0000000000c1', 'd_aaaaaaaaaaaaaaaa', 's_aaaaaaaaaaaaaaaa', 'ada', 'api', 'ping', '{}', 'succeeded',
     '2026-07-01 08:12:00+00', '2026-07-01 08:13:00+00', 10, '2026-07-01 08:12:00.1+00', '2026-07-01 08:12:00.2+00',
     '2026-07-01 08:12:00.3+00', '{}', 1, NULL),
    ('01980000-0000-7000-8000-0000000000c2', 'd_aaaaaaaaaaaaaaaa', 's_aaaaaaaaaaaaaaaa', 'ada', 'api', 'reboot', '{}', 'queued',
     '2026-07-01 08:12:00+00', '2026-07-01 09:12:00+00', 300, NULL, NULL, NULL, NULL, 0, '2026-07-01 08:12:30+00');

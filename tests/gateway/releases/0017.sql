-- Rows of schema 0017, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO commands (id, device_id, site_id, device_type, author, origin, name, params, state, queue, created_at, expires_at,
    timeout_s, sent_at, delivered_at, finished_at, result, publishes, next_at, user_id, role, login_id, took_at, done_at,
    logged_at, log_place) VALUES
    ('01980000-0000-7000-8000-0000000000c1', 'd_aaaaaaaaaaaaaaaa', 's_aaaaaaaaaaaaaaaa', 'linux', 'ada', 'api', 'ping', '{}', 'succeeded', true,
     '2026-07-01 08:12:00+00', '2026-07-01 08:13:00+00', 10, '2026-07-01 08:12:00.1+00', '2026-07-01 08:12:00.2+00',
     '2026-07-01 08:12:00.3+00', '{}', 1, NULL, '11111111-1111-4111-8111-111111111111', 'member',
     '11111111-aaaa-4111-8111-111111111111', '2026-07-01 08:12:00.15+00', '2026-07-01 08:12:00.2+00', '2026-07-01 08:12:00.25+00',
     'towline.control/1/7'),
    ('01980000-0000-7000-8000-0000000000c2', 'd_aaaaaaaaaaaaaaaa', 's_aaaaaaaaaaaaaaaa', 'linux', 'ada', 'api', 'reboot', '{}', 'queued', true,
     '2026-07-01 08:12:00+00', '2026-07-01 09:12:00+00', 300, NULL, NULL, NULL, NULL, 0, '2026-07-01 08:12:30+00', NULL, NULL, NULL,
     NULL, NULL, NULL, NULL);

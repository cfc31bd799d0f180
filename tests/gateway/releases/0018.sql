-- Rows of schema 0018, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO configurations (device_id, version, site_id, body, sha256, author, created_at) VALUES
    ('d_aaaaaaaaaaaaaaaa', 1, 's_aaaaaaaaaaaaaaaa', '{"health_every_s": 30}',
     '7e1d1dbcbbf4ee3f6ea7e4a7cf0a2a3e1d1dbcbbf4ee3f6ea7e4a7cf0a2a3e00', 'ada', '2026-07-01 08:14:00+00'),
    ('d_aaaaaaaaaaaaaaaa', 2, 's_aaaaaaaaaaaaaaaa', '{"log_level": "debug"}',
     '8e1d1dbcbbf4ee3f6ea7e4a7cf0a2a3e1d1dbcbbf4ee3f6ea7e4a7cf0a2a3e00', 'ada', '2026-07-01 08:15:00+00');
INSERT INTO configuration_heads (device_id, version, site_id, sent_at, publishes, next_at) VALUES
    ('d_aaaaaaaaaaaaaaaa', 2, 's_aaaaaaaaaaaaaaaa', '2026-07-01 08:15:01+00', 1, '2026-07-01 08:15:06+00');

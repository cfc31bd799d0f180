-- Rows of schema 0002, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO sessions (id, label, device_id, user_id, service, service_kind, grant_id, created_at, expires_at,
                      ended_at, redeemed_at, cookie_sha256) VALUES
    ('55555555-5555-4555-8555-555555555555', 'abcdefghijklmnopqrstuvwxyz', 'd_aaaaaaaaaaaaaaaa', '11111111-1111-4111-8111-111111111111', 'web', 'web',
     '55555555-aaaa-4555-8555-555555555555', '2026-01-05 09:00:00+00', '2099-01-01 00:00:00+00', NULL,
     '2026-01-05 09:00:10+00', '\x5f14f9e6d80f802a65269804f2552ef9889f2c7ccec5067214e58a1e48e0b3ff'),
    ('66666666-6666-4666-8666-666666666666', 'zyxwvutsrqponmlkjihgfedcba', 'd_aaaaaaaaaaaaaaaa', '11111111-1111-4111-8111-111111111111', 'ssh', 'tcp',
     '66666666-aaaa-4666-8666-666666666666', '2026-01-05 09:00:00+00', '2026-01-05 10:00:00+00', '2026-01-05 09:30:00+00',
     NULL, NULL);
INSERT INTO links (jti, session_id, binding, expires_at, burnt_at, code_sha256, code_expires_at) VALUES
    ('77777777-7777-4777-8777-777777777777', '55555555-5555-4555-8555-555555555555', 'browser', '2026-01-05 09:01:00+00',
     '2026-01-05 09:00:10+00', '\x5694d08a2e53ffcae0c3103e5ad6f6076abd960eb1f8a56577040bc1028f702b', '2026-01-05 09:00:20+00'),
    ('88888888-8888-4888-8888-888888888888', '66666666-6666-4666-8666-666666666666', 'click', '2026-01-05 09:01:00+00',
     NULL, NULL, NULL);
INSERT INTO nodes (name, boot, last_heartbeat) VALUES ('node-a', '0123456789abcdef', '2026-01-05 09:00:00+00');
INSERT INTO tunnels (node, device_id, instance, connection, connected_at, rtt_ms) VALUES
    ('node-a', 'd_aaaaaaaaaaaaaaaa', '\x00112233445566778899aabbccddeeff', 1, '2026-01-05 08:11:00+00', 12.5);

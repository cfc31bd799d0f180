-- Rows of schema 0001, as that program wrote them. Never edit: it is what lies in databases.
-- The passwords are "ada's password" and "bob's password"; the cookie of Ada's login is "ada-cookie".
INSERT INTO users (id, username, password_hash, created_at, disabled_at) VALUES
    ('11111111-1111-4111-8111-111111111111', 'ada', '$argon2id$v=19$m=8,t=1,p=1$8qN4lZhoHIo$Rp9c3Q', '2026-01-05 08:00:00+00', NULL),
    ('22222222-2222-4222-8222-222222222222', 'bob', '$argon2id$v=19$m=8,t=1,p=1$7pLkRHbXpl0$6urvUA', '2026-01-06 08:00:00+00', NULL),
    ('33333333-3333-4333-8333-333333333333', 'gone', NULL, '2026-01-07 08:00:00+00', '2026-02-01 08:00:00+00');
INSERT INTO logins (id, token_sha256, user_id, kind, created_at, expires_at, ended_at) VALUES
    ('11111111-aaaa-4111-8111-111111111111', '\x5c963e8f0224fb7679b6faa6b7d4dde9bd65e293ecaf57c99d4da77d1656e073', '11111111-1111-4111-8111-111111111111', 'password', '2026-01-05 08:01:00+00', '2099-01-01 00:00:00+00', NULL),
    ('11111111-bbbb-4111-8111-111111111111', '\xb83d34f5755562447f32ccebad0d939f781b13c576a9781f9d754bbc492735ea', '11111111-1111-4111-8111-111111111111', 'welcome', '2026-01-05 08:01:00+00', '2099-01-01 00:00:00+00', '2026-01-05 09:00:00+00');
INSERT INTO devices (id, owner_id, name, hardware_id, status, public_key, key_id, software, services, created_at,
                     instance, instance_at, since, last_seen, last_error, rtt_ms, flap_reported_at) VALUES
    ('d_aaaaaaaaaaaaaaaa', '11111111-1111-4111-8111-111111111111', 'Pump', 'hw-1', 'approved', '\x3059301306072a8648ce3d020106082a8648ce3d03010703420004768d174d998e15c3107ea5c2d149504917bf3b969cee13b6c45d7a462d8a03d5de078edd026fa49278d985e497a065314bad82b61da5b020d0131bb93686ca98', '\x073379721651c5b55ac3b552deb342a3', 'agent 0.1.0',
     '[{"name": "web", "kind": "web"}]', '2026-01-05 08:10:00+00', '\x00112233445566778899aabbccddeeff',
     '2026-01-05 08:11:00+00', '2026-01-05 08:11:00+00', '2026-01-05 08:12:00+00', 'timed out', 12.5, '2026-01-05 08:13:00+00'),
    ('d_bbbbbbbbbbbbbbbb', '22222222-2222-4222-8222-222222222222', 'Kiln', 'hw-2', 'pending', '\x3059301306072a8648ce3d020106082a8648ce3d03010703420004c2d9184e8d5733383047921770ac8d895caf6832028ef6ec6bcb8d7af51f46cee288c21572ed97d16bbb6bc9ef09fcc0eebd173609cd9847f0eb18685e70deb6', '\xb63959d9d10b31cd3f1a115a0938029a', '', '[]',
     '2026-01-06 08:10:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('d_cccccccccccccccc', '11111111-1111-4111-8111-111111111111', 'Old pump', 'hw-1', 'revoked', '\x3059301306072a8648ce3d020106082a8648ce3d03010703420004f763eb1f4628cc46eb38a6bc368c49875647cc372ef5a35ec60df6228076d9aec1683c618dbc853a528ad81bf40515114ebb87771d1a932d7b98f2e7f8e0fdaf', '\x2f6ff283170c21efdfde151e01c16ca0', 'agent 0.1.0', '[]',
     '2026-01-05 08:05:00+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO registration_tokens (token_sha256, user_id, name, approve, created_at, expires_at, used_at) VALUES
    ('\x3f35268fb98c30396cf7cb0eb3f5b7f73cb81aabb14bbeb1df6d37dadd87d12b', '11111111-1111-4111-8111-111111111111', 'Pump', true, '2026-01-05 08:09:00+00', '2026-01-05 08:24:00+00', '2026-01-05 08:10:00+00'),
    ('\xf00997ccc9abc90e579039813ae80a87c0b1f3623d0493954541c61252cb92d9', '22222222-2222-4222-8222-222222222222', NULL, false, '2026-01-06 08:09:00+00', '2099-01-01 00:00:00+00', NULL);
INSERT INTO enrolments (id, device_id, poll_sha256, created_at) VALUES
    ('44444444-4444-4444-8444-444444444444', 'd_aaaaaaaaaaaaaaaa', '\x707165e9984b51dcdf1ca7cc9b6fe7a5ec98ab6f71457e9ba25cf6d2924b8a8e', '2026-01-05 08:10:00+00');
INSERT INTO device_certificates (serial, device_id, pem, issued_at, expires_at) VALUES
    ('5eed', 'd_aaaaaaaaaaaaaaaa', '-----BEGIN CERTIFICATE-----', '2026-01-05 08:10:00+00', '2026-04-05 08:10:00+00');
INSERT INTO renewal_nonces (nonce_sha256, device_id, expires_at) VALUES
    ('\x78377b525757b494427f89014f97d79928f3938d14eb51e20fb5dec9834eb304', 'd_aaaaaaaaaaaaaaaa', '2026-01-05 08:15:00+00');
INSERT INTO rate_limits (key, tat) VALUES ('login_address:192.0.2.1', '2026-01-05 08:15:00+00');

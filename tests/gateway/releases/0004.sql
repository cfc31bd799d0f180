-- Rows of schema 0004, as that program wrote them. Never edit: it is what lies in databases.
UPDATE users SET role = 'support' WHERE username = 'bob';
INSERT INTO orgs (id, name, created_at) VALUES ('o_bbbbbbbbbbbbbbbb', 'Works', '2026-03-01 08:00:00+00');
INSERT INTO sites (id, org_id, name, created_at) VALUES
    ('s_bbbbbbbbbbbbbbbb', 'o_bbbbbbbbbbbbbbbb', 'Hall 1', '2026-03-01 08:00:00+00');
INSERT INTO memberships (id, org_id, site_id, user_id, role, created_at) VALUES
    ('99999999-9999-4999-8999-999999999999', 'o_bbbbbbbbbbbbbbbb', NULL, '11111111-1111-4111-8111-111111111111', 'owner', '2026-03-01 08:00:00+00'),
    ('99999999-aaaa-4999-8999-999999999999', 'o_bbbbbbbbbbbbbbbb', 's_bbbbbbbbbbbbbbbb', '22222222-2222-4222-8222-222222222222', 'member', '2026-03-01 08:00:00+00');
INSERT INTO invitations (id, token_sha256, org_id, site_id, role, invited_by, created_at, expires_at) VALUES
    ('99999999-bbbb-4999-8999-999999999999', '\xa3013c082c75edc913598c3baac1afa18f7633fe8f014896ab2f1a72ff83d8ba', 'o_bbbbbbbbbbbbbbbb', 's_bbbbbbbbbbbbbbbb', 'admin',
     '11111111-1111-4111-8111-111111111111', '2026-03-01 08:00:00+00', '2026-03-08 08:00:00+00');
UPDATE devices SET tags = '{cellar}', version = 3 WHERE id = 'd_aaaaaaaaaaaaaaaa';
UPDATE sessions SET login_id = '11111111-aaaa-4111-8111-111111111111' WHERE id = '55555555-5555-4555-8555-555555555555';
INSERT INTO audit_events (seq, record, prev_hash, hash) VALUES
    (4, '{"actor":"11111111-1111-4111-8111-111111111111","at":"2026-03-01T08:00:00.000+00:00","detail":{},"device":null,"kind":"member.invited","owner":null,"seq":4,"site":"s_bbbbbbbbbbbbbbbb"}', '\x96ce2aad827eb3f29b1e87871fac60b7b0f55e1f6012dcdb94ac804854e4313d', '\x939251461963e730a057c5a9478c75593650875019a3b0963c1b8f8bbf7b13f2');
UPDATE audit_head SET seq = 4, hash = '\x939251461963e730a057c5a9478c75593650875019a3b0963c1b8f8bbf7b13f2';

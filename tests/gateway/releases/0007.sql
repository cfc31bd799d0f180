-- Rows of schema 0007, as that program wrote them. Never edit: it is what lies in databases.
-- The tokens' texts stand in their digests, so that they can be presented.
INSERT INTO logins (id, token_sha256, user_id, kind, created_at, expires_at, seen_at, client_id) VALUES
    ('11111111-cccc-4111-8111-111111111111', NULL, '11111111-1111-4111-8111-111111111111', 'app', '2026-06-03 08:00:00+00',
     '2099-01-01 00:00:00+00', '2026-06-03 08:00:00+00', 'towline-app');
INSERT INTO refresh_families (id, login_id, current_sha256, rotated_at, expires_at) VALUES
    ('aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa', '11111111-cccc-4111-8111-111111111111', sha256('twr_qqqqqqqqSqqKqqqqqqqqqmEgcmVmcmVzaCB0b2tlbiBvZiBsb25nIGFnbyBBZGEu'),
     '2026-06-03 08:00:00+00', '2099-01-01 00:00:00+00');
INSERT INTO authorization_codes (code_sha256, login_id, client_id, redirect_uri, code_challenge, created_at, expires_at,
                                 used_at, gave_login_id) VALUES
    (sha256('code'), '11111111-aaaa-4111-8111-111111111111', 'towline-app', 'com.example.app:/done', 'challenge',
     '2026-06-03 08:00:00+00', '2026-06-03 08:01:00+00', '2026-06-03 08:00:01+00', '11111111-cccc-4111-8111-111111111111');
INSERT INTO api_tokens (id, token_sha256, user_id, name, scopes, created_at, expires_at) VALUES
    ('bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb', sha256('twl_YW4gQVBJIHRva2VuIG9mIGxvbmcgYWdvLiBBZGEncy4'), '11111111-1111-4111-8111-111111111111', 'backup', '{devices:read}',
     '2026-06-03 08:00:00+00', '2099-01-01 00:00:00+00');

-- Rows of schema 0012, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO registration_tokens (token_sha256, user_id, site_id, name, approve, created_at, expires_at, api_token_id) VALUES
    (sha256('A registration token that a script of Ada''s made.'), '11111111-1111-4111-8111-111111111111', (SELECT site_id FROM devices WHERE id = 'd_aaaaaaaaaaaaaaaa'),
     'Valve', false, '2026-07-02 08:00:00+00', '2026-07-02 08:15:00+00', 'bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb');
INSERT INTO invitations (id, token_sha256, org_id, role, invited_by, created_at, expires_at, api_token_id) VALUES
    ('99999999-cccc-4999-8999-999999999999', sha256('An invitation that a script of Ada''s made.'), 'o_bbbbbbbbbbbbbbbb', 'member',
     '11111111-1111-4111-8111-111111111111', '2026-07-02 08:00:00+00', '2026-07-09 08:00:00+00', 'bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb');

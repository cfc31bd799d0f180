-- Rows of schema 0005, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO identities (issuer, subject, user_id, provider, email, email_verified, created_at, used_at) VALUES
    ('https://accounts.example.com', '1234567890', '11111111-1111-4111-8111-111111111111', 'example', 'ada@example.com', true,
     '2026-06-01 08:00:00+00', '2026-06-02 08:00:00+00');

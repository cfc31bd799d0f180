-- Rows of schema 0006, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO short_lived (digest, value, expires_at) VALUES (sha256('state'), 'verifier', '2099-01-01 00:00:00+00');

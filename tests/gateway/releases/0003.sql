-- Rows of schema 0003, as that program wrote them. Never edit: it is what lies in databases.
UPDATE revocation_head SET n = 2, pruned = 0;
INSERT INTO revocations (n, kind, ref, keep, exp, at) VALUES
    (1, 'device', 'd_cccccccccccccccc', NULL, NULL, '2026-01-05 08:06:00+00'),
    (2, 'session', '66666666-6666-4666-8666-666666666666', NULL, '2026-01-05 10:00:00+00', '2026-01-05 09:30:00+00');
INSERT INTO audit_events (seq, record, prev_hash, hash) VALUES
    (1, '{"actor":"settings","at":"2026-01-05T08:00:00.000+00:00","detail":{"username":"ada"},"device":null,"kind":"user.created","owner":"11111111-1111-4111-8111-111111111111","seq":1}', '\x0000000000000000000000000000000000000000000000000000000000000000', '\x73639b970d3223faff2563212ed5ce2d6aed811c0c9f72911cc4647c92a0cd64'),
    (2, '{"actor":"11111111-1111-4111-8111-111111111111","at":"2026-01-05T08:10:00.000+00:00","detail":{},"device":"d_aaaaaaaaaaaaaaaa","kind":"device.approved","owner":"11111111-1111-4111-8111-111111111111","seq":2}', '\x73639b970d3223faff2563212ed5ce2d6aed811c0c9f72911cc4647c92a0cd64', '\xb97ee83bd1f411730b8d7042e02ea792c1b49b3226b0c27c8069e7f840f8ed2a'),
    (3, '{"actor":"11111111-1111-4111-8111-111111111111","at":"2026-01-05T09:00:00.000+00:00","detail":{"session":"55555555-5555-4555-8555-555555555555"},"device":"d_aaaaaaaaaaaaaaaa","kind":"session.opened","owner":"11111111-1111-4111-8111-111111111111","seq":3}', '\xb97ee83bd1f411730b8d7042e02ea792c1b49b3226b0c27c8069e7f840f8ed2a', '\x96ce2aad827eb3f29b1e87871fac60b7b0f55e1f6012dcdb94ac804854e4313d');
UPDATE audit_head SET seq = 3, hash = '\x96ce2aad827eb3f29b1e87871fac60b7b0f55e1f6012dcdb94ac804854e4313d';

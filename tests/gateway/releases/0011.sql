-- Rows of schema 0011, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO request_log (session_id, support_id, node, at, method, path, status, received, sent, ms, entry, part) VALUES
    ('66666666-6666-4666-8666-666666666666', 'cccccccc-cccc-4ccc-8ccc-cccccccccccc', 'node-a', '2026-07-01 08:11:00+00', 'GET', '/log',
     200, 0, 512, 3.5, 'dddddddd-dddd-4ddd-8ddd-dddddddddddd', 'whole');

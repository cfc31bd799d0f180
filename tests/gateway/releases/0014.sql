-- Rows of schema 0014, as that program wrote them. Never edit: it is what lies in databases.
UPDATE support_requests SET log_lines = 100000, log_left_out = 12 WHERE id = 'cccccccc-cccc-4ccc-8ccc-cccccccccccc';

-- Rows of schema 0013, as that program wrote them. Never edit: it is what lies in databases.
UPDATE devices SET hardware_id_freed_at = '2026-07-03 08:00:00+00' WHERE id = 'd_bbbbbbbbbbbbbbbb';

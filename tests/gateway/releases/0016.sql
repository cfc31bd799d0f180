-- Rows of schema 0016, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO log_heads (topic, part, next) VALUES ('towline.up', 4, 18);
INSERT INTO log_records (topic, part, "offset", at, key, headers, value) VALUES
    ('towline.up', 4, 17, '2026-07-01 08:11:00+00', 'd_aaaaaaaaaaaaaaaa', '[["topic", "b19h"]]', '\x7b');
INSERT INTO device_broker_passwords (device_id, hash, created_at) VALUES
    ('d_aaaaaaaaaaaaaaaa', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA', '2026-07-01 08:00:00+00');

-- Rows of schema 0016, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO log_heads (topic, part, next, bytes) VALUES ('towline.up', 4, 18, 2048);
INSERT INTO log_records (topic, part, "offset", at, key, headers, value, behind) VALUES
    ('towline.up', 4, 17, '2026-07-01 08:11:00+00', 'd_aaaaaaaaaaaaaaaa', '[["topic", "b19h"]]', '\x7b', 1947);
INSERT INTO device_broker_passwords (device_id, sha256, created_at) VALUES
    ('d_aaaaaaaaaaaaaaaa', '\xa3013c082c75edc913598c3baac1afa18f7633fe8f014896ab2f1a72ff83d8ba', '2026-07-01 08:00:00+00');

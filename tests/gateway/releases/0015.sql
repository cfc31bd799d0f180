-- Rows of schema 0015, as that program wrote them. Never edit: it is what lies in databases.
SELECT keep_history_parts('2026-07-01', '2026-07-02', '2026-07-01');
INSERT INTO device_lines (device_id, boot, seq) VALUES ('d_aaaaaaaaaaaaaaaa', 3, 120);
INSERT INTO device_boots (device_id, boot, first_seen, started_at) VALUES
    ('d_aaaaaaaaaaaaaaaa', 3, '2026-07-01 08:00:02+00', '2026-07-01 08:00:00+00');
INSERT INTO device_states (device_id, kind, site_id, boot, seq, type, at, received_at, body) VALUES
    ('d_aaaaaaaaaaaaaaaa', 'telemetry', 's_aaaaaaaaaaaaaaaa', 3, 120, 'telemetry', '2026-07-01 08:10:00+00', '2026-07-01 08:10:01+00', '{"values": {"temperature": 21.5}}');
INSERT INTO device_connections (device_id, online, since, seen_at, instance, hello, started_at) VALUES
    ('d_aaaaaaaaaaaaaaaa', true, '2026-07-01 08:00:02+00', '2026-07-01 08:10:01+00', 'abcdefgh', '{"boot": 3, "commands": ["ping"]}',
     '2026-07-01 08:00:00+00');
INSERT INTO device_places (device_id, until, org_id, site_id, type) VALUES
    ('d_aaaaaaaaaaaaaaaa', '2026-07-01 08:05:00+00', 'o_aaaaaaaaaaaaaaaa', 's_aaaaaaaaaaaaaaaa', 'generic');
INSERT INTO device_history (device_id, at, boot, seq, id, kind, type, site_id, received_at, body) VALUES
    ('d_aaaaaaaaaaaaaaaa', '2026-07-01 08:10:00+00', 3, 120, '01980000-0000-7000-8000-000000000120', 'telemetry', 'telemetry',
     's_aaaaaaaaaaaaaaaa', '2026-07-01 08:10:01+00', '{"values": {"temperature": 21.5}}'),
    ('d_aaaaaaaaaaaaaaaa', '2026-07-02 08:10:00+00', 3, 121, '01980000-0000-7000-8000-000000000121', 'telemetry', 'telemetry',
     's_aaaaaaaaaaaaaaaa', '2026-07-02 08:10:01+00', '{"values": {"temperature": 22.5}}');
INSERT INTO dead_letters (at, reason, detail, topic, device_id, site_id, size, body, log_topic, log_part, log_offset) VALUES
    ('2026-07-01 08:11:00+00', 'bad_json', 'not JSON', 'o_a/s_a/linux/d_aaaaaaaaaaaaaaaa/telemetry', 'd_aaaaaaaaaaaaaaaa',
     's_aaaaaaaaaaaaaaaa', 1, '\x7b', 'towline.up', 4, 17);
INSERT INTO log_positions (topic, part, next) VALUES ('towline.up', 4, 18);
INSERT INTO log_consumers (id, until) VALUES ('99999999-9999-4999-8999-999999999999', '2026-07-01 08:11:05+00');

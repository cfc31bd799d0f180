-- Rows of schema 0019, as that program wrote them. Never edit: it is what lies in databases.
INSERT INTO registration_tokens (token_sha256, user_id, site_id, name, approve, created_at, expires_at, device_type)
SELECT sha256('esp32-token'), user_id, site_id, 'Soil', true, '2026-07-02 08:00:00+00', '2026-07-02 08:15:00+00', 'esp32'
FROM registration_tokens LIMIT 1;

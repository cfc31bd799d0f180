-- Devices of the ESP32 firmware, and tokens that say which type the device is that uses them: a device does not choose.

INSERT INTO device_types (id, name, capabilities, changed_at) VALUES
    ('esp32', 'ESP32 device', '{"commands": {
        "ping": {"params": {"type": "object", "additionalProperties": false}, "timeout_s": 10},
        "identify": {"params": {"type": "object", "additionalProperties": false}, "timeout_s": 10},
        "reboot": {"params": {"type": "object", "additionalProperties": false}, "timeout_s": 120, "role": "admin"},
        "log_level": {"params": {"type": "object", "additionalProperties": false, "required": ["level"],
            "properties": {"level": {"type": "string", "enum": ["debug", "info", "warning", "error"]}}},
            "timeout_s": 10},
        "update": {"params": {"type": "object", "additionalProperties": false,
            "required": ["url", "size", "sha256", "version"],
            "properties": {
                "url": {"type": "string", "pattern": "^https?://[!-~]{1,190}$"},
                "size": {"type": "integer", "minimum": 1, "maximum": 4294967295},
                "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "version": {"type": "string", "pattern": "^[0-9a-z.-]{1,32}$"}}},
            "timeout_s": 900, "role": "admin"}},
        "config": {"type": "object", "additionalProperties": false, "properties": {
            "health_every_s": {"type": "integer", "minimum": 1, "maximum": 60},
            "report_s": {"type": "integer", "minimum": 5, "maximum": 3600},
            "log_level": {"type": "string", "enum": ["debug", "info", "warning", "error"]}}}}', 'epoch')
ON CONFLICT (id) DO NOTHING;

ALTER TABLE registration_tokens ADD COLUMN device_type text REFERENCES device_types;  -- NULL: the usual one

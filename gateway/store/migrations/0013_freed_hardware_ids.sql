-- An administrator takes a hardware id from a device that is not the one that bears it. The device stays as it is:
-- it never was anything by that id. Another one may then enrol with it.

ALTER TABLE devices ADD COLUMN hardware_id_freed_at timestamptz;  -- NULL: the id is this device's
DROP INDEX devices_hardware;
CREATE UNIQUE INDEX devices_hardware ON devices (hardware_id)
    WHERE status IN ('pending', 'approved') AND hardware_id_freed_at IS NULL;

"""What a device says of itself and is told to do: an outbox on disk, one MQTT connection, commands."""

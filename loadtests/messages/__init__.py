"""The message side under load: devices at a broker, a chain of real processes, and what is measured of it."""

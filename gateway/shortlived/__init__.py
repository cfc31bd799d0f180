"""What may be lost: one-time values, rate limits, wake-ups. Kept in Postgres, or in Redis where it is set."""

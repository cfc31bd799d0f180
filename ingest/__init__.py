"""From the broker to the log: takes what devices say and tells them what was taken for good."""

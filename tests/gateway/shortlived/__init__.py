"""The short-lived store: one contract, real servers of both kinds, and their outages."""

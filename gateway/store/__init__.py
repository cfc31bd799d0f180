"""Postgres: the truth about people, devices, sessions, links and revocations."""

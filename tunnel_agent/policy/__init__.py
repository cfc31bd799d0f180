"""Decisions of the agent: values in, answers out; no I/O, no clock, no randomness of their own."""

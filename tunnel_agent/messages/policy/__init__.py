"""Decisions of the message side, without I/O: time and chance are arguments."""

"""Errors of the pipeline's first half: each says who is at fault."""

from __future__ import annotations


class IngestError(Exception):
    """Base of all errors of this package."""


class BrokerUnavailableError(IngestError):
    """No session with the broker: it is away, refuses us, or does not let us hear what devices say."""

"""Errors of the data plane: each says who is at fault; the edge turns them into pages."""

from __future__ import annotations

# What asks the gateway is shared with other services; here these are errors like the others.
from runtime.internal_http import GatewayRefused as GatewayRefused
from runtime.internal_http import GatewayUnavailable as GatewayUnavailable


class TunnelServerError(Exception):
    """Base of all errors of this package."""


class BadRequest(TunnelServerError):
    """The visitor's request breaks HTTP or a rule of the edge; ``status`` is the answer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class BadResponse(TunnelServerError):
    """The device's answer breaks HTTP; the visitor sees 502 or, once the head left, a cut connection."""

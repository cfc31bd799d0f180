"""Errors of the data plane: each says who is at fault; the edge turns them into pages."""

from __future__ import annotations


class TunnelServerError(Exception):
    """Base of all errors of this package."""


class GatewayUnavailable(TunnelServerError):
    """The gateway did not answer in time or answered nonsense; nothing was decided."""


class GatewayRefused(TunnelServerError):
    """The gateway decided against it: ``status`` (HTTP) and ``code`` (problem+json) say why."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class BadRequest(TunnelServerError):
    """The visitor's request breaks HTTP or a rule of the edge; ``status`` is the answer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class BadResponse(TunnelServerError):
    """The device's answer breaks HTTP; the visitor sees 502 or, once the head left, a cut connection."""

"""Errors of the machine. Peer input never raises out of it: a violation becomes the event ConnectionLost."""

from __future__ import annotations

from tunnel_protocol.codes import CloseCode


class TunnelProtocolError(Exception):
    """Base of everything this package raises to its caller."""


class StreamLimit(TunnelProtocolError):
    """The peer's max_streams are all in use; a stream must end before the next one opens."""


class ConnectionDraining(TunnelProtocolError):
    """No stream can be opened here: the connection is not open yet, is draining, or is closed."""


class Misuse(TunnelProtocolError):
    """The caller broke this package's own rules: a call in the wrong state, or a value out of its range."""


class ProtocolViolation(Exception):
    """A rule of the protocol was broken by the peer. Internal: caught where bytes come in."""

    def __init__(self, reason: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

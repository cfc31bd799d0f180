"""What can go wrong outside the tunnel, in words for the person at the device."""


class AgentError(Exception):
    """Base of the agent's own errors; the text is one readable sentence without secrets."""


class IdentityError(AgentError):
    """The state directory holds no usable identity."""


class EnrolmentError(AgentError):
    """Enrolment ended without an identity: refused, rejected, expired."""


class EnrolmentPending(AgentError):
    """Nobody decided in the time given; the same command goes on waiting without a new registration token."""


class GatewayUnreachable(AgentError):
    """No answer from the gateway: name, network, TLS or time-out. Worth another try."""


class GatewayRefused(AgentError):
    """The gateway answered with a problem (RFC 9457)."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{detail} ({status} {code})" if code else f"{detail} ({status})")
        self.status = status
        self.code = code
        self.detail = detail

"""A device's answer head: what of it may reach the browser, and how its body is delimited."""

from __future__ import annotations

import re
from collections.abc import Callable

from tunnel_server.errors import BadResponse
from tunnel_server.policy.cookies import rewritten_set_cookie
from tunnel_server.policy.names import HOP_BY_HOP, RuleCache, joined, tokens, without_nominated

_ABSOLUTE = re.compile(rb"(?:https?:)?//([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)

# Authority over the browser's state for an origin, or over a proxy in front, is not the device's to use:
# our own session cookie lives on this origin, and nginx obeys X-Accel-Redirect.
FORBIDDEN = frozenset(
    b"alt-svc clear-site-data access-control-allow-credentials x-accel-redirect x-accel-expires "
    b"x-accel-limit-rate x-accel-charset x-sendfile x-lighttpd-send-file x-lighttpd-send-tempfile".split()
)


class ResponseHead:
    """One answer head; ``lines`` are the headers that pass, each ended by CRLF."""

    __slots__ = (
        "chunked",
        "connection",
        "content_length",
        "event_stream",
        "lines",
        "location",
        "transfer_encoding",
        "upgrade",
        "websocket_accept",
    )

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.connection: bytes | None = None
        self.content_length: int | None = None
        self.transfer_encoding: bytes | None = None
        self.chunked = False
        self.event_stream = False
        self.location: bytes | None = None
        self.upgrade: bytes | None = None
        self.websocket_accept: bytes | None = None

    def finish(self, *, minor: int) -> None:
        """Check the framing and drop what Connection names; BadResponse says what is wrong."""
        if self.transfer_encoding is not None:
            if self.transfer_encoding.strip(b" \t").lower() != b"chunked" or minor == 0:
                raise BadResponse("the device used a transfer coding other than chunked")
            self.chunked = True
        if self.connection is not None:
            self.lines = without_nominated(self.lines, self.connection)

    def says_close(self, *, minor: int) -> bool:
        """Whether the device ends the connection after this answer (RFC 9112 section 9.3)."""
        if self.connection is None:
            return minor == 0
        named = tokens(self.connection)
        return b"close" in named or (minor == 0 and b"keep-alive" not in named)

    def switches_to_websocket(self, accept: bytes) -> bool:
        """Whether a 101 is the right answer to the key whose accept value is given (RFC 6455 section 4.1)."""
        return (
            self.websocket_accept == accept
            and tokens(self.upgrade or b"") == {b"websocket"}
            and b"upgrade" in tokens(self.connection or b"")
        )


def rewritten_location(value: bytes, own_hosts: tuple[bytes, ...], visitor_origin: bytes) -> bytes:
    """A Location of the device's own origin under the visitor's origin; any other stays as it is.

    Always absolute: the path of ``http://device//evil.example`` alone would lead away.
    """
    match = _ABSOLUTE.fullmatch(value)
    if match is None or match[1].lower() not in own_hosts:
        return value
    rest = match[2]
    return visitor_origin + (rest if rest.startswith(b"/") else b"/" + rest)


Rule = Callable[[ResponseHead, bytes, bytes], None]


def _joined(earlier: bytes | None, value: bytes) -> bytes:
    try:
        return joined(earlier, value)
    except ValueError as error:
        raise BadResponse(str(error)) from error


def _drop(head: ResponseHead, name: bytes, value: bytes) -> None:
    """Not passed on."""


def _connection(head: ResponseHead, name: bytes, value: bytes) -> None:
    head.connection = _joined(head.connection, value)


def _content_length(head: ResponseHead, name: bytes, value: bytes) -> None:
    head.content_length = int(value)


def _transfer_encoding(head: ResponseHead, name: bytes, value: bytes) -> None:
    head.transfer_encoding = _joined(head.transfer_encoding, value)


def _set_cookie(head: ResponseHead, name: bytes, value: bytes) -> None:
    kept = rewritten_set_cookie(value)
    if kept is not None:
        head.lines.append(b"Set-Cookie: %b\r\n" % kept)


def _location(head: ResponseHead, name: bytes, value: bytes) -> None:
    head.location = value.strip(b" \t")


def _content_type(head: ResponseHead, name: bytes, value: bytes) -> None:
    head.event_stream = value[:17].lower() == b"text/event-stream"
    head.lines.append(b"%b: %b\r\n" % (name, value))


def _upgrade(head: ResponseHead, name: bytes, value: bytes) -> None:
    head.upgrade = value


def _websocket_accept(head: ResponseHead, name: bytes, value: bytes) -> None:
    head.websocket_accept = value.strip(b" \t") if head.websocket_accept is None else b"twice"


_OWN_RULES: dict[bytes, Rule | None] = {
    **dict.fromkeys(HOP_BY_HOP, _drop),
    **dict.fromkeys(FORBIDDEN, _drop),
    b"connection": _connection,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"set-cookie": _set_cookie,
    b"location": _location,
    b"content-type": _content_type,
    b"upgrade": _upgrade,
    b"sec-websocket-accept": _websocket_accept,
}

RULES: RuleCache[Rule] = RuleCache(_OWN_RULES.get, _OWN_RULES)

"""A visitor's request head: collected header by header, then checked; what is left may be sent to the device.

llhttp in strict mode refuses bare LF, obs-fold, duplicate Content-Length, Content-Length with
Transfer-Encoding, spaces before the colon, control characters and bad chunks by itself (a test holds it to
that). Here stands what it lets through.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tunnel_server.errors import BadRequest
from tunnel_server.policy.names import HOP_BY_HOP, RuleCache, joined, tokens, without_nominated

# What a device's UI may use; CONNECT and TRACE make no sense through an origin, others are no HTTP.
METHODS = frozenset(
    b"GET HEAD POST PUT PATCH DELETE OPTIONS PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT "
    b"QUERY".split()
)

# A client's word about who sent it here; only a trusted proxy's is believed, and never passed on as it is.
FORWARDING = frozenset(
    b"forwarded x-real-ip x-client-ip x-cluster-client-ip true-client-ip cf-connecting-ip fastly-client-ip "
    b"x-original-url x-rewrite-url x-original-host x-host".split()
)
FORWARDING_PREFIX = b"x-forwarded-"
WEBSOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64 (RFC 6455 section 4.1)


begins_as_http = re.compile(rb"[A-Z]+ [^ \r\n]+ HTTP/").match
"""Finds HTTP's request line as it is usually spelt, at the very begin; else names_another_protocol tells."""


def names_another_protocol(method: bytes, target: bytes, raw: bytes) -> bool:
    """Whether the request line says RTSP or ICE: llhttp reads those by HTTP's rules, and does not tell.

    ``raw`` holds the line, wherever it stands: another request in the same read that asks for the same by
    such a protocol condemns this one with it.
    """
    if b" RTSP/" not in raw and method != b"SOURCE":  # ICE has no other method
        return False
    return re.search(rb"%b +%b +(?:RTSP|ICE)/" % (re.escape(method), re.escape(target)), raw) is not None


class RequestHead:
    """One request head; ``lines`` are the headers that pass as they are, each ended by CRLF."""

    __slots__ = (
        "accept",
        "chunked",
        "connection",
        "content_length",
        "content_type",
        "cookie",
        "expect",
        "fetch_dest",
        "fetch_mode",
        "fetch_site",
        "forwarded_for",
        "host",
        "lines",
        "method",
        "minor",
        "origin",
        "referer",
        "target",
        "transfer_encoding",
        "upgrade",
        "websocket_key",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.minor = 1
        self.lines: list[bytes] = []
        self.host: bytes | None = None
        self.cookie: bytes | None = None
        self.origin: bytes | None = None
        self.fetch_site: bytes | None = None
        self.fetch_mode: bytes | None = None
        self.fetch_dest: bytes | None = None
        self.connection: bytes | None = None
        self.upgrade: bytes | None = None
        self.expect: bytes | None = None
        self.content_length: int | None = None
        self.transfer_encoding: bytes | None = None
        self.chunked = False
        self.accept: bytes | None = None
        self.content_type: bytes | None = None
        self.referer: bytes | None = None
        self.forwarded_for: bytes | None = None
        self.websocket_key: bytes | None = None

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.chunked or bool(self.content_length)

    @property
    def wants_upgrade(self) -> bool:
        """Whether this is a WebSocket handshake; any other Upgrade is ignored (RFC 9110 section 7.8)."""
        return self.websocket_key is not None and self.upgrade is not None

    def finish(self) -> None:
        """Check the whole head and drop what Connection names; BadRequest says what is wrong."""
        if self.method not in METHODS:
            raise BadRequest("this method is not served here", 405)
        if self.host is None:
            raise BadRequest("a request needs exactly one Host")
        self._check_target()
        if self.transfer_encoding is not None:
            if self.transfer_encoding.strip(b" \t").lower() != b"chunked" or self.minor == 0:
                raise BadRequest("the only transfer coding is chunked, in HTTP/1.1", 501)
            self.chunked = True
        if self.expect is not None and (self.minor == 0 or not self.has_body):
            self.expect = None  # RFC 9110 section 10.1.1: ignored from HTTP/1.0 and where there is no content
        if self.expect is not None and self.expect.strip(b" \t").lower() != b"100-continue":
            raise BadRequest("the only expectation is 100-continue", 417)
        if self.upgrade is not None or self.websocket_key is not None:
            self._check_upgrade()
        if self.connection is not None:
            self.lines = without_nominated(self.lines, self.connection)

    def _check_target(self) -> None:
        target = self.target
        if b"#" in target:
            raise BadRequest("a request target has no fragment")
        if target.startswith(b"/"):
            return
        if target == b"*" and self.method == b"OPTIONS":
            return
        scheme, mark, rest = target.partition(b"://")
        authority, slash, path = rest.partition(b"/")
        if (
            not mark
            or scheme.lower() not in (b"http", b"https")
            or authority.lower() != (self.host or b"").lower()
        ):
            raise BadRequest("the target names another host", 421)
        self.target = slash + path if slash else b"/"

    def _check_upgrade(self) -> None:
        named = b"upgrade" in tokens(self.connection or b"")
        websocket = named and tokens(self.upgrade or b"") == {b"websocket"}
        if named and self.has_body:
            # llhttp takes the body of such a request for bytes of the new protocol: no safe reading exists.
            raise BadRequest("a request that asks for an upgrade has no body")
        if not websocket:
            self.upgrade = self.websocket_key = None
        elif self.method != b"GET" or self.minor == 0:
            raise BadRequest("a WebSocket opens with GET in HTTP/1.1")
        elif self.websocket_key is None or not WEBSOCKET_KEY.fullmatch(self.websocket_key):
            raise BadRequest("Sec-WebSocket-Key is missing or wrong")


Rule = Callable[[RequestHead, bytes, bytes], None]


def _joined(earlier: bytes | None, value: bytes, separator: bytes = b",") -> bytes:
    try:
        return joined(earlier, value, separator)
    except ValueError as error:
        raise BadRequest(str(error), 431) from error


def _drop(head: RequestHead, name: bytes, value: bytes) -> None:
    """Neither passed on nor looked at."""


def _host(head: RequestHead, name: bytes, value: bytes) -> None:
    if head.host is not None:
        raise BadRequest("a request needs exactly one Host")
    head.host = value.strip(b" \t")


def _connection(head: RequestHead, name: bytes, value: bytes) -> None:
    head.connection = _joined(head.connection, value)


def _cookie(head: RequestHead, name: bytes, value: bytes) -> None:
    head.cookie = _joined(head.cookie, value, b"; ")


def _origin(head: RequestHead, name: bytes, value: bytes) -> None:
    if head.origin is not None:
        raise BadRequest("more than one Origin")
    head.origin = value.strip(b" \t")


def _content_length(head: RequestHead, name: bytes, value: bytes) -> None:
    head.content_length = int(value)


def _transfer_encoding(head: RequestHead, name: bytes, value: bytes) -> None:
    head.transfer_encoding = _joined(head.transfer_encoding, value)


def _upgrade(head: RequestHead, name: bytes, value: bytes) -> None:
    head.upgrade = _joined(head.upgrade, value)


def _expect(head: RequestHead, name: bytes, value: bytes) -> None:
    head.expect = _joined(head.expect, value)


def _forwarded_for(head: RequestHead, name: bytes, value: bytes) -> None:
    head.forwarded_for = _joined(head.forwarded_for, value)


def _fetch_site(head: RequestHead, name: bytes, value: bytes) -> None:
    head.fetch_site = value if head.fetch_site is None else b"twice"
    head.lines.append(b"%b: %b\r\n" % (name, value))


def _fetch_mode(head: RequestHead, name: bytes, value: bytes) -> None:
    head.fetch_mode = value if head.fetch_mode is None else b"twice"
    head.lines.append(b"%b: %b\r\n" % (name, value))


def _fetch_dest(head: RequestHead, name: bytes, value: bytes) -> None:
    head.fetch_dest = value if head.fetch_dest is None else b"twice"
    head.lines.append(b"%b: %b\r\n" % (name, value))


def _accept(head: RequestHead, name: bytes, value: bytes) -> None:
    head.accept = value
    head.lines.append(b"%b: %b\r\n" % (name, value))


def _content_type(head: RequestHead, name: bytes, value: bytes) -> None:
    head.content_type = value
    head.lines.append(b"%b: %b\r\n" % (name, value))


def _referer(head: RequestHead, name: bytes, value: bytes) -> None:
    head.referer = value


def _websocket_key(head: RequestHead, name: bytes, value: bytes) -> None:
    if head.websocket_key is not None:
        raise BadRequest("more than one Sec-WebSocket-Key")
    head.websocket_key = value.strip(b" \t")


_OWN_RULES: dict[bytes, Rule | None] = {
    **dict.fromkeys(HOP_BY_HOP, _drop),
    **dict.fromkeys(FORWARDING, _drop),
    b"host": _host,
    b"connection": _connection,
    b"cookie": _cookie,
    b"origin": _origin,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"upgrade": _upgrade,
    b"expect": _expect,
    b"x-forwarded-for": _forwarded_for,
    b"sec-fetch-site": _fetch_site,
    b"sec-fetch-mode": _fetch_mode,
    b"sec-fetch-dest": _fetch_dest,
    b"accept": _accept,
    b"content-type": _content_type,
    b"referer": _referer,
    b"sec-websocket-key": _websocket_key,
}


def _find(name: bytes) -> Rule | None:
    """The rule of a lower-case name; None passes it on."""
    if name in _OWN_RULES:
        return _OWN_RULES[name]
    if name.startswith(FORWARDING_PREFIX):
        return _drop
    if b"_" in name and _find(name.replace(b"_", b"-")) is not None:
        return _drop  # CGI-like servers read X_Forwarded_For as X-Forwarded-For
    return None


RULES: RuleCache[Rule] = RuleCache(_find, _OWN_RULES)

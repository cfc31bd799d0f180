"""The one canonical request that a device sees (DESIGN 3.6)."""

from __future__ import annotations

from tunnel_server.policy.hosts import Site
from tunnel_server.policy.request_head import RequestHead
from tunnel_server.policy.services import ServiceOptions


def upstream_head(
    head: RequestHead,
    site: Site,
    service: ServiceOptions,
    *,
    cookie: bytes | None,
    scheme: bytes,
    client: str,
) -> bytes:
    """Request line and headers with the empty line; ``cookie`` is the visitor's Cookie without ours."""
    parts = [
        head.method,
        b" ",
        head.target,
        b" HTTP/1.1\r\n",
        service.host_line or b"Host: %b\r\n" % site.host,
    ]
    parts += head.lines
    if cookie is not None:
        parts.append(b"Cookie: %b\r\n" % cookie)
    if head.origin is not None:
        parts.append(b"Origin: %b\r\n" % _rewritten(head.origin, site, service))
    if head.referer is not None:
        parts.append(b"Referer: %b\r\n" % _rewritten(head.referer, site, service))
    if head.chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif head.content_length is not None:
        parts.append(b"Content-Length: %d\r\n" % head.content_length)
    if head.expect is not None:
        parts.append(b"Expect: 100-continue\r\n")
    if head.websocket_key is not None:
        parts.append(
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %b\r\n" % head.websocket_key
        )
    if service.forwarded:
        parts.append(_forwarded(site, scheme, client))
    parts.append(b"\r\n")
    return b"".join(parts)


def _rewritten(value: bytes, site: Site, service: ServiceOptions) -> bytes:
    """Our own origin at the front becomes the service's; a foreign or opaque one stays."""
    if service.origin is None or not (value.startswith(site.origin) or value.lower().startswith(site.origin)):
        return value
    rest = value[len(site.origin) :]
    return service.origin + rest if rest[:1] in (b"", b"/") else value


def _forwarded(site: Site, scheme: bytes, client: str) -> bytes:
    address = client.encode("ascii", "replace")
    quoted = b'"[%b]"' % address if b":" in address else address  # RFC 7239 section 6
    lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
        address,
        scheme,
        site.host,
    )
    return lines + b'Forwarded: for=%b;host="%b";proto=%b\r\n' % (quoted, site.host, scheme)

"""Requests as bytes: a start line, headers beside Host and Cookie, what stands behind the head."""

from __future__ import annotations

from tests.conformance.world import HOST, Visitor

GET, POST = b"GET / HTTP/1.1", b"POST / HTTP/1.1"
CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1"


def body(line: bytes, headers: list[bytes], content: bytes) -> tuple[bytes, list[bytes], bytes]:
    """A request with a body: start line, its headers, what follows."""
    return line, headers, content


def sent(visitor: Visitor, case: tuple[bytes, list[bytes], bytes]) -> bytes:
    line, headers, content = case
    origin = [] if any(h.startswith(b"Origin") for h in headers) else [b"Origin: http://" + HOST]
    if len(headers) > 100:
        origin = []
    return visitor.head_of(line, *origin, *headers) + content

"""The golden header set: what a device sees of a request in each mode of a service, and from which pages."""

from __future__ import annotations

import pytest

from tests.conformance.service import Answer
from tests.conformance.test_answers import UPGRADE
from tests.conformance.world import HOST, ORIGIN, World

# Everything a visitor may try at once: hop-by-hop names, names that Connection nominates (ours among them),
# forwarding names and their twins, our cookie among others.
SENT = (
    b"Connection: keep-alive, X-Nominated, X-Forwarded-For, X-Forwarded-Proto, Host, Cookie, Origin",
    b"Connection: Forwarded",
    b"Connection: Accept-Language",
    b"X-Nominated: 1",
    b"Accept-Language: de",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"Proxy-Authorization: Basic eDp5",
    b"TE: trailers",
    b"Trailer: X-T",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMA",
    b"X-Forwarded-For: 6.6.6.6",
    b"X-Forwarded-Host: evil.example",
    b"X-Forwarded-Proto: gopher",
    b"X-Forwarded-Anything: 1",
    b"X_Forwarded_For: 6.6.6.6",
    b"x_forwarded-host: evil.example",
    b"Forwarded: for=6.6.6.6",
    b"X-Real-IP: 6.6.6.6",
    b"X_Real_IP: 6.6.6.6",
    b"X-Client-IP: 6.6.6.6",
    b"True-Client-IP: 6.6.6.6",
    b"CF-Connecting-IP: 6.6.6.6",
    b"X-Original-URL: /admin",
    b"X-Rewrite-URL: /admin",
    b"X-Host: evil.example",
    b"Content_Length: 7",
    b"Transfer_Encoding: chunked",
    b"Sec_Fetch_Site: same-origin",
    b"Cookie: a=1; towline_session_=kept; TOWLINE_SESSION=gone; __host-towline=gone; b=2",
    b"Origin: " + ORIGIN,
    b"Referer: " + ORIGIN + b"/page?x=1",
    b"Sec-Fetch-Site: same-origin",
    b"User-Agent: Mozilla/5.0",
    b"Accept: */*",
    b"X-Kept: yes",
    b"My_Kept: yes",
    b"Authorization: Basic eDp5",
    b"Range: bytes=0-99",
    b"If-None-Match: \"x\"",
)  # fmt: skip
PASSED = [
    b"Sec-Fetch-Site: same-origin",
    b"User-Agent: Mozilla/5.0",
    b"Accept: */*",
    b"X-Kept: yes",
    b"My_Kept: yes",
    b"Authorization: Basic eDp5",
    b"Range: bytes=0-99",
    b'If-None-Match: "x"',
    b"Cookie: a=1; towline_session_=kept; b=2",
]
FORWARDED = [
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Forwarded-Proto: http",
    b"X-Forwarded-Host: " + HOST,
    b'Forwarded: for=127.0.0.1;host="' + HOST + b'";proto=http',
]


def own(origin: bytes) -> list[bytes]:
    return [b"Origin: " + origin, b"Referer: " + origin + b"/page?x=1"]


def golden(service: str, address: bytes) -> list[bytes]:
    """Every line that the device sees, in order."""
    rewrites = service in ("web", "forwarded")
    host, origin = (address, b"http://" + address) if rewrites else (HOST, ORIGIN)
    forwarded = FORWARDED if service in ("forwarded", "both") else []
    return [b"GET /x HTTP/1.1", b"Host: " + host, *PASSED, *own(origin), *forwarded]


@pytest.mark.parametrize("service", ["web", "preserve", "forwarded", "both"])
def test_the_golden_header_set(world: World, service: str) -> None:
    with world.visitor(world.session(service)) as visitor:
        visitor.get(b"/x", *SENT)
        assert visitor.response()[1] == b"ok"
    (seen,) = world.service.requests
    assert seen.head.split(b"\r\n")[:-2] == golden(service, world.address.encode())


@pytest.mark.parametrize("service", ["web", "both"])
def test_the_golden_header_set_of_a_websocket(world: World, service: str) -> None:
    world.service.answers[b"/ws"] = Answer(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
    with world.visitor(world.session(service)) as visitor:
        visitor.get(b"/ws", b"Sec-WebSocket-Extensions: permessage-deflate", *UPGRADE)
        visitor.head()
    (seen,) = world.service.requests
    rewrites = service == "web"
    address = world.address.encode() if rewrites else HOST
    assert seen.head.split(b"\r\n")[:-2] == [
        b"GET /ws HTTP/1.1",
        b"Host: " + address,
        b"Sec-WebSocket-Extensions: permessage-deflate",
        b"Sec-WebSocket-Version: 13",
        b"Origin: http://" + address,
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *([] if rewrites else FORWARDED),
    ]


def test_our_cookie_twice_is_refused(world: World) -> None:
    """One of them was planted, and nobody can tell which."""
    with world.visitor() as visitor:
        visitor.get(b"/x", b"Cookie: towline_session=planted")
        assert visitor.response()[0].startswith(b"HTTP/1.1 400 ")
        world.settle()
    assert world.service.requests == []


SIBLING = b"http://" + b"b" * 26 + b".localhost"
NAVIGATION = (b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document")
# Who asks, as a browser would say it; which methods pass: (GET, POST, WebSocket).
PAGES: dict[str, tuple[tuple[bytes, ...], tuple[bool, bool, bool]]] = {
    "our own page": ((b"Sec-Fetch-Site: same-origin", b"Origin: " + ORIGIN), (True, True, True)),
    "our own page, old browser": ((b"Origin: " + ORIGIN,), (True, True, True)),
    "the address bar": ((b"Sec-Fetch-Site: none", *NAVIGATION), (True, True, True)),
    "nobody says": ((), (True, False, False)),
    "a sibling's page": ((b"Sec-Fetch-Site: same-site", b"Origin: " + SIBLING), (False, False, False)),
    "a sibling's page, old browser": ((b"Origin: " + SIBLING,), (False, False, False)),
    "an evil page": ((b"Sec-Fetch-Site: cross-site", b"Origin: http://evil.example"), (False, False, False)),
    "an evil page, old browser": ((b"Origin: http://evil.example",), (False, False, False)),
    "an evil frame": ((b"Sec-Fetch-Site: cross-site", b"Origin: null"), (False, False, False)),
    "an evil frame, old browser": ((b"Origin: null",), (False, False, False)),
    "an evil image": ((b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: no-cors"), (False, False, False)),
    "a link from elsewhere": ((b"Sec-Fetch-Site: cross-site", *NAVIGATION), (True, False, False)),
    "a frame from elsewhere": (
        (b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: iframe"),
        (False, False, False),
    ),
    "two answers to one question": (
        (b"Sec-Fetch-Site: same-origin", b"Sec-Fetch-Site: cross-site"),
        (False, False, False),
    ),
    "the same origin, says Origin otherwise": (
        (b"Sec-Fetch-Site: same-origin", b"Origin: http://evil.example"),
        (True, True, False),
    ),
    "the origin with another port": ((b"Origin: " + ORIGIN + b":81",), (False, False, False)),
    "the origin with another scheme": ((b"Origin: https://" + HOST,), (False, False, False)),
    "the origin with more behind it": ((b"Origin: " + ORIGIN + b".evil.example",), (False, False, False)),
    "our origin in capitals": ((b"Origin: " + ORIGIN.upper(),), (False, False, False)),
}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", ["GET", "POST", "WebSocket"])
def test_which_pages_reach_the_device(world: World, page: str, kind: str) -> None:
    headers, allowed = PAGES[page]
    passes = allowed[("GET", "POST", "WebSocket").index(kind)]
    if kind == "WebSocket":
        headers += tuple(line for line in UPGRADE if not line.startswith(b"Origin"))
    method = b"POST" if kind == "POST" else b"GET"
    with world.visitor() as visitor:
        visitor.send(visitor.head_of(method + b" /x HTTP/1.1", *headers))
        head = visitor.head()
        world.settle()
    assert head[:12] == (b"HTTP/1.1 200" if passes else b"HTTP/1.1 403")
    assert [seen.target for seen in world.service.requests] == ([b"/x"] if passes else [])

"""What a visitor might send: requests from a grammar, bent by known tricks, then by blind mutation.

Everything follows from (seed, number), so one finding can be made again alone.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

LABEL = b"a" * 26
HOST = LABEL + b".localhost"
ORIGIN = b"http://" + HOST
COOKIE = b"fuzz"

METHODS = b"GET GET GET GET HEAD POST POST POST PUT DELETE OPTIONS PATCH PROPFIND QUERY".split()
ODD_METHODS = b"TRACE CONNECT PRI FOO get G=T M-SEARCH SOURCE LINK DESCRIBE * GETGET PURGE".split()
TARGETS = (
    b"/",
    b"/a",
    b"/a?b=c&d=%20",
    b"//a/../b",
    b"/%2e%2e/%00",
    b"/a;b=c",
    b"/{}|^`",
    b"/.towline/nothing",
    b"/.towlinex",
    b"/" + b"a" * 300,
)
ODD_TARGETS = (
    b"*",
    b"?a",
    b"a",
    b"/a#b",
    b"/\xc3\xa9",
    b"/a\x01",
    b"http://" + HOST + b"/x?y",
    b"http://" + HOST,
    b"HTTP://" + HOST + b"?q",
    b"http://evil/",
    b"http://u@" + HOST + b"/",
    b"ftp://" + HOST + b"/",
    HOST + b":80",
    b"",
)
VERSIONS = (b"HTTP/1.1",) * 12 + (b"HTTP/1.0",)
ODD_VERSIONS = (
    b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"RTSP/1.0", b"RTSP/1.1", b"ICE/1.0",
    b"HTTP/1", b"",
)  # fmt: skip
HEADERS = (
    (b"Accept", b"*/*"),
    (b"accept-encoding", b"gzip, br"),
    (b"X-Empty", b""),
    (b"X-Blanks", b"\t a \t b "),
    (b"X-Bits", b"\xc3\xa9\xff"),
    (b"!#$%&'*+-.^`|~", b"token"),
    (b"Referer", ORIGIN + b"/page?x"),
    (b"Referer", b"http://elsewhere/"),
    (b"Cookie", b"a=1; b=2"),
    (b"Cookie", b"__HOST-Towline=x;;c=3"),
    (b"Content-Type", b"text/plain"),
    (b"Connection", b"keep-alive"),
    (b"Connection", b"X-Empty, Accept"),
    (b"Connection", b"close"),
    (b"Connection", b"Upgrade, X-Forwarded-For"),
    (b"Keep-Alive", b"timeout=5"),
    (b"TE", b"trailers"),
    (b"Trailer", b"X-T"),
    (b"Proxy-Authorization", b"x"),
    (b"X-Forwarded-For", b"1.2.3.4"),
    (b"X_Forwarded_For", b"1.2.3.4"),
    (b"x-forwarded-anything", b"1"),
    (b"Forwarded", b"for=evil"),
    (b"Content_Length", b"99"),
    (b"Transfer_Encoding", b"chunked"),
    (b"X-Original-URL", b"/admin"),
    (b"My_Header", b"kept"),
    (b"Sec-Fetch-Site", b"same-origin"),
    (b"Sec-Fetch-Mode", b"cors"),
    (b"Sec-WebSocket-Version", b"13"),
    (b"Range", b"bytes=0-1"),
    (b"Range-Value", b"GET / HTTP/1.1"),
)
ODD_HEADERS = (
    (b"Host", HOST),
    (b"Host", b"evil"),
    (b"Content-Length", b"0"),
    (b"Content-Length", b"5"),
    (b"Content-Length", b"5, 5"),
    (b"Content-Length", b"+5"),
    (b"Content-Length", b"-1"),
    (b"Content-Length", b"0x5"),
    (b"Content-Length", b"005"),
    (b"Content-Length", b"5 "),
    (b"Content-Length", b""),
    (b"Content-Length", b"1" * 30),
    (b"CONTENT-LENGTH", b"3"),
    (b"Content-Length ", b"3"),
    (b"Transfer-Encoding", b"chunked"),
    (b"transfer-encoding", b"Chunked"),
    (b"Transfer-Encoding", b"xchunked"),
    (b"Transfer-Encoding", b"chunked, identity"),
    (b"Transfer-Encoding", b"identity, chunked"),
    (b"Transfer-Encoding", b"chunked,"),
    (b"Transfer-Encoding", b",chunked"),
    (b"Transfer-Encoding", b"\tchunked"),
    (b"Transfer-Encoding", b"chunked\t"),
    (b"Transfer-Encoding", b"\x0bchunked"),
    (b"Transfer-Encoding", b"chunked;a=b"),
    (b"Transfer-Encoding", b""),
    (b"Transfer-Encoding ", b"chunked"),
    (b"X: y\nTransfer-Encoding", b"chunked"),
    (b"X: y\rTransfer-Encoding", b"chunked"),
    (b"X: y\r\n Transfer-Encoding", b"chunked"),
    (b"Expect", b"100-continue"),
    (b"Expect", b"something"),
    (b"Origin", b"http://evil"),
    (b"Upgrade", b"websocket"),
    (b"Upgrade", b"h2c"),
    (b"Sec-WebSocket-Key", b"A" * 22 + b"=="),
    (b"Cookie", b"towline_session=twice"),
    (b"", b"no name"),
    (b"X\0Y", b"z"),
    (b"X", b"a\0b"),
    (b"X", b"a\x7fb"),
    (b"\xc3\xa9", b"a"),
)
LINE_ENDS = (b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\r\n\t", b"\n\r", b"\r\n\r\n", b"")
CHUNK_SIZES = (
    b"0x3",
    b"+3",
    b"-3",
    b" 3",
    b"3 ",
    b"3\t",
    b"",
    b"3_0",
    b"g",
    b"0" * 25 + b"3",
    b"1" + b"0" * 16,
    b"4",
)
EXTENSIONS = (
    b"",
    b"",
    b"",
    b";a",
    b";a=b",
    b';a="b;c"',
    b";a;b=c",
    b" ;a",
    b";",
    b';a="\n"',
    b";\x01",
    b";" + b"a" * 99,
)
TRAILERS = (
    b"X-T: v\r\n",
    b"Host: evil\r\n",
    b"Content-Length: 5\r\n",
    b"Bad\r\n",
    b"A: b\n",
    b"Connection: x\r\n",
)
BYTES = b'\0\x01\t\n\x0b\x0c\r "#%+,-/0159:;=?@AZ[_a{|}\x7f\x80\xa0\xff'
SNIPPETS = (
    b"\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"GET /smuggled HTTP/1.1\r\nHost: " + HOST + b"\r\nCookie: towline_session=" + COOKIE + b"\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"5\r\nabcde\r\n",
)


@dataclass(frozen=True)
class Input:
    """``data`` of one connection with about ``requests`` requests, arriving in ``pieces``."""

    data: bytes
    requests: int
    pieces: tuple[bytes, ...]


def make(seed: int, number: int) -> Input:
    """The input of this number."""
    chance = random.Random((seed << 32) + number)
    count = 1 + (chance.random() < 0.5) + (chance.random() < 0.2)
    bent = chance.random() < 0.6
    data = b"".join(_request(chance, bent=bent) for _ in range(count))
    if chance.random() < 0.25:
        data = mutated(chance, data)
    return Input(data, count, cut(chance, data))


def _request(chance: random.Random, *, bent: bool) -> bytes:
    odd = 0.12 if bent else 0.0
    method = chance.choice(ODD_METHODS if chance.random() < odd / 4 else METHODS)
    target = chance.choice(ODD_TARGETS if chance.random() < odd else TARGETS)
    version = chance.choice(ODD_VERSIONS if chance.random() < odd / 4 else VERSIONS)
    lines = [
        method + b" " + target + b" " + version,
        b"Host: " + HOST,
        b"Cookie: towline_session=" + COOKIE,
    ]
    if method not in (b"GET", b"HEAD", b"OPTIONS") or chance.random() < 0.2:
        lines.append(b"Origin: " + ORIGIN)
    lines += [b"%b: %b" % header for header in chance.choices(HEADERS, k=chance.randrange(5))]
    if bent and chance.random() < 0.5:
        odds = chance.choices(ODD_HEADERS, k=chance.randrange(1, 3))
        lines += [b"%b: %b" % header for header in odds]
    body = b""
    if method in (b"POST", b"PUT", b"PATCH", b"QUERY") or chance.random() < 0.1:
        header, body = _body(chance, bent=bent)
        lines += header
    if chance.random() < 0.3:
        first, *rest = lines
        chance.shuffle(rest)
        lines = [first, *rest]
    ends = [b"\r\n"] * len(lines)
    if bent and chance.random() < 0.1:
        ends[chance.randrange(len(ends))] = chance.choice(LINE_ENDS)
    return b"".join(line + end for line, end in zip(lines, ends, strict=True)) + b"\r\n" + body


def _body(chance: random.Random, *, bent: bool) -> tuple[list[bytes], bytes]:
    """(framing headers, bytes)."""
    content = b"0123456789" * chance.randrange(4)
    kind = chance.random()
    if kind < 0.15:
        return [], b""
    if kind < 0.5:
        said = len(content) + (chance.choice((-1, 1, 5)) if bent and chance.random() < 0.1 else 0)
        return [b"Content-Length: %d" % said], content
    parts = []
    for _ in range(chance.randrange(3)):
        piece = content[: chance.randrange(1, 9)] or b"x"
        odd = bent and chance.random() < 0.15
        size = chance.choice(CHUNK_SIZES) if odd else chance.choice((b"%x", b"%X", b"00%x")) % len(piece)
        end = chance.choice(LINE_ENDS) if bent and chance.random() < 0.05 else b"\r\n"
        extension = chance.choice(EXTENSIONS) if bent else b""
        parts.append(size + extension + end + piece + b"\r\n")
    last = b"0\r\n" if not bent or chance.random() < 0.95 else b"0;a\r\n"
    trailer = chance.choice(TRAILERS) if bent and chance.random() < 0.2 else b""
    return [b"Transfer-Encoding: chunked"], b"".join(parts) + last + trailer + b"\r\n"


def mutated(chance: random.Random, data: bytes) -> bytes:
    """A few bytes changed, added, taken away or repeated, or a snippet of HTTP put in."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(6)
        if kind == 0:
            changed[at : at + 1] = bytes((chance.choice(BYTES),))
        elif kind == 1:
            changed[at:at] = bytes((chance.choice(BYTES),))
        elif kind == 2:
            del changed[at : at + chance.randrange(1, 4)]
        elif kind == 3:
            changed[at:at] = chance.choice(SNIPPETS)
        elif kind == 4:
            start = chance.randrange(len(changed) + 1)
            changed[at:at] = changed[start : start + chance.randrange(1, 40)]
        elif chance.random() < 0.3:
            del changed[at:]
        if not changed:
            break
    return bytes(changed)


def cut(chance: random.Random, data: bytes) -> tuple[bytes, ...]:
    """The pieces in which it arrives: mostly one."""
    if chance.random() < 0.6 or len(data) < 2:
        return (data,)
    cuts = sorted(chance.randrange(len(data)) for _ in range(chance.randrange(1, 4)))
    edges = [0, *cuts, len(data)]
    return tuple(data[a:b] for a, b in itertools.pairwise(edges) if b > a)

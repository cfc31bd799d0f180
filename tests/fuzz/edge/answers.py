"""What a device might answer, and h11's reading of it as a client beside the edge's.

The rule: an answer that the visitor sees whole is the one that h11 reads; what h11 cannot read is a 502 or a
cut.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass

import h11

from tests.fuzz.edge.inputs import CHUNK_SIZES, EXTENSIONS, LINE_ENDS, TRAILERS, cut, mutated
from tests.fuzz.edge.memory import HEAD_LIMIT, Finding, MemoryEdge
from tests.fuzz.edge.oracle import LONG_CHUNK_SIZE, OWN_COOKIES

STATUS_LINES = (
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 206", b"HTTP/1.1 299 Mine",
)  # fmt: skip
ODD_STATUS_LINES = (
    b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"ICY 200 OK", b"HTTP/1.1 99 X", b"HTTP/1.1 099 X",
    b"HTTP/1.1 600 X", b"HTTP/1.1 2000 X", b"HTTP/1.1  200 OK", b"http/1.1 200 OK",
    b"HTTP/1.1 101 Switching Protocols", b"", b"HTTP/1.1 200 a\x00b", b"HTTP/1.1 103 Early Hints",
)  # fmt: skip
HEADERS = (
    (b"Content-Type", b"text/html"),
    (b"X-Empty", b""),
    (b"X-Bits", b"\xc3\xa9"),
    (b"Set-Cookie", b"a=1; Domain=localhost; Path=/"),
    (b"Set-Cookie", b"towline_session=evil"),
    (b"Connection", b"keep-alive, X-Empty"),
    (b"Connection", b"close"),
    (b"Keep-Alive", b"timeout=5"),
    (b"Alt-Svc", b"h2"),
    (b"X-Accel-Redirect", b"/x"),
    (b"ETag", b'"x"'),
)
ODD_HEADERS = (
    (b"Content-Length", b"3"),
    (b"Content-Length", b"3, 3"),
    (b"Content-Length", b"+3"),
    (b"Content-Length", b"0x3"),
    (b"Content-Length", b"-1"),
    (b"Content-Length", b""),
    (b"Transfer-Encoding", b"chunked"),
    (b"Transfer-Encoding", b"gzip, chunked"),
    (b"Transfer-Encoding", b"identity"),
    (b"Transfer-Encoding ", b"chunked"),
    (b"X\0Y", b"z"),
    (b"X", b"a\0b"),
    (b"", b"x"),
    (b"X: y\r\n Z", b"folded"),
    (b"X: y\rZ", b"bare CR"),
    (b"Upgrade", b"websocket"),
)
BLANKS_BEHIND_SIZE = re.compile(rb"(\n[0-9a-fA-F]{1,40})[ \t]+(?=[;\r])")
ODD_PHRASE = re.compile(
    rb"^(HTTP/1\.[01] \d{3}) [^\r\n]*[\0-\x08\x0b\x0c\x0e-\x1f\x7f][^\r\n]*", re.MULTILINE
)
EMPTY_LINES = re.compile(rb"(?:(?<=\n\r\n)|(?<=\n\n))[\r\n]+(?=HTTP/1\.)")


def make(seed: int, number: int) -> tuple[bytes, tuple[bytes, ...], bool]:
    """(answer, its pieces, whether a FIN follows) of this number."""
    chance = random.Random((seed << 32) + number)
    bent = chance.random() < 0.6
    data = b"".join(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" for _ in range(chance.random() < 0.1))
    data += _answer(chance, bent=bent)
    if chance.random() < 0.25:
        data = mutated(chance, data)
    return data, cut(chance, data), chance.random() < 0.7


def _answer(chance: random.Random, *, bent: bool) -> bytes:
    lines = [chance.choice(ODD_STATUS_LINES if bent and chance.random() < 0.1 else STATUS_LINES)]
    lines += [b"%b: %b" % header for header in chance.choices(HEADERS, k=chance.randrange(4))]
    if bent and chance.random() < 0.3:
        lines.append(b"%b: %b" % chance.choice(ODD_HEADERS))
    content = b"0123456789" * chance.randrange(4)
    kind = chance.random()
    if kind < 0.4:
        said = len(content) + (chance.choice((-1, 1, 5)) if bent and chance.random() < 0.1 else 0)
        lines.append(b"Content-Length: %d" % said)
    elif kind < 0.85:
        lines.append(b"Transfer-Encoding: chunked")
        content = _chunks(chance, bent=bent)
    ends = [b"\r\n"] * len(lines)
    if bent and chance.random() < 0.2:
        ends[chance.randrange(len(ends))] = chance.choice((b"\n", *LINE_ENDS))
    head = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    return head + (b"\n" if bent and chance.random() < 0.05 else b"\r\n") + content


def _chunks(chance: random.Random, *, bent: bool) -> bytes:
    parts = []
    for _ in range(chance.randrange(4)):
        piece = b"0123456789"[: chance.randrange(1, 9)]
        odd = bent and chance.random() < 0.1
        size = chance.choice(CHUNK_SIZES) if odd else b"%x" % len(piece)
        end = chance.choice(LINE_ENDS) if bent and chance.random() < 0.05 else b"\r\n"
        parts.append(size + (chance.choice(EXTENSIONS) if bent else b"") + end + piece + b"\r\n")
    trailer = chance.choice(TRAILERS) if bent and chance.random() < 0.2 else b""
    return b"".join(parts) + b"0\r\n" + trailer + b"\r\n"


@dataclass(frozen=True)
class Read:
    """An answer as a client reads it; ``whole``: it came to its end."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool


def _normal(data: bytes) -> bytes:
    """Without what the edge forgives and h11 does not: blanks behind a chunk's size (decision 0013), zeros in
    front of it, empty lines before a status line, and what stands for a reason phrase, which nobody is shown.
    """
    data = EMPTY_LINES.sub(b"", ODD_PHRASE.sub(rb"\1", data.lstrip(b"\r\n")))
    return LONG_CHUNK_SIZE.sub(rb"\r\n\1", BLANKS_BEHIND_SIZE.sub(rb"\1", data))


def read(data: bytes, *, ended: bool) -> Read | None:
    """h11's reading of the answer to a GET; None when it cannot read its head."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if ended:
        client.receive_data(b"")
    head: h11.Response | None = None
    body, whole = b"", False
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                whole = True
                break
            elif not isinstance(event, h11.InformationalResponse):
                break
    except h11.RemoteProtocolError:
        pass
    return None if head is None else Read(head.status_code, list(head.headers), body, whole)


_NOT_PASSED = frozenset(
    b"connection keep-alive alt-svc x-accel-redirect transfer-encoding content-length set-cookie trailer "
    b"upgrade proxy-connection te".split()
)


def _passed(one: Read) -> list[tuple[bytes, bytes]]:
    nominated = {
        part.strip(b" \t").lower() for n, v in one.headers if n == b"connection" for part in v.split(b",")
    }
    return [(n, v) for n, v in one.headers if n not in _NOT_PASSED and n not in nominated]


def verdict(data: bytes, out: bytes, *, closed: bool, ended: bool) -> str:
    """`compare` of the bytes as they are, else of both in their normal form: that would also change a body
    which only looks like the sizes of chunks.
    """
    try:
        return compare(data, read(out, ended=closed), ended=ended)
    except Finding:
        return compare(_normal(data), read(_normal(out), ended=closed), ended=ended)


def compare(data: bytes, seen: Read | None, *, ended: bool) -> str:
    """Finding when the visitor's answer is not the device's; else what became of it."""
    truth = read(data, ended=ended)
    if seen is None or not seen.whole:
        return "cut or waiting"
    if seen.status == 502:
        return "stricter" if truth is not None and truth.whole else "refused"
    if truth is None or not truth.whole:
        raise Finding(f"the visitor saw a whole answer, h11 reads none: {seen}")
    if (seen.status, seen.body) != (truth.status, truth.body):
        raise Finding(f"the visitor saw {seen}, h11 reads {truth}")
    if _passed(seen) != _passed(truth):
        raise Finding(f"headers {_passed(seen)} are not {_passed(truth)}")
    if any(_aims_elsewhere(value) for name, value in seen.headers if name == b"set-cookie"):
        raise Finding(f"a cookie that is not the device's: {seen.headers}")
    return "relayed"


def _aims_elsewhere(cookie: bytes) -> bool:
    """Whether a Set-Cookie names our cookie, or a Domain."""
    first, *attributes = [part.partition(b"=")[0].strip(b" \t").lower() for part in cookie.split(b";")]
    return first in OWN_COOKIES or b"domain" in attributes


async def fuzz(seed: int, answers: int) -> Counter[str]:
    """So many answers of this seed; Finding names the one."""
    edge, tally = MemoryEdge(), Counter[str]()
    for number in range(answers):
        data, pieces, ended = make(seed, number)
        try:
            out, closed = await edge.relay(pieces, ended=ended)
            tally[verdict(data, out, closed=closed, ended=ended)] += 1
        except Finding as finding:
            raise Finding(f"seed {seed}, answer {number}: {finding}\n{data!r}, ended {ended}") from finding
    return tally

"""What breaks HTTP gets an answer that says so, ends the connection, and never reaches a device."""

from __future__ import annotations

import re

import pytest

from tests.tunnel_server.conftest import LABEL, Stage
from tests.tunnel_server.doubles import answering

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOST = b"Host: %b.localhost\r\n" % LABEL.encode()
GET = b"GET / HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST

REFUSED = {
    "bare LF after the request line": (b"GET / HTTP/1.1\n" + HOST + b"\r\n", 400),
    "bare LF after a header": (GET + b"A: b\nC: d\r\n\r\n", 400),
    "bare CR in a header": (GET + b"A: b\rC: d\r\n\r\n", 400),
    "obs-fold": (GET + b"A: b\r\n c\r\n\r\n", 400),
    "space before the colon": (GET + b"A : b\r\n\r\n", 400),
    "NUL in a value": (GET + b"A: b\0c\r\n\r\n", 400),
    "no name": (GET + b": b\r\n\r\n", 400),
    "two Host": (GET + HOST + b"\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Content-Length": (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
    "Content-Length list": (POST + b"Content-Length: 1, 1\r\n\r\na", 400),
    "Content-Length with a sign": (POST + b"Content-Length: +1\r\n\r\na", 400),
    "Content-Length overflow": (POST + b"Content-Length: 99999999999999999999\r\n\r\na", 400),
    "CL.TE": (POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 400),
    "TE.CL": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG", 400),
    "TE.TE": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked in HTTP/1.0": (
        b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "absolute form of another host": (b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n", 421),
    "CONNECT": (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "TRACE": (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "fragment in the target": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "control character in the target": (b"GET /a\x01 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "upgrade with a body": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
        400,
    ),
    "unknown expectation": (POST + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417),
    "long target": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "head too long": (GET + b"A: " + b"a" * 70_000, 431),
    "one header in a thousand pieces": (GET + b"X-Forwarded-For: 1\r\n" * 1000 + b"\r\n", 431),
    "too many headers": (GET + b"A: b\r\n" * 300 + b"\r\n", 431),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_is_refused_and_ends_the_connection(stage: Stage, name: str) -> None:
    request, status = REFUSED[name]
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.send(request.replace(HOST, HOST + b"Cookie: towline_session=%b\r\n" % visitor.cookie, 1))
    answer = await visitor.was_cut()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nConnection: close\r\n" in answer
    assert len(re.findall(rb"HTTP/1\.1 \d", answer)) == 1
    assert not upstream.received


@pytest.mark.parametrize(
    "body",
    [
        b"1\nx\r\n0\r\n\r\n",
        b"0x1\r\nx\r\n0\r\n\r\n",
        b"1 \r\nx\r\n0\r\n\r\n",
        b"1\r\nxx\r\n0\r\n\r\n",
        b"-1\r\nx\r\n",
    ],
)
async def test_a_bad_chunk_ends_the_request_and_the_stream(stage: Stage, body: bytes) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get("/", "Transfer-Encoding: chunked", method="POST")
    visitor.send(body)
    answer = await visitor.was_cut()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
    assert b"\r\nConnection: close\r\n" in answer
    assert b"0\r\n\r\n" not in upstream.received


async def test_a_request_may_come_byte_by_byte(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    whole = b"GET /bytes HTTP/1.1\r\n%bCookie: towline_session=%b\r\nX-Empty:\r\n\r\n" % (
        HOST,
        visitor.cookie,
    )
    for index in range(len(whole)):
        visitor.send(whole[index : index + 1])
        await visitor.writer.drain()
    head, body = await visitor.response()
    assert (head[:12], body) == (b"HTTP/1.1 200", b"ok")
    assert bytes(upstream.received) == b"GET /bytes HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Empty: \r\n\r\n"


async def test_trailers_and_chunk_extensions_stay_behind(stage: Stage) -> None:
    async def script(upstream, reader, writer):  # type: ignore[no-untyped-def]
        await upstream.head(reader)
        upstream.received += await reader.readuntil(b"0\r\n\r\n")
        writer.write(OK)

    upstream = await stage.serve(script)
    visitor = await stage.visitor()
    visitor.get("/", "Transfer-Encoding: chunked", "Trailer: X-T", method="POST")
    visitor.send(b"3;a=b\r\nabc\r\n0\r\nX-T: evil\r\n\r\n")
    head, _ = await visitor.response()
    assert head.startswith(b"HTTP/1.1 200")
    assert bytes(upstream.received).endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

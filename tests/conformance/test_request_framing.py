"""Requests seen by the device = requests accepted at the edge, for every trick with framing known to us.

Each refused request is followed, in the same write, by one that would be served if the connection lived on.
"""

from __future__ import annotations

import re

import pytest

from tests.conformance.requests import CHUNKED, END, GET, POST, SMUGGLED, body, sent
from tests.conformance.world import HOST, Visitor, World

# name → (start line, headers beside Host and Cookie, bytes behind the head), status
REFUSED: dict[str, tuple[tuple[bytes, list[bytes], bytes], int]] = {
    # Two lengths
    "CL.TE": (body(POST, [b"Content-Length: 6", CHUNKED], END + b"G"), 400),
    "TE.CL": (body(POST, [CHUNKED, b"Content-Length: 4"], b"1\r\nZ\r\n" + END), 400),
    "CL 0 and TE": (body(POST, [b"Content-Length: 0", CHUNKED], END), 400),
    "TE identity and CL": (body(POST, [b"Transfer-Encoding: identity", b"Content-Length: 1"], b"a"), 400),
    # Content-Length
    "CL twice, equal": (body(POST, [b"Content-Length: 1", b"Content-Length: 1"], b"a"), 400),
    "CL twice, different": (body(POST, [b"Content-Length: 0", b"Content-Length: 1"], b"a"), 400),
    "CL list": (body(POST, [b"Content-Length: 1, 1"], b"a"), 400),
    "CL list without blank": (body(POST, [b"Content-Length: 1,1"], b"a"), 400),
    "CL with plus": (body(POST, [b"Content-Length: +1"], b"a"), 400),
    "CL negative": (body(POST, [b"Content-Length: -1"], b"a"), 400),
    "CL hex": (body(POST, [b"Content-Length: 0x1"], b"a"), 400),
    "CL octal-like letter": (body(POST, [b"Content-Length: 1a"], b"a"), 400),
    "CL with underscore": (body(POST, [b"Content-Length: 1_0"], b"a"), 400),
    "CL with blank inside": (body(POST, [b"Content-Length: 1 0"], b"a"), 400),
    "CL fraction": (body(POST, [b"Content-Length: 1.0"], b"a"), 400),
    "CL quoted": (body(POST, [b'Content-Length: "1"'], b"a"), 400),
    "CL empty": (body(POST, [b"Content-Length:"], b"a"), 400),
    "CL blank": (body(POST, [b"Content-Length:  "], b"a"), 400),
    "CL over 64 bit": (body(POST, [b"Content-Length: 18446744073709551617"], b"a"), 400),
    "CL far over": (body(POST, [b"Content-Length: " + b"9" * 400], b"a"), 400),
    "CL arabic digits": (body(POST, [b"Content-Length: \xd9\xa1"], b"a"), 400),
    # Transfer-Encoding
    "TE xchunked": (body(POST, [b"Transfer-Encoding: xchunked"], END), 501),
    "TE chunkedx": (body(POST, [b"Transfer-Encoding: chunkedx"], END), 501),
    "TE chunked, identity": (body(POST, [b"Transfer-Encoding: chunked, identity"], END), 400),
    "TE identity, chunked": (body(POST, [b"Transfer-Encoding: identity, chunked"], END), 501),
    "TE gzip, chunked": (body(POST, [b"Transfer-Encoding: gzip, chunked"], END), 501),
    "TE identity": (body(POST, [b"Transfer-Encoding: identity"], END), 501),
    "TE twice": (body(POST, [CHUNKED, CHUNKED], END), 400),
    "TE twice, second other": (body(POST, [CHUNKED, b"Transfer-Encoding: identity"], END), 400),
    "TE twice, first other": (body(POST, [b"Transfer-Encoding: x", CHUNKED], END), 501),
    "TE list of one with comma": (body(POST, [b"Transfer-Encoding: ,chunked"], END), 501),
    "TE with trailing comma": (body(POST, [b"Transfer-Encoding: chunked,"], END), 400),
    "TE with parameter": (body(POST, [b"Transfer-Encoding: chunked;q=1"], END), 501),
    "TE quoted": (body(POST, [b'Transfer-Encoding: "chunked"'], END), 501),
    "TE empty": (body(POST, [b"Transfer-Encoding:"], END), 400),
    "TE vertical tab": (body(POST, [b"Transfer-Encoding: \x0bchunked"], END), 400),
    "TE form feed behind": (body(POST, [b"Transfer-Encoding: chunked\x0c"], END), 400),
    "TE with a tab behind": (body(POST, [b"Transfer-Encoding: chunked\t"], END), 400),
    "TE on two lines": (body(POST, [b"Transfer-Encoding:\r\n chunked"], END), 400),
    "TE with blank before colon": (body(POST, [b"Transfer-Encoding : chunked"], END), 400),
    "TE behind a bare CR": (body(POST, [b"X: a\rTransfer-Encoding: chunked"], END), 400),
    "TE behind a bare LF": (body(POST, [b"X: a\nTransfer-Encoding: chunked"], END), 400),
    "TE in HTTP/1.0": (body(b"POST / HTTP/1.0", [CHUNKED], END), 501),
    # Lines
    "bare LF after the request line": (body(b"GET / HTTP/1.1\nX: y", [], b""), 400),
    "bare LF after a header": (body(GET, [b"A: b\nC: d"], b""), 400),
    "bare CR in a value": (body(GET, [b"A: b\rC: d"], b""), 400),
    "bare CR as a line's end": (body(GET, [b"A: b\r\rC: d"], b""), 400),
    "obs-fold": (body(GET, [b"A: b", b" c"], b""), 400),
    "obs-fold by tab": (body(GET, [b"A: b", b"\tc"], b""), 400),
    "obs-fold of the first header": (body(GET + b"\r\n X: y", [], b""), 400),
    "blank before the colon": (body(GET, [b"A : b"], b""), 400),
    "tab before the colon": (body(GET, [b"A\t: b"], b""), 400),
    "no colon": (body(GET, [b"Abc"], b""), 400),
    "no name": (body(GET, [b": b"], b""), 400),
    "NUL in a name": (body(GET, [b"A\0B: c"], b""), 400),
    "NUL in a value": (body(GET, [b"A: b\0c"], b""), 400),
    "control byte in a value": (body(GET, [b"A: b\x1bc"], b""), 400),
    "DEL in a value": (body(GET, [b"A: b\x7fc"], b""), 400),
    "8 bit in a name": (body(GET, [b"\xc3\xa9: c"], b""), 400),
    "separator in a name": (body(GET, [b"A(B): c"], b""), 400),
    # The request line
    "NUL in the target": (body(b"GET /\0 HTTP/1.1", [], b""), 400),
    "control byte in the target": (body(b"GET /a\x01 HTTP/1.1", [], b""), 400),
    "DEL in the target": (body(b"GET /a\x7f HTTP/1.1", [], b""), 400),
    "8 bit in the target": (body(b"GET /\xc3\xa9 HTTP/1.1", [], b""), 400),
    "tab in the target": (body(b"GET /a\tb HTTP/1.1", [], b""), 400),
    "blank in the target": (body(b"GET /a b HTTP/1.1", [], b""), 400),
    "fragment in the target": (body(b"GET /a#b HTTP/1.1", [], b""), 400),
    "target without slash": (body(b"GET a HTTP/1.1", [], b""), 400),
    "target is a query": (body(b"GET ?a HTTP/1.1", [], b""), 400),
    "no target": (body(b"GET HTTP/1.1", [], b""), 400),
    "asterisk with GET": (body(b"GET * HTTP/1.1", [], b""), 421),
    "absolute form, other host": (body(b"GET http://evil.example/ HTTP/1.1", [], b""), 421),
    "absolute form, other port": (body(b"GET http://" + HOST + b":1/ HTTP/1.1", [], b""), 421),
    "absolute form, user info": (body(b"GET http://u:p@" + HOST + b"/ HTTP/1.1", [], b""), 421),
    "absolute form, other scheme": (body(b"GET ftp://" + HOST + b"/ HTTP/1.1", [], b""), 421),
    "absolute form without host": (body(b"GET http:/// HTTP/1.1", [], b""), 421),
    "CONNECT": (body(b"CONNECT 127.0.0.1:22 HTTP/1.1", [], b""), 405),
    "CONNECT to ourselves": (body(b"CONNECT " + HOST + b":80 HTTP/1.1", [], b""), 405),
    "TRACE": (body(b"TRACE / HTTP/1.1", [], b""), 405),
    "method nobody knows": (body(b"FOO / HTTP/1.1", [], b""), 400),
    "method in lower case": (body(b"get / HTTP/1.1", [], b""), 400),
    "method with a separator": (body(b"GE:T / HTTP/1.1", [], b""), 400),
    "method of another protocol": (body(b"M-SEARCH / HTTP/1.1", [], b""), 405),
    "LINK is not served": (body(b"LINK / HTTP/1.1", [], b""), 405),
    "tab behind the method": (body(b"GET\t/ HTTP/1.1", [], b""), 400),
    "blank behind the version": (body(b"GET / HTTP/1.1 ", [], b""), 400),
    "tab before the version": (body(b"GET /\tHTTP/1.1", [], b""), 400),
    "HTTP/0.9": (body(b"GET /", [], b""), 505),
    "HTTP/0.9 said aloud": (body(b"GET / HTTP/0.9", [], b""), 505),
    "HTTP/1.2": (body(b"GET / HTTP/1.2", [], b""), 400),
    "HTTP/2.0": (body(b"GET / HTTP/2.0", [], b""), 505),
    "HTTP/11": (body(b"GET / HTTP/11", [], b""), 400),
    "HTTP/1.1 in lower case": (body(b"GET / http/1.1", [], b""), 400),
    "HTTP/01.1": (body(b"GET / HTTP/01.1", [], b""), 400),
    "HTTP/1.10": (body(b"GET / HTTP/1.10", [], b""), 400),
    "RTSP/1.0": (body(b"GET / RTSP/1.0", [], b""), 400),
    "RTSP/1.1": (body(b"GET / RTSP/1.1", [], b""), 400),
    "RTSP/1.1, kept alive": (body(b"GET / RTSP/1.1", [b"Connection: keep-alive"], b""), 400),
    "RTSP/2.0": (body(b"GET / RTSP/2.0", [], b""), 400),
    "RTSP/0.9": (body(b"GET / RTSP/0.9", [], b""), 400),
    "RTSP in lower case": (body(b"GET / rtsp/1.0", [], b""), 400),
    "RTSP in mixed case": (body(b"GET / Rtsp/1.0", [], b""), 400),
    "RTSP behind many blanks": (body(b"GET   /    RTSP/1.1", [], b""), 400),
    "RTSP behind a line that says HTTP": (
        body(b"GET / RTSP/1.1", [b"X: GET / HTTP/1.1", b"GET: / HTTP/1.1"], b""),
        400,
    ),
    "RTSP for a target that ends in HTTP": (body(b"GET /HTTP/ RTSP/1.1", [], b""), 400),
    "RTSP by POST": (body(b"POST / RTSP/1.1", [b"Content-Length: 1"], b"a"), 400),
    "RTSP in chunks": (body(b"POST / RTSP/1.1", [CHUNKED], b"1\r\na\r\n" + END), 400),
    "RTSP by OPTIONS": (body(b"OPTIONS * RTSP/1.0", [], b""), 400),
    "RTSP, a method of its own": (body(b"DESCRIBE / RTSP/1.0", [], b""), 400),
    "RTSP, absolute form": (body(b"GET http://" + HOST + b"/ RTSP/1.0", [], b""), 400),
    "RTSP, its own scheme": (body(b"GET rtsp://" + HOST + b"/ RTSP/1.0", [], b""), 400),
    "RTSP, WebSocket": (
        body(
            b"GET / RTSP/1.1",
            [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + b"A" * 22 + b"=="],
            b"",
        ),
        400,
    ),
    "ICE/1.0": (body(b"SOURCE / ICE/1.0", [], b""), 400),
    "ICE/1.1": (body(b"SOURCE / ICE/1.1", [], b""), 400),
    "ICE with a method of HTTP": (body(b"GET / ICE/1.0", [], b""), 400),
    "the method of ICE in HTTP": (body(b"SOURCE / HTTP/1.1", [], b""), 405),
    "SIP/2.0": (body(b"OPTIONS / SIP/2.0", [], b""), 400),
    # Host
    "Host twice, equal": (body(GET, [b"Host: " + HOST], b""), 400),
    "Host twice, different": (body(GET, [b"Host: evil.example"], b""), 400),
    "Host twice in other case": (body(GET, [b"hOST: " + HOST], b""), 400),
    # Expect, Upgrade, size
    "unknown expectation": (body(POST, [b"Expect: 200-ok", b"Content-Length: 1"], b"a"), 417),
    "two expectations": (body(POST, [b"Expect: 100-continue, x", b"Content-Length: 1"], b"a"), 417),
    "upgrade with a body": (
        body(POST, [b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 3"], b"abc"),
        400,
    ),
    "WebSocket by POST": (
        body(
            b"POST / HTTP/1.1",
            [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + b"A" * 22 + b"=="],
            b"",
        ),
        400,
    ),
    "two WebSocket keys": (
        body(
            GET,
            [b"Connection: Upgrade", b"Upgrade: websocket"]
            + [b"Sec-WebSocket-Key: " + b"A" * 22 + b"=="] * 2,
            b"",
        ),
        400,
    ),
    "short WebSocket key": (
        body(GET, [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: abc"], b""),
        400,
    ),
    "two Origins": (body(GET, [b"Origin: http://" + HOST, b"Origin: http://evil.example"], b""), 400),
    "long target": (body(b"GET /" + b"a" * 20_000 + b" HTTP/1.1", [], b""), 414),
    "one long header": (body(GET, [b"A: " + b"a" * 70_000], b""), 431),
    "one long name": (body(GET, [b"A" * 70_000 + b": a"], b""), 431),
    "too many headers": (body(GET, [b"A: b"] * 300, b""), 431),
    "one header in a thousand pieces": (body(GET, [b"X-Forwarded-For: 1"] * 1_000, b""), 431),
    "a cookie in a thousand pieces": (body(GET, [b"Cookie: a=b"] * 1_000, b""), 431),
}

# Bytes that have no head of ours at all.
REFUSED_RAW = {
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40), 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no Host in HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 400),
    "absolute form needs Host too": (b"GET http://" + HOST + b"/ HTTP/1.1\r\n\r\n", 400),
    "NUL first": (b"\0GET / HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n", 400),
    "blank first": (b" GET / HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n", 400),
    "PROXY header of nobody we trust": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n\r\n", 400),
}

# Other Hosts are answered, not refused: the request is well-formed, so the connection lives on.
WRONG_HOSTS = [
    b"",
    b"evil.example",
    b"localhost",
    b"u@" + HOST,
    b"u:p@" + HOST,
    HOST + b".",
    HOST + b":x",
    HOST + b":123456",
    HOST + b"/",
    HOST + b"," + HOST,
    HOST + b" " + HOST,
    b"x." + HOST,
    b"[" + HOST + b"]",
    b"\xff" + HOST,
]

BAD_CHUNKS = {
    "bare LF behind the size": b"1\nx\r\n0\r\n\r\n",
    "bare CR behind the size": b"1\rx\r\n0\r\n\r\n",
    "bare LF behind the data": b"1\r\nx\n0\r\n\r\n",
    "no CRLF behind the data": b"1\r\nx0\r\n\r\n",
    "more data than said": b"1\r\nxx\r\n0\r\n\r\n",
    "0x": b"0x1\r\nx\r\n0\r\n\r\n",
    "sign": b"+1\r\nx\r\n0\r\n\r\n",
    "negative": b"-1\r\nx\r\n0\r\n\r\n",
    "blank behind": b"1 \r\nx\r\n0\r\n\r\n",
    "blank before": b" 1\r\nx\r\n0\r\n\r\n",
    "no size": b"\r\nx\r\n0\r\n\r\n",
    "no size but extension": b";a=b\r\nx\r\n0\r\n\r\n",
    "17 digits": b"1" + b"0" * 16 + b"\r\nx\r\n0\r\n\r\n",
    "overflow to one": b"10000000000000001\r\nx\r\n0\r\n\r\n",
    "underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "bare LF in an extension": b"1;a\nx\r\n0\r\n\r\n",
    "bare LF in a quoted extension": b'1;a="\n"\r\nx\r\n0\r\n\r\n',
    "bare LF behind the last": b"1\r\nx\r\n0\n\n",
    "bare LF in a trailer": b"1\r\nx\r\n0\r\nA: b\n\r\n",
    "obs-fold in a trailer": b"1\r\nx\r\n0\r\nA: b\r\n c\r\n\r\n",
    "trailer without colon": b"1\r\nx\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    "Content-Length as a trailer": b"1\r\nx\r\n0\r\nContent-Length: 5\r\n\r\n",
    "Transfer-Encoding as a trailer": b"1\r\nx\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a flood of extensions": (b"1;" + b"a" * 30_000 + b"\r\nx\r\n") * 10 + END,
    "a flood of trailers": b"1\r\nx\r\n0\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
}


def refused_with(world: World, visitor: Visitor, status: int) -> None:
    """One answer, the connection's end, and nothing at the device."""
    answer, _ = visitor.until_end()
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert b"\r\nConnection: close\r\n" in answer
    assert len(re.findall(rb"HTTP/1\.[01] \d", answer)) == 1
    world.settle()
    assert [seen.target for seen in world.service.requests] == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_two_readings_reaches_nobody(world: World, name: str) -> None:
    case, status = REFUSED[name]
    with world.visitor() as visitor:
        visitor.send(sent(visitor, case) + visitor.head_of(SMUGGLED))
        refused_with(world, visitor, status)


@pytest.mark.parametrize("name", REFUSED_RAW)
def test_what_is_no_request_reaches_nobody(world: World, name: str) -> None:
    data, status = REFUSED_RAW[name]
    with world.visitor() as visitor:
        visitor.send(data + visitor.head_of(SMUGGLED))
        refused_with(world, visitor, status)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_does_not_depend_on_how_the_bytes_arrive(world: World, name: str) -> None:
    case, status = REFUSED[name]
    with world.visitor() as visitor:
        data = sent(visitor, case)
        middle = data.find(b"\r\n") + 1  # between CR and LF of the first line
        visitor.send(data[:middle])
        visitor.send(data[middle:-1])
        visitor.send(data[-1:] + visitor.head_of(SMUGGLED))
        refused_with(world, visitor, status)


@pytest.mark.parametrize("line", [b"GET /a RTSP/1.1", b"GET  /HTTP/ RTSP/1.0", b"SOURCE /a ICE/1.1"])
def test_another_protocol_is_refused_byte_by_byte(world: World, line: bytes) -> None:
    with world.visitor() as visitor:
        for byte in b"\r\n" + visitor.head_of(line):
            visitor.send(bytes((byte,)))
        visitor.send(visitor.head_of(SMUGGLED))
        refused_with(world, visitor, 400)


@pytest.mark.parametrize("content", [b"", b"POST / HTTP/1.1", b"12345GET /a HTTP/1.1\r\n", b"x" * 70_000])
def test_another_protocol_is_refused_behind_a_request_of_http(world: World, content: bytes) -> None:
    """Also where it follows a body that says HTTP in its place, in the same read or in a later one."""
    with world.visitor() as visitor:
        length = b"Content-Length: %d" % len(content)
        first = visitor.head_of(b"POST / HTTP/1.1", b"Sec-Fetch-Site: same-origin", length) + content
        visitor.send(first + visitor.head_of(b"GET /a RTSP/1.1") + visitor.head_of(SMUGGLED))
        answers, _ = visitor.until_end()
        world.settle()
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert answers.endswith(b"\r\n\r\nok")
    assert len(re.findall(rb"HTTP/1\.[01] \d", answers)) == 1
    assert [(seen.target, bytes(seen.body)) for seen in world.service.requests] == [(b"/", content)]


def test_the_name_of_another_protocol_may_stand_elsewhere(world: World) -> None:
    agent, content = b"User-Agent: LIVE555 RTSP/1.0", b"GET / RTSP/1.0\r\nPOST /other RTSP/1.0\r\n"
    length = b"Content-Length: %d" % len(content)
    with world.visitor() as visitor:
        data = visitor.head_of(b"POST /a HTTP/1.1", b"Sec-Fetch-Site: same-origin", agent, length) + content
        visitor.send(data)
        assert visitor.response()[1] == b"ok"
        visitor.send(data[:20])
        visitor.send(data[20:])
        assert visitor.response()[1] == b"ok"
        visitor.send(visitor.head_of(b"GET  /RTSP/1.0?a=RTSP/1.0  HTTP/1.1", agent))
        assert visitor.response()[1] == b"ok"
        world.settle()
    assert [(seen.target, bytes(seen.body)) for seen in world.service.requests] == [
        (b"/a", content),
        (b"/a", content),
        (b"/RTSP/1.0?a=RTSP/1.0", b""),
    ]


@pytest.mark.parametrize("host", WRONG_HOSTS)
def test_another_host_is_no_session_of_ours(world: World, host: bytes) -> None:
    with world.visitor() as visitor:
        cookie = b"Cookie: towline_session=" + visitor.cookie
        visitor.send(b"\r\n".join([GET, b"Host: " + host, cookie, b"", b""]))
        assert visitor.response()[0].startswith(b"HTTP/1.1 421 ")
        visitor.get(b"/next")
        assert visitor.response()[1] == b"ok"
        world.settle()
    assert [seen.target for seen in world.service.requests] == [b"/next"]


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_bad_chunk_ends_the_connection_and_the_devices_request(world: World, name: str) -> None:
    with world.visitor() as visitor:
        visitor.get(b"/", CHUNKED, method=b"POST")
        visitor.send(BAD_CHUNKS[name] + visitor.head_of(SMUGGLED))
        answer, _ = visitor.until_end()
        assert answer.startswith(b"HTTP/1.1 400 "), answer[:300]
        assert len(re.findall(rb"HTTP/1\.[01] \d", answer)) == 1
        world.settle()
    assert [seen.target for seen in world.service.requests if seen.complete] == []
    assert [seen.target for seen in world.service.requests] in ([], [b"/"])


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ([b"Content-Length: 10"], b"abc"),
        ([CHUNKED], b"5\r\nabc"),
        ([CHUNKED], b"3\r\nabc\r\n"),
        ([CHUNKED], b"3\r\nabc\r\n0\r\n"),
        ([CHUNKED], b"3\r\nabc\r\n0\r\nA: b\r\n"),
        ([], None),
    ],
)
def test_a_request_that_ends_too_soon_is_never_whole_at_the_device(
    world: World, headers: list[bytes], content: bytes | None
) -> None:
    with world.visitor() as visitor:
        if content is None:
            visitor.send(visitor.head_of(GET)[:-2])
        else:
            visitor.get(b"/", *headers, method=b"POST")
            visitor.send(content)
        visitor.finish()
        answer, _ = visitor.until_end()
        assert answer == b""
    world.settle()
    assert [seen for seen in world.service.requests if seen.complete] == []

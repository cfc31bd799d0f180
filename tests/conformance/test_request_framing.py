"""Requests seen by the device = requests accepted at the edge, for every trick with framing known to us.

Each refused request is followed, in the same write, by one that would be served if the connection lived on.
"""

from __future__ import annotations

import re

import pytest

from tests.conformance.world import HOST, Visitor, World

GET, POST = b"GET / HTTP/1.1", b"POST / HTTP/1.1"
CHUNKED = b"Transfer-Encoding: chunked"
END = b"0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1"


def body(line: bytes, headers: list[bytes], content: bytes) -> tuple[bytes, list[bytes], bytes]:
    """A request with a body: start line, its headers, what follows."""
    return line, headers, content


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


def sent(visitor: Visitor, case: tuple[bytes, list[bytes], bytes]) -> bytes:
    line, headers, content = case
    origin = [] if any(h.startswith(b"Origin") for h in headers) else [b"Origin: http://" + HOST]
    if len(headers) > 100:
        origin = []
    return visitor.head_of(line, *origin, *headers) + content


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


def golden(world: World, line: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([line, b"Host: " + world.address.encode(), *lines, b"", b""])


ACCEPTED: dict[str, tuple[tuple[bytes, list[bytes], bytes], list[bytes], bytes]] = {
    # name → (as sent), header lines of the device's head behind Host, body
    "chunked with a tab": (body(POST, [b"Transfer-Encoding:\tchunked"], END), [CHUNKED], b""),
    "chunked in capitals": (body(POST, [b"Transfer-Encoding: CHUNKED"], END), [CHUNKED], b""),
    "chunked with blanks around": (body(POST, [b"Transfer-Encoding:  chunked  "], END), [CHUNKED], b""),
    "name in capitals": (body(POST, [b"TRANSFER-ENCODING: chunked"], END), [CHUNKED], b""),
    "leading zeros": (body(POST, [b"Content-Length: 003"], b"abc"), [b"Content-Length: 3"], b"abc"),
    "blank behind the length": (body(POST, [b"Content-Length: 3 "], b"abc"), [b"Content-Length: 3"], b"abc"),
    "no body said": (body(POST, [], b""), [], b""),
    "length 0": (body(POST, [b"Content-Length: 0"], b""), [b"Content-Length: 0"], b""),
    "a GET with a body": (body(GET, [b"Content-Length: 3"], b"abc"), [b"Content-Length: 3"], b"abc"),
    "chunks with extensions": (
        body(POST, [CHUNKED], b'3;a=b\r\nabc\r\n1;c="\\" d"\r\nd\r\n' + END),
        [CHUNKED],
        b"abcd",
    ),
    "chunk size with leading zeros": (body(POST, [CHUNKED], b"0003\r\nabc\r\n" + END), [CHUNKED], b"abc"),
    "chunk size in capitals": (body(POST, [CHUNKED], b"A\r\n0123456789\r\n" + END), [CHUNKED], b"0123456789"),
    "trailers": (
        body(POST, [CHUNKED, b"Trailer: X-T"], b"3\r\nabc\r\n0\r\nX-T: evil\r\n\r\n"),
        [CHUNKED],
        b"abc",
    ),
    "trailers that would matter as headers": (
        body(POST, [CHUNKED], b"0\r\nHost: evil\r\nCookie: a\r\nX-Forwarded-For: 1\r\n\r\n"),
        [CHUNKED],
        b"",
    ),
    "8 bit in a value": (body(GET, [b"X: \xc3\xa9"], b""), [b"X: \xc3\xa9"], b""),
    "tab in a value": (body(GET, [b"X: a\tb"], b""), [b"X: a\tb"], b""),
    "empty value": (body(GET, [b"X:"], b""), [b"X: "], b""),
    "blanks before a value": (body(GET, [b"X: \t a"], b""), [b"X: a"], b""),
    "a value that looks like a header": (body(GET, [b"X: Host: evil"], b""), [b"X: Host: evil"], b""),
    "any token is a name": (body(GET, [b"!#$%&'*+-.^`|~1a: x"], b""), [b"!#$%&'*+-.^`|~1a: x"], b""),
    "absolute form of this host": (body(b"GET http://" + HOST + b"/a?b HTTP/1.1", [], b""), [], b""),
    "expect with a body": (
        body(POST, [b"Expect: 100-Continue", b"Content-Length: 1"], b"a"),
        [b"Content-Length: 1", b"Expect: 100-continue"],
        b"a",
    ),
    "expect without a body": (body(GET, [b"Expect: 100-continue"], b""), [], b""),
    "h2c": (
        body(GET, [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"], b""),
        [],
        b"",
    ),
    "upgrade without Connection": (body(GET, [b"Upgrade: websocket"], b""), [], b""),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_has_one_reading_arrives_in_canonical_form(world: World, name: str) -> None:
    case, lines, content = ACCEPTED[name]
    line = case[0]
    target = b"/a?b" if b"http://" in line else b"/"
    with world.visitor() as visitor:
        method = line.partition(b" ")[0]
        data = visitor.head_of(line, *case[1], *([b"Sec-Fetch-Site: none"] if method == b"POST" else []))
        visitor.send(data + case[2] + visitor.head_of(b"GET /second HTTP/1.1"))
        head = visitor.head()
        if head.startswith(b"HTTP/1.1 100 "):
            head = visitor.head()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert visitor.exactly(2) == b"ok"
        assert visitor.response()[1] == b"ok"
        world.settle()
    first, second = world.service.requests
    fetch = [b"Sec-Fetch-Site: none"] if method == b"POST" else []
    plain = [one for one in lines if not one.startswith((b"Content-Length", b"Transfer", b"Expect"))]
    framing = [one for one in lines if one not in plain]
    assert first.head == golden(world, method + b" " + target + b" HTTP/1.1", *plain, *fetch, *framing)
    assert bytes(first.body) == content
    assert second.head == golden(world, b"GET /second HTTP/1.1")


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"//",
        b"//evil.example/x",
        b"/%2e%2e/%2E%2e/etc",
        b"/../../etc/passwd",
        b"/a/./b/../c",
        b"/a%2fb%2Fc",
        b"/a;b=c;d",
        b"/a?b?c&d=%00%0d%0a",
        b"/?",
        b"/a\\b",
        b'/{}|^`"<>',
        b"/%zz%",
        b"/http://evil.example/",
        b"/.towlinex",
        b"/%2etowline/open",
        b"/:80",
        b"/@x",
        b"/~u",
    ],
)
def test_a_path_passes_byte_for_byte(world: World, target: bytes) -> None:
    with world.visitor() as visitor:
        visitor.get(target)
        assert visitor.response()[1] == b"ok"
    assert [seen.head for seen in world.service.requests] == [golden(world, b"GET " + target + b" HTTP/1.1")]


def test_options_of_the_whole_service(world: World) -> None:
    with world.visitor() as visitor:
        visitor.get(b"*", method=b"OPTIONS")
        assert visitor.response()[1] == b"ok"
    assert world.service.requests[0].head == golden(world, b"OPTIONS * HTTP/1.1")


@pytest.mark.parametrize(
    "method",
    b"GET HEAD POST PUT PATCH DELETE OPTIONS PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT "
    b"QUERY".split(),
)
def test_methods_that_pages_use_pass(world: World, method: bytes) -> None:
    with world.visitor() as visitor:
        visitor.get(b"/", b"Sec-Fetch-Site: same-origin", method=method)
        assert visitor.head().startswith(b"HTTP/1.1 200 ")
        if method != b"HEAD":
            assert visitor.exactly(2) == b"ok"
        visitor.get(b"/next")
        assert visitor.response()[1] == b"ok"
    assert [seen.method for seen in world.service.requests] == [method, b"GET"]


def test_a_request_may_come_byte_by_byte(world: World) -> None:
    with world.visitor() as visitor:
        origin = b"Origin: http://" + HOST
        whole = (
            visitor.head_of(b"POST /bytes HTTP/1.1", origin, b"X-Empty:", CHUNKED) + b"3;x\r\nabc\r\n" + END
        )
        for index in range(len(whole)):
            visitor.send(whole[index : index + 1])
        assert visitor.response()[1] == b"ok"
    (seen,) = world.service.requests
    assert seen.head == golden(
        world, b"POST /bytes HTTP/1.1", b"X-Empty: ", b"Origin: http://" + world.address.encode(), CHUNKED
    )
    assert bytes(seen.body) == b"abc"


def test_pipelined_requests_are_served_in_order_each_once(world: World) -> None:
    with world.visitor() as visitor:
        heads = [visitor.head_of(b"GET /%d HTTP/1.1" % number) for number in range(30)]
        visitor.send(b"".join(heads))
        for _ in heads:
            assert visitor.response()[1] == b"ok"
    assert [seen.target for seen in world.service.requests] == [b"/%d" % number for number in range(30)]


def test_nothing_is_served_behind_connection_close(world: World) -> None:
    with world.visitor() as visitor:
        visitor.send(visitor.head_of(GET, b"Connection: close") + visitor.head_of(SMUGGLED))
        answer, _ = visitor.until_end()
        assert answer.count(b"HTTP/1.1 ") == 1
        world.settle()
    assert [seen.target for seen in world.service.requests] == [b"/"]


def test_empty_lines_before_a_request_are_skipped(world: World) -> None:
    with world.visitor() as visitor:
        visitor.send(b"\r\n\r\n" + visitor.head_of(GET))
        assert visitor.response()[1] == b"ok"
    assert [seen.target for seen in world.service.requests] == [b"/"]


@pytest.mark.parametrize("path", [b"/.towline/nothing", b"/"])
def test_nothing_is_served_behind_an_answer_that_came_before_its_body(world: World, path: bytes) -> None:
    """Our answer ends the connection, and what follows in the same read is no request any more."""
    foreign = b"Origin: http://evil.example"
    with world.visitor() as visitor:
        visitor.get(b"/first")  # from here on the session is known, and the answer comes within the read
        assert visitor.response()[1] == b"ok"
        visitor.send(
            visitor.head_of(b"POST " + path + b" HTTP/1.1", foreign, b"Content-Length: 3")
            + b"abc"
            + visitor.head_of(SMUGGLED)
        )
        answer, _ = visitor.until_end()
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"\r\nConnection: close\r\n" in answer
        world.settle()
    assert [seen.target for seen in world.service.requests] == [b"/first"]

"""What arrives at the device of a request that has one reading: all of it, once, in canonical form."""

from __future__ import annotations

import pytest

from tests.conformance.requests import CHUNKED, END, GET, POST, SMUGGLED, body
from tests.conformance.world import HOST, World


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

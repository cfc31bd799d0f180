"""What a hostile or broken service of a device can do with its answers: nothing beyond its own request.

For each: the visitor sees an error or a cut, never a wrong body that looks whole; the stream is not used
again; the same visitor's next request and another session are served as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conformance.service import OK, Answer
from tests.conformance.world import HOST, Visitor, World

LINE = b"HTTP/1.1 200 OK\r\n"
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n\r\n"
TEN = LINE + b"Content-Length: 10\r\n\r\n"
LAST = b"2\r\nok\r\n0\r\n\r\n"
SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

# Before a byte went to the visitor: 502.
BROKEN = {
    "no HTTP": b"nonsense\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "SSH": b"SSH-2.0-dropbear\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x16",
    "version 2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "version 0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "version 1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "version in lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "ICY": b"ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "negative status": b"HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
    "bare LF and two lengths": b"HTTP/1.1 200 OK\nContent-Length: 2\nTransfer-Encoding: chunked\n\n0\n\n",
    "bare LF and obs-fold": b"HTTP/1.1 200 OK\nA: b\n c\nContent-Length: 2\n\nok",
    "CR CR LF": LINE + b"A: b\r\r\nContent-Length: 2\r\n\r\nok",
    "bare CR in a value": LINE + b"A: b\rSet-Cookie: c\r\nContent-Length: 2\r\n\r\nok",
    "obs-fold": LINE + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
    "blank before the colon": LINE + b"Content-Length : 2\r\n\r\nok",
    "no colon": LINE + b"Content-Length 2\r\n\r\nok",
    "no name": LINE + b": a\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a value": LINE + b"A: b\0c\r\nContent-Length: 2\r\n\r\nok",
    "NUL in a name": LINE + b"A\0B: c\r\nContent-Length: 2\r\n\r\nok",
    "control byte in a value": LINE + b"A: b\x01c\r\nContent-Length: 2\r\n\r\nok",
    "8 bit in a name": LINE + b"\xc3\xa9: c\r\nContent-Length: 2\r\n\r\nok",
    "CL and TE": LINE + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE and CL": LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
    "CL twice, different": LINE + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "CL twice, equal": LINE + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "CL list": LINE + b"Content-Length: 2, 2\r\n\r\nab",
    "CL with plus": LINE + b"Content-Length: +2\r\n\r\nab",
    "CL negative": LINE + b"Content-Length: -2\r\n\r\nab",
    "CL hex": LINE + b"Content-Length: 0x2\r\n\r\nab",
    "CL empty": LINE + b"Content-Length:\r\n\r\nab",
    "CL over 64 bit": LINE + b"Content-Length: 18446744073709551618\r\n\r\nab",
    "TE gzip": LINE + b"Transfer-Encoding: gzip\r\n\r\nabc",
    "TE gzip, chunked": LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE identity": LINE + b"Transfer-Encoding: identity\r\n\r\nabc",
    "TE chunked, identity": LINE + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "TE twice": LINE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE xchunked": LINE + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\n\r\nraw",
    "101 with everything, unasked": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nraw"
    ),
    "101 to h2c": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nPRI",
    "a flood of 1xx": b"HTTP/1.1 102 Processing\r\n\r\n" * 50 + OK,
    "a body behind a 1xx": b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + OK,
    "a thousand headers": LINE + b"A: b\r\n" * 1_000 + b"Content-Length: 0\r\n\r\n",
    "a line without end": LINE + b"A: " + b"a" * 300_000,
    "headers without end": LINE + b"A: b\r\n" * 100_000,
    "a status line without end": b"HTTP/1.1 200 " + b"O" * 300_000,
    "a name without end": LINE + b"A" * 300_000,
    "one header in a thousand pieces": LINE + b"Connection: a\r\n" * 200 + b"Content-Length: 0\r\n\r\n",
}

# After the head went out: the visitor is cut.
CUT = {
    "fewer bytes than said": TEN + b"abc",
    "none of the bytes said": TEN,
    "a chunk that ends early": CHUNKED + b"5\r\nabc",
    "no last chunk": CHUNKED + b"3\r\nabc\r\n",
    "no end of trailers": CHUNKED + b"3\r\nabc\r\n0\r\n",
    "half of a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nA: b\r\n",
    "chunk size in words": CHUNKED + b"3\r\nabc\r\nzz\r\n",
    "chunk size with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size with a sign": CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "chunk size behind a blank": CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n",
    "chunk size with a blank inside": CHUNKED + b"3 3\r\nabc\r\n0\r\n\r\n",
    "bare LF twice behind a chunk's size": CHUNKED + b"3\n\nabc\r\n0\r\n\r\n",
    "bare LF in head and chunks": b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n",
    "chunk size over 64 bit": CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "more in a chunk than said": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "bare LF behind a chunk's size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "bare LF behind a chunk": CHUNKED + b"3\r\nabc\n0\r\n\r\n",
    "bare LF in an extension": CHUNKED + b"3;a\nabc\r\n0\r\n\r\n",
    "Content-Length as a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n",
    "bare LF in a trailer": CHUNKED + b"3\r\nabc\r\n0\r\nA: b\n\r\n",
    "a flood of extensions": CHUNKED + (b"1;" + b"a" * 30_000 + b"\r\nx\r\n") * 10 + b"0\r\n\r\n",
    "a flood of trailers": CHUNKED + b"0\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
}

# Whole answers with something behind them: the answer stands, the rest reaches nobody.
# name → (method, whole answer, what follows it, the body that the visitor sees)
SURPLUS = {
    "a second answer": (b"GET", OK, SECOND, b"ok"),
    "rubbish": (b"GET", OK, b"\0\1\2", b"ok"),
    "one byte": (b"GET", OK, b"H", b"ok"),
    "a second answer behind chunks": (b"GET", CHUNKED + LAST, SECOND, LAST),
    "a body behind 204": (b"GET", b"HTTP/1.1 204 No\r\n\r\n", b"hello", b""),
    "a said body behind 204": (b"GET", b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", b"hello", b""),
    "chunks behind 204": (b"GET", b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", LAST, b""),
    "a body behind 304": (b"GET", b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", b"hello", b""),
    "a body behind HEAD": (b"HEAD", LINE + b"Content-Length: 5\r\n\r\n", b"hello", b""),
    "chunks behind HEAD": (b"HEAD", CHUNKED, LAST, b""),
    "an answer behind HEAD": (b"HEAD", LINE + b"Content-Length: 5\r\n\r\n", SECOND, b""),
    "an interim answer behind the last": (b"GET", OK, b"HTTP/1.1 100 Continue\r\n\r\n", b"ok"),
    "a fake 101 behind the last": (
        b"GET",
        OK,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw",
        b"ok",
    ),
}


@contextmanager
def attacked(world: World) -> Iterator[Visitor]:
    """A visitor whose request for /attack is answered; afterwards his next one and another session's are
    fine, each on a stream that the attack did not touch.
    """
    with world.visitor() as other:
        other.get(b"/other")
        assert other.response()[1] == b"ok"
        with world.visitor() as visitor:
            yield visitor
            with world.visitor(visitor.cookie) as again:
                again.get(b"/next")
                assert again.response()[1] == b"ok"
        other.get(b"/other")
        assert other.response()[1] == b"ok"
    by_target: dict[bytes, list[int]] = {}
    for seen in world.service.requests:
        by_target.setdefault(seen.target, []).append(seen.connection)
    assert len(set(by_target[b"/other"])) == 1
    assert not set(by_target[b"/next"]) & set(by_target[b"/attack"])


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("end", [True, False], ids=["ended", "kept open"])
def test_an_answer_that_cannot_be_read_is_a_502(world: World, name: str, *, end: bool) -> None:
    if not end and name in ("SSH", "TLS", "HTTP/0.9"):
        end = True  # nothing says yet that no status line follows
    world.service.answers[b"/attack"] = Answer(BROKEN[name], end=end)
    with attacked(world) as visitor:
        visitor.get(b"/attack", b"Accept: application/json")
        head, content = visitor.response()
        assert head.startswith(b"HTTP/1.1 502 "), head
        assert b'"code": "bad_gateway"' in content
        visitor.get(b"/next")
        assert visitor.response()[1] == b"ok"


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_broken_body_never_looks_whole(world: World, name: str, version: bytes) -> None:
    world.service.answers[b"/attack"] = Answer(CUT[name], end=True)
    with attacked(world) as visitor:
        visitor.send(visitor.head_of(b"GET /attack HTTP/" + version))
        received, clean = visitor.until_end()
        assert b"smuggled" not in received
        head, _, content = received.partition(b"\r\n\r\n")
        if b"\r\nContent-Length: 10" in head:
            assert len(content) < 10
        elif b"\r\nTransfer-Encoding: chunked" in head:
            assert not content.endswith(b"0\r\n\r\n")
        else:
            assert not clean  # to HTTP/1.0 the end of the connection is the end of the body


@pytest.mark.parametrize("head", [TEN, CHUNKED, LINE + b"\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_reset_service_is_a_reset_visitor(world: World, head: bytes, version: bytes) -> None:
    body = b"3\r\nabc\r\n" if head is CHUNKED else b"abc"
    world.service.answers[b"/attack"] = Answer(head + body, pieces=(b"",), reset=True)
    with attacked(world) as visitor:
        visitor.send(visitor.head_of(b"GET /attack HTTP/" + version))
        received, clean = visitor.until_end()
        assert not clean
        assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("name", SURPLUS)
def test_what_follows_a_whole_answer_reaches_nobody(world: World, name: str) -> None:
    method, answer, surplus, content = SURPLUS[name]
    world.service.answers[b"/attack"] = Answer(answer + surplus)
    with attacked(world) as visitor:
        visitor.get(b"/attack", method=method)
        head = visitor.head()
        assert not head.startswith(b"HTTP/1.1 502")
        assert visitor.exactly(len(content)) == content
        visitor.get(b"/next")
        assert visitor.response() == (OK.removesuffix(b"ok"), b"ok")


@pytest.mark.parametrize("name", SURPLUS)
def test_what_comes_later_behind_a_whole_answer_reaches_nobody(world: World, name: str) -> None:
    method, answer, surplus, content = SURPLUS[name]
    world.service.answers[b"/attack"] = Answer(answer, pieces=(surplus,))
    with attacked(world) as visitor:
        visitor.get(b"/attack", method=method)
        visitor.head()
        assert visitor.exactly(len(content)) == content
        (number,) = [seen.connection for seen in world.service.requests if seen.target == b"/attack"]
        world.until(lambda: number not in world.service.open)  # the stream went, though nobody asked for it


def test_a_stream_whose_service_ends_it_behind_keep_alive_is_not_used_again(world: World) -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\nKeep-Alive: timeout=1000\r\n\r\n", 1)
    world.service.answers[b"/attack"] = Answer(answer, end=True)
    with attacked(world) as visitor:
        for _ in range(3):
            visitor.get(b"/attack")
            assert visitor.response() == (OK.removesuffix(b"ok"), b"ok")


def test_a_service_that_speaks_first_confuses_its_own_new_streams_alone(world: World) -> None:
    """What it says before it is asked is the answer, since HTTP/1.1 has no numbers to tell them apart."""
    with world.visitor() as other, world.visitor() as visitor:
        other.get(b"/other")
        assert other.response()[1] == b"ok"
        world.service.greeting = SECOND
        for path in (b"/1", b"/2", b"/3"):
            visitor.get(path)
            assert visitor.response()[1] in (b"evil", b"ok")
            other.get(b"/other")
            assert other.response()[1] == b"ok"


def test_an_early_answer_ends_an_upload(world: World) -> None:
    world.service.answers[b"/attack"] = Answer(OK, early=True)
    with attacked(world) as visitor:
        visitor.get(b"/attack", b"Content-Length: 1000000", method=b"POST")
        head, content = visitor.response()
        assert content == b"ok"
        assert b"\r\nConnection: close\r\n" in head
        visitor.send(visitor.head_of(b"GET /smuggled HTTP/1.1"))  # it is the body by now
        assert visitor.until_end()[0] == b""
    assert b"/smuggled" not in [seen.target for seen in world.service.requests]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\nraw",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nraw",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nraw",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nraw",
    ],
    ids=["no accept", "wrong accept", "another protocol", "no Connection", "two accepts"],
)
def test_a_101_that_proves_nothing_is_no_switch(world: World, answer: bytes) -> None:
    world.service.answers[b"/attack"] = Answer(answer)
    with attacked(world) as visitor:
        visitor.get(b"/attack", *UPGRADE)
        assert visitor.response()[0].startswith(b"HTTP/1.1 502 ")
        visitor.get(b"/next")  # and what follows is parsed
        assert visitor.response()[1] == b"ok"


UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
    b"Origin: http://" + HOST,
)


@pytest.mark.parametrize(
    "status", [b"400 Bad Request", b"426 Upgrade Required", b"200 OK", b"204 No Content"]
)
def test_what_follows_a_refused_upgrade_is_parsed(world: World, status: bytes) -> None:
    """Else a second request would pass for bytes of a WebSocket, or the other way round."""
    length = b"" if status.startswith(b"204") else b"Content-Length: 0\r\n"
    world.service.answers[b"/ws"] = Answer(b"HTTP/1.1 %b\r\n%b\r\n" % (status, length))
    with world.visitor() as visitor:
        foreign = b"GET /admin HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"  # without the session's cookie
        visitor.send(
            visitor.head_of(b"GET /ws HTTP/1.1", *UPGRADE) + foreign + visitor.head_of(b"GET /3 HTTP/1.1")
        )
        assert visitor.head().startswith(b"HTTP/1.1 " + status)
        assert visitor.response()[0].startswith(b"HTTP/1.1 403 ")
        assert visitor.response()[1] == b"ok"
    assert [seen.target for seen in world.service.requests] == [b"/ws", b"/3"]


def test_after_a_proved_101_the_bytes_pass_untouched(world: World) -> None:
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )
    world.service.answers[b"/ws"] = Answer(answer, raw=True)
    with world.visitor() as visitor:
        visitor.get(b"/ws", *UPGRADE)
        assert visitor.head().startswith(b"HTTP/1.1 101 ")
        for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40):
            visitor.send(data)
            assert visitor.exactly(len(data)) == data
    assert len(world.service.requests) == 1

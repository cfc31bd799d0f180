"""Which answers of a device's service pass, and in which form the visitor sees them."""

from __future__ import annotations

import gzip

import pytest

from tests.conformance.service import OK, Answer
from tests.conformance.world import HOST, ORIGIN, Visitor, World

LINE = b"HTTP/1.1 200 OK\r\n"
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n\r\n"


def relayed(world: World, answer: bytes, *headers: bytes, end: bool = False) -> tuple[bytes, Visitor]:
    """The head that the visitor sees of this answer."""
    world.service.answers[b"/attack"] = Answer(answer, end=end)
    with world.visitor() as visitor:
        visitor.get(b"/attack", *headers)
        return visitor.head(), visitor


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        (b"HTTP/1.1 200", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 200 N\0l \x80", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.0 404 Nope", b"HTTP/1.1 404 Not Found"),
        (b"HTTP/1.1 299 Mine", b"HTTP/1.1 299 "),
        (b"HTTP/1.1 599 Mine", b"HTTP/1.1 599 "),
    ],
)
def test_the_status_line_is_our_own(world: World, status: bytes, seen: bytes) -> None:
    head, _ = relayed(world, status + b"\r\nContent-Length: 0\r\n\r\n")
    assert head.split(b"\r\n")[0] == seen


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nX: y\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\nX: y\r\nContent-Length: 2\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\nok",
        b"HTTP/1.1 200\nX:y\nContent-Length:2\n\nok",
        b"HTTP/1.1 200 OK\nSet-Cookie: towline_session=evil\nX: y\nAlt-Svc: h2\nContent-Length: 2\n\nok",
    ],
)
def test_a_bare_lf_in_an_answers_head_ends_a_line(world: World, answer: bytes) -> None:
    """Embedded servers send it, browsers take it; what goes on is canonical, and every rule holds as ever."""
    world.service.answers[b"/attack"] = Answer(answer)
    with world.visitor() as visitor:
        for _ in range(3):
            visitor.get(b"/attack")
            assert visitor.response() == (b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 2\r\n\r\n", b"ok")
    assert len({seen.connection for seen in world.service.requests}) == 1


def test_lines_may_end_in_lf_before_and_behind_an_answer_in_chunks(world: World) -> None:
    chunked = CHUNKED.replace(b"\r\n", b"\n") + b"3  \r\nabc\r\n0 \r\n\r\n"
    world.service.answers[b"/chunked"] = Answer(chunked)
    world.service.answers[b"/plain"] = Answer(OK.replace(b"\r\n", b"\n"))
    with world.visitor() as visitor:
        for _ in range(2):
            visitor.get(b"/chunked")
            assert visitor.head() == CHUNKED
            assert visitor.exactly(13) == b"3\r\nabc\r\n0\r\n\r\n"
            visitor.get(b"/plain")
            assert visitor.response()[1] == b"ok"
    assert len({seen.connection for seen in world.service.requests}) == 1


def test_a_bodys_coding_is_the_browsers_to_undo(world: World) -> None:
    packed = gzip.compress(b"hello" * 1_000)
    answer = LINE + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(packed), packed)
    world.service.answers[b"/attack"] = Answer(answer)
    with world.visitor() as visitor:
        visitor.get(b"/attack", b"Accept-Encoding: gzip")
        assert visitor.response() == (
            LINE + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed),
            packed,
        )
    assert (b"accept-encoding", b"gzip") in world.service.requests[0].headers


def test_chunks_are_framed_anew_without_extensions_and_trailers(world: World) -> None:
    answer = LINE + b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
    world.service.answers[b"/attack"] = Answer(answer)
    with world.visitor() as visitor:
        visitor.get(b"/attack")
        assert visitor.head() == CHUNKED
        assert visitor.exactly(13) == b"3\r\nabc\r\n0\r\n\r\n"
        visitor.get(b"/next")
        assert visitor.response()[1] == b"ok"


def test_trailers_change_nothing(world: World) -> None:
    """llhttp refuses Content-Length there; these it passes to us, and they end here."""
    trailers = b"Transfer-Encoding: chunked\r\nConnection: close\r\nSet-Cookie: towline_session=evil\r\n"
    world.service.answers[b"/attack"] = Answer(CHUNKED + b"3\r\nabc\r\n0\r\n" + trailers + b"\r\n")
    with world.visitor() as visitor:
        for _ in range(2):
            visitor.get(b"/attack")
            assert visitor.head() == CHUNKED
            assert visitor.exactly(13) == b"3\r\nabc\r\n0\r\n\r\n"


def test_interim_answers_that_nobody_asked_for_end_here(world: World) -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
    head, _ = relayed(world, hints + OK)
    assert head == OK.removesuffix(b"ok")


def test_a_page_has_no_say_over_the_browsers_state(world: World) -> None:
    answer = b"\r\n".join(
        [
            b"HTTP/1.1 200 OK",
            b'Alt-Svc: h2=":443"',
            b'Clear-Site-Data: "*"',
            b"Access-Control-Allow-Credentials: true",
            b"X-Accel-Redirect: /etc/passwd",
            b"X-Sendfile: /etc/passwd",
            b"Set-Cookie: a=1; Domain=localhost; Path=/",
            b"Set-Cookie: towline_session=evil",
            b"Set-Cookie: __Host-towline=evil; Secure; Path=/",
            b"Set-Cookie: big=" + b"x" * 8_000,
            b"Connection: X-Hop, close",
            b"X-Hop: 1",
            b"Proxy-Authenticate: Basic",
            b"Strict-Transport-Security: max-age=1",
            b"Content-Length: 0",
            b"",
            b"",
        ]
    )
    head, _ = relayed(world, answer)
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Set-Cookie: a=1; Path=/",
        b"Set-Cookie: big=" + b"x" * 8_000,
        b"Strict-Transport-Security: max-age=1",
        b"Content-Length: 0",
        b"",
        b"",
    ]


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"/login", b"/login"),
        (b"http://DEVICE/login?a#b", ORIGIN + b"/login?a#b"),
        (b"http://DEVICE", ORIGIN + b"/"),
        (b"HTTPS://DEVICE/x", ORIGIN + b"/x"),
        (b"//DEVICE/x", ORIGIN + b"/x"),
        (b"http://DEVICE//evil.example", ORIGIN + b"//evil.example"),
        (b"https://" + HOST + b"/x", ORIGIN + b"/x"),
        (b"http://127.0.0.1:1/x", b"http://127.0.0.1:1/x"),
        (b"http://DEVICE@evil.example/", b"http://DEVICE@evil.example/"),
        (b"https://elsewhere.example/", b"https://elsewhere.example/"),
    ],
)
def test_a_redirect_to_the_devices_own_origin_stays_at_the_visitors(
    world: World, location: bytes, seen: bytes
) -> None:
    address = world.address.encode()
    location, seen = location.replace(b"DEVICE", address), seen.replace(b"DEVICE", address)
    head, _ = relayed(world, b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location)
    assert b"\r\nLocation: %b\r\n" % seen in head

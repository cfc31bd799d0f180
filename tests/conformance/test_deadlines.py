"""Who sends or takes too slowly has an end in every phase, and holds nothing after it."""

from __future__ import annotations

import re
import time

import pytest

from tests.conformance.service import OK, PIECES_APART_S, Answer
from tests.conformance.world import WAIT_S, Visitor, World

LINE = b"HTTP/1.1 200 OK\r\n"
DRIP_S = 0.1  # well below every deadline of the hasty world


def drip(visitor: Visitor, data: bytes) -> None:
    """One byte at a time, until the edge has had enough."""
    for index in range(len(data)):
        if visitor.readable(DRIP_S):
            return
        visitor.send(data[index : index + 1])


def ended(world: World, visitor: Visitor) -> bytes:
    """What came before the end, which must come within far less than a browser's patience."""
    started = time.monotonic()
    received, _ = visitor.until_end()
    assert time.monotonic() - started < WAIT_S / 2
    world.until(lambda: not world.node.edge.connections)
    world.until(lambda: not world.service.open)  # pooled streams too, once they are idle for long enough
    return received


def test_a_connection_that_says_nothing_ends(hasty_world: World) -> None:
    with hasty_world.visitor(b"none") as visitor:
        assert ended(hasty_world, visitor) == b""


def test_a_head_that_drips_is_408(hasty_world: World) -> None:
    with hasty_world.visitor() as visitor:
        drip(visitor, visitor.head_of(b"GET / HTTP/1.1", b"X: " + b"y" * 200))
        assert ended(hasty_world, visitor).startswith(b"HTTP/1.1 408 ")
    assert not hasty_world.service.requests


def test_a_second_head_that_drips_is_408_too(hasty_world: World) -> None:
    with hasty_world.visitor() as visitor:
        visitor.get(b"/first")
        assert visitor.response()[1] == b"ok"
        drip(visitor, visitor.head_of(b"GET / HTTP/1.1", b"X: " + b"y" * 200))
        assert ended(hasty_world, visitor).startswith(b"HTTP/1.1 408 ")
    assert [seen.target for seen in hasty_world.service.requests] == [b"/first"]


def test_empty_lines_that_drip_are_no_request(hasty_world: World) -> None:
    with hasty_world.visitor(b"none") as visitor:
        drip(visitor, b"\r\n" * 100)
        assert ended(hasty_world, visitor) == b""


def test_an_idle_connection_ends_quietly(hasty_world: World) -> None:
    with hasty_world.visitor() as visitor:
        visitor.get()
        assert visitor.response()[1] == b"ok"
        assert ended(hasty_world, visitor) == b""


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_an_upload_that_stops_is_408(hasty_world: World, framing: bytes) -> None:
    with hasty_world.visitor() as visitor:
        visitor.get(b"/", framing, method=b"POST")
        visitor.send(b"5\r\nhello" if b"chunked" in framing else b"hello")
        assert ended(hasty_world, visitor).startswith(b"HTTP/1.1 408 ")
    assert not [seen for seen in hasty_world.service.requests if seen.complete]


def test_an_upload_that_goes_on_slowly_is_let(hasty_world: World) -> None:
    with hasty_world.visitor() as visitor:
        visitor.get(b"/", b"Content-Length: 10", method=b"POST")
        drip(visitor, b"0123456789")
        assert visitor.response()[1] == b"ok"


def test_a_service_that_says_nothing_is_504(hasty_world: World) -> None:
    hasty_world.service.answers[b"/attack"] = Answer(b"")
    with hasty_world.visitor() as visitor:
        visitor.get(b"/attack")
        assert visitor.response()[0].startswith(b"HTTP/1.1 504 ")
        visitor.get(b"/next")
        assert visitor.response()[1] == b"ok"


def test_an_answers_head_that_never_ends_is_504(hasty_world: World) -> None:
    crumbs = tuple(bytes((letter,)) for letter in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200)
    hasty_world.service.answers[b"/attack"] = Answer(b"", pieces=crumbs)
    with hasty_world.visitor() as visitor:
        visitor.get(b"/attack")
        started = time.monotonic()
        assert visitor.response()[0].startswith(b"HTTP/1.1 504 ")
        assert time.monotonic() - started < len(crumbs) * PIECES_APART_S / 2  # while it still dripped
        visitor.get(b"/next")
        assert visitor.response()[1] == b"ok"


def test_a_body_that_stops_is_cut(hasty_world: World) -> None:
    hasty_world.service.answers[b"/attack"] = Answer(LINE + b"Content-Length: 10\r\n\r\nabc")
    with hasty_world.visitor() as visitor:
        visitor.get(b"/attack")
        assert ended(hasty_world, visitor).endswith(b"\r\n\r\nabc")


def test_a_quiet_event_stream_is_let(hasty_world: World) -> None:
    events = LINE + b"Content-Type: text/event-stream\r\n\r\n"
    hasty_world.service.answers[b"/events"] = Answer(events)
    with hasty_world.visitor() as visitor:
        visitor.get(b"/events")
        assert b"event-stream" in visitor.head()
        assert not visitor.readable(3.0)  # longer than every deadline here


def test_a_visitor_that_reads_nothing_is_cut(hasty_world: World) -> None:
    size = 60_000_000
    hasty_world.service.answers[b"/big"] = Answer(LINE + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
    with hasty_world.visitor() as visitor:
        visitor.get(b"/big")
        hasty_world.until(lambda: hasty_world.node.edge.connections)
        hasty_world.until(lambda: not hasty_world.node.edge.connections)
        received, clean = visitor.until_end()
    assert not clean
    assert len(received) < size


def test_pipelined_requests_of_a_slow_service_are_answered_or_refused_in_order(hasty_world: World) -> None:
    hasty_world.service.answers[b"/slow"] = Answer(b"", pieces=(b"", b"", OK))
    with hasty_world.visitor() as visitor:
        visitor.send(visitor.head_of(b"GET /slow HTTP/1.1") * 20)
        received = ended(hasty_world, visitor)
    assert len(re.findall(rb"HTTP/1\.1 200 OK", received)) == 20

"""Requests through a real tunnel to a byte-recording service."""

from __future__ import annotations

import asyncio

from tests.tunnel_server.conftest import LABEL, Stage
from tests.tunnel_server.doubles import Upstream, answering

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"


async def test_a_get_reaches_the_device_and_its_answer_the_visitor(stage: Stage) -> None:
    upstream = await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get("/a%2Fb//c?q=1&x=%7e", "Accept: text/html", "X-Mine: 1")
    head, body = await visitor.response()
    assert head == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
    assert body == b"hello"
    assert bytes(upstream.received) == (
        b"GET /a%2Fb//c?q=1&x=%7e HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\nX-Mine: 1\r\n\r\n"
    )

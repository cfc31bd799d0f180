"""Visitors who ask and do not listen, and answers that end before they are whole."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.tunnel_server.conftest import LABEL, WAIT_S, Stage, Visitor
from tests.tunnel_server.doubles import Upstream

REQUEST = f"GET /none HTTP/1.1\r\nHost: {LABEL}.localhost\r\n\r\n".encode()


async def deaf_visitor(stage: Stage) -> socket.socket:
    """A connection whose answers nobody reads, with little room for them in the kernel."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", stage.node.visitors.address.port))
    await stage.until(lambda: stage.node.edge.connections)
    return raw


async def test_requests_whose_answers_nobody_reads_stop_being_read(stage: Stage) -> None:
    raw = await deaf_visitor(stage)
    try:
        (connection,) = stage.node.edge.connections
        with pytest.raises((TimeoutError, ConnectionError)):  # it is paused, or ended for asking too much
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(raw, REQUEST * 100_000), 1.0)
        assert connection.transport.get_write_buffer_size() < 2 * stage.node.edge.limits.write_high_bytes
    finally:
        raw.close()


async def test_requests_behind_unread_answers_are_answered_when_the_visitor_reads_again(stage: Stage) -> None:
    raw = await deaf_visitor(stage)
    loop = asyncio.get_running_loop()
    asked = 0
    pages = stage.node.edge.metrics.own_answers.labels("no_session")
    try:
        (connection,) = stage.node.edge.connections
        while not connection.write_paused:
            await loop.sock_sendall(raw, REQUEST * 16)  # fewer than may wait
            asked += 16
            await stage.until(lambda goal=asked: connection.write_paused or pages.value >= goal)
        await loop.sock_sendall(raw, REQUEST * 16)
        asked += 16
        received, answers = b"", 0
        async with asyncio.timeout(WAIT_S):
            while answers < asked:
                received += await loop.sock_recv(raw, 1 << 20)
                answers += received.count(b"HTTP/1.1 403")
                received = received[-11:]
        assert not connection.closing
        assert not connection.reading_paused
    finally:
        raw.close()


async def test_a_cut_answer_resets_a_visitor_to_whom_an_end_would_look_whole(stage: Stage) -> None:
    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        await upstream.reached.wait()

    upstream = await stage.serve(script)
    visitor: Visitor = await stage.visitor()
    visitor.get(version="1.0")
    assert b"200 OK" in await visitor.head()
    assert await visitor.exactly(5) == b"hello"
    upstream.reached.set()
    with pytest.raises(ConnectionResetError):
        await visitor.rest()


async def test_a_status_below_100_is_no_answer(stage: Stage) -> None:
    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        writer.write(b"HTTP/1.1 000 X\r\nContent-Length: 5\r\n\r\nhello")
        await reader.read()

    await stage.serve(script)
    visitor = await stage.visitor()
    visitor.get()
    assert b"HTTP/1.1 502" in await visitor.head()

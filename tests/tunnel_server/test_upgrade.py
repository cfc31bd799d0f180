"""WebSockets: raw bytes only behind the device's valid 101."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket

from tests.tunnel_server.conftest import LABEL, Limits, Stage, running, settings
from tests.tunnel_server.doubles import Script, Upstream
from tunnel_server.edge.listener import KEEPALIVE
from tunnel_server.settings import VisitorLimits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    f"Sec-WebSocket-Key: {KEY}",
    "Sec-WebSocket-Version: 13",
    f"Origin: http://{LABEL}.localhost",
)
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def switching(accept: bytes = ACCEPT, early: bytes = b"") -> Script:
    """Answers 101, then echoes in upper case until EOF, which it answers with its own."""

    async def script(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upstream.head(reader)
        writer.write(
            b"HTTP/1.1 101 Whatever\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: %b\r\n\r\n%b" % (accept, early)
        )
        while data := await reader.read(65_536):
            writer.write(data.upper())
        writer.write_eof()
        upstream.reached.set()

    return script


async def test_bytes_are_spliced_both_ways_after_101(stage: Stage) -> None:
    upstream = await stage.serve(switching(early=b"EARLY"))
    visitor = await stage.visitor()
    visitor.get("/ws?x=1", *UPGRADE)
    head = await visitor.head()
    assert head == (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: %b\r\n\r\n" % ACCEPT
    )
    assert await visitor.exactly(5) == b"EARLY"
    for size in (1, 1000, 500_000):
        visitor.send(b"a" * size)
        assert await visitor.exactly(size) == b"A" * size
    assert bytes(upstream.received) == (
        b"GET /ws?x=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-WebSocket-Version: 13\r\nOrigin: http://127.0.0.1\r\n"
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY.encode()
    )
    visitor.writer.write_eof()
    async with asyncio.timeout(5):
        await upstream.reached.wait()
    assert await visitor.rest() == b""


async def test_bytes_sent_before_the_answer_are_kept_for_the_device(stage: Stage) -> None:
    await stage.serve(switching())
    visitor = await stage.visitor()
    visitor.get("/ws", *UPGRADE)
    visitor.send(b"hasty")
    await visitor.head()
    assert await visitor.exactly(5) == b"HASTY"


async def test_hundreds_of_refused_upgrades_in_one_read_are_only_requests(stage: Stage) -> None:
    visitor = await stage.visitor(b"")
    one = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    visitor.send(one * 800)
    for _ in range(800):
        assert (await visitor.response())[0].startswith(b"HTTP/1.1 421 ")


async def test_websockets_leave_one_stream_for_pages(stage: Stage) -> None:
    await stage.serve(switching(), limits=Limits(max_streams=3))
    visitors = [await stage.visitor() for _ in range(3)]
    for visitor in visitors[:2]:
        visitor.get("/ws", *UPGRADE)
        assert (await visitor.head()).startswith(b"HTTP/1.1 101 ")
    visitors[2].get("/ws", *UPGRADE)
    assert (await visitors[2].response())[0].startswith(b"HTTP/1.1 503 ")


async def test_a_visitor_that_vanished_is_asked_for_by_tcp(stage: Stage) -> None:
    await stage.visitor(b"")
    await stage.until(lambda: stage.node.edge.connections)
    (connection,) = stage.node.edge.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    for name, value in KEEPALIVE.items():
        assert accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value


async def test_a_visitor_that_takes_nothing_gives_its_stream_back() -> None:
    async def flooding(
        upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await upstream.head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % ACCEPT
        )
        while True:
            writer.write(bytes(65_536))
            await writer.drain()

    async with running(settings(limits=VisitorLimits(stall_s=0.3))) as stage:
        await stage.serve(flooding)
        deaf = await stage.visitor()
        deaf.get("/ws", *UPGRADE)
        await deaf.head()
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        tunnel = stage.node.devices.tunnels()[0]
        assert tunnel.live_streams == 1
        await stage.until(lambda: tunnel.in_use == 0)


async def test_the_end_of_either_side_ends_the_other(stage: Stage) -> None:
    await stage.serve(switching())
    visitor = await stage.visitor()
    visitor.get("/ws", *UPGRADE)
    await visitor.head()
    visitor.close()
    await stage.until(lambda: not stage.devices[0].splices)
    assert stage.node.devices.tunnels()[0].in_use == 0
    assert stage.node.devices.tunnels()[0].live_streams == 0

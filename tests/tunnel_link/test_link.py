"""Real WebSockets on loopback: both kinds of link, in every pairing."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from operator import contains
from types import ModuleType

import pytest
from websockets.asyncio.client import connect

from runtime.tunnel_link import (
    LinkFailed,
    LinkOwner,
    Listener,
    Ticker,
    UpgradeRequest,
    picows_link,
    websockets_link,
)
from tests.tunnel_link.sides import DeviceSide, Owner, ServerSide, ready
from tunnel_protocol import CloseCode, ConnectionLost, Limits, ResetCode, Side

LIMITS = Limits()
LINKS = {"picows": picows_link, "websockets": websockets_link}
PAIRS = [(server, device) for server in LINKS for device in LINKS]


@dataclass
class Joined:
    server: ServerSide
    device: DeviceSide
    port: int
    requests: list[UpgradeRequest]


Join = Callable[..., "asyncio.Future[Joined]"]


class Net:
    """Listeners and sides of one test; everything is closed at its end."""

    def __init__(self, server: ModuleType, device: ModuleType) -> None:
        self.server = server
        self.device = device
        self.ticker = Ticker()
        self.sides: list[ServerSide | DeviceSide] = []
        self.listeners: list[Listener] = []

    async def listen(self, on_request: Callable[[UpgradeRequest], LinkOwner | int]) -> int:
        listener = await self.server.listen(
            "127.0.0.1", 0, on_request, ssl=None, max_message=LIMITS.max_message
        )
        self.listeners.append(listener)
        return int(listener.port)

    def server_side(self, limits: Limits = LIMITS) -> ServerSide:
        side = ServerSide(Side.SERVER, limits, self.ticker)
        self.sides.append(side)
        return side

    async def dial(self, port: int, device: DeviceSide) -> None:
        await self.device.dial(
            f"ws://127.0.0.1:{port}/tunnel", device, ssl=None, max_message=LIMITS.max_message, timeout_s=5.0
        )

    async def join(self, *, limits: Limits = LIMITS, device_takes: bool = True) -> Joined:
        requests: list[UpgradeRequest] = []
        server = self.server_side(limits)

        def on_request(request: UpgradeRequest) -> LinkOwner:
            requests.append(request)
            return server

        port = await self.listen(on_request)
        device = DeviceSide(limits, self.ticker, takes=device_takes)
        self.sides.append(device)
        await self.dial(port, device)
        await ready(server, device)
        return Joined(server, device, port, requests)

    async def close(self) -> None:
        for side in self.sides:
            side.connection.close(CloseCode.NORMAL, "the test is over")
        for listener in self.listeners:
            listener.close()
        for side in self.sides:
            if side.link is not None:
                await side.wait_closed()


@pytest.fixture(params=PAIRS, ids=lambda pair: "-".join(pair))
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Net]:
    server, device = request.param
    net = Net(LINKS[server], LINKS[device])
    yield net
    await net.close()


@pytest.fixture(params=LINKS)
async def same(request: pytest.FixtureRequest) -> AsyncIterator[Net]:
    net = Net(LINKS[request.param], LINKS[request.param])
    yield net
    await net.close()


async def test_a_stream_carries_bytes_both_ways(net: Net) -> None:
    joined = await net.join()
    visitor = Owner(joined.server)
    stream = joined.server.open(visitor)
    stream.send(b"GET / HTTP/1.1\r\n\r\n", joined.server.now())
    local = await joined.device.owner()
    await local.wait_until(lambda: len(local.received) == 18)
    assert local.stream is not None
    local.stream.send(b"HTTP/1.1 204 No Content\r\n\r\n", joined.device.now())
    local.stream.finish()
    stream.finish()
    await visitor.wait_until(lambda: "finished" in visitor.heard)
    await local.wait_until(lambda: "finished" in local.heard)
    assert bytes(visitor.received) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert visitor.heard == ["accepted", "finished"]
    assert joined.requests[0].path == "/tunnel"
    assert joined.requests[0].host == f"127.0.0.1:{joined.port}"
    assert joined.server.link is not None
    assert joined.server.link.peer_address == "127.0.0.1"


async def test_messages_over_8_kib_arrive_intact_under_back_pressure(net: Net) -> None:
    """Six streams send together, both ways, through small buffers: the transports pause again and again.

    picows corrupts such messages when aiofastnet is not under it.
    """
    joined = await net.join()
    visitors = [Owner(joined.server) for _ in range(6)]
    sent = []
    for number, visitor in enumerate(visitors):
        visitor.stream = joined.server.connection.open_stream("device", "web", b"g" * 16, visitor)
        chunks = [random.Random(number * 100 + i).randbytes(9_000 + 7_001 * i) for i in range(8)]
        sent.append(hashlib.sha256(b"".join(chunks)).hexdigest())
        for chunk in chunks:
            visitor.stream.send(chunk, joined.server.now())
        visitor.stream.finish()
    for number in range(len(visitors)):
        local = await joined.device.owner(number)
        await local.wait_until(partial(contains, local.heard, "finished"))
        assert hashlib.sha256(local.received).hexdigest() == sent[number]
        assert local.stream is not None
        local.stream.send(bytes(local.received), joined.device.now())
        local.stream.finish()
    for number, visitor in enumerate(visitors):
        await visitor.wait_until(partial(contains, visitor.heard, "finished"))
        assert hashlib.sha256(visitor.received).hexdigest() == sent[number]


async def test_a_paused_link_keeps_no_borrowed_buffer(same: Net) -> None:
    """A sender that reuses its buffer at once over a link that pauses: no later round shows early."""
    joined = await same.join()
    visitor = Owner(joined.server)
    joined.server.open(visitor)
    local = await joined.device.owner()
    assert local.stream is not None
    assert joined.device.link is not None
    joined.device.link.set_buffers(8_192, 8_192)
    buffer = bytearray(32_768)
    total = 0
    while total < 64 * len(buffer):
        if local.stream.send_room() < len(buffer):
            local.heard.clear()
            local.stream.send_room()
            await asyncio.sleep(0)
            continue
        value = (total // len(buffer)) % 251
        buffer[:] = bytes([value]) * len(buffer)
        local.stream.send(memoryview(buffer), joined.device.now())
        if joined.device.connection.borrowed:
            joined.device.flush()
        total += len(buffer)
    local.stream.finish()
    await visitor.wait_until(lambda: "finished" in visitor.heard)
    expected = b"".join(bytes([number % 251]) * len(buffer) for number in range(64))
    assert visitor.received == expected


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: tunnel.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: towline.v1\r\n\r\n"
)
PART = b"\x82\xfe\x10\x00" + bytes(4) + b"the first bytes of 4,096"  # RFC 6455 section 5.2
QUIET_S = 0.05  # many times what kernels round such times to


async def test_a_part_of_a_message_is_a_sign_of_life(same: Net) -> None:
    side = ServerSide(Side.SERVER, LIMITS, same.ticker)
    same.sides.append(side)
    port = await same.listen(lambda _: side)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(5):
        while side.link is None or side.link.silence_s < QUIET_S:
            await asyncio.sleep(0)
            side.tick(side.now())
        before = side.connection.liveness.last_inbound
        writer.write(PART)
        while side.connection.liveness.last_inbound < before + QUIET_S / 2:
            await asyncio.sleep(0)
            side.tick(side.now())
    assert not side.events, "nothing whole has come"
    writer.close()


async def test_a_peer_that_vanishes_ends_every_stream_once(same: Net) -> None:
    joined = await same.join()
    visitors = [Owner(joined.server) for _ in range(3)]
    for visitor in visitors:
        joined.server.open(visitor)
    await joined.device.owner(2)
    assert joined.device.link is not None
    joined.device.link.abort()
    await joined.server.wait_for(ConnectionLost)
    await joined.device.wait_for(ConnectionLost)
    for visitor in visitors:
        assert [word for word in visitor.heard if word.startswith("lost")] == ["lost the link broke"]
    assert len(joined.server.lost) == len(joined.device.lost) == 1
    assert joined.server.lost[0].fault == "peer"
    assert joined.server.lost[0].code is None


async def test_both_sides_learn_the_code_of_a_close(net: Net) -> None:
    joined = await net.join()
    joined.server.connection.close(CloseCode.REVOKED, "the device was revoked")
    await joined.device.wait_for(ConnectionLost)
    await joined.server.wait_for(ConnectionLost)
    assert (joined.server.lost[0].fault, joined.server.lost[0].code) == ("local", CloseCode.REVOKED)
    assert (joined.device.lost[0].fault, joined.device.lost[0].code) == ("peer", CloseCode.REVOKED)
    assert joined.device.lost[0].reason == "the device was revoked"


async def test_drain_lets_a_stream_finish_and_then_closes(net: Net) -> None:
    joined = await net.join()
    visitor = Owner(joined.server)
    stream = joined.server.open(visitor)
    local = await joined.device.owner()
    joined.server.connection.drain(1000, "restart")
    stream.send(b"late", joined.server.now())
    stream.finish()
    await local.wait_until(lambda: "finished" in local.heard)
    assert bytes(local.received) == b"late"
    assert local.stream is not None
    local.stream.send(b"answer", joined.device.now())
    local.stream.finish()
    await joined.server.wait_for(ConnectionLost)
    await joined.device.wait_for(ConnectionLost)
    assert bytes(visitor.received) == b"answer"
    assert joined.server.lost[0].code is CloseCode.NORMAL


async def test_an_owner_that_fails_loses_its_stream_only(same: Net) -> None:
    joined = await same.join()
    bad, good = Owner(joined.server), Owner(joined.server)
    bad.data = lambda data: 1 / 0  # type: ignore[method-assign, assignment]
    joined.server.open(bad)
    joined.server.open(good)
    for number in range(2):
        local = await joined.device.owner(number)
        assert local.stream is not None
        local.stream.send(b"x", joined.device.now())
    await good.wait_until(lambda: bool(good.received))
    failed = await joined.device.owner(0)
    await failed.wait_until(lambda: f"reset {ResetCode.INTERNAL.name}" in failed.heard)
    assert not joined.server.lost


async def test_a_refused_request_is_an_http_status(net: Net) -> None:
    port = await net.listen(lambda request: 503)
    device = DeviceSide(LIMITS, net.ticker)
    with pytest.raises(LinkFailed, match="503"):
        await net.dial(port, device)
    device.failed("no link")
    assert len(device.lost) == 1


async def test_nobody_listens(same: Net) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(LinkFailed):
        await same.dial(port, DeviceSide(LIMITS, same.ticker))


async def test_a_server_that_does_not_answer(same: Net) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"ws://127.0.0.1:{mute.getsockname()[1]}/"
        device = DeviceSide(LIMITS, same.ticker)
        with pytest.raises(LinkFailed, match="no answer within"):
            await same.device.dial(url, device, ssl=None, max_message=4096, timeout_s=0.2)


async def test_a_client_without_the_subprotocol_is_refused(same: Net) -> None:
    port = await same.listen(lambda request: same.server_side())
    with pytest.raises(Exception, match="400"):
        await connect(f"ws://127.0.0.1:{port}/")


@pytest.mark.parametrize("message", ["text", b"\x63garbage!"], ids=["text", "garbage"])
async def test_a_foreign_client_gets_the_protocol_error_status(same: Net, message: str | bytes) -> None:
    server = same.server_side()
    port = await same.listen(lambda request: server)
    async with connect(f"ws://127.0.0.1:{port}/", subprotocols=["towline.v1"]) as client:  # type: ignore[list-item]
        await client.recv()
        await client.send(message)
        await client.wait_closed()
    assert client.close_code == 4001
    lost = await server.wait_for(ConnectionLost)
    assert isinstance(lost, ConnectionLost)
    assert (lost.fault, lost.code) == ("peer", CloseCode.PROTOCOL_ERROR)
    assert len(server.lost) == 1


async def test_a_websocket_ping_is_answered_and_a_flood_is_cut(same: Net) -> None:
    server = same.server_side()
    port = await same.listen(lambda request: server)
    async with connect(f"ws://127.0.0.1:{port}/", subprotocols=["towline.v1"]) as client:  # type: ignore[list-item]
        await client.recv()
        async with asyncio.timeout(5):
            await (await client.ping())
        for number in range(100):
            await client.ping(str(number).encode())
        await client.wait_closed()
    assert client.close_code == 4001


async def test_a_message_over_the_limit_ends_the_link(same: Net) -> None:
    server = same.server_side()
    port = await same.listen(lambda request: server)
    async with connect(f"ws://127.0.0.1:{port}/", subprotocols=["towline.v1"]) as client:  # type: ignore[list-item]
        await client.recv()
        await client.send(bytes(LIMITS.max_message + 1))
        await client.wait_closed()
    await server.wait_for(ConnectionLost)
    assert len(server.lost) == 1

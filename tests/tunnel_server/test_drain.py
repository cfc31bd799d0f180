"""SIGTERM to a node: what its visitors' connections, its tunnels and its readiness do, in which order."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from runtime.last_call import LAST_CALL_S
from tests.tunnel_server.conftest import LABEL, Stage, settings
from tests.tunnel_server.doubles import MemoryGateway, Upstream, answering
from tunnel_server.app import Node
from tunnel_server.control import arrivals
from tunnel_server.control.arrivals import are_here
from tunnel_server.control.gateway import Elsewhere
from tunnel_server.edge import listener

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CLOSE = b"\r\nConnection: close\r\n"
IDLE_STOP_S = 2.0  # an idle node is to be gone by then


@asynccontextmanager
async def stopping(stage: Stage) -> AsyncIterator[asyncio.Task[None]]:
    stage.stopped = True
    task = asyncio.get_running_loop().create_task(stage.node.stop())
    try:
        await stage.until(lambda: stage.node.edge.draining)
        yield task
    finally:
        async with asyncio.timeout(10):
            await task


async def test_a_request_on_a_kept_connection_is_served_as_its_last(stage: Stage) -> None:
    """A proxy may have sent it before it could know; a POST it may not send again."""
    await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.get()
    head, _ = await visitor.response()
    assert CLOSE not in head
    async with stopping(stage):
        assert stage.node.failed_checks() == ["draining"]
        visitor.get("/", "Content-Length: 3", method="POST")
        visitor.send(b"abc")
        head, body = await visitor.response()
        assert head.startswith(b"HTTP/1.1 200")
        assert CLOSE in head
        assert body == b"hello"
        assert await visitor.rest() == b""


async def test_a_request_that_had_begun_is_served(stage: Stage) -> None:
    await stage.serve(answering(OK))
    visitor = await stage.visitor()
    visitor.send(b"GET / HTTP/1.1\r\n")
    await stage.until(lambda: any(one._in_head for one in stage.node.edge.connections))
    async with stopping(stage) as task:
        # Longer than a connection may stay without a request: the tunnels are not told to go before.
        await stage.until(lambda: stage.node.edge.monotonic() > stage.node.edge.idle_until)
        assert not task.done()
        cookie = f"Cookie: towline_session={visitor.cookie.decode()}"
        visitor.send(f"Host: {LABEL}.localhost\r\n{cookie}\r\n\r\n".encode())
        head, body = await visitor.response()
        assert head.startswith(b"HTTP/1.1 200")
        assert body == b"hello"


async def test_the_request_behind_an_answer_that_promised_more_is_served(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head of a download that began before the drain said keep-alive; its proxy takes it at its word."""
    monkeypatch.setattr(listener, "DRAIN_IDLE_S", 5.0)
    go_on = asyncio.Event()

    async def slow_then_quick(
        upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await upstream.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        await go_on.wait()
        writer.write(b"llo")
        await upstream.head(reader)
        writer.write(OK)

    await stage.serve(slow_then_quick)
    visitor = await stage.visitor()
    visitor.get()
    assert CLOSE not in await visitor.head()
    async with stopping(stage):
        # Long enough for tunnels to be told to go, were that answer thought to be the last.
        began = stage.node.edge.monotonic()
        await stage.until(lambda: stage.node.edge.monotonic() > began + 5 * LAST_CALL_S)
        go_on.set()
        assert await visitor.exactly(5) == b"hello"
        visitor.get()
        head, body = await visitor.response()
        assert head.startswith(b"HTTP/1.1 200")
        assert CLOSE in head
        assert body == b"hello"


async def test_an_open_connection_without_a_request_ends_soon(stage: Stage) -> None:
    visitor = await stage.visitor()
    await stage.until(lambda: stage.node.edge.connections)
    async with stopping(stage):
        started = time.monotonic()
        assert await visitor.rest() == b""
        assert time.monotonic() - started < IDLE_STOP_S


async def test_who_connects_while_it_drains_is_refused(stage: Stage) -> None:
    address = stage.node.visitors.address
    visitor = await stage.visitor()
    async with stopping(stage):
        await stage.until(lambda: stage.node.visitors._server is None)
        with pytest.raises(ConnectionRefusedError):
            async with asyncio.timeout(5):
                await asyncio.open_connection(address.host, address.port)
    visitor.close()


# The way back


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> MemoryGateway:
    monkeypatch.setattr(arrivals, "ASK_S", 0.02)
    return MemoryGateway()


async def refuses(node: Node) -> bool:
    address = node.visitors.address
    try:
        _, writer = await asyncio.open_connection(address.host, address.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def until_it_takes(node: Node) -> None:
    async with asyncio.timeout(10):
        while await refuses(node):  # noqa: ASYNC110 - the kernel knows
            await asyncio.sleep(0.02)


async def test_a_node_takes_visitors_once_the_others_devices_are_here(gateway: MemoryGateway) -> None:
    gateway.elsewhere = Elsewhere(5, 5)
    node = Node(settings(), gateway)
    await node.start()
    try:
        assert await refuses(node)
        assert "devices_arriving" in node.failed_checks()
        gateway.elsewhere = Elsewhere(5, 0)
        await until_it_takes(node)
        assert "devices_arriving" not in node.failed_checks()
    finally:
        await node.stop()


async def test_it_does_not_wait_for_ever(gateway: MemoryGateway) -> None:
    """Some devices hold one tunnel, at another node."""
    gateway.elsewhere = Elsewhere(5, 5)
    node = Node(replace(settings(), arrivals_s=0.2), gateway)
    await node.start()
    try:
        await until_it_takes(node)
        assert "devices_arriving" not in node.failed_checks()
    finally:
        await node.stop()


async def test_a_node_that_cannot_listen_in_the_end_says_so_and_ends(gateway: MemoryGateway) -> None:
    """Another process took the address meanwhile: a node that is ready and takes nobody would be worse."""
    gateway.elsewhere = Elsewhere(5, 5)
    ended = asyncio.Event()
    node = Node(settings(), gateway, on_crash=ended.set)
    await node.start()
    try:
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thief.bind((node.visitors.address.host, node.visitors.address.port))
            thief.listen()
            gateway.elsewhere = Elsewhere(5, 0)
            async with asyncio.timeout(10):
                await ended.wait()
        assert node.crashed
    finally:
        await node.stop()


async def test_it_asks_only_after_the_gateway_has_forgotten_what_the_process_before_held(
    gateway: MemoryGateway,
) -> None:
    gateway.elsewhere, gateway.down = Elsewhere(5, 0), True
    node = Node(settings(), gateway)
    await node.start()
    try:
        assert not await node.arrivals.ask()
        gateway.down = False
        await until_it_takes(node)
        assert gateway.reports[0]["full"] is True
    finally:
        await node.stop()


def test_of_many_devices_a_few_may_be_missing() -> None:
    assert are_here(Elsewhere(0, 0))
    assert not are_here(Elsewhere(1, 1))
    assert are_here(Elsewhere(5_000, 100))
    assert not are_here(Elsewhere(5_000, 101))

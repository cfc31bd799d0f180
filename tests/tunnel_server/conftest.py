"""A node on free ports, with a gateway in memory and helpers that talk to it in raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from runtime.clock import SYSTEM_CLOCK
from tests.tunnel_server.doubles import (
    DEVICE,
    LABEL,
    DeviceKey,
    MemoryGateway,
    Script,
    TestDevice,
    Upstream,
    unused_path,
)
from tunnel_protocol import Limits, Service
from tunnel_server.app import Node
from tunnel_server.settings import (
    DeviceLimits,
    GatewaySettings,
    Settings,
    TunnelSettings,
    VisitorLimits,
    VisitorSettings,
)

GATEWAY_DEFAULTS: dict[str, Any] = {"internal_url": "https://127.0.0.1:1", "presence_s": 0.2}
WAIT_S = 10.0  # far above anything these tests wait for; only a failure reaches it


class Visitor:
    """A browser's connection in raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cookie: bytes) -> None:
        self.reader = reader
        self.writer = writer
        self.cookie = cookie

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, path: str = "/", *headers: str, method: str = "GET", version: str = "1.1") -> None:
        lines = [f"{method} {path} HTTP/{version}", f"Host: {LABEL}.localhost"]
        if self.cookie:
            lines.append(f"Cookie: towline_session={self.cookie.decode()}")
        if method not in ("GET", "HEAD") and not any(
            line.startswith(("Origin", "Sec-Fetch")) for line in headers
        ):
            lines.append("Sec-Fetch-Site: same-origin")
        self.send("\r\n".join([*lines, *headers, "", ""]).encode("latin-1"))

    async def head(self) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(WAIT_S):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection; ConnectionResetError when it was cut."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read(-1)

    async def response(self) -> tuple[bytes, bytes]:
        """(head, body) of an answer with a Content-Length or none."""
        head = await self.head()
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
        return head, await self.exactly(int(length[1])) if length else b""

    async def was_cut(self) -> bytes:
        """What came before the connection was cut or ended."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(WAIT_S):
                while data := await self.reader.read(65_536):
                    received += data
        return received

    def close(self) -> None:
        self.writer.transport.abort()


@dataclasses.dataclass
class Stage:
    """A running node and everything around it."""

    node: Node
    gateway: MemoryGateway
    key: DeviceKey
    devices: list[TestDevice] = dataclasses.field(default_factory=list)
    upstreams: list[Upstream] = dataclasses.field(default_factory=list)
    visitors: list[Visitor] = dataclasses.field(default_factory=list)
    stopped: bool = False

    async def upstream(self, script: Script) -> tuple[Upstream, tuple[str, int]]:
        upstream = Upstream(script)
        self.upstreams.append(upstream)
        return upstream, await upstream.start()

    async def device(self, target: tuple[str, int], **options: Any) -> TestDevice:
        device = TestDevice(self.key, target, **options)
        self.devices.append(device)
        await device.dial(self.node.tunnels.address.port)
        await device.wait_ready()
        await self.until(lambda: any(t.instance == device.instance for t in self.node.devices.tunnels()))
        return device

    async def serve(self, script: Script, **options: Any) -> Upstream:
        """A device whose one service runs ``script``."""
        upstream, target = await self.upstream(script)
        await self.device(target, **options)
        return upstream

    async def visitor(self, cookie: bytes | None = None) -> Visitor:
        """A connection; by default with the cookie of a fresh session."""
        if cookie is None:
            _, cookie = self.gateway.add_session()
        address = self.node.visitors.address
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        visitor = Visitor(reader, writer, cookie)
        self.visitors.append(visitor)
        return visitor

    async def until(self, condition: Any) -> None:
        """Let the loop turn until the condition holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - conditions span objects that know no events
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        for visitor in self.visitors:
            visitor.close()
        for device in self.devices:
            await device.close()
        if not self.stopped:
            await self.node.stop()
        for upstream in self.upstreams:
            await upstream.close()


def settings(
    *,
    limits: VisitorLimits | None = None,
    devices: DeviceLimits | None = None,
    gateway: dict[str, Any] | None = None,
    tunnels: dict[str, Any] | None = None,
    visitors: dict[str, Any] | None = None,
    drain_s: float = 5.0,
) -> Settings:
    """Settings of a node on free loopback ports."""
    return Settings(
        node="n1",
        ops_listen="127.0.0.1:0",
        visitors=VisitorSettings(
            listen="127.0.0.1:0",
            limits=limits or VisitorLimits(resolves_per_s=1000.0),
            **({"domain": "localhost"} | (visitors or {})),
        ),
        tunnels=TunnelSettings(listen="127.0.0.1:0", server_names=("127.0.0.1",), **(tunnels or {})),
        gateway=GatewaySettings(
            public_url="http://127.0.0.1:8080",
            ca=unused_path(),
            certificate=unused_path(),
            key=unused_path(),
            **(GATEWAY_DEFAULTS | (gateway or {})),
        ),
        devices=devices or DeviceLimits(),
        drain_s=drain_s,
    )


@contextlib.asynccontextmanager
async def running(config: Settings) -> AsyncIterator[Stage]:
    """A started node on a stage."""
    gateway, key = MemoryGateway(), DeviceKey()
    gateway.add_device(key)
    node = Node(config, gateway, clock=SYSTEM_CLOCK)
    await node.start()
    stage = Stage(node, gateway, key)
    try:
        await stage.until(node.feed.is_fresh)
        yield stage
    finally:
        await stage.close()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that a node runs on: its transports differ from asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running(settings()) as started:
        yield started


__all__ = ["DEVICE", "LABEL", "Limits", "Service", "Stage", "Visitor", "running", "settings"]

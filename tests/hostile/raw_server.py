"""A tunnel server written by hand, which may say anything, and a real agent process for it to say it to."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.hostile.raw_tunnel import (
    AUTH,
    CHALLENGE,
    DATA,
    GOAWAY,
    GRANT,
    HELLO,
    OPEN,
    PING,
    PONG,
    WAIT_S,
    frame,
)
from tests.hostile.scene import ROOT, Watched
from tests.tunnel_agent.authority import DEVICE, Authority, claims, grant_id, token
from tests.tunnel_agent.node import Changing
from tunnel_agent.identity import IdentityStore

HEARD_MOST = 20_000
BACKLOG = 1_024  # else the kernel lets a flood of connects wait for seconds


def open_frame(stream: int, grant: bytes, service: bytes = b"web", device: bytes = DEVICE.encode()) -> bytes:
    names = b"".join(len(name).to_bytes(1) + name for name in (device, service))
    return frame(OPEN, grant + names, stream)


class RawPeer:
    """One agent's connection, as the server that means it ill has it."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.heard: list[tuple[int, int, bytes]] = []  # (type, stream, payload)
        self.data_bytes = 0
        self._unanswered: list[bytes] = []  # PINGs
        self.reads = asyncio.Event()
        self.reads.set()
        self.ended = asyncio.Event()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Read until the end."""
        try:
            while True:
                await self.reads.wait()
                message = await self._connection.recv()
                assert isinstance(message, bytes)
                self._hear(message)
                for payload in self._unanswered:
                    await self._connection.send(frame(PONG, payload))
                self._unanswered.clear()
        except ConnectionClosed:
            pass
        finally:
            self.ended.set()
            self._changed.set()

    def _hear(self, message: bytes) -> None:
        position = 0
        while position < len(message):
            kind, length = message[position], int.from_bytes(message[position + 2 : position + 4])
            stream = int.from_bytes(message[position + 4 : position + 8])
            payload = message[position + 8 : position + 8 + length]
            position += 8 + length
            if kind == DATA:
                self.data_bytes += length
            elif kind == PING:
                self._unanswered.append(payload)
            if len(self.heard) < HEARD_MOST:
                self.heard.append((kind, stream, payload))
        self._changed.set()

    @property
    def status(self) -> int | None:
        """The WebSocket close status that the agent gave."""
        return self._connection.close_code

    @property
    def goaway_code(self) -> int | None:
        found = [payload for kind, _, payload in self.heard if kind == GOAWAY]
        return int.from_bytes(found[-1][8:10]) if found else None

    async def send(self, *frames: bytes) -> bool:
        """One message; False: the agent has closed."""
        try:
            async with asyncio.timeout(WAIT_S):
                await self._connection.send(b"".join(frames))
        except ConnectionClosed:
            return False
        return True

    def of(self, kind: int) -> list[tuple[int, bytes]]:
        return [(stream, payload) for heard, stream, payload in self.heard if heard == kind]

    async def until(self, condition: Callable[[], object], seconds: float = WAIT_S) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_heard(self, kind: int, count: int = 1) -> list[tuple[int, bytes]]:
        await self.until(lambda: len(self.of(kind)) >= count or self.ended.is_set())
        assert len(self.of(kind)) >= count, (self.status, self.heard[-3:])
        return self.of(kind)

    async def close(self) -> None:
        """The WebSocket's end, without a word of the tunnel's."""
        await self._connection.close(4000)

    async def settled(self) -> None:
        """Until the agent has done all that it was told so far: it answers in order."""
        known = len(self.of(PONG))
        assert await self.send(frame(PING, bytes(8)))
        await self.until_heard(PONG, known + 1)

    async def grant(self, **changes: object) -> bytes:
        """A genuine grant; its id."""
        body = claims(time.time(), **changes)
        await self.send(frame(GRANT, grant_id(body) + token(body)))
        return grant_id(body)

    async def greet(self, hello: bytes = frame(HELLO)) -> None:
        """The handshake as it should be; whose signature it is does not matter to who means ill."""
        await self.send(frame(CHALLENGE, bytes(32) + b"127.0.0.1"))
        await self.until_heard(AUTH)
        await self.send(hello)
        await self.until_heard(HELLO)


class RawServer:
    """Listens on loopback; `peers` are the agents' connections in their order."""

    def __init__(self) -> None:
        self.peers: asyncio.Queue[RawPeer] = asyncio.Queue()
        self._server: Server | None = None

    async def start(self) -> str:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol("towline.v1")],
            compression=None,
            max_size=None,
            ping_interval=None,
            close_timeout=1,
        )
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/tunnel"

    async def _serve(self, connection: ServerConnection) -> None:
        peer = RawPeer(connection)
        self.peers.put_nowait(peer)
        await peer.run()

    async def peer(self, seconds: float = WAIT_S) -> RawPeer:
        """The next agent that comes, with its handshake still before it."""
        async with asyncio.timeout(seconds):
            return await self.peers.get()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()


class AgentProcess(Watched):
    """`python -m tunnel_agent`, enrolled by a gateway whose keys the tests hold; one tunnel for each URL."""

    def __init__(
        self,
        folder: Path,
        urls: list[str],
        services: dict[str, str],
        *,
        device: str = DEVICE,
        limits: dict[str, int] | None = None,
        hasty: bool = False,
    ) -> None:
        """`hasty`: it dials again at once, whatever a server did to it."""
        super().__init__(folder / "agent.log")
        store = IdentityStore(folder / "state")
        self.authority = Authority(time.time())
        store.save(replace(self.authority.identity(()), device_id=device))
        lines = ['state_dir = "state"', f"server_urls = {urls}", "connections = 1"]
        lines.append("drain_timeout_s = 0.1")
        for name, address in services.items():
            lines += [f"[services.{name}]", f'address = "{address}"']
        if limits:
            lines += ["[limits]", *(f"{name} = {value}" for name, value in limits.items())]
        config = folder / "agent.toml"
        config.write_text("\n".join(lines) + "\n")
        program = "tests.hostile.hasty_agent" if hasty else "tunnel_agent"
        self._command = [sys.executable, "-m", program, "--config", str(config)]
        self.state = folder / "state"
        self.start()

    def start(self) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, stderr=log, text=True)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(WAIT_S)


class Target(Changing):
    """A local listener that counts who connects. `pushes`: sends without an end; else reads and forgets."""

    def __init__(self, *, pushes: bool = False) -> None:
        super().__init__()
        self.connections = 0
        self.live = 0
        self.pushed = 0  # pieces
        self._pushes = pushes
        self._server: asyncio.Server

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=BACKLOG)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.live += 1
        self.changed()
        try:
            while self._pushes:
                writer.write(bytes(60_000))
                await writer.drain()
                self.pushed += 1
            while await reader.read(1 << 16):
                pass
        except OSError:
            pass  # reset: a cut stream shall look cut
        finally:
            self.live -= 1
            self.changed()
            writer.transport.abort()

    async def until_still(self) -> None:
        """Until nobody takes anything any more."""
        looks = [-1]
        while looks[-5:] != [self.pushed] * 5:
            looks.append(self.pushed)
            await asyncio.sleep(0.05)

    def close(self) -> None:
        self._server.close()


@contextlib.asynccontextmanager
async def attacked(
    folder: Path, *, hasty: bool = False, **targets: Target
) -> AsyncIterator[tuple[AgentProcess, RawServer]]:
    """An agent process whose services are these targets, dialled in at a server by hand."""
    server = RawServer()
    url = await server.start()
    services = {name: await target.start() for name, target in targets.items()}
    agent = AgentProcess(folder, [url], services, hasty=hasty)
    try:
        yield agent, server
    finally:
        await asyncio.to_thread(agent.stop)
        await server.close()
        for target in targets.values():
            target.close()

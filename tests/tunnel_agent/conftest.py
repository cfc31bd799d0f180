"""An agent with a local service on one side and a tunnel server on the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop

from runtime.settings import from_table
from tests.tunnel_agent.authority import Authority, claims, grant_id, token
from tests.tunnel_agent.node import Changing, Node, NodeTunnel
from tunnel_agent.app import Agent
from tunnel_agent.identity import Identity, IdentityStore
from tunnel_agent.settings import AgentSettings
from tunnel_protocol import Limits

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class LocalService(Changing):
    """A TCP service whose conversation is a function; counts its connections."""

    def __init__(self, talk: Talk) -> None:
        super().__init__()
        self.connections = 0
        self.ended: list[str] = []  # "clean", or the error each connection ended with
        self._talk = talk
        self._server: asyncio.Server

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.changed()
        try:
            await self._talk(reader, writer)
            self.ended.append("clean")
        except OSError as error:
            self.ended.append(type(error).__name__)
        finally:
            writer.close()
            self.changed()

    async def close(self) -> None:
        self._server.close()


class Naps(Changing):
    """What diallers want to sleep between two dials; they get a hundredth."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.changed()
        await asyncio.sleep(seconds / 100)  # sleeps: it is the clock, a hundred times as fast


class Bench:
    """Everything of one test."""

    def __init__(self, tmp_path: Path, stack: AsyncExitStack) -> None:
        self.authority = Authority(time.time())
        self.identity: Identity = self.authority.identity(())
        self.store = IdentityStore(tmp_path / "state")
        self.store.save(self.identity)
        self.crashes: list[str] = []
        self.naps = Naps()
        self._stack = stack

    async def service(self, talk: Talk) -> tuple[LocalService, str]:
        service = LocalService(talk)
        address = await service.start()
        self._stack.push_async_callback(service.close)
        return service, address

    async def node(self, limits: Limits | None = None) -> tuple[Node, str]:
        node = Node(self.identity.device_root, limits)
        node.device_key = self.identity.key._private.public_key()
        url = await node.start()
        self._stack.push_async_callback(node.close)
        return node, url

    async def agent(self, urls: list[str], services: Mapping[str, object], **changes: object) -> Agent:
        table = {
            "state_dir": str(self.store.directory),
            "server_urls": urls,
            "connections": 1,
            "services": {
                name: {"address": value} if isinstance(value, str) else value
                for name, value in services.items()
            },
        }
        settings = from_table(AgentSettings, table | changes, source=self.store.directory / "agent.toml")
        agent = Agent(
            settings,
            self.identity,
            self.store,
            on_crash=lambda: self.crashes.append("crash"),
            sleep=self.naps.sleep,
        )
        agent.run()
        self._stack.push_async_callback(agent.close, 0.0)
        return agent

    async def tunnel(self, talk: Talk, limits: Limits | None = None, **changes: object) -> NodeTunnel:
        """An open tunnel to an agent with one service, `web`."""
        _, address = await self.service(talk)
        node, url = await self.node(limits)
        await self.agent([url], {"web": address}, **changes)
        return (await node.until_ready())[0]

    def grant(self, tunnel: NodeTunnel, **changes: object) -> bytes:
        """Send a genuine grant; returns its id."""
        body = claims(time.time(), **changes)
        tunnel.connection.grant(grant_id(body), token(body))
        return grant_id(body)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops: they call a BufferedProtocol differently, and some devices have only asyncio's."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        bench = Bench(tmp_path, stack)
        yield bench
    assert not bench.crashes

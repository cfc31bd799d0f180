"""The same `world` as everywhere, but every request may meet either of two gateways."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import Gateway
from gateway.settings import Settings
from runtime.clock import Clock, FakeClock
from testbed.nginx import gateways_behind, nginx_argv
from testbed.ports import LOOPBACK, free_port
from testbed.programs import running, wait_listening
from testbed.redis_server import RedisServer
from tests.gateway.world import World, settings_for


class ReplicatedWorld(World):
    """`gateway` is one of the two. People come through nginx, which takes turns; nodes talk to the other."""

    def __init__(self, settings: Settings, clock: Clock, folder: Path) -> None:
        super().__init__(settings, clock, folder)
        self.other = Gateway(settings, clock, self.passwords)
        self._front = free_port()
        self._ends = ExitStack()

    async def start(self) -> World:
        await super().start()
        await self.other.start()
        backends = [str(one.public_address) for one in (self.gateway, self.other)]
        argv = nginx_argv(self.folder, gateways_behind(f"{LOOPBACK}:{self._front}", backends))
        nginx = self._ends.enter_context(running(argv, log=self.folder / "nginx.log"))
        wait_listening(self._front, nginx)
        return self

    async def prepared(self) -> World:
        await super().prepared()
        await self.other.prepared
        return self

    async def close(self) -> None:
        await super().close()
        await self.other.close()
        self._ends.close()

    def _client(self, **options: Any) -> httpx.AsyncClient:
        url = f"http://{LOOPBACK}:{self._front}"
        return self._keep(httpx.AsyncClient(base_url=url, trust_env=False, **options))

    def internal(self, context: Any) -> httpx.AsyncClient:
        url = f"https://localhost:{self.other.internal_address.port}"
        return self._keep(httpx.AsyncClient(base_url=url, verify=context, trust_env=False))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def stores(redis_server: RedisServer) -> dict[str, Any]:
    """The settings that say who keeps the short-lived."""
    return {"redis_url": redis_server.url(), "redis_prefix": "t" + secrets.token_hex(4)}


@pytest.fixture
async def world(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock, stores: dict[str, Any]
) -> AsyncIterator[World]:
    settings = settings_for(tmp_path, database_url, keys_dir, trusted_proxies=(LOOPBACK,), **stores)
    both = ReplicatedWorld(settings, clock, tmp_path)
    await (await both.start()).prepared()
    yield both
    await both.close()

"""A gateway with providers of the tests' own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.login.settings import ProviderSettings
from runtime.clock import FakeClock
from tests.gateway.login.free_provider import CLIENT_ID, CLIENT_SECRET, FreeProvider
from tests.gateway.world import World, settings_for

StartWorld = Callable[..., Awaitable[World]]


@pytest.fixture
def provider(clock: FakeClock) -> Iterator[FreeProvider]:
    running = FreeProvider(clock.wall)
    yield running
    running.close()


@pytest.fixture
def second(clock: FakeClock) -> Iterator[FreeProvider]:
    running = FreeProvider(clock.wall)
    yield running
    running.close()


def provider_settings(folder: Path, url: str, **changes: Any) -> ProviderSettings:
    """Settings of a provider at `url`, with the secret that the tests' providers know."""
    (folder / "client-secret").write_text(CLIENT_SECRET + "\n")
    values: dict[str, Any] = {
        "client_id": CLIENT_ID,
        "client_secret_file": folder / "client-secret",
        "metadata_url": url,
    }
    return ProviderSettings(**(values | changes))


@pytest.fixture
async def start_world(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> AsyncIterator[StartWorld]:
    """Start the gateway with these providers, by id."""
    running: list[World] = []

    async def start(providers: dict[str, ProviderSettings], **changes: Any) -> World:
        settings = settings_for(tmp_path, database_url, keys_dir, login_providers=providers, **changes)
        world = World(settings, clock, tmp_path)
        running.append(world)
        return await (await world.start()).prepared()

    yield start
    for world in running:
        await world.close()


@pytest.fixture
async def login_world(start_world: StartWorld, provider: FreeProvider, tmp_path: Path) -> World:
    """One provider, `free`."""
    return await start_world({"free": provider_settings(tmp_path, provider.url)})

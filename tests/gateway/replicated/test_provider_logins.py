"""Logins by a provider, with two gateways: begun at one, the browser comes back to the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.login.settings import ProviderSettings
from runtime.clock import FakeClock
from testbed.ports import LOOPBACK
from tests.gateway.login.conftest import StartWorld, login_world, provider, second  # noqa: F401
from tests.gateway.login.test_evil_browsers import *  # noqa: F403
from tests.gateway.login.test_honest import (  # noqa: F401
    test_only_who_has_an_account,
    test_the_same_person_comes_back_as_the_same_user,
    test_two_first_logins_at_once_make_one_user,
    test_who_was_disabled_stays_out,
)
from tests.gateway.replicated.conftest import ReplicatedWorld
from tests.gateway.world import World, settings_for


@pytest.fixture
async def start_world(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock, stores: dict[str, Any]
) -> AsyncIterator[StartWorld]:
    """As the single gateway's, with two."""
    running: list[World] = []

    async def start(providers: dict[str, ProviderSettings], **changes: Any) -> World:
        more = {"trusted_proxies": (LOOPBACK,), **stores, **changes}
        settings = settings_for(tmp_path, database_url, keys_dir, login_providers=providers, **more)
        world = ReplicatedWorld(settings, clock, tmp_path)
        running.append(world)
        return await (await world.start()).prepared()

    yield start
    for world in running:
        await world.close()


# What a thousand tries cost is the single gateway's to show; limits are one for both: test_two_gateways.py.
del test_a_thousand_tries_cost_little  # noqa: F821

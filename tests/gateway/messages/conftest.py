"""A site a test: with time that stands, or passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from gateway.store.transaction import Row
from runtime.clock import SYSTEM_CLOCK, FakeClock
from tests.gateway.messages.site import Site


@pytest.fixture
async def site(database_url: str, clock: FakeClock) -> AsyncIterator[Site]:
    """Its time stands: for one step at a time."""
    async with AsyncExitStack() as stack:
        yield await Site(database_url, clock, stack).open()


@pytest.fixture
async def live_site(database_url: str) -> AsyncIterator[Site]:
    """Its time passes: for consumers that run."""
    async with AsyncExitStack() as stack:
        yield await Site(database_url, SYSTEM_CLOCK, stack).open()


@pytest.fixture
async def owner(owner_url: str) -> AsyncIterator[asyncpg.Connection[Row]]:
    """The tables' owner, who may do what the service may not."""
    connection = await asyncpg.connect(owner_url)
    try:
        yield connection
    finally:
        await connection.close()

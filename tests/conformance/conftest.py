"""One world for all tests of this folder, and one whose deadlines are short."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.world import World, world_settings
from tunnel_server.settings import DeviceLimits, VisitorLimits


@pytest.fixture(scope="package")
def running_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    limits = VisitorLimits(resolves_per_s=10_000.0, resolves_per_s_total=10_000.0)
    started = World(tmp_path_factory.mktemp("world"), world_settings(limits=limits)).start()
    yield started
    started.stop()


@pytest.fixture(scope="package")
def running_hasty_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    limits = VisitorLimits(
        resolves_per_s=10_000.0,
        resolves_per_s_total=10_000.0,
        head_s=1.0,
        idle_s=1.0,
        body_idle_s=2.5,  # a busy machine takes a second from one byte of a slow upload to the next
        stall_s=0.8,
        linger_s=0.3,
    )
    devices = DeviceLimits(open_s=1.0, response_head_s=1.0, response_idle_s=0.4, idle_stream_s=0.3)
    config = world_settings(limits=limits, devices=devices)
    started = World(tmp_path_factory.mktemp("hasty"), config).start()
    yield started
    started.stop()


@pytest.fixture
def world(running_world: World) -> Iterator[World]:
    """Nothing that a strict reader refuses may ever reach the service."""
    running_world.service.forget()
    yield running_world
    assert running_world.service.errors == []


@pytest.fixture
def hasty_world(running_hasty_world: World) -> Iterator[World]:
    """The same with deadlines of fractions of a second."""
    running_hasty_world.service.forget()
    yield running_hasty_world
    assert running_hasty_world.service.errors == []

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.hostile.scene import HONEST, HOSTILE, NodeProcess, Scene, staged
from tests.tunnel_server.doubles import DeviceKey


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The attackers' own loop: floods shall not wait for Python."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="package")
def keys() -> dict[str, DeviceKey]:
    return {HONEST: DeviceKey(), HOSTILE: DeviceKey()}


@pytest.fixture(scope="package")
def node_process() -> Iterator[NodeProcess]:
    """One tunnel server for all attacks: each must leave it as it found it."""
    folder = Path(tempfile.mkdtemp(prefix="towline-hostile-"))
    # Each attack connects once or twice, all of them as one device.
    node = NodeProcess(folder, connects_per_device=100_000)
    yield node
    node.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def scene(node_process: NodeProcess, keys: dict[str, DeviceKey]) -> AsyncIterator[Scene]:
    for device, key in keys.items():
        await node_process.call("add_device", device=device, public_key=key.public.hex())
    async with staged(node_process, keys) as scene:
        yield scene

"""A broker; and a folder in memory: what counts here is what becomes of files, not how fast a disk is."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder, started
from tests.tunnel_agent.messages.device import TOPIC, Gateway
from tests.tunnel_agent.messages.pipeline import Pipeline

_MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if not _MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="towline-messages-", dir=_MEMORY) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    """One for the run; a test that stops it starts it again."""
    with short_folder("device-messages") as made, started(Mosquitto(made)) as server:
        yield server


@pytest.fixture
def gateway(mosquitto: Mosquitto) -> Iterator[Gateway]:
    double = Gateway(mosquitto)
    yield double
    double.close()


@pytest.fixture
async def pipeline(mosquitto: Mosquitto) -> AsyncIterator[Pipeline]:
    made = Pipeline(mosquitto, TOPIC)
    await made.start()
    yield made
    await made.close()


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Both loops, as some devices have only asyncio's; an agent that is a process has its own."""
    both = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"uvloop": uvloop.new_event_loop} if item.path.name == "test_process.py" else both

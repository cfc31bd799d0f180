"""The brokers of this folder, each started once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from ingest.brokers.embedded import EmbeddedBroker
from ingest.brokers.topic_rule import BRIDGE, GATEWAY
from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder, started


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    """It runs at the beginning of each test that asks for it by `broker`."""
    with short_folder("mqtt") as folder, started(Mosquitto(folder)) as server:
        yield server


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedBroker]:
    async def check(device: str, password: str) -> bool:
        return password == f"of-{device}"

    broker = EmbeddedBroker(check, {BRIDGE: "bridge-secret", GATEWAY: "gateway-secret"})
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()

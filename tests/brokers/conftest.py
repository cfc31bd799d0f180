"""The brokers of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from ingest.brokers.embedded import EmbeddedBroker
from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder, started
from tests.brokers.embedded import embedded_broker


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    with short_folder("brokers") as folder, started(Mosquitto(folder)) as server:
        yield server


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedBroker]:
    async with embedded_broker() as broker:
        yield broker

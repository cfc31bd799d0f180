"""Both logs, each once a run: Kafka's tests are one xdist group, so that one broker serves them all."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from testbed.kafka import KafkaServer
from testbed.processes import short_folder, started
from tests.event_log.logs import EmbeddedLog, KafkaLog, RunningLog

KINDS = (
    pytest.param("embedded_log", id="embedded", marks=pytest.mark.xdist_group("embedded log")),
    pytest.param("kafka_log", id="kafka", marks=pytest.mark.xdist_group("kafka")),
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"embedded", "log"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.database)


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedLog]:
    with short_folder("log-") as folder, started(EmbeddedLog(folder)) as server:
        yield server


@pytest.fixture
async def embedded_log(embedded: EmbeddedLog) -> AsyncIterator[RunningLog]:
    yield embedded
    await embedded.close_all()


@pytest.fixture
async def kafka_log(kafka: KafkaServer) -> AsyncIterator[RunningLog]:
    """In topics of its own."""
    made = KafkaLog(kafka, f"t{secrets.token_hex(4)}")
    yield made
    await made.close_all()


@pytest.fixture(params=KINDS)
def log(request: pytest.FixtureRequest) -> RunningLog:
    found: RunningLog = request.getfixturevalue(request.param)
    return found

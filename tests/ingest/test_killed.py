"""Real bridges and their broker, each killed while devices speak; a real Kafka says what was kept."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from device_protocol.envelope import decode
from device_protocol.numbers import Line, Place
from device_protocol.topics import Kind
from runtime.event_log.interface import PARTS, UP
from runtime.event_log.kafka import KafkaAddress, KafkaReader
from runtime.tasks import TaskOwner
from testbed.kafka import KafkaServer
from testbed.mosquitto import Mosquitto
from testbed.ops import is_ready, metric
from testbed.ports import free_ports
from testbed.processes import Processes
from testbed.settings_tables import write_table
from tests.ingest.conftest import Site
from tests.ingest.devices import LiveDevice
from tests.mqtt_link.clients import Clients

BRIDGES = 2
DEVICES = 6
MESSAGES = 100
READ_S = 30.0


class Bridges:
    """Processes of one installation."""

    def __init__(self, site: Site, kafka: KafkaServer, folder: Path) -> None:
        self.address = kafka.address(f"t{secrets.token_hex(4)}")
        self.processes = Processes(folder)
        self._ops = free_ports(BRIDGES)
        for n in range(BRIDGES):
            table = {
                "ops_listen": f"127.0.0.1:{self._ops[n]}",
                "broker": site.broker_table(),
                "log": {
                    "kind": "kafka",
                    "servers": list(self.address.servers),
                    "prefix": self.address.prefix,
                },
                "bridge": n,
                "bridges": BRIDGES,
            }
            path = write_table(folder / f"ingest-{n}.toml", table)
            self.processes.run(f"ingest-{n}", [sys.executable, "-m", "ingest", "--config", str(path)])

    async def wait_ready(self) -> None:
        for n, port in enumerate(self._ops):
            await asyncio.to_thread(self.processes.wait_ready, f"ingest-{n}", partial(is_ready, port))

    async def kill(self, n: int) -> None:
        await asyncio.to_thread(self.processes.kill, f"ingest-{n}")
        self.processes.again(f"ingest-{n}")
        await self.wait_ready()

    def metric(self, start: str) -> float:
        return sum(metric(port, start) for port in self._ops)


@pytest.fixture
async def bridges(
    mosquitto: Mosquitto, kafka: KafkaServer, tmp_path: Path
) -> AsyncIterator[tuple[Bridges, Site]]:
    async with Clients(mosquitto) as clients:
        site = Site(mosquitto, clients, tmp_path)
        made = Bridges(site, kafka, tmp_path)
        try:
            await made.wait_ready()
            yield made, site
        finally:
            await asyncio.to_thread(made.processes.close)


async def test_nothing_accepted_is_missing_in_kafka_whoever_is_killed(
    bridges: tuple[Bridges, Site], mosquitto: Mosquitto
) -> None:
    made, site = bridges
    devices = [LiveDevice(site.clients, f"d_{n:016d}") for n in range(DEVICES)]
    tasks = TaskOwner("devices")
    deeds = (partial(made.kill, 0), partial(broker_killed, mosquitto), partial(made.kill, 1))
    for deed in deeds:
        saying = [tasks.start(device.say(MESSAGES), device.device) for device in devices]
        await asyncio.wait(saying, return_when=asyncio.FIRST_COMPLETED, timeout=0.3)
        await deed()
        await asyncio.gather(*saying)
    assert [device.floor.seq for device in devices] == [len(deeds) * MESSAGES] * DEVICES
    assert await taken(made.address) == {device.device: len(deeds) * MESSAGES for device in devices}
    assert made.metric("towline_ingest_given_up_total") == 0


async def broker_killed(mosquitto: Mosquitto) -> None:
    await asyncio.to_thread(mosquitto.kill)
    mosquitto.start()  # in this thread: the kernel ends a broker with the thread that started it


async def taken(address: KafkaAddress) -> dict[str, int]:
    """By device how many numbers the gateway would take from the log, each in line."""
    reader = KafkaReader(address)
    await reader.start()
    try:
        ends = await reader.ends(UP)
        positions = {(UP, part): 0 for part in range(PARTS[UP])}
        lines: dict[str, Line] = {}
        counts: dict[str, int] = {}
        async with asyncio.timeout(READ_S):
            while any(positions[UP, part] < end for part, end in ends.items()):
                for record in await reader.read(positions, most=1000, wait_s=1.0):
                    positions[record.topic, record.part] = record.offset + 1
                    device = record.entry.key.decode()
                    standing = decode(Kind.TELEMETRY, record.entry.value).standing
                    assert standing is not None
                    offer = lines.setdefault(device, Line()).offer(
                        standing.number, standing.before, standing.floor
                    )
                    assert not offer.passed, "accepted, and not in the log"
                    counts[device] = counts.get(device, 0) + (offer.place is Place.TAKE)
        return counts
    finally:
        await reader.close()

"""Commands through real brokers: a whole gateway, and a device on the other side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from device_protocol import bodies
from device_protocol.bodies import Stage
from device_protocol.topics import Kind, Topic
from gateway.commands.settings import BrokerSettings
from gateway.policy.commands import State
from gateway.store.commands import COMMAND_CHANNEL
from ingest.brokers.embedded import EmbeddedBroker
from runtime.clock import FakeClock
from testbed.mosquitto import Mosquitto
from testbed.processes import short_folder, started
from tests.brokers.embedded import SECRETS, embedded_broker
from tests.gateway.commands.conftest import Yard
from tests.gateway.world import World, settings_for
from tests.mqtt_link.clients import Client, Clients

WAIT_S = 15.0


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    with short_folder("commands") as folder, started(Mosquitto(folder)) as server:
        yield server


@pytest.fixture
async def embedded() -> AsyncIterator[EmbeddedBroker]:
    async with embedded_broker() as broker:
        yield broker


def at_mosquitto(mosquitto: Mosquitto, folder: Path) -> BrokerSettings:
    shown = mosquitto.internal.issue_client("gateway", time.time())
    ca, certificate, key = (folder / name for name in ("ca.pem", "gateway.pem", "gateway.key"))
    ca.write_text(mosquitto.internal.pem())
    certificate.write_bytes(shown.certificate_pem())
    key.write_bytes(shown.key_pem())
    url = f"mqtts://127.0.0.1:{mosquitto.internal_port}"
    return BrokerSettings(url, ca=ca, certificate=certificate, key=key)


def at_embedded(broker: EmbeddedBroker, folder: Path) -> BrokerSettings:
    password = folder / "broker-password"
    password.write_text(SECRETS["gateway"])
    url = f"mqtt://127.0.0.1:{broker.port}"
    return BrokerSettings(url, username="gateway", password_file=password, version="3.1.1")


class Joined(Yard):
    """A yard whose gateway publishes by itself, and the device's end of the line."""

    async def connect(self, clients: Clients) -> Client:
        asked, site = await self.asked(), await self.site()
        device = await clients.device(self.device.id)
        topic = Topic(asked.org_id, site, asked.type.id, self.device.id, Kind.CMD)
        await device.link.subscribe([str(topic)])
        await self.greet()
        return device

    async def site(self) -> str:
        device = (await self.owner.get(f"/v1/devices/{self.device.id}")).json()
        site: str = device["site"]["id"]
        return site

    async def wait_state(self, command_id: str, state: State) -> None:
        """Woken as those who wait for its end are."""
        async with asyncio.timeout(WAIT_S):
            with self.world.gateway.parts.shortlived.follow(COMMAND_CHANNEL) as following:
                while await self.state(command_id) is not state:
                    await anext(following)

    async def wait_connected(self, connected: bool = True) -> None:
        """The gateway to its broker, or no more."""
        async with asyncio.timeout(WAIT_S):
            while bool(self.world.gateway.parts.commands.lease_s) is not connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # nothing tells of it


@pytest.fixture
async def world_of(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> AsyncIterator[list[World]]:
    """To be filled with what is to be closed; `join` does."""
    worlds: list[World] = []
    yield worlds
    for world in worlds:
        await world.close()


@pytest.fixture
def join(world_of: list[World], tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock) -> Join:
    return Join(world_of, tmp_path, database_url, keys_dir, clock)


class Join:
    """Starts the gateway of one test at a broker."""

    def __init__(
        self, worlds: list[World], folder: Path, database_url: str, keys_dir: Path, clock: FakeClock
    ) -> None:
        self._worlds, self._folder, self._clock = worlds, folder, clock
        self._database_url, self._keys_dir = database_url, keys_dir

    async def __call__(self, broker: Mosquitto | EmbeddedBroker) -> Joined:
        at = at_mosquitto if isinstance(broker, Mosquitto) else at_embedded
        settings = settings_for(
            self._folder,
            self._database_url,
            self._keys_dir,
            broker=at(broker, self._folder),  # type: ignore[arg-type]  # the one that takes it
        )
        world = World(settings, self._clock, self._folder)
        self._worlds.append(world)
        await (await world.start()).prepared()
        owner = await world.person("owner")
        joined = Joined(world, self._clock, owner, await world.enrol(owner))
        await joined.wait_connected()
        return joined


async def test_mosquitto_says_whether_anybody_took_it(join: Join, mosquitto: Mosquitto) -> None:
    yard = await join(mosquitto)
    sent = await yard.send(ttl_s=600)
    async with asyncio.timeout(WAIT_S):
        while (await yard.get(sent["id"])).publishes == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # what nobody took changes no state, so nobody is told
    assert await yard.state(sent["id"]) is State.QUEUED
    async with Clients(mosquitto) as clients:
        device = await yard.connect(clients)
        await device.wait_count(1)
        await yard.wait_state(sent["id"], State.SENT)
        told = bodies.Command.parse(device.payloads()[0])
        assert (told.id, told.name) == (sent["id"], "ping")
        # One that is made while the device listens leaves with its commit.
        second = await yard.send(ttl_s=600)
        await device.wait_count(2)
        assert bodies.Command.parse(device.payloads()[1]).id == second["id"]
        await yard.wait_state(second["id"], State.SENT)
    await yard.ack(second["id"], Stage.DONE, ok=True)
    assert await yard.state(second["id"]) is State.SUCCEEDED


async def test_a_killed_broker_loses_no_command(join: Join) -> None:
    with short_folder("commands-killed") as folder, started(Mosquitto(folder)) as broker:
        yard = await join(broker)
        broker.kill()
        await yard.wait_connected(False)
        sent = await yard.send(ttl_s=600)
        assert sent["state"] == "queued"
        broker.start()
        await yard.wait_connected()
        async with Clients(broker) as clients:
            device = await yard.connect(clients)
            await device.wait_count(1)
            assert bodies.Command.parse(device.payloads()[0]).id == sent["id"]
            await yard.wait_state(sent["id"], State.SENT)


async def test_the_embedded_broker_brings_it(join: Join, embedded: EmbeddedBroker) -> None:
    yard = await join(embedded)
    async with Clients(embedded) as clients:
        device = await yard.connect(clients)
        sent = await yard.send()
        await device.wait_count(1)
        assert bodies.Command.parse(device.payloads()[0]).id == sent["id"]
        await yard.wait_state(sent["id"], State.SENT)

"""A gateway with a device that is at a site, and a broker at the seam that does what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from device_protocol import bodies
from device_protocol.bodies import Ack, Stage
from device_protocol.topics import parse_topic
from gateway.commands.dispatcher import Dispatcher
from gateway.commands.downlink import DownlinkGoneError
from gateway.commands.outcome import Answer, acked, greeted
from gateway.metrics import gateway_metrics
from gateway.policy.commands import State
from gateway.store import commands, device_types
from gateway.store.commands import Command, Ended
from runtime.clock import FakeClock
from runtime.metrics import Registry
from tests.gateway.world import ADMIN_PASSWORD, Device, World


class Broker:
    """Takes what is published while it is `connected`, for those that `listen`."""

    def __init__(self) -> None:
        self.connected = True
        self.listening: set[str] = set()
        self.published: list[bodies.Command] = []
        self.topics: list[str] = []
        self.fails = 0
        """So many publishes find the connection gone."""
        self.gate: asyncio.Event | None = None
        """Nothing is answered before this is set; None: all at once."""
        self._something = asyncio.Event()

    async def wait_published(self) -> None:
        """Until anything was."""
        async with asyncio.timeout(5):
            await self._something.wait()

    async def publish(self, topic: str, payload: bytes) -> bool:
        if not self.connected or self.fails:
            self.fails = max(0, self.fails - 1)
            raise DownlinkGoneError("gone")
        self.topics.append(topic)
        self.published.append(bodies.Command.parse(payload))
        self._something.set()
        if self.gate is not None:
            await self.gate.wait()
        if not self.connected:
            raise DownlinkGoneError("gone meanwhile")
        return parse_topic(topic).device in self.listening


class Yard:
    """One owner with one device, and as many gateways' dispatchers as a test wants."""

    def __init__(self, world: World, clock: FakeClock, owner: httpx.AsyncClient, device: Device) -> None:
        self.world, self.clock, self.owner, self.device = world, clock, owner, device
        self.broker = Broker()
        self.metrics = gateway_metrics(Registry())
        self._dispatchers: list[Dispatcher] = []

    password = ADMIN_PASSWORD
    """Of everybody here."""

    @property
    def database(self) -> Any:
        return self.world.gateway.parts.database

    def dispatcher(self) -> Dispatcher:
        """One more gateway's; its task does not run: a test asks it to look."""
        parts = self.world.gateway.parts
        made = Dispatcher(parts.database, parts.shortlived, parts.clock, self.metrics, self.broker)
        self._dispatchers.append(made)
        return made

    async def close(self) -> None:
        for one in self._dispatchers:
            await one.close()

    async def send(self, name: str = "ping", *, status: int = 202, **body: Any) -> dict[str, Any]:
        path = f"/v1/devices/{self.device.id}/commands"
        answer = await self.owner.post(path, json={"name": name, **body})
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def sent(self, **body: Any) -> UUID:
        """The id of a new command."""
        return UUID((await self.send(**body))["id"])

    async def get(self, command_id: UUID | str) -> Command:
        async with self.database.transaction() as tx:
            # The world's own gateway looks as well: whoever has the row in hand is awaited.
            await tx.execute("SELECT 1 FROM commands WHERE id = $1 FOR SHARE", UUID(str(command_id)))
            found = await commands.get(tx, UUID(str(command_id)))
        assert found is not None
        return found

    async def state(self, command_id: UUID | str) -> State:
        return (await self.get(command_id)).state

    async def ack(
        self,
        command_id: UUID | str,
        stage: Stage,
        *,
        ok: bool | None = None,
        result: Any = None,
        error: str | None = None,
        device_id: str | None = None,
        said_at: float | None = None,
        trace: str | None = None,
    ) -> list[Ended]:
        said_ms = None if said_at is None else int(said_at * 1000)
        ack = Ack(str(command_id), stage, at=said_ms, ok=ok, result=result, error=error)
        async with self.database.transaction() as tx:
            return await acked(tx, device_id or self.device.id, [Answer(ack, tx.now, "control/3/7", trace)])

    async def greet(self) -> None:
        async with self.database.transaction() as tx:
            await greeted(tx, [self.device.id])

    async def say_hello(self, *names: str, online: bool = True) -> None:
        """As the consumer writes it down: now."""
        async with self.database.transaction() as tx:
            await tx.execute(
                "INSERT INTO device_connections (device_id, online, since, seen_at, hello)"
                " VALUES ($1, $2, $3, $3, $4) ON CONFLICT (device_id) DO UPDATE"
                " SET online = $2, seen_at = $3, hello = $4",
                self.device.id,
                online,
                tx.at,
                {"commands": list(names)},
            )

    async def execute(self, query: str, *args: Any) -> None:
        async with self.database.transaction() as tx:
            await tx.execute(query, *args)

    async def open_rows(self) -> list[Any]:
        async with self.database.reading() as tx:
            found: list[Any] = await tx.fetch("SELECT * FROM commands WHERE finished_at IS NULL ORDER BY n")
            return found

    async def asked(self) -> device_types.Asked:
        async with self.database.reading() as tx:
            return await device_types.of_device(tx, self.device.id)


@pytest.fixture
def clock() -> FakeClock:
    """At a whole second: rows round to microseconds, and what ends at a moment ends just then."""
    return FakeClock(wall=float(int(time.time())))


@pytest.fixture
async def yard(world: World, clock: FakeClock) -> AsyncIterator[Yard]:
    owner = await world.person("owner")
    made = Yard(world, clock, owner, await world.enrol(owner))
    yield made
    await made.close()

"""A gateway with a device that is at a site, and a broker at the seam that does what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from device_protocol.bodies import CONFIG_TYPE, Desired, Reported
from device_protocol.topics import parse_topic
from gateway.commands.configurations import ConfigurationTeller
from gateway.commands.downlink import DownlinkGoneError
from gateway.metrics import gateway_metrics
from gateway.store import configurations
from runtime.clock import FakeClock
from runtime.metrics import Registry
from tests.gateway.world import Device, World


class Broker:
    """Takes what is published while it is `connected`, for those that `listen`."""

    def __init__(self) -> None:
        self.connected = True
        self.gone = False  # noticed only when something is published
        self.listening: set[str] = set()
        self.told: list[tuple[str, Desired]] = []
        self.gate: asyncio.Event | None = None
        """Nothing is answered before this is set; None: all at once."""
        self.asked = asyncio.Event()

    async def publish(self, topic: str, payload: bytes) -> bool:
        self.asked.set()
        if self.gone:
            raise DownlinkGoneError("gone")
        self.told.append((topic, Desired.parse(payload)))
        if self.gate is not None:
            await self.gate.wait()
        return parse_topic(topic).device in self.listening

    @property
    def versions(self) -> list[int]:
        return [desired.version for _, desired in self.told]


class Yard:
    """One owner with one device."""

    def __init__(self, world: World, clock: FakeClock, owner: httpx.AsyncClient, device: Device) -> None:
        self.world, self.clock, self.owner, self.device = world, clock, owner, device
        self.broker = Broker()
        self.broker.listening.add(device.id)
        self.path = f"/v1/devices/{device.id}/configuration"
        self._seq = 0

    @property
    def database(self) -> Any:
        return self.world.gateway.parts.database

    def teller(self) -> ConfigurationTeller:
        """One more gateway's."""
        return ConfigurationTeller(self.database, gateway_metrics(Registry()), self.broker)

    async def put(self, body: object, *, tag: str | None = None, status: int = 200) -> Any:
        headers = {} if tag is None else {"if-match": tag}
        answer = await self.owner.put(self.path, json={"body": body}, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def get(self, by: httpx.AsyncClient | None = None) -> Any:
        answer = await (by or self.owner).get(self.path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def tag(self) -> str:
        return str((await self.owner.get(self.path)).headers["etag"])

    async def say(self, version: int | None, sha256: str | None = None, **more: Any) -> None:
        """The device's report, as the consumer writes it down."""
        self._seq += 1
        said = Reported(version, sha256, **more)
        async with self.database.transaction() as tx:
            await tx.execute(
                "INSERT INTO device_states (device_id, kind, site_id, boot, seq, type, at, received_at, body)"
                " SELECT id, $2, site_id, 1, $3, $2, $4, $4, $5 FROM devices WHERE id = $1"
                " ON CONFLICT (device_id, kind) DO UPDATE SET site_id = excluded.site_id, body = $5",
                self.device.id,
                CONFIG_TYPE,
                self._seq,
                tx.at,
                said.dump(),
            )
            await configurations.answered(tx, {self.device.id: said})

    async def greet(self, version: int | None, *, online: bool = True) -> None:
        """The device's hello."""
        async with self.database.transaction() as tx:
            await tx.execute(
                "INSERT INTO device_connections (device_id, online, since, seen_at) VALUES ($1, $2, $3, $3)"
                " ON CONFLICT (device_id) DO UPDATE SET online = $2",
                self.device.id,
                online,
                tx.at,
            )
            await configurations.greeted(tx, {self.device.id: version})

    async def due_in(self) -> float | None:
        """Seconds until it is told again; None: it is not."""
        async with self.database.reading() as tx:
            head = await configurations.head(tx, self.device.id)
            assert head is not None
            return None if head.told_again_at is None else head.told_again_at - tx.now

    async def audit(self) -> Sequence[Any]:
        async with self.database.reading() as tx:
            rows = await tx.fetch(
                "SELECT record FROM audit_events WHERE record LIKE '%\"configuration.changed\"%' ORDER BY seq"
            )
        return [row["record"] for row in rows]


@pytest.fixture
def clock() -> FakeClock:
    """At a whole second: rows round to microseconds, and what is due at a moment is due just then."""
    return FakeClock(wall=float(int(time.time())))


@pytest.fixture
async def yard(world: World, clock: FakeClock) -> Yard:
    owner = await world.person("owner")
    return Yard(world, clock, owner, await world.enrol(owner))

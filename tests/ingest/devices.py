"""Devices at a real broker, that send until everything they said is accepted."""

from __future__ import annotations

import asyncio
import contextlib

from device_protocol.bodies import Accepted, Refused, parse_accepted
from device_protocol.topics import Kind
from runtime.mqtt_link import MqttError
from tests.ingest.world import Talker
from tests.mqtt_link.clients import Client, Clients

WINDOW = 64  # messages under way beyond the floor, as in docs/protocol/device-v1.md
PATIENCE_S = 2.0  # without progress: all again from the floor (a real device waits longer)


class LiveDevice(Talker):
    """Its numbers and its connection."""

    def __init__(self, clients: Clients, device: str, *, large: bool = False) -> None:
        """`large`: says states of 15 KB instead of small telemetry."""
        super().__init__(device)
        self._kind = Kind.STATE if large else Kind.TELEMETRY
        self._body = {"type": "state", "payload": {"long": "x" * 15_000}} if large else {}
        self._clients = clients
        self._client: Client | None = None
        self.refused: list[Refused] = []
        self._read = 0

    async def connect(self) -> None:
        self._client = await self._clients.device(self.device)
        self._read = 0
        await self._client.link.subscribe([self.topic(Kind.ACCEPTED)])

    async def publish(self, payload: bytes, kind: Kind = Kind.TELEMETRY) -> None:
        assert self._client is not None, "connected"
        await self._client.link.send(self.topic(kind), payload)

    async def say(self, count: int, timeout_s: float = 60.0) -> None:
        """So many new messages, until the last is accepted; over new connections where one ends."""
        last = self.seq + count
        self.seq = last
        async with asyncio.timeout(timeout_s):
            while self.floor.seq < last:
                with contextlib.suppress(MqttError, TimeoutError):
                    await self._round(last)

    async def _round(self, last: int) -> None:
        if self._client is None or self._client.link.closed.is_set():
            await self.connect()
        assert self._client is not None
        known = self.floor
        end = min(last, known.seq + WINDOW)
        for seq in range(known.seq + 1, end + 1):
            await self.publish(self.again(seq, **self._body), self._kind)
        async with asyncio.timeout(PATIENCE_S):
            await self._client.wait_for(lambda: self.heard() >= end)

    def heard(self) -> int:
        """Reads what came: the seq that is accepted."""
        assert self._client is not None
        news = self._client.messages[self._read :]
        self._read += len(news)
        for message in news:
            said = parse_accepted(message.payload)
            if isinstance(said, Accepted):
                self.floor = max(self.floor, said.number)
            elif isinstance(said, Refused):
                self.refused.append(said)
        return self.floor.seq

"""Links of the tests: what came to them, and those that are closed at the end of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Literal

from ingest.brokers.embedded import EmbeddedBroker
from runtime.mqtt_link import MqttLink, MqttMessage, MqttOptions
from testbed.mosquitto import Mosquitto

WAIT_S = 10.0


class Client:
    """A link and its messages; `acknowledges`: at once."""

    def __init__(self, *, acknowledges: bool = True) -> None:
        self.messages: list[MqttMessage] = []
        self._acknowledges = acknowledges
        self._link: MqttLink | None = None
        self._came = asyncio.Event()

    @property
    def link(self) -> MqttLink:
        assert self._link is not None, "connected"
        return self._link

    async def connect(self, options: MqttOptions) -> Client:
        self._link = await MqttLink.connect(options, self._take)
        return self

    def _take(self, message: MqttMessage) -> None:
        self.messages.append(message)
        self._came.set()
        if self._acknowledges and self._link is not None:
            self._link.acknowledge(message.packet_id)

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    async def wait_for(self, what: Callable[[], bool]) -> None:
        """TimeoutError when it is not so within WAIT_S."""
        async with asyncio.timeout(WAIT_S):
            while not what():
                self._came.clear()
                await self._came.wait()

    async def wait_count(self, count: int) -> None:
        await self.wait_for(lambda: len(self.messages) >= count)


class Clients:
    """Makes clients of one broker; all are closed with it."""

    def __init__(self, broker: Mosquitto | EmbeddedBroker) -> None:
        self.broker = broker
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def device_options(self, device: str, **more: Any) -> MqttOptions:
        broker = self.broker
        if isinstance(broker, Mosquitto):
            return MqttOptions("127.0.0.1", broker.port, device, tls=broker.device(device), **more)
        named = {"username": device, "password": f"of-{device}"}
        return MqttOptions("127.0.0.1", broker.port, device, **(named | more))

    def service_options(self, name: str, client_id: str, **more: Any) -> MqttOptions:
        broker = self.broker
        if isinstance(broker, Mosquitto):
            tls = broker.service(name)
            return MqttOptions("127.0.0.1", broker.internal_port, client_id, tls=tls, **more)
        secret = {"ingest": "bridge-secret", "gateway": "gateway-secret"}[name]
        return MqttOptions("127.0.0.1", broker.port, client_id, username=name, password=secret, **more)

    async def connect(self, options: MqttOptions, *, acknowledges: bool = True) -> Client:
        client = await Client(acknowledges=acknowledges).connect(options)
        self._open.push_async_callback(client.link.close)
        return client

    async def device(self, device: str, *, acknowledges: bool = True, **more: Any) -> Client:
        return await self.connect(self.device_options(device, **more), acknowledges=acknowledges)

    async def bridge(
        self, client_id: str = "ingest-0", *, acknowledges: bool = True, qos: Literal[0, 1] = 1, **more: Any
    ) -> Client:
        """Subscribed to telemetry and hello."""
        options = self.service_options("ingest", client_id, **more)
        client = await self.connect(options, acknowledges=acknowledges)
        await client.link.subscribe(["+/+/+/+/telemetry", "+/+/+/+/hello"], qos)
        return client


def topic(device: str, kind: str = "telemetry") -> str:
    return f"o_1/s_1/linux/{device}/{kind}"

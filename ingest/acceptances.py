"""Tells devices what was taken for good, over whatever connection to the broker stands."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Protocol

from device_protocol import bodies
from device_protocol.errors import Reason
from device_protocol.numbers import Number
from device_protocol.topics import Kind
from ingest.metrics import Metrics
from ingest.policy.telling import Accepted, Refused, Telling
from runtime.clock import Clock

DEVICES_MAX: Final = 100_000
"""Devices that wait to hear something; of more, some hear it only when they send again."""


class Speaker(Protocol):
    """A connection to the broker, for messages whose loss is harmless."""

    async def say(self, topic: str, payload: bytes) -> None:
        """Sent once, at QoS 0; nothing happens while there is no connection."""
        ...


class Acceptances:
    """`run` is to be a lasting task."""

    def __init__(self, speaker: Speaker, metrics: Metrics, clock: Clock, *, every_s: float) -> None:
        self._speaker = speaker
        self._metrics = metrics
        self._clock = clock
        self._telling = Telling(every_s, DEVICES_MAX)
        self._news = asyncio.Event()

    def accepted(self, device: str, prefix: str, number: Number) -> None:
        """The device may drop everything up to this number."""
        self._telling.accepted(device, prefix, number)
        self._news.set()

    def refused(self, device: str, prefix: str, reason: Reason, id: str | None) -> None:
        """One of the device's messages is a dead letter, outside of its line."""
        self._telling.refused(device, Refused(prefix, reason, id), self._clock.monotonic())
        self._news.set()

    async def run(self) -> None:
        """Until cancelled. What comes while a message leaves is told together afterwards."""
        while True:
            await self.flush()
            timer = self._telling.next_timer(self._clock.monotonic())
            wait_s = None if timer is None else timer - self._clock.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()

    async def flush(self) -> None:
        """Tell what is due."""
        self._news.clear()
        for message in self._telling.due(self._clock.monotonic()):
            await self._say(message)

    async def _say(self, message: Accepted | Refused) -> None:
        topic = f"{message.prefix}/{Kind.ACCEPTED.value}"
        if isinstance(message, Accepted):
            self._metrics.accepted.inc()
            await self._speaker.say(topic, bodies.Accepted(message.number).dump())
        else:
            await self._speaker.say(topic, bodies.Refused(message.reason, message.id).dump())

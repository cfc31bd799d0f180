"""Tells devices where and how far they are, once their hello is committed. If it is lost they ask again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from gateway.commands.downlink import Downlink, DownlinkGoneError
from gateway.policy.messages import Greeting
from runtime.clock import Clock

# A broker's restart brings all devices back at once; each publish waits for the broker's answer.
AT_ONCE: Final = 50
# Of more, those that waited longest hear nothing: they say hello again.
WAITING_MAX: Final = 20_000


class Greeter:
    """`run` is the task. Only the newest answer of each device is told."""

    def __init__(self, downlink: Downlink, clock: Clock) -> None:
        self._downlink = downlink
        self._clock = clock
        self._waiting: OrderedDict[str, Greeting] = OrderedDict()
        self._something = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Greeter waiting={len(self._waiting)}>"

    def greet(self, greetings: Iterable[Greeting]) -> None:
        """Tell these, soon."""
        for greeting in greetings:
            self._waiting[greeting.device_id] = greeting
            self._something.set()
        while len(self._waiting) > WAITING_MAX:
            self._waiting.popitem(last=False)

    async def run(self) -> None:
        """Ends only by cancellation."""
        while True:
            await self._something.wait()
            self._something.clear()
            while self._waiting:
                some = [self._waiting.popitem(last=False)[1] for _ in range(min(AT_ONCE, len(self._waiting)))]
                await asyncio.gather(*(self._tell(greeting) for greeting in some))

    async def _tell(self, greeting: Greeting) -> None:
        try:
            await self._downlink.publish(*greeting.message(self._clock.wall()))
        except DownlinkGoneError:
            return  # the device says hello again

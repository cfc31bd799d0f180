"""Tells the gateway what the broker refused to devices, for its audit log: of each device once a minute.

What is told late or never costs a line in the log of what happened and nothing else: the broker refused it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.internal_http import GatewayRefused, GatewayUnavailable, InternalHttp
from runtime.logs import get_logger

PATH: Final = "/internal/v1/devices/refused"
EVERY_S: Final = 60.0
"""Between two words about one device."""
AT_ONCE: Final = 50
"""In one word to the gateway."""
DEVICES_MAX: Final = 10_000
"""Devices that are remembered; refusals of more are counted by the metric alone."""
TOPIC_MAX: Final = 200
"""Characters of a topic that are told."""
RETRY_S: Final = (1.0, 60.0)

What = Literal["publish", "subscribe", "will"]

_log = get_logger("ingest.refusals")


@dataclass(slots=True)
class Refusal:
    """What a device wanted first since the last word about it, and how often it was refused something."""

    device: str
    what: What
    topic: str
    count: int = 1


Tell = Callable[[Sequence[Refusal]], Awaitable[None]]
"""GatewayUnavailable: again later. GatewayRefused: never."""


class Refusals:
    """`run` is to be a lasting task."""

    def __init__(self, tell: Tell, clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._waiting: dict[str, Refusal] = {}
        self._told_at: dict[str, float] = {}  # monotonic, in the order of time
        self._news = asyncio.Event()
        self.counted: Callable[[What], None] = lambda _: None
        """Called for each refusal."""

    def __repr__(self) -> str:
        return f"<Refusals of {len(self._waiting)} devices to tell>"

    def refused(self, device: str, what: What, topic: str) -> None:
        """The broker did not let the device do this."""
        self.counted(what)
        waiting = self._waiting.get(device)
        if waiting is not None:
            waiting.count += 1
        elif len(self._waiting) < DEVICES_MAX:
            self._waiting[device] = Refusal(device, what, _shown(topic))
            self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(*RETRY_S)
        while True:
            self._news.clear()
            due = self._due()
            if not due:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._wait_s()):
                        await self._news.wait()
                continue
            try:
                await self._tell(due)
            except GatewayUnavailable as error:
                _log.info("refusals are told later", extra={"error": str(error)})
                await asyncio.sleep(backoff.next())
                continue
            except GatewayRefused as error:
                _log.error("refusals are not told", extra={"error": str(error), "count": len(due)})
            backoff.reset()
            self._told(due)

    def _due(self) -> list[Refusal]:
        """Of devices of which nothing was told for a minute."""
        self._expire()
        return [one for one in self._waiting.values() if one.device not in self._told_at][:AT_ONCE]

    def _told(self, those: Sequence[Refusal]) -> None:
        now = self._clock.monotonic()
        for one in those:
            self._waiting.pop(
                one.device, None
            )  # what came while it was told is in its count, or lost with it
            self._told_at[one.device] = now

    def _expire(self) -> None:
        over = self._clock.monotonic() - EVERY_S
        while self._told_at and (first := next(iter(self._told_at.items())))[1] <= over:
            del self._told_at[first[0]]

    def _wait_s(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, next(iter(self._told_at.values())) + EVERY_S - self._clock.monotonic())


def _shown(topic: str) -> str:
    """So much as can be told: a device may have put anything there."""
    return "".join(sign if sign.isprintable() else "?" for sign in topic[:TOPIC_MAX])


def gateway_audit(http: InternalHttp) -> Tell:
    """Tells a real gateway."""

    async def tell(those: Sequence[Refusal]) -> None:
        told = [
            {"device_id": one.device, "what": one.what, "topic": one.topic, "count": one.count}
            for one in those
        ]
        await http.call("POST", PATH, {"refused": told})

    return tell

"""Revoked devices leave the broker: follows the gateway's feed, and has their connections ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from runtime.backoff import Backoff
from runtime.clock import Clock
from runtime.internal_http import GatewayRefused, GatewayUnavailable, InternalHttp
from runtime.logs import get_logger
from runtime.mqtt_link import MqttError
from runtime.revocation_feed import FeedSource, RevocationFeed

# After the first time: a login that the broker had begun to check when the device was revoked may be let in
# behind it. The last is later than any such check may take (embedded.CONNECT_S).
AGAIN_S: Final = (1.0, 12.0)
RETRY_S: Final = 0.5  # the broker or the gateway is away; a revocation takes 2 s at most where both are there
RETRY_MAX_S: Final = 30.0  # one device with which it fails, and with others not
AT_ONCE: Final = 500  # devices at a time: a feed that is read from its beginning names them all

_log = get_logger("ingest.keeper")


class Doors(Protocol):
    """One kind of broker."""

    async def shut_out(self, devices: Sequence[str]) -> Sequence[str]:
        """They are revoked: their connections end, and they do not come in again. Returns those of whom that
        is not certain. May be repeated. OSError, MqttError, GatewayUnavailable, GatewayRefused: of nobody.
        """
        ...


class Upkeep(Protocol):
    """What a broker's doors need beside."""

    async def run(self) -> None:
        """For ever."""
        ...

    @property
    def is_fresh(self) -> bool:
        """Whether it was done lately."""
        ...

    @property
    def refreshed_at(self) -> float | None:
        """Unix seconds; None: not yet."""
        ...


@dataclass(frozen=True, slots=True)
class FeedTimes:
    """How long the feed may be silent: it has a heartbeat each second. Nothing here ends with it."""

    feed_silence_s: float = 5.0
    revocation_grace_s: float = 120.0


class Keeper:
    """Runs beside the broker for ever. Each revoked device is shut out at once, and again after AGAIN_S."""

    def __init__(self, source: FeedSource, doors: Doors, clock: Clock, upkeep: Upkeep | None = None) -> None:
        self._doors = doors
        self._upkeep = upkeep
        self._clock = clock
        self._feed = RevocationFeed(source, self, clock, FeedTimes())
        # Of each device the monotonic times at which it is shut out, the next first.
        self._due: dict[str, list[float]] = {}
        self._backoffs: dict[str, Backoff] = {}  # of those with whom it failed
        self._changed = asyncio.Event()
        self._failing = False  # said once
        self.counted: Callable[[str, int], None] = lambda outcome, count: None
        """Called with what became of so many devices that were to be shut out: done or failed."""

    def __repr__(self) -> str:
        return f"<Keeper at {self._feed.position.number}, {len(self._due)} to shut out>"

    @property
    def is_fresh(self) -> bool:
        """Whether the gateway is heard and the broker obeys: who is revoked now leaves within 2 s."""
        kept = self._upkeep is None or self._upkeep.is_fresh
        return kept and not self._failing and not self._backoffs and self._feed.is_fresh()

    @property
    def waiting(self) -> int:
        """Devices that are to be shut out, for the first time or once more."""
        return len(self._due)

    @property
    def list_age_s(self) -> float | None:
        """Since the broker was told of a list; None: it has none, or none yet."""
        at = None if self._upkeep is None else self._upkeep.refreshed_at
        return None if at is None else self._clock.wall() - at

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feed.follow())
            tasks.create_task(self._work())
            if self._upkeep is not None:
                tasks.create_task(self._upkeep.run())

    def device_revoked(self, device_id: str) -> None:
        """From the feed."""
        now = self._clock.monotonic()
        self._due[device_id] = [now, *(now + after for after in AGAIN_S)]
        self._backoffs.pop(device_id, None)
        self._changed.set()

    def session_revoked(self, sid: str, device_id: str | None) -> None:
        """From the feed: brokers know no sessions."""

    def device_replaced(self, device_id: str, keep_instance: bytes) -> None:
        """From the feed: a broker keeps the newest connection of a device by itself."""

    def control_lost(self) -> None:
        """From the feed, never: `check_grace` is not asked. Devices speak on while the gateway is away."""

    async def _work(self) -> None:
        while True:
            now = self._clock.monotonic()
            due = [device for device, times in self._due.items() if times[0] <= now][:AT_ONCE]
            if due:
                await self._shut_out(due)
                continue
            self._changed.clear()
            earliest = min((times[0] for times in self._due.values()), default=None)
            try:
                async with asyncio.timeout(None if earliest is None else earliest - now):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _shut_out(self, devices: Sequence[str]) -> None:
        planned = {device: self._due[device] for device in devices}
        try:
            left = set(await self._doors.shut_out(devices))
        except (OSError, MqttError, GatewayUnavailable, GatewayRefused) as error:
            self.counted("failed", len(devices))
            if not self._failing:
                self._failing = True
                _log.error(
                    "revoked devices are not shut out", extra={"error": str(error), "count": len(devices)}
                )
            await asyncio.sleep(RETRY_S)
            return
        if self._failing:
            self._failing = False
            _log.info("revoked devices are shut out again")
        self.counted("failed", len(left))
        self.counted("done", len(devices) - len(left))
        for device, times in planned.items():
            if self._due[device] is not times:
                continue  # revoked once more meanwhile
            if device in left:
                self._later(device, times)
            else:
                self._done(device, times)

    def _later(self, device: str, times: list[float]) -> None:
        """One with whom it failed; nobody waits for it."""
        backoff = self._backoffs.get(device)
        if backoff is None:
            backoff = self._backoffs[device] = Backoff(RETRY_S, RETRY_MAX_S)
            _log.error("a revoked device is not shut out", extra={"device": device})
        self._due[device] = [self._clock.monotonic() + backoff.next(), *times[1:]]

    def _done(self, device: str, times: list[float]) -> None:
        if self._backoffs.pop(device, None) is not None:
            _log.info("a revoked device is shut out at last", extra={"device": device})
        if times[1:]:
            self._due[device] = times[1:]
        else:
            del self._due[device]


class GatewayFeed:
    """The feed of a real gateway."""

    def __init__(self, http: InternalHttp) -> None:
        self._http = http

    def revocations(self, *, after: int, silence_s: float) -> AsyncGenerator[bytes, None]:
        return self._http.lines(f"/internal/v1/revocations?after={after}", silence_s)

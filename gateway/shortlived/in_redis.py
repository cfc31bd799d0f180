"""The short-lived store in Redis (≥ 6.2): what several gateways share without asking Postgres.

Every key has a life of its own, so nothing needs tidying. The gateway's clock decides, as everywhere else:
what is kept carries its times, and Redis's own expiry, a little later, only clears away.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import StoreUnavailableError
from gateway.guard import Fault, Guard
from gateway.metrics import GatewayMetrics
from gateway.policy.limits import MICROS_PER_S, Limit, Standing, Taken, micros, standing
from gateway.shortlived.interface import Following, ShortLived, check_put, in_order, key_digest
from gateway.shortlived.redis_url import RedisAddress
from gateway.shortlived.wakes import Wakes
from runtime.clock import Clock
from runtime.logs import get_logger

# Redis answers in a millisecond, also while it forks to save; whoever is silent for so long hangs.
ANSWER_TIMEOUT_S = 2.0
# At once, as many as a gateway's requests use; one more carries the wake-ups.
CONNECTIONS_MAX = 16
# A request waits at most this long for one of them.
SLOT_WAIT_S = 2.0
PROBE_EVERY_S = 1.0
TRIAL_TIMEOUT_S = 1.0  # of a probe while nobody is let through
RETRY_S = 0.5
# By how much the clocks of gateway and Redis may differ before something vanishes too early.
CLOCKS_APART_S = 60.0
_STAMP_BYTES = 8  # the expiry in front of a kept value: microseconds since 1970, big endian

# policy.limits.step for each bucket until one is empty. Its writes happen together: nothing comes between.
# An empty bucket is written only where its tat is from before the clock was set back.
_TAKE = """
local now = tonumber(ARGV[1])
local told = {}
for i, key in ipairs(KEYS) do
  local refill, span = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local tat = tonumber(redis.call('GET', key) or ARGV[1])
  local at = math.max(math.min(tat, now + span), now)
  local granted = at + refill <= now + span
  if granted then at = at + refill end
  if granted or tat > at then
    local life_ms = math.ceil((at - now) / 1000) + tonumber(ARGV[#ARGV])
    redis.call('SET', key, string.format('%.0f', at), 'PX', string.format('%.0f', life_ms))
  end
  told[i] = {granted and 1 or 0, string.format('%.0f', at)}
  if not granted then break end
end
return told
"""

log = get_logger("gateway.shortlived")


class RedisShortLived:
    """`durable` keeps the limits that must survive a flush; it runs beside and is closed with this."""

    def __init__(
        self, address: RedisAddress, prefix: str, clock: Clock, durable: ShortLived, metrics: GatewayMetrics
    ) -> None:
        self._prefix = prefix
        self._clock = clock
        self._durable = durable
        self._wakes = Wakes()
        self._pending: set[str] = set()  # channels to wake as soon as Redis takes it
        self._something_pending = asyncio.Event()
        self._client = Redis(connection_pool=_pool(address))
        self._take_script = self._client.register_script(_TAKE)
        self.guard = Guard(
            "redis",
            metrics,
            fault=fault,
            refuse=StoreUnavailableError,
            probed=True,
            slots=CONNECTIONS_MAX,
            slot_wait_s=SLOT_WAIT_S,
        )

    def __repr__(self) -> str:
        return f"<RedisShortLived {self.guard} {self._wakes} pending={sorted(self._pending)}>"

    async def put(self, kind: str, key: str, value: bytes, ttl_s: float) -> None:
        check_put(value, ttl_s)
        stamp = micros(self._clock.wall() + ttl_s).to_bytes(_STAMP_BYTES, "big")
        async with self._asking():
            await self._client.set(
                self._key("one-time", key_digest(kind, key).hex()),
                stamp + value,
                px=math.ceil((ttl_s + CLOCKS_APART_S) * 1000),
            )

    async def burn(self, kind: str, key: str) -> bytes | None:
        async with self._asking():
            kept = await self._client.getdel(self._key("one-time", key_digest(kind, key).hex()))
        if kept is None:
            return None
        stamped = cast(bytes, kept)
        expires = int.from_bytes(stamped[:_STAMP_BYTES], "big")
        return stamped[_STAMP_BYTES:] if expires > micros(self._clock.wall()) else None

    async def take(self, wanted: Sequence[tuple[Limit, str]]) -> Taken:
        durable = [pair for pair in wanted if pair[0].durable]
        taken = await self._durable.take(durable) if durable else Taken(())
        light = in_order([pair for pair in wanted if not pair[0].durable])
        if taken.refused is not None or not light:
            return taken
        return Taken(taken.standings + await self._take(light))

    async def _take(self, wanted: list[tuple[Limit, str]]) -> tuple[Standing, ...]:
        now = micros(self._clock.wall())
        keys = [self._key("limit", limit.name, whose) for limit, whose in wanted]
        spans = [number for limit, _ in wanted for number in (limit.refill, limit.span)]
        async with self._asking():
            told = await self._take_script(keys=keys, args=[now, *spans, int(CLOCKS_APART_S * 1000)])
        return tuple(
            standing(limit, granted == 1, int(tat), now)
            for (limit, _), (granted, tat) in zip(wanted, told, strict=False)
        )

    async def wake(self, channel: str) -> None:
        async with self._asking():
            await self._client.publish(self._key("wake", channel), b"")

    def wake_soon(self, channels: set[str]) -> None:
        """Wake them without waiting for Redis; what it cannot take now it gets when it is back."""
        self._pending |= channels
        self._something_pending.set()

    def follow(self, channel: str) -> Following:
        return self._wakes.follow(channel)

    async def close(self) -> None:
        self._wakes.close()
        await self._durable.close()
        await self._client.connection_pool.disconnect()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._probe(), name="redis.probe")
            tasks.create_task(self._listen(), name="redis.listen")
            tasks.create_task(self._send(), name="redis.send")

    @asynccontextmanager
    async def _asking(self, *, probe: bool = False) -> AsyncIterator[None]:
        """StoreUnavailableError when Redis is away, or does not do what it should."""
        patience_s = TRIAL_TIMEOUT_S if probe and not self.guard.is_closed else None
        try:
            async with self.guard.call(probe=probe, patience_s=patience_s):
                yield
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis: {type(error).__name__}") from error

    async def _probe(self) -> None:
        """Notices a dead Redis while nobody asks it, and lets requests through again when it is back."""
        while True:
            try:
                async with self._asking(probe=True):
                    await self._client.ping()
            except StoreUnavailableError:
                log.debug("redis does not answer a probe")
            await asyncio.sleep(PROBE_EVERY_S)

    async def _send(self) -> None:
        while True:
            await self._something_pending.wait()
            self._something_pending.clear()
            while self._pending:
                channel = self._pending.pop()
                try:
                    await self.wake(channel)
                except StoreUnavailableError:
                    self._pending.add(channel)
                    await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        """A connection of its own hears every channel. A dead line is noticed by its own pings."""
        said = False
        while True:
            try:
                async with self._client.pubsub() as listener:
                    await self._hear(listener)
            except (RedisError, OSError) as error:
                self._wakes.lost()
                if not said:
                    said = True
                    log.warning("wake-ups do not arrive", extra={"reason": type(error).__name__})
            else:
                said = False
            await asyncio.sleep(RETRY_S)

    async def _hear(self, listener: Any) -> None:
        """One connection's life: ends with the gateway, or by an exception."""
        start = self._key("wake", "")
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await listener.psubscribe(f"{start}*")
        last = _now()
        while True:
            message = await listener.get_message(timeout=PROBE_EVERY_S)
            if message is None:
                if _now() - last > PROBE_EVERY_S + ANSWER_TIMEOUT_S:
                    raise RedisTimeoutError("no answer to a ping")
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await listener.ping()
                continue
            last = _now()
            if message["type"] == "psubscribe":
                self._wakes.subscribed_all()
            elif message["type"] == "pmessage":
                self._wakes.woken(message["channel"].decode().removeprefix(start))

    def _key(self, *parts: str) -> str:
        return ":".join((self._prefix, *parts))


def fault(error: BaseException) -> Fault:
    """What an exception says about Redis. Also a refusal (no memory, read only, loading) is a failure."""
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return Fault.HUNG
    return Fault.FAILED if isinstance(error, RedisError | OSError) else Fault.NONE


def _pool(address: RedisAddress) -> ConnectionPool:
    # Never again by itself: a burn whose answer got lost must not be asked twice.
    options: dict[str, Any] = {
        **address.options(),
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_connect_timeout": ANSWER_TIMEOUT_S,
        "protocol": 2,
        "driver_info": None,
    }
    kind: type[AbstractConnection] = SSLConnection if address.tls else Connection
    if address.path is not None:
        kind = UnixDomainSocketConnection
    # The guard's slots come first: this is never reached but for the listener and the trial.
    return ConnectionPool(connection_class=kind, max_connections=CONNECTIONS_MAX + 4, **options)


def _now() -> float:
    return asyncio.get_running_loop().time()


assert MICROS_PER_S == 1_000_000  # the script counts milliseconds from microseconds

"""The short-lived store in Postgres: two tables and LISTEN/NOTIFY. `towline up` and small sites run on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

from gateway.errors import StoreUnavailableError
from gateway.policy.limits import Limit, Standing, Taken, micros, standing
from gateway.shortlived.interface import Following, check_put, in_order, key_digest
from gateway.shortlived.wakes import Wakes
from gateway.store.database import Database, translated
from gateway.store.transaction import Row, Transaction, utc
from runtime.logs import get_logger

# How long followers may believe in a line that is dead: each look of theirs comes once a second anyway.
PING_EVERY_S = 1.0
# A server that has not answered a ping for this long hangs.
PING_TIMEOUT_S = 3.0
RETRY_S = 0.5  # a restart takes about a second; one attempt is cheap

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

log = get_logger("gateway.shortlived")


class PostgresShortLived:
    """Puts, burns and takes are transactions of the gateway's pool; wakes have their own connection."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wakes = Wakes()
        self._said_lost = False

    def __repr__(self) -> str:
        return f"<PostgresShortLived {self._wakes}>"

    async def put(self, kind: str, key: str, value: bytes, ttl_s: float) -> None:
        check_put(value, ttl_s)
        async with self._database.transaction() as tx:
            await tx.execute(
                "INSERT INTO short_lived AS s (digest, value, expires_at) VALUES ($1, $2, $3)"
                " ON CONFLICT (digest) DO UPDATE SET value = $2, expires_at = $3",
                key_digest(kind, key),
                value,
                utc(tx.now + ttl_s),
            )

    async def burn(self, kind: str, key: str) -> bytes | None:
        async with self._database.transaction() as tx:
            # Whoever deletes the row has it: the others wait for that commit and then find none.
            row = await tx.fetchrow(
                "DELETE FROM short_lived WHERE digest = $1 RETURNING value, expires_at", key_digest(kind, key)
            )
            if row is None or row["expires_at"] <= tx.at:
                return None
            return bytes(row["value"])

    async def take(self, wanted: Sequence[tuple[Limit, str]]) -> Taken:
        standings: list[Standing] = []
        async with self._database.transaction() as tx:
            for limit, whose in in_order(wanted):
                standings.append(await _take(tx, limit, whose))
                if not standings[-1].granted:
                    break
        return Taken(tuple(standings))

    async def wake(self, channel: str) -> None:
        async with self._database.transaction() as tx:
            tx.wake(channel)

    def follow(self, channel: str) -> Following:
        return self._wakes.follow(channel)

    async def close(self) -> None:
        self._wakes.close()

    async def run(self) -> None:
        while True:
            try:
                await self._serve()
            except StoreUnavailableError as error:
                self._wakes.lost()
                if not self._said_lost:
                    self._said_lost = True
                    log.warning("wake-ups do not arrive", extra={"reason": str(error)})
            await asyncio.sleep(RETRY_S)

    async def _serve(self) -> None:
        """One connection's life. StoreUnavailableError at its end."""
        connection = await self._database.connect()
        try:
            connection.add_termination_listener(self._ended)
            while True:
                self._wakes.wanted.clear()
                for channel in self._wakes.missing:
                    await self._listen(connection, channel)
                await self._wait_wanted()
                await self._ping(connection)
        finally:
            connection.terminate()

    async def _listen(self, connection: asyncpg.Connection[Row], channel: str) -> None:
        async with translated():
            await connection.add_listener(channel, self._notified)
        self._wakes.subscribed(channel)
        if self._said_lost:
            self._said_lost = False
            log.info("wake-ups arrive")

    async def _wait_wanted(self) -> None:
        """Until a channel is new, the connection ended, or it is time to ping."""
        try:
            async with asyncio.timeout(PING_EVERY_S):
                await self._wakes.wanted.wait()
        except TimeoutError:
            return

    async def _ping(self, connection: asyncpg.Connection[Row]) -> None:
        async with translated():
            await connection.execute("SELECT 1", timeout=PING_TIMEOUT_S)

    def _ended(self, *_: object) -> None:
        self._wakes.wanted.set()

    def _notified(self, _connection: object, _pid: int, channel: str, _payload: object) -> None:
        self._wakes.woken(channel)


async def _take(tx: Transaction, limit: Limit, whose: str) -> Standing:
    """`policy.limits.step` in one statement: rows change under the row's own lock."""
    key, now = f"{limit.name}:{whose}", micros(tx.now)
    granted: datetime | None = await tx.fetchval(
        "INSERT INTO rate_limits AS r (key, tat) VALUES ($1, $2::timestamptz + $3::interval)"
        " ON CONFLICT (key) DO UPDATE SET tat = greatest(least(r.tat, $2 + $4::interval), $2) + $3"
        " WHERE greatest(least(r.tat, $2 + $4), $2) + $3 <= $2 + $4 RETURNING tat",
        key,
        _moment(now),
        timedelta(microseconds=limit.refill),
        timedelta(microseconds=limit.span),
    )
    tat = granted or await _refused(tx, key, _moment(now + limit.span))
    return standing(limit, granted is not None, (tat - _EPOCH) // timedelta(microseconds=1), now)


async def _refused(tx: Transaction, key: str, latest: datetime) -> datetime:
    """The tat of an empty bucket, `latest` at most. One from before the clock was set back is kept no longer:
    seen from now it would move along, and the bucket stay empty until the old time comes again.
    """
    tat: datetime | None = await tx.fetchval("SELECT tat FROM rate_limits WHERE key = $1", key)
    if tat is not None and tat <= latest:
        return tat
    await tx.execute("UPDATE rate_limits SET tat = least(tat, $2) WHERE key = $1", key, latest)
    return latest


def _moment(unix_micros: int) -> datetime:
    """Exactly: the detour over a float would be a microsecond off, now and then."""
    return _EPOCH + timedelta(microseconds=unix_micros)

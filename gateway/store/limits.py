"""Rate limits that hold across gateways. Behind one small interface, so that Redis can take over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from gateway.store.database import Database, Transaction, unix


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` tries at once, then one each `refill_s` seconds."""

    name: str
    burst: int
    refill_s: float


class Limiter(Protocol):
    async def take(self, wanted: Sequence[tuple[Limit, str]]) -> float | None:
        """Take one try from each bucket (limit, whose). None: granted; otherwise seconds to wait.

        Durable at once, whatever becomes of the request: a failed try counts.
        """
        ...


class PostgresLimiter:
    """The generic cell rate algorithm: one row and one statement a bucket."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, wanted: Sequence[tuple[Limit, str]]) -> float | None:
        async with self._database.transaction() as tx:
            # In one order everywhere, so that two requests over the same buckets cannot deadlock.
            for limit, whose in sorted(wanted, key=lambda pair: (pair[0].name, pair[1])):
                wait_s = await _take(tx, limit, whose)
                if wait_s is not None:
                    return wait_s
        return None


async def _take(tx: Transaction, limit: Limit, whose: str) -> float | None:
    key = f"{limit.name}:{whose}"
    refill = timedelta(seconds=limit.refill_s)
    span = refill * limit.burst
    granted = await tx.fetchval(
        # least(): a clock that was set back must not lock anybody out for longer than the span.
        "INSERT INTO rate_limits AS r (key, tat) VALUES ($1, $2::timestamptz + $3::interval)"
        " ON CONFLICT (key) DO UPDATE SET tat = greatest(least(r.tat, $2 + $4::interval), $2) + $3"
        " WHERE greatest(least(r.tat, $2 + $4), $2) + $3 <= $2 + $4 RETURNING true",
        key,
        tx.at,
        refill,
        span,
    )
    if granted:
        return None
    tat = await tx.fetchval("SELECT tat FROM rate_limits WHERE key = $1", key)
    return max(1.0, unix(min(tat, tx.at + span)) - tx.now + limit.refill_s - span.total_seconds())

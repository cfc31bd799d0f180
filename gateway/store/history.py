"""What devices said, by time: one partition a day (UTC), made ahead and dropped after retention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from gateway.policy.device_clock import DAYS_AHEAD
from gateway.store.transaction import Reading, Row, Transaction, utc

# A person looks at it, and a part that is due to be dropped waits for whoever reads.
READ_S: Final = 2.0


class TooWideError(Exception):
    """There is more of it than READ_S is enough for."""


class PartsBusyError(Exception):
    """Somebody reads or writes for longer than the parts may wait: try later."""


async def keep_parts(tx: Transaction, days: int) -> int:
    """Partitions made and dropped, so that there are those of the last `days` days and of the next week.

    Run at the start of what writes and each hour. It waits at most 2 s for readers, then PartsBusyError.
    """
    await tx.take_turns("history parts")
    today = tx.at.date()
    first = today - timedelta(days=days)
    try:
        made: int = await tx.fetchval(
            "SELECT keep_history_parts($1, $2, $3)", first, today + timedelta(days=DAYS_AHEAD), first
        )
    except asyncpg.LockNotAvailableError as error:
        raise PartsBusyError("the history is read or written by somebody for long") from error
    return made


async def forget_boots(tx: Transaction, days: int) -> int:
    """Drop what is known of boots that were over before anything that the history still has."""
    return await tx.execute(
        "DELETE FROM device_boots b WHERE EXISTS (SELECT 1 FROM device_boots later"
        " WHERE later.device_id = b.device_id AND later.boot > b.boot AND later.first_seen < $1)",
        utc(tx.now - (days + 1) * 86_400.0),
    )


async def forget_places(tx: Transaction, days: int) -> int:
    """Drop where devices were before anything that the history still takes."""
    before = utc(tx.now - (days + 1) * 86_400.0)
    return await tx.execute("DELETE FROM device_places WHERE until < $1", before)


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose history, for whom: what the device said where it is now, and where the person has a role."""

    device_id: str
    site_id: str
    user_id: UUID
    kind: str | None
    """None: every kind."""
    begin: datetime
    end: datetime
    """Not included."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message."""

    at: datetime
    boot: int
    seq: int
    id: UUID
    kind: str
    type: str
    received_at: datetime
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bucket:
    """What one reading was from `at` for one step."""

    at: datetime
    n: int
    min: float
    max: float
    mean: float


Position = tuple[datetime, int, int]
"""at, boot, seq: where a page ends."""

_CHOSEN: Final = (
    " FROM device_history WHERE device_id = $1 AND at >= $2 AND at < $3 AND ($4::text IS NULL OR kind = $4)"
    " AND (site_id = $5 OR site_id IN (SELECT r.site_id FROM site_roles r WHERE r.user_id = $6))"
)


async def page(tx: Reading, asked: Asked, before: Position | None, limit: int) -> list[Entry]:
    """At most `limit` messages, newest first, behind the one at `before`."""
    at, boot, seq = before or (None, None, None)
    rows = await _bounded(
        tx,
        f"SELECT at, boot, seq, id, kind, type, received_at, body{_CHOSEN}"
        " AND ($7::timestamptz IS NULL OR (at, boot, seq) < ($7, $8::bigint, $9::bigint))"
        " ORDER BY at DESC, boot DESC, seq DESC LIMIT $10",
        *_chosen(asked, at),
        at,
        boot,
        seq,
        limit,
    )
    return [Entry(**row) for row in rows]


async def buckets(tx: Reading, asked: Asked, key: str, step_s: int) -> list[Bucket]:
    """One reading of telemetry by steps that begin at multiples of `step_s` seconds since 1970, newest first.

    A reading that the device aggregated counts with what it was made of; no number is none.
    """
    rows = await _bounded(
        tx,
        # numeric: sums of doubles may be beyond the largest one.
        "WITH said AS (SELECT at, body -> 'values' -> $7 AS v"
        f"{_CHOSEN}), readings AS (SELECT at,"
        " CASE jsonb_typeof(v) WHEN 'number' THEN v WHEN 'object' THEN v -> 'min' END AS low,"
        " CASE jsonb_typeof(v) WHEN 'number' THEN v WHEN 'object' THEN v -> 'max' END AS high,"
        " CASE jsonb_typeof(v) WHEN 'number' THEN v WHEN 'object' THEN v -> 'mean' END AS mean,"
        " CASE jsonb_typeof(v) WHEN 'object' THEN (v -> 'n')::numeric ELSE 1 END AS n"
        " FROM said WHERE jsonb_typeof(v) IN ('number', 'object'))"
        " SELECT date_bin(make_interval(secs => $8), at, timestamptz 'epoch') AS step, sum(n) AS n,"
        " min(low::numeric) AS low, max(high::numeric) AS high, sum(mean::numeric * n) / sum(n) AS mean"
        " FROM readings GROUP BY step ORDER BY step DESC",
        *_chosen(asked, None),
        key,
        step_s,
    )
    return [
        Bucket(row["step"], int(row["n"]), float(row["low"]), float(row["high"]), float(row["mean"]))
        for row in rows
    ]


async def _bounded(tx: Reading, query: str, *args: object) -> list[Row]:
    try:
        return await tx.fetch(query, *args)
    except asyncpg.QueryCanceledError as error:
        raise TooWideError from error


def _chosen(asked: Asked, before: datetime | None) -> Sequence[object]:
    # The end as the page before says: parts behind it are not even opened.
    end = asked.end if before is None else min(asked.end, before + timedelta(microseconds=1))
    return (asked.device_id, asked.begin, end, asked.kind, asked.site_id, asked.user_id)

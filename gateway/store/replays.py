"""Dead letters as people list them, and as they are tried again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from gateway.store.transaction import Reading, Row, Transaction


@dataclass(frozen=True, slots=True)
class Listed:
    """A dead letter without what it held."""

    n: int
    at: datetime
    reason: str
    detail: str
    topic: str
    device_id: str | None
    size: int
    replayed_at: datetime | None
    left_out: int
    """Of reason `no_space`: how many it stands for."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A dead letter with what it held: `body` is cut where it is shorter than `size`."""

    n: int
    at: datetime
    reason: str
    topic: str
    device_id: str | None
    size: int
    body: bytes
    place: tuple[str, int, int]
    """Topic, part and offset in the log."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of them; None: all. `since` is included, `until` is not."""

    site: str | None = None
    device: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None


# $1 to $5 are those of Wanted, in its order.
_WANTED = (
    "($1::text IS NULL OR site_id = $1) AND ($2::text IS NULL OR device_id = $2)"
    " AND ($3::text IS NULL OR reason = $3) AND ($4::timestamptz IS NULL OR at >= $4)"
    " AND ($5::timestamptz IS NULL OR at < $5)"
)


async def page(tx: Reading, wanted: Wanted, before: int | None, most: int) -> list[Listed]:
    """The newest first, below the number `before`."""
    rows = await tx.fetch(
        "SELECT n, at, reason, detail, topic, device_id, size, replayed_at, left_out FROM dead_letters"
        f" WHERE {_WANTED} AND ($6::bigint IS NULL OR n < $6) ORDER BY n DESC LIMIT $7",
        *_values(wanted),
        before,
        most,
    )
    return [Listed(*row.values()) for row in rows]


async def waiting(tx: Reading, wanted: Wanted, after: int, most: int) -> list[Kept]:
    """Those that were not replayed, above the number `after`, the oldest first."""
    rows = await tx.fetch(
        "SELECT n, at, reason, topic, device_id, size, body, log_topic, log_part, log_offset"
        f" FROM dead_letters WHERE {_WANTED} AND replayed_at IS NULL AND n > $6 ORDER BY n LIMIT $7",
        *_values(wanted),
        after,
        most,
    )
    return [_kept(row) for row in rows]


async def hold(tx: Transaction, numbers: Iterable[int]) -> set[int]:
    """Of these, those that were not replayed: nobody else replays them until commit."""
    rows = await tx.fetch(
        "SELECT n FROM dead_letters WHERE n = ANY($1) AND replayed_at IS NULL ORDER BY n FOR UPDATE",
        list(numbers),
    )
    return {row["n"] for row in rows}


async def mark(tx: Transaction, numbers: Iterable[int]) -> None:
    """What these said is stored by now."""
    await tx.execute("UPDATE dead_letters SET replayed_at = $2 WHERE n = ANY($1)", list(numbers), tx.at)


def _values(wanted: Wanted) -> tuple[object, ...]:
    return wanted.site, wanted.device, wanted.reason, wanted.since, wanted.until


def _kept(row: Row) -> Kept:
    place = (row["log_topic"], row["log_part"], row["log_offset"])
    return Kept(
        n=row["n"],
        at=row["at"],
        reason=row["reason"],
        topic=row["topic"],
        device_id=row["device_id"],
        size=row["size"],
        body=row["body"],
        place=place,
    )

"""How far the log was read, and which consumer reads which part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from gateway.store.transaction import Reading, Transaction, utc

Part: TypeAlias = tuple[str, int]
"""Topic and part."""


@dataclass(frozen=True, slots=True)
class Position:
    """`next`: the offset that is read next."""

    next: int
    owner: UUID | None


async def advance(
    tx: Transaction, owner: UUID, moves: Mapping[Part, tuple[int, int]], until: datetime
) -> bool:
    """Move these parts from an offset to another; nobody else moves them until commit. False: one of them is
    not there any more, or another's by now. Then the transaction must be given up.
    """
    ordered = sorted(moves.items())
    moved = await tx.execute(
        "UPDATE log_positions p SET next = m.new, lease_until = $5 FROM"
        " unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[]) AS m(topic, part, old, new)"
        " WHERE p.topic = m.topic AND p.part = m.part AND p.next = m.old AND p.owner = $6",
        [topic for (topic, _), _ in ordered],
        [part for (_, part), _ in ordered],
        [old for _, (old, _) in ordered],
        [new for _, (_, new) in ordered],
        until,
        owner,
    )
    return moved == len(ordered)


async def add_missing(tx: Transaction, parts: Sequence[Part]) -> None:
    """A part that nobody read yet is read from its beginning."""
    await tx.execute(
        "INSERT INTO log_positions (topic, part, next) SELECT topic, part, 0"
        " FROM unnest($1::text[], $2::integer[]) AS p(topic, part) ON CONFLICT DO NOTHING",
        [topic for topic, _ in parts],
        [part for _, part in parts],
    )


async def live(tx: Transaction, consumer: UUID, lease_s: float) -> int:
    """Note that this consumer lives; how many do."""
    await tx.execute(
        "INSERT INTO log_consumers (id, until) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET until = $2",
        consumer,
        utc(tx.now + lease_s),
    )
    count: int = await tx.fetchval("SELECT count(*) FROM log_consumers WHERE until > $1", tx.at)
    return count


async def renew(tx: Transaction, owner: UUID, lease_s: float) -> None:
    """Those that a batch holds right now are renewed by it."""
    await tx.execute(
        "UPDATE log_positions p SET lease_until = $2 FROM"
        " (SELECT topic, part FROM log_positions WHERE owner = $1 FOR UPDATE SKIP LOCKED) mine"
        " WHERE p.topic = mine.topic AND p.part = mine.part",
        owner,
        utc(tx.now + lease_s),
    )


async def claim(tx: Transaction, owner: UUID, topic: str, most: int, lease_s: float) -> None:
    """Take at most so many parts that are nobody's, or whose owner was not heard for as long as a lease."""
    await tx.execute(
        "UPDATE log_positions p SET owner = $1, lease_until = $2 FROM"
        " (SELECT topic, part FROM log_positions WHERE topic = $3 AND owner IS DISTINCT FROM $1"
        " AND (owner IS NULL OR lease_until <= $4) ORDER BY part LIMIT $5 FOR UPDATE SKIP LOCKED) free"
        " WHERE p.topic = free.topic AND p.part = free.part",
        owner,
        utc(tx.now + lease_s),
        topic,
        tx.at,
        most,
    )


async def release(tx: Transaction, owner: UUID, topic: str, count: int) -> None:
    """Give up so many parts, but none that a batch holds right now."""
    await tx.execute(
        "UPDATE log_positions p SET owner = NULL, lease_until = NULL FROM"
        " (SELECT topic, part FROM log_positions WHERE topic = $2 AND owner = $1 ORDER BY part DESC LIMIT $3"
        " FOR UPDATE SKIP LOCKED) given WHERE p.topic = given.topic AND p.part = given.part",
        owner,
        topic,
        count,
    )


async def leave(tx: Transaction, owner: UUID) -> None:
    """Give up everything: this consumer stops."""
    await tx.execute("UPDATE log_positions SET owner = NULL, lease_until = NULL WHERE owner = $1", owner)
    await tx.execute("DELETE FROM log_consumers WHERE id = $1", owner)


async def all_of(tx: Reading) -> dict[Part, Position]:
    rows = await tx.fetch("SELECT topic, part, next, owner FROM log_positions")
    return {(row["topic"], row["part"]): Position(row["next"], row["owner"]) for row in rows}

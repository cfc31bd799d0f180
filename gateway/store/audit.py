"""Reading the audit log: as its readers ask for it, and as the chain that is proved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gateway.policy.audit_chain import COLUMNS, Head, Row
from gateway.store.transaction import Row as DatabaseRow
from gateway.store.transaction import Transaction

# Rows in memory at once, where there may be many: about a megabyte.
BATCH = 1000


@dataclass(frozen=True, slots=True)
class Line:
    """One event for its readers; ids in text form."""

    seq: int
    at: str
    kind: str
    actor: str
    owner: str | None
    site: str | None
    device: str | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: those of one site, or those about one person's account. None: no limit."""

    site: str | None = None
    owner: UUID | None = None
    kind: str | None = None
    """What the kind begins with."""
    device: str | None = None
    actor: str | None = None
    since: str | None = None
    """As the records write times; inclusive."""
    until: str | None = None
    """Exclusive."""

    def __post_init__(self) -> None:
        if (self.site is None) == (self.owner is None):
            raise ValueError("whose lines: a site's or a person's")

    def filter(self) -> tuple[str, list[object]]:
        """The condition with its parameters, $1 and on. Only what is asked for stands in it: the plan is then
        made for that, and a site's lines are found by its index.
        """
        given: list[tuple[str, object]] = [
            ("site = ${}", self.site),
            ("owner = ${}", None if self.owner is None else str(self.owner)),
            ("starts_with(kind, ${})", self.kind),
            ("device = ${}", self.device),
            ("actor = ${}", self.actor),
            ("at >= ${}", self.since),
            ("at < ${}", self.until),
        ]
        asked = [(text, value) for text, value in given if value is not None]
        condition = " AND ".join(text.format(number) for number, (text, _) in enumerate(asked, 1))
        return condition, [value for _, value in asked]


async def head(tx: Transaction) -> Head:
    """The log's end as the service wrote it down."""
    row = await tx.fetchrow("SELECT seq, hash FROM audit_head")
    assert row is not None  # the migration inserts it
    return Head(row["seq"], row["hash"])


async def hash_of(tx: Transaction, seq: int) -> bytes | None:
    """The hash of event `seq`; None: there is none."""
    found: bytes | None = await tx.fetchval("SELECT hash FROM audit_events WHERE seq = $1", seq)
    return found


async def chain(tx: Transaction, after: int, limit: int = BATCH) -> list[Row]:
    """The chain's rows behind `after`, smallest number first, with what the database computed from them."""
    rows = await tx.fetch(
        f"SELECT seq, record, prev_hash, hash, {', '.join(COLUMNS)} FROM audit_events"
        " WHERE seq > $1 ORDER BY seq LIMIT $2",
        after,
        limit,
    )
    return [_row(row, {name: row[name] for name in COLUMNS}) for row in rows]


async def rows_of(tx: Transaction, wanted: Wanted, after: int, last: int, limit: int = BATCH) -> list[Row]:
    """What an export holds of the events `after` < n ≤ `last`, smallest number first."""
    condition, values = wanted.filter()
    n = len(values)
    found = await tx.fetch(
        f"SELECT seq, record, prev_hash, hash FROM audit_events WHERE {condition}"
        f" AND seq > ${n + 1} AND seq <= ${n + 2} ORDER BY seq LIMIT ${n + 3}",
        *values,
        after,
        last,
        limit,
    )
    return [_row(row) for row in found]


async def lines(
    tx: Transaction, wanted: Wanted, cursor: int | None, limit: int, *, newest_first: bool
) -> list[Line]:
    """One page of what is wanted; `cursor`: the number of the last line of the page before."""
    condition, values = wanted.filter()
    if cursor is not None:
        values.append(cursor)
        condition += f" AND seq {'<' if newest_first else '>'} ${len(values)}"
    found = await tx.fetch(
        f"SELECT record FROM audit_events WHERE {condition}"
        f" ORDER BY seq {'DESC' if newest_first else 'ASC'} LIMIT ${len(values) + 1}",
        *values,
        limit,
    )
    return [Line(**json.loads(row["record"])) for row in found]


async def person_names(tx: Transaction, actors: Iterable[str]) -> dict[str, str]:
    """User id → username, for those of `actors` that are people."""
    ids = [found for found in map(_uuid, set(actors)) if found is not None]
    rows = await tx.fetch("SELECT id, username FROM users WHERE id = ANY($1)", ids)
    return {str(row["id"]): row["username"] for row in rows}


async def device_names(tx: Transaction, site: str, ids: Iterable[str]) -> dict[str, str]:
    """Device id → name, for those that are in `site` now: how a new owner names it is not the old one's."""
    rows = await tx.fetch(
        "SELECT id, name FROM devices WHERE id = ANY($1) AND site_id = $2", sorted(set(ids)), site
    )
    return {row["id"]: row["name"] for row in rows}


def _row(row: DatabaseRow, columns: dict[str, str | None] | None = None) -> Row:
    return Row(row["seq"], row["record"], row["prev_hash"], row["hash"], columns)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

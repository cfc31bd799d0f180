"""Reading the revocation feed, and forgetting what no longer matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.policy.feed import REPLACED_RELEVANT_S, SESSION_SLACK_S
from gateway.store.transaction import Row, Transaction, unix, utc

# One read of the feed; a reader that lags more takes several.
READ_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Head:
    """`n` is the last number given, `pruned` the highest that was deleted."""

    n: int
    pruned: int

    @property
    def lowest_kept(self) -> int:
        return self.pruned + 1


async def head(tx: Transaction) -> Head:
    row = await tx.fetchrow("SELECT n, pruned FROM revocation_head")
    assert row is not None  # the migration inserts it
    return Head(row["n"], row["pruned"])


async def entries_after(tx: Transaction, after: int) -> list[dict[str, Any]]:
    """At most READ_BATCH entries with n > after, in order, in the form that the wire has.

    A replacement whose winner has gone and been followed by another instance is left out: a reader that
    starts over would cut the living one.
    """
    rows = await tx.fetch(
        "SELECT n, kind, ref, keep, exp,"
        " CASE WHEN kind = 'session' THEN (SELECT s.device_id FROM sessions s WHERE s.id = r.ref::uuid) END"
        " AS device FROM revocations r WHERE n > $1 AND (kind <> 'replaced' OR EXISTS"
        " (SELECT 1 FROM devices d WHERE d.id = r.ref AND d.instance = r.keep)) ORDER BY n LIMIT $2",
        after,
        READ_BATCH,
    )
    return [_entry(row) for row in rows]


def _entry(row: Row) -> dict[str, Any]:
    entry: dict[str, Any] = {"n": row["n"], "kind": row["kind"], "id": row["ref"]}
    if row["device"] is not None:
        entry["device"] = row["device"]
    if row["exp"] is not None:
        entry["exp"] = int(unix(row["exp"]))
    if row["keep"] is not None:
        entry["keep"] = bytes(row["keep"]).hex()
    return entry


async def prune(tx: Transaction) -> int:
    """Delete entries that matter to nobody; a revoked device's entry stays for ever. How many went."""
    await tx.execute("SELECT 1 FROM revocation_head FOR UPDATE")
    rows = await tx.fetch(
        "DELETE FROM revocations WHERE (kind = 'session' AND exp < $1) OR (kind = 'replaced' AND at < $2)"
        " RETURNING n",
        utc(tx.now - SESSION_SLACK_S),
        utc(tx.now - REPLACED_RELEVANT_S),
    )
    if rows:
        highest = max(row["n"] for row in rows)
        await tx.execute("UPDATE revocation_head SET pruned = greatest(pruned, $1)", highest)
    return len(rows)

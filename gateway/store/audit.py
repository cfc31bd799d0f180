"""Proving that nobody changed the audit log."""

from __future__ import annotations

from gateway.store.database import Transaction, chain_hash

_BATCH = 1000  # rows held in memory at once while the chain is walked
_GENESIS = bytes(32)


async def first_broken(tx: Transaction) -> int | None:
    """The number of the first row that was altered, removed or moved; None when the chain holds."""
    last, expected = _GENESIS, 1
    while True:
        rows = await tx.fetch(
            "SELECT seq, record, prev_hash, hash FROM audit_events WHERE seq >= $1 ORDER BY seq LIMIT $2",
            expected,
            _BATCH,
        )
        for row in rows:
            whole = row["seq"] == expected and row["prev_hash"] == last
            if not whole or chain_hash(last, row["record"]) != row["hash"]:
                return expected
            last, expected = row["hash"], expected + 1
        if len(rows) < _BATCH:
            break
    head = await tx.fetchrow("SELECT seq, hash FROM audit_head")
    assert head is not None  # the migration inserts it
    return None if (head["seq"], head["hash"]) == (expected - 1, last) else expected

"""Answers to creations that may be sent again; sealed, and forgotten after a day."""

from __future__ import annotations

from gateway.store.transaction import Transaction

_LOCKS = 0x1DE3  # the first half of the advisory locks' names; no other kind uses it


async def hold(tx: Transaction, lookup: bytes) -> bool:
    """Hold the key until this transaction ends; False while another one does."""
    held: bool = await tx.fetchval(
        "SELECT pg_try_advisory_xact_lock($1, $2)", _LOCKS, int.from_bytes(lookup[:4], "big", signed=True)
    )
    return held


async def find(tx: Transaction, lookup: bytes) -> tuple[bytes, bytes] | None:
    """The request's fingerprint and the sealed answer."""
    row = await tx.fetchrow("SELECT request, sealed FROM idempotency_keys WHERE lookup = $1", lookup)
    return None if row is None else (bytes(row["request"]), bytes(row["sealed"]))


async def add(tx: Transaction, lookup: bytes, request: bytes, sealed: bytes) -> None:
    await tx.execute(
        "INSERT INTO idempotency_keys (lookup, request, sealed, created_at) VALUES ($1, $2, $3, $4)",
        lookup,
        request,
        sealed,
        tx.at,
    )

"""Personal API tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from gateway.policy.access import Actor, Scope, Staff
from gateway.store import sessions
from gateway.store.transaction import Reading, Row, Transaction, unix

# A look back needs the day; one write an hour and token is what that may cost.
USE_NOTED_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class ApiToken:
    """One token without its secret; times in Unix seconds."""

    id: UUID
    name: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float
    last_used_at: float | None
    """To the hour; None: never used."""


async def add(
    tx: Transaction,
    user_id: UUID,
    token_sha256: bytes,
    name: str,
    scopes: frozenset[Scope],
    expires_at: datetime,
) -> ApiToken:
    row = await tx.fetchrow(
        "INSERT INTO api_tokens (id, token_sha256, user_id, name, scopes, created_at, expires_at)"
        f" VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}",
        uuid4(),
        token_sha256,
        user_id,
        name,
        sorted(scopes),
        tx.at,
        expires_at,
    )
    assert row is not None  # inserted
    return _token(row)


async def list_live(tx: Reading, user_id: UUID, limit: int) -> list[ApiToken]:
    """The person's tokens that still work, newest first."""
    rows = await tx.fetch(
        f"SELECT {_COLUMNS} FROM api_tokens WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2"
        " ORDER BY created_at DESC, id LIMIT $3",
        user_id,
        tx.at,
        limit,
    )
    return [_token(row) for row in rows]


async def count_live(tx: Transaction, user_id: UUID) -> int:
    """Whoever counts the person's tokens takes turns until commit."""
    await tx.take_turns(f"api_tokens {user_id}")
    count: int = await tx.fetchval(
        "SELECT count(*) FROM api_tokens WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2",
        user_id,
        tx.at,
    )
    return count


async def actor(tx: Reading, token_sha256: bytes) -> Actor | None:
    """The person behind a token that works; its use is noted."""
    row = await tx.fetchrow(
        "SELECT t.id, t.scopes, t.expires_at, t.last_used_at, u.id AS user_id, u.username, u.role"
        " FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE t.token_sha256 = $1"
        " AND t.ended_at IS NULL AND t.expires_at > $2 AND u.disabled_at IS NULL",
        token_sha256,
        tx.at,
    )
    if row is None:
        return None
    if row["last_used_at"] is None or row["last_used_at"] <= tx.at - USE_NOTED_EVERY:
        # Never waits: whoever has the row locked is ending it, or notes the same.
        tx.note(
            "UPDATE api_tokens SET last_used_at = $2 WHERE id = (SELECT id FROM api_tokens WHERE id = $1"
            " FOR UPDATE SKIP LOCKED)",
            row["id"],
            tx.at,
        )
    return Actor(
        row["user_id"],
        row["username"],
        None,
        Staff(row["role"]),
        frozenset(Scope(scope) for scope in row["scopes"]),
        row["id"],
        unix(row["expires_at"]),
    )


async def is_live(tx: Reading, token_id: UUID) -> bool:
    """Whether the token works and its person may log in."""
    found = await tx.fetchval(
        "SELECT true FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE t.id = $1"
        " AND t.ended_at IS NULL AND t.expires_at > $2 AND u.disabled_at IS NULL",
        token_id,
        tx.at,
    )
    return bool(found)


async def end(tx: Transaction, token_id: UUID, user_id: UUID) -> int | None:
    """End a token of the person's and the sessions that it opened: how many; None: no such token."""
    ended = await tx.execute(
        "UPDATE api_tokens SET ended_at = $3 WHERE id = $1 AND user_id = $2 AND ended_at IS NULL",
        token_id,
        user_id,
        tx.at,
    )
    return await sessions.end_of_api_token(tx, token_id) if ended else None


async def end_of_user(tx: Transaction, user_id: UUID) -> int:
    """End every token of the person; how many. Their sessions are `sessions.end_of_user`'s."""
    return await tx.execute(
        "UPDATE api_tokens SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2",
        user_id,
        tx.at,
    )


_COLUMNS = "id, name, scopes, created_at, expires_at, last_used_at"


def _token(row: Row) -> ApiToken:
    used = row["last_used_at"]
    return ApiToken(
        id=row["id"],
        name=row["name"],
        scopes=tuple(row["scopes"]),
        created_at=unix(row["created_at"]),
        expires_at=unix(row["expires_at"]),
        last_used_at=None if used is None else unix(used),
    )

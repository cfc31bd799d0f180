"""A person's logins, to look at and to end."""

from __future__ import annotations

from uuid import UUID

from gateway.store import commands, people, sessions
from gateway.store.transaction import AuditEvent, Row, Transaction, utc

# Nobody reads further; the oldest beyond are near their end.
LISTED_MAX = 200


async def list_live(tx: Transaction, user_id: UUID, idle_s: float) -> list[Row]:
    """id, kind, provider, client_id, address, user_agent, created_at, seen_at, expires_at; last used first.

    A browser's login (one with a cookie) that was idle for `idle_s` has ended.
    """
    return await tx.fetch(
        "SELECT id, kind, provider, client_id, address, user_agent, created_at, seen_at, expires_at"
        " FROM logins WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2"
        " AND (token_sha256 IS NULL OR seen_at > $3) ORDER BY seen_at DESC, id LIMIT $4",
        user_id,
        tx.at,
        utc(tx.now - idle_s),
        LISTED_MAX,
    )


async def end_own(tx: Transaction, user_id: UUID, login_id: UUID) -> int | None:
    """End this login of the person with the sessions that it opened: how many; None: no such login."""
    own = await tx.fetchval(
        "SELECT true FROM logins WHERE id = $1 AND user_id = $2 AND ended_at IS NULL AND expires_at > $3",
        login_id,
        user_id,
        tx.at,
    )
    if own is None or not await people.end_login(tx, login_id):
        return None
    return await sessions.end_of_login(tx, login_id)


async def end_others(tx: Transaction, user_id: UUID, but: UUID) -> tuple[int, int]:
    """End all logins of the person except `but`: how many logins, and how many sessions. One that begins
    meanwhile is waited for and ended.
    """
    await people.hold_still(tx, user_id)
    rows = await tx.fetch(
        "UPDATE logins SET ended_at = $3 WHERE id IN (SELECT id FROM logins WHERE user_id = $1 AND id <> $2"
        " AND ended_at IS NULL AND expires_at > $3 ORDER BY id FOR UPDATE) RETURNING id",
        user_id,
        but,
        tx.at,
    )
    return len(rows), await sessions.end_of_logins(tx, [row["id"] for row in rows])


async def replace(tx: Transaction, token_sha256: bytes, user_id: UUID, by: UUID) -> None:
    """A browser logged in again: its former login ends. The same person's sessions go over to the new one,
    somebody else's end; so do commands that no device has been told of. The person is held
    (`people.hold_person`).
    """
    former = await tx.fetchrow(
        "UPDATE logins SET ended_at = $2 WHERE token_sha256 = $1 AND ended_at IS NULL RETURNING id, user_id",
        token_sha256,
        tx.at,
    )
    if former is None:
        return
    if former["user_id"] == user_id:
        await sessions.hand_over(tx, former["id"], by)
        await commands.hand_over(tx, former["id"], by)
    else:
        ended = await sessions.end_of_login(tx, former["id"])
        # Who took its place is not the former person's to know.
        detail = {"login": str(former["id"]), "sessions": ended, "replaced": True}
        tx.audit(AuditEvent("login.ended", "anonymous", owner=str(former["user_id"]), detail=detail))

"""Authorization codes: one use, and a second one ends what the first gave (RFC 6749, section 4.1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from gateway.store.transaction import Transaction, unix, utc


@dataclass(frozen=True, slots=True)
class Code:
    """What the person said yes to; locked until commit."""

    client_id: str
    redirect_uri: str
    code_challenge: str
    expires_at: float
    """Unix seconds."""
    used: bool
    gave_login_id: UUID | None
    """None: it was not used, or in vain."""
    user_id: UUID
    kind: str
    """How the person logged in at the browser."""
    provider: str | None
    """By which provider; None: by none."""
    live: bool
    """The browser's login has not ended, and its person may log in."""


async def add(
    tx: Transaction,
    code_sha256: bytes,
    *,
    login_id: UUID,
    client_id: str,
    redirect_uri: str,
    code_challenge: str,
    ttl_s: float,
) -> None:
    await tx.execute(
        "INSERT INTO authorization_codes (code_sha256, login_id, client_id, redirect_uri, code_challenge,"
        " created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        code_sha256,
        login_id,
        client_id,
        redirect_uri,
        code_challenge,
        tx.at,
        utc(tx.now + ttl_s),
    )


async def person_of(tx: Transaction, code_sha256: bytes) -> UUID | None:
    """Who gave the code, to be held (`people.hold_person`) before it is locked; None: no such code."""
    found: UUID | None = await tx.fetchval(
        "SELECT l.user_id FROM authorization_codes c JOIN logins l ON l.id = c.login_id"
        " WHERE c.code_sha256 = $1",
        code_sha256,
    )
    return found


async def lock(tx: Transaction, code_sha256: bytes) -> Code | None:
    """The code, locked until commit: of two uses at once one is the first.

    So is the login in which it was given: ending that waits, and then ends what the code gave.
    """
    row = await tx.fetchrow(
        "SELECT c.client_id, c.redirect_uri, c.code_challenge, c.expires_at, c.used_at, c.gave_login_id,"
        " l.user_id, l.kind, l.provider,"
        " l.ended_at IS NULL AND l.expires_at > $2 AND u.disabled_at IS NULL AS live"
        " FROM authorization_codes c JOIN logins l ON l.id = c.login_id JOIN users u ON u.id = l.user_id"
        " WHERE c.code_sha256 = $1 FOR UPDATE OF c FOR SHARE OF l",
        code_sha256,
        tx.at,
    )
    if row is None:
        return None
    return Code(
        client_id=row["client_id"],
        redirect_uri=row["redirect_uri"],
        code_challenge=row["code_challenge"],
        expires_at=unix(row["expires_at"]),
        used=row["used_at"] is not None,
        gave_login_id=row["gave_login_id"],
        user_id=row["user_id"],
        kind=row["kind"],
        provider=row["provider"],
        live=row["live"],
    )


async def use_up(tx: Transaction, code_sha256: bytes, gave_login_id: UUID | None) -> None:
    await tx.execute(
        "UPDATE authorization_codes SET used_at = $2, gave_login_id = $3 WHERE code_sha256 = $1",
        code_sha256,
        tx.at,
        gave_login_id,
    )

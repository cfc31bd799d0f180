"""Which user a person of a provider is. The key is the provider's issuer and its subject."""

from __future__ import annotations

from uuid import UUID

from gateway.store.transaction import Row, Transaction


async def lock(tx: Transaction, issuer: str, subject: str) -> None:
    """Until commit nobody else logs in as this identity."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"identity {issuer} {subject}")


async def find(tx: Transaction, issuer: str, subject: str) -> UUID | None:
    """Whose it is, whether they may log in or not."""
    found: UUID | None = await tx.fetchval(
        "SELECT user_id FROM identities WHERE issuer = $1 AND subject = $2", issuer, subject
    )
    return found


async def add(
    tx: Transaction,
    issuer: str,
    subject: str,
    user_id: UUID,
    provider: str,
    email: str | None,
    email_verified: bool,
) -> None:
    await tx.execute(
        "INSERT INTO identities (issuer, subject, user_id, provider, email, email_verified, created_at,"
        " used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
        issuer,
        subject,
        user_id,
        provider,
        email,
        email_verified,
        tx.at,
    )


async def note_use(
    tx: Transaction, issuer: str, subject: str, provider: str, email: str | None, email_verified: bool
) -> None:
    """What the provider says now counts, for showing it."""
    await tx.execute(
        "UPDATE identities SET provider = $3, email = $4, email_verified = $5, used_at = $6"
        " WHERE issuer = $1 AND subject = $2",
        issuer,
        subject,
        provider,
        email,
        email_verified,
        tx.at,
    )


async def of_user(tx: Transaction, user_id: UUID) -> list[Row]:
    """provider, issuer, email, email_verified, created_at, used_at of each, the oldest first."""
    return await tx.fetch(
        "SELECT provider, issuer, email, email_verified, created_at, used_at FROM identities"
        " WHERE user_id = $1 ORDER BY created_at, issuer",
        user_id,
    )

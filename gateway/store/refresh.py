"""Refresh tokens: one row a login, whatever its age (decision 0018)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from gateway.policy.refresh import Family
from gateway.store.transaction import Transaction, unix, utc


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """A family, locked until commit, with the login it belongs to."""

    id: UUID
    login_id: UUID
    user_id: UUID
    login_expires_at: float
    family: Family


async def add_family(
    tx: Transaction, family: UUID, login_id: UUID, current: bytes, expires_at: datetime
) -> None:
    await tx.execute(
        "INSERT INTO refresh_families (id, login_id, current_sha256, rotated_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5)",
        family,
        login_id,
        current,
        tx.at,
        expires_at,
    )


async def lock_family(tx: Transaction, family: UUID) -> FamilyRow | None:
    """Two trades of one family take turns, also on two gateways."""
    row = await tx.fetchrow(
        "SELECT f.current_sha256, f.previous_sha256, f.rotated_at, f.expires_at, f.login_id, l.user_id,"
        " l.client_id, l.expires_at AS login_expires_at,"
        " l.ended_at IS NULL AND l.expires_at > $2 AND u.disabled_at IS NULL AS live"
        " FROM refresh_families f JOIN logins l ON l.id = f.login_id JOIN users u ON u.id = l.user_id"
        " WHERE f.id = $1 FOR UPDATE OF f, l",
        family,
        tx.at,
    )
    if row is None:
        return None
    return FamilyRow(
        id=family,
        login_id=row["login_id"],
        user_id=row["user_id"],
        login_expires_at=unix(row["login_expires_at"]),
        family=Family(
            client_id=row["client_id"] or "",
            current=row["current_sha256"],
            previous=row["previous_sha256"],
            rotated_at=unix(row["rotated_at"]),
            expires_at=unix(row["expires_at"]),
            live=row["live"],
        ),
    )


async def rotate(
    tx: Transaction, family: UUID, presented: bytes, successor: bytes, expires_at: float
) -> None:
    """`successor` is the good one from now on, and `presented` the one before it."""
    await tx.execute(
        # A repeat leaves rotated_at: its time counts from the first trade, however often it is repeated.
        "UPDATE refresh_families SET current_sha256 = $3, expires_at = $4,"
        " rotated_at = CASE WHEN previous_sha256 = $2 THEN rotated_at ELSE $5 END, previous_sha256 = $2"
        " WHERE id = $1",
        family,
        presented,
        successor,
        utc(expires_at),
        tx.at,
    )


async def add_program_login(
    tx: Transaction,
    user_id: UUID,
    kind: str,
    client_id: str,
    expires_at: datetime,
    *,
    provider: str | None,
    address: str,
) -> UUID:
    """A login without a cookie, of a program; its id."""
    login_id = uuid4()
    await tx.execute(
        "INSERT INTO logins (id, user_id, kind, client_id, created_at, expires_at, seen_at, provider,"
        " address) VALUES ($1, $2, $3, $4, $5, $6, $5, $7, $8)",
        login_id,
        user_id,
        kind,
        client_id,
        tx.at,
        expires_at,
        provider,
        address,
    )
    return login_id

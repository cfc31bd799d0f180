"""Invitations to an org or a site: secrets that make one person a member, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from gateway.policy.access import Actor, Role
from gateway.store.places import Place
from gateway.store.transaction import Row, Transaction, unix


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that nobody has used, of which the author's API token lasts; times in Unix seconds."""

    id: UUID
    org_id: str
    org: str
    site_id: str | None
    site: str | None
    role: Role
    invited_by: UUID
    inviter: str
    created_at: float
    expires_at: float


_SELECT = (
    "SELECT i.id, i.org_id, o.name AS org, i.site_id, s.name AS site, i.role, i.invited_by,"
    " u.username AS inviter, i.created_at, i.expires_at FROM invitations i JOIN orgs o ON o.id = i.org_id"
    " LEFT JOIN sites s ON s.id = i.site_id JOIN users u ON u.id = i.invited_by"
    " LEFT JOIN api_tokens t ON t.id = i.api_token_id"
    " WHERE i.used_at IS NULL AND i.expires_at > $1 AND t.ended_at IS NULL AND "
)


async def add(
    tx: Transaction, place: Place, role: Role, author: Actor, token_sha256: bytes, expires_at: datetime
) -> UUID:
    """Its id. It falls with the API token that made it."""
    invitation_id = uuid4()
    await tx.execute(
        "INSERT INTO invitations (id, token_sha256, org_id, site_id, role, invited_by, created_at,"
        " expires_at, api_token_id)"
        " VALUES ($1, $2, $3, $4, $5::text::site_role, $6, $7, $8, $9)",
        invitation_id,
        token_sha256,
        place.org_id,
        place.site_id,
        role.word,
        author.user_id,
        tx.at,
        expires_at,
        author.api_token_id,
    )
    return invitation_id


async def list_open(tx: Transaction, place: Place, limit: int) -> list[Invitation]:
    """What was sent out for exactly this place and not used, oldest first."""
    rows = await tx.fetch(
        _SELECT + "i.org_id = $2 AND i.site_id IS NOT DISTINCT FROM $3 ORDER BY i.created_at, i.id LIMIT $4",
        tx.at,
        place.org_id,
        place.site_id,
        limit,
    )
    return [_invitation(row) for row in rows]


async def get(tx: Transaction, invitation_id: UUID) -> Invitation | None:
    """The invitation while it is open."""
    row = await tx.fetchrow(_SELECT + "i.id = $2", tx.at, invitation_id)
    return None if row is None else _invitation(row)


async def by_token(tx: Transaction, token_sha256: bytes) -> Invitation | None:
    """The open invitation of this secret. It stays so while its place is locked."""
    row = await tx.fetchrow(_SELECT + "i.token_sha256 = $2", tx.at, token_sha256)
    return None if row is None else _invitation(row)


async def use(tx: Transaction, invitation_id: UUID, user_id: UUID) -> None:
    await tx.execute(
        "UPDATE invitations SET used_at = $2, used_by = $3 WHERE id = $1", invitation_id, tx.at, user_id
    )


async def withdraw(tx: Transaction, invitation_id: UUID) -> None:
    await tx.execute("DELETE FROM invitations WHERE id = $1", invitation_id)


def _invitation(row: Row) -> Invitation:
    return Invitation(
        id=row["id"],
        org_id=row["org_id"],
        org=row["org"],
        site_id=row["site_id"],
        site=row["site"],
        role=Role.of(row["role"]),
        invited_by=row["invited_by"],
        inviter=row["inviter"],
        created_at=unix(row["created_at"]),
        expires_at=unix(row["expires_at"]),
    )

"""Orgs, their sites, and who is what there."""

from __future__ import annotations

from uuid import UUID, uuid4

from gateway.policy.access import Role
from gateway.policy.names import SITE_ID_PATTERN
from gateway.randomness import new_org_id, new_site_id
from gateway.store.database import Transaction

# What a person has before they name anything.
FIRST_SITE_NAME = "Home"


async def add_home(tx: Transaction, user_id: UUID, name: str) -> str:
    """An org of the person's own with one site; the site's id."""
    org_id, site_id = new_org_id(), new_site_id()
    await tx.execute("INSERT INTO orgs (id, name, created_at) VALUES ($1, $2, $3)", org_id, name, tx.at)
    await tx.execute(
        "INSERT INTO sites (id, org_id, name, created_at) VALUES ($1, $2, $3, $4)",
        site_id,
        org_id,
        FIRST_SITE_NAME,
        tx.at,
    )
    await put_membership(tx, org_id, None, user_id, Role.OWNER)
    return site_id


async def put_membership(
    tx: Transaction, org_id: str, site_id: str | None, user_id: UUID, role: Role
) -> None:
    """Give the person this role in the whole org (`site_id` None) or at one of its sites."""
    await tx.execute(
        "INSERT INTO memberships (id, org_id, site_id, user_id, role, created_at)"
        " VALUES ($1, $2, $3, $4, $5::text::site_role, $6)"
        " ON CONFLICT (user_id, org_id, coalesce(site_id, '')) DO UPDATE SET role = excluded.role",
        uuid4(),
        org_id,
        site_id,
        user_id,
        role.word,
        tx.at,
    )


async def role_at(tx: Transaction, user_id: UUID, site_id: str) -> Role | None:
    """The person's role at the site; None: none, or there is no such site."""
    if SITE_ID_PATTERN.fullmatch(site_id) is None:
        return None
    word: str | None = await tx.fetchval(
        "SELECT role FROM site_roles WHERE site_id = $1 AND user_id = $2", site_id, user_id
    )
    return None if word is None else Role.of(word)


async def first_site(tx: Transaction, user_id: UUID, least: Role) -> str | None:
    """The site that is meant when the person names none: the oldest where they are at least `least`."""
    site_id: str | None = await tx.fetchval(
        "SELECT s.id FROM site_roles r JOIN sites s ON s.id = r.site_id"
        " WHERE r.user_id = $1 AND r.role >= $2::text::site_role ORDER BY s.created_at, s.id LIMIT 1",
        user_id,
        least.word,
    )
    return site_id

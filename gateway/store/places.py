"""Orgs, their sites, and who is what there."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from gateway.policy.access import Role
from gateway.policy.names import ORG_ID_PATTERN, SITE_ID_PATTERN
from gateway.randomness import new_org_id, new_site_id
from gateway.store.transaction import Reading, Row, Transaction, unix

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


async def role_at(tx: Reading, user_id: UUID, site_id: str) -> Role | None:
    """The person's role at the site; None: none, or there is no such site."""
    if SITE_ID_PATTERN.fullmatch(site_id) is None:
        return None
    word: str | None = await tx.fetchval(
        "SELECT role FROM site_roles WHERE site_id = $1 AND user_id = $2", site_id, user_id
    )
    return None if word is None else Role.of(word)


async def hold_role(tx: Transaction, user_id: UUID, site_id: str) -> Role | None:
    """As `role_at`, and it stays until commit: whoever lowers it waits, and then finds what it carries."""
    rows = await tx.fetch(
        "SELECT m.role FROM memberships m JOIN sites s ON s.org_id = m.org_id AND s.id = $1"
        " WHERE m.user_id = $2 AND (m.site_id IS NULL OR m.site_id = s.id) AND s.deleted_at IS NULL"
        " FOR SHARE OF m",
        site_id,
        user_id,
    )
    return max((Role.of(row["role"]) for row in rows), default=None)


async def hold_site(tx: Transaction, site_id: str) -> None:
    """Keep the site, and the roles of its people, until commit: for what comes into it.

    Read what depends on them afterwards. Lock devices before it, registration tokens behind it.
    """
    await tx.execute(
        "SELECT 1 FROM orgs WHERE id = (SELECT org_id FROM sites WHERE id = $1) FOR SHARE", site_id
    )


async def first_site(tx: Transaction, user_id: UUID, least: Role) -> str | None:
    """The site that is meant when the person names none: of those where they are at least `least`, the one
    where they have been longest. Its own age does not count: an invitation to an old place moves nothing.
    """
    site_id: str | None = await tx.fetchval(
        "SELECT s.id FROM memberships m JOIN sites s"
        " ON s.org_id = m.org_id AND (m.site_id IS NULL OR m.site_id = s.id)"
        " WHERE m.user_id = $1 AND m.role >= $2::text::site_role AND s.deleted_at IS NULL"
        " ORDER BY m.created_at, s.created_at, s.id LIMIT 1",
        user_id,
        least.word,
    )
    return site_id


@dataclass(frozen=True, slots=True)
class Place:
    """An org (`site_id` None) or one of its sites, as the person who asked sees it."""

    org_id: str
    org: str
    site_id: str | None
    site: str | None
    role: Role | None
    """The person's role there; for an org only one that holds in the whole of it."""
    sees: bool
    """They have some role there, if only at one site of the org."""
    created_at: float
    version: int


@dataclass(frozen=True, slots=True)
class Member:
    """A person's role at a place."""

    user_id: UUID
    username: str
    role: Role
    whole_org: bool
    since: float


_ORG = """
SELECT o.id AS org_id, o.name AS org, NULL AS site_id, NULL AS site, o.created_at, o.version,
       (SELECT role FROM memberships m WHERE m.org_id = o.id AND m.user_id = $1 AND m.site_id IS NULL)
           AS role,
       EXISTS (SELECT 1 FROM memberships m WHERE m.org_id = o.id AND m.user_id = $1) AS sees
FROM orgs o WHERE o.deleted_at IS NULL AND
"""
_SITE = """
SELECT o.id AS org_id, o.name AS org, s.id AS site_id, s.name AS site, s.created_at, s.version,
       r.role, r.role IS NOT NULL AS sees
FROM sites s JOIN orgs o ON o.id = s.org_id
LEFT JOIN site_roles r ON r.site_id = s.id AND r.user_id = $1
WHERE s.deleted_at IS NULL AND
"""


async def get_org(tx: Transaction, org_id: str, asking: UUID, *, lock: bool = False) -> Place | None:
    """The org; `lock` holds it, and with it all memberships there, until commit."""
    if ORG_ID_PATTERN.fullmatch(org_id) is None:
        return None
    if lock:
        await tx.execute("SELECT 1 FROM orgs WHERE id = $1 FOR NO KEY UPDATE", org_id)
    return _place(await tx.fetchrow(_ORG + "o.id = $2", asking, org_id))


async def get_site(tx: Transaction, site_id: str, asking: UUID, *, lock: bool = False) -> Place | None:
    """The site; `lock` holds its org, as for `get_org`."""
    if SITE_ID_PATTERN.fullmatch(site_id) is None:
        return None
    if lock:
        await tx.execute(
            "SELECT 1 FROM orgs WHERE id = (SELECT org_id FROM sites WHERE id = $1) FOR NO KEY UPDATE",
            site_id,
        )
    return _place(await tx.fetchrow(_SITE + "s.id = $2", asking, site_id))


async def list_orgs(tx: Transaction, asking: UUID, after: str, limit: int) -> list[Place]:
    """The orgs where the person has any role, by id, beginning behind `after`."""
    rows = await tx.fetch(
        _ORG
        + "EXISTS (SELECT 1 FROM memberships m WHERE m.org_id = o.id AND m.user_id = $1) AND o.id > $2"
        + " ORDER BY o.id LIMIT $3",
        asking,
        after,
        limit,
    )
    return [_known(row) for row in rows]


async def list_sites(tx: Transaction, asking: UUID, after: str, limit: int) -> list[Place]:
    """The sites where the person has a role, by id, beginning behind `after`."""
    rows = await tx.fetch(
        _SITE + "r.role IS NOT NULL AND s.id > $2 ORDER BY s.id LIMIT $3", asking, after, limit
    )
    return [_known(row) for row in rows]


async def add_org(tx: Transaction, owner: UUID, name: str) -> str:
    """A new org without sites; its id."""
    org_id = new_org_id()
    await tx.execute("INSERT INTO orgs (id, name, created_at) VALUES ($1, $2, $3)", org_id, name, tx.at)
    await put_membership(tx, org_id, None, owner, Role.OWNER)
    return org_id


async def add_site(tx: Transaction, org_id: str, name: str) -> str:
    site_id = new_site_id()
    await tx.execute(
        "INSERT INTO sites (id, org_id, name, created_at) VALUES ($1, $2, $3, $4)",
        site_id,
        org_id,
        name,
        tx.at,
    )
    return site_id


async def count_sites(tx: Transaction, org_id: str) -> int:
    count: int = await tx.fetchval(
        "SELECT count(*) FROM sites WHERE org_id = $1 AND deleted_at IS NULL", org_id
    )
    return count


async def count_owned_orgs(tx: Transaction, user_id: UUID) -> int:
    """Whoever counts their orgs takes turns until commit."""
    await tx.take_turns(f"orgs {user_id}")
    count: int = await tx.fetchval(
        "SELECT count(*) FROM memberships m JOIN orgs o ON o.id = m.org_id WHERE m.user_id = $1"
        " AND m.site_id IS NULL AND m.role = 'owner' AND o.deleted_at IS NULL",
        user_id,
    )
    return count


@dataclass(frozen=True, slots=True)
class OwnedAlone:
    """An org of which nobody else who may log in is an owner."""

    org_id: str
    org: str
    others: int
    """People who have some role there besides."""
    devices: int
    """Pending or approved."""


async def owned_alone(tx: Transaction, user_id: UUID) -> list[OwnedAlone]:
    """The orgs that the person owns and nobody else who may log in does, by id."""
    rows = await tx.fetch(
        "SELECT o.id, o.name, (SELECT count(DISTINCT x.user_id) FROM memberships x WHERE x.org_id = o.id"
        " AND x.user_id <> $1) AS others, (SELECT count(*) FROM devices d JOIN sites s ON s.id = d.site_id"
        " WHERE s.org_id = o.id AND d.status IN ('pending', 'approved')) AS devices"
        " FROM memberships m JOIN orgs o ON o.id = m.org_id WHERE m.user_id = $1 AND m.site_id IS NULL"
        " AND m.role = 'owner' AND o.deleted_at IS NULL AND NOT EXISTS (SELECT 1 FROM memberships n"
        " JOIN users u ON u.id = n.user_id WHERE n.org_id = o.id AND n.site_id IS NULL AND n.role = 'owner'"
        " AND n.user_id <> $1 AND u.disabled_at IS NULL) ORDER BY o.id",
        user_id,
    )
    return [OwnedAlone(row["id"], row["name"], row["others"], row["devices"]) for row in rows]


async def pass_on(tx: Transaction, user_id: UUID, to: UUID) -> list[OwnedAlone]:
    """Make `to` an owner of each org that the person owns alone: which those are."""
    await tx.execute(
        "SELECT 1 FROM orgs WHERE id IN (SELECT org_id FROM memberships WHERE user_id = $1)"
        " ORDER BY id FOR NO KEY UPDATE",
        user_id,
    )
    orgs = await owned_alone(tx, user_id)  # behind the locks, under which owners come and go
    for one in orgs:
        await put_membership(tx, one.org_id, None, to, Role.OWNER)
    return orgs


async def rename(tx: Transaction, place: Place, name: str) -> None:
    """Give the org or site another name; its version grows."""
    table, key = ("orgs", place.org_id) if place.site_id is None else ("sites", place.site_id)
    await tx.execute(f"UPDATE {table} SET name = $2, version = version + 1 WHERE id = $1", key, name)


async def has_devices(tx: Transaction, site_id: str) -> bool:
    """Whether a device there is pending or approved."""
    found: bool = await tx.fetchval(
        "SELECT EXISTS (SELECT 1 FROM devices WHERE site_id = $1 AND status IN ('pending', 'approved'))",
        site_id,
    )
    return found


async def delete(tx: Transaction, place: Place) -> None:
    """Nobody sees it any more. What named it (audit, revoked devices) keeps its id; nobody can join."""
    if place.site_id is None:
        await tx.execute("UPDATE orgs SET deleted_at = $2 WHERE id = $1", place.org_id, tx.at)
        await tx.execute("DELETE FROM memberships WHERE org_id = $1", place.org_id)
        await tx.execute("DELETE FROM invitations WHERE org_id = $1", place.org_id)
    else:
        await tx.execute("UPDATE sites SET deleted_at = $2 WHERE id = $1", place.site_id, tx.at)
        await tx.execute("DELETE FROM memberships WHERE site_id = $1", place.site_id)
        await tx.execute("DELETE FROM invitations WHERE site_id = $1", place.site_id)
        await tx.execute("DELETE FROM registration_tokens WHERE site_id = $1", place.site_id)


_MEMBER = (
    "SELECT m.user_id, u.username, m.role, m.site_id IS NULL AS whole_org, m.created_at"
    " FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.org_id = $1 AND "
)


async def members(tx: Transaction, place: Place, limit: int) -> list[Member]:
    """Who has a role there, the whole org's people first; of a site with those of its org."""
    rows = await tx.fetch(
        _MEMBER + "(m.site_id IS NULL OR m.site_id = $2) ORDER BY m.site_id NULLS FIRST, u.username LIMIT $3",
        place.org_id,
        place.site_id,
        limit,
    )
    return [_member(row) for row in rows]


async def member(tx: Transaction, place: Place, user_id: UUID) -> Member | None:
    """The membership at exactly this place (an org-wide one is none of its sites')."""
    row = await tx.fetchrow(
        _MEMBER + "m.site_id IS NOT DISTINCT FROM $2 AND m.user_id = $3", place.org_id, place.site_id, user_id
    )
    return None if row is None else _member(row)


async def remove_membership(tx: Transaction, place: Place, user_id: UUID) -> None:
    await tx.execute(
        "DELETE FROM memberships WHERE org_id = $1 AND site_id IS NOT DISTINCT FROM $2 AND user_id = $3",
        place.org_id,
        place.site_id,
        user_id,
    )


async def is_owned_besides(tx: Transaction, org_id: str, user_id: UUID) -> bool:
    """Whether somebody else owns the whole org and may log in."""
    found: bool = await tx.fetchval(
        "SELECT EXISTS (SELECT 1 FROM memberships m JOIN users u ON u.id = m.user_id WHERE m.org_id = $1"
        " AND m.site_id IS NULL AND m.role = 'owner' AND u.disabled_at IS NULL AND u.id <> $2)",
        org_id,
        user_id,
    )
    return found


def _place(row: Row | None) -> Place | None:
    return None if row is None else _known(row)


def _known(row: Row) -> Place:
    return Place(
        org_id=row["org_id"],
        org=row["org"],
        site_id=row["site_id"],
        site=row["site"],
        role=None if row["role"] is None else Role.of(row["role"]),
        sees=row["sees"],
        created_at=unix(row["created_at"]),
        version=row["version"],
    )


def _member(row: Row) -> Member:
    return Member(
        user_id=row["user_id"],
        username=row["username"],
        role=Role.of(row["role"]),
        whole_org=row["whole_org"],
        since=unix(row["created_at"]),
    )

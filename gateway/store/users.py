"""People as those who run the installation see them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from gateway.policy.access import Staff
from gateway.store.transaction import Row, Transaction, unix


@dataclass(frozen=True, slots=True)
class User:
    """A person; times in Unix seconds."""

    id: UUID
    username: str
    staff: Staff
    created_at: float
    disabled: bool
    version: int
    """Counts changes of what administrators set."""


_SELECT = "SELECT id, username, role, created_at, disabled_at, version FROM users WHERE "


async def list_all(tx: Transaction, after: str, limit: int) -> list[User]:
    """By name, beginning behind `after`."""
    rows = await tx.fetch(_SELECT + "username > $1 ORDER BY username LIMIT $2", after, limit)
    return [_user(row) for row in rows]


async def get(tx: Transaction, user_id: UUID, *, lock: bool = False) -> User | None:
    row = await tx.fetchrow(_SELECT + "id = $1" + (" FOR NO KEY UPDATE" if lock else ""), user_id)
    return None if row is None else _user(row)


async def lock_admins(tx: Transaction) -> int:
    """How many administrators may log in; none of them changes until commit."""
    rows = await tx.fetch(
        "SELECT id FROM users WHERE role = 'admin' AND disabled_at IS NULL ORDER BY id FOR NO KEY UPDATE"
    )
    return len(rows)


async def set_staff(tx: Transaction, user_id: UUID, staff: Staff) -> None:
    await tx.execute("UPDATE users SET role = $2, version = version + 1 WHERE id = $1", user_id, staff.value)


async def set_disabled(tx: Transaction, user_id: UUID, *, disabled: bool) -> None:
    await tx.execute(
        "UPDATE users SET version = version + 1,"
        " disabled_at = CASE WHEN $2 THEN coalesce(disabled_at, $3) END WHERE id = $1",
        user_id,
        disabled,
        tx.at,
    )


async def set_password(tx: Transaction, user_id: UUID, password_hash: str) -> None:
    await tx.execute(
        "UPDATE users SET password_hash = $2, version = version + 1 WHERE id = $1", user_id, password_hash
    )


def _user(row: Row) -> User:
    return User(
        id=row["id"],
        username=row["username"],
        staff=Staff(row["role"]),
        created_at=unix(row["created_at"]),
        disabled=row["disabled_at"] is not None,
        version=row["version"],
    )

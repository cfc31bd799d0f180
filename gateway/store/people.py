"""Users, their logins, and registration tokens."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid4

from gateway.policy.access import Actor, Staff
from gateway.policy.usernames import USERNAME_RULE, is_username
from gateway.store import api_tokens, places, sessions
from gateway.store.transaction import Reading, Row, Transaction, utc


async def find_user(tx: Transaction, username: str) -> Row | None:
    """id, username, password_hash, disabled (whether they are shut out)."""
    return await tx.fetchrow(
        "SELECT id, username, password_hash, disabled_at IS NOT NULL AS disabled FROM users"
        " WHERE username = $1",
        username,
    )


async def hold_person(tx: Transaction, user_id: UUID) -> bool:
    """Whether the person may log in; it stays so until commit. Every login begins with this or with
    `hold_password`: whoever ends the person's logins (`hold_still`) waits, and then ends this one too.

    One order: a person before logins, logins before sessions.
    """
    held = await tx.fetchval(
        "SELECT true FROM users WHERE id = $1 AND disabled_at IS NULL FOR SHARE", user_id
    )
    return bool(held)


async def hold_still(tx: Transaction, user_id: UUID) -> None:
    """Until commit no login of the person begins, and nobody else ends all of them. Call it before rows of
    the person's are locked. Their key stays free: what only names the person does not wait.
    """
    await tx.execute("SELECT 1 FROM users WHERE id = $1 FOR NO KEY UPDATE", user_id)


async def hold_password(tx: Transaction, user_id: UUID, password_hash: str) -> bool:
    """As `hold_person`, and whether this is still the person's password."""
    held = await tx.fetchval(
        "SELECT true FROM users WHERE id = $1 AND password_hash = $2 AND disabled_at IS NULL FOR SHARE",
        user_id,
        password_hash,
    )
    return bool(held)


async def add_user(tx: Transaction, username: str, password_hash: str | None, staff: Staff) -> UUID | None:
    """A new user with a home of their own; None when the name is taken. ValueError for what is no name."""
    if not is_username(username):
        raise ValueError(f"a username {USERNAME_RULE}")
    user_id: UUID | None = await tx.fetchval(
        "INSERT INTO users (id, username, password_hash, role, created_at) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (username) DO NOTHING RETURNING id",
        uuid4(),
        username,
        password_hash,
        staff.value,
        tx.at,
    )
    if user_id is not None:
        await places.add_home(tx, user_id, username)
    return user_id


async def put_user(
    tx: Transaction, username: str, password_hash: str | None, staff: Staff = Staff.USER
) -> UUID:
    """Create the user with a home of their own, or give an existing one this password hash and standing.

    The user's id. ValueError for somebody new whose name is none.
    """
    added = await add_user(tx, username, password_hash, staff) if is_username(username) else None
    if added is not None:
        return added
    user_id: UUID | None = await tx.fetchval(
        "UPDATE users SET password_hash = coalesce($2, password_hash), role = $3 WHERE username = $1"
        " RETURNING id",
        username,
        password_hash,
        staff.value,
    )
    if user_id is None:
        raise ValueError(f"a username {USERNAME_RULE}")
    return user_id


async def add_login(
    tx: Transaction,
    user_id: UUID,
    token_sha256: bytes,
    kind: str,
    expires_at: datetime,
    *,
    provider: str | None = None,
    address: str = "",
    user_agent: str = "",
) -> UUID:
    """A new login of kind password | welcome | provider; its id. `user_agent` is shortened."""
    login_id = uuid4()
    await tx.execute(
        "INSERT INTO logins (id, token_sha256, user_id, kind, created_at, seen_at, expires_at, provider,"
        " address, user_agent) VALUES ($1, $2, $3, $4, $5, $5, $6, $7, $8, $9)",
        login_id,
        token_sha256,
        user_id,
        kind,
        tx.at,
        expires_at,
        provider,
        address,
        user_agent,
    )
    return login_id


async def end_login(tx: Transaction, login_id: UUID) -> bool:
    return bool(
        await tx.execute(
            "UPDATE logins SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL", login_id, tx.at
        )
    )


# The idle life counts in minutes; a write each request would cost more than it tells.
SEEN_EVERY_S = 60.0

_ACTOR = (
    "SELECT u.id AS user_id, u.username, u.role, l.id AS login_id, l.seen_at"
    " FROM logins l JOIN users u ON u.id = l.user_id"
    " WHERE l.ended_at IS NULL AND l.expires_at > $2 AND u.disabled_at IS NULL AND "
)


async def actor_by_cookie(tx: Reading, token_sha256: bytes, idle_s: float) -> Actor | None:
    """The person of a browser's login that was used in the last `idle_s` seconds."""
    row = await tx.fetchrow(
        _ACTOR + "l.token_sha256 = $1 AND l.seen_at > $3", token_sha256, tx.at, utc(tx.now - idle_s)
    )
    _seen(tx, row)
    return _actor(row)


async def actor_by_login(tx: Reading, login_id: UUID) -> Actor | None:
    row = await tx.fetchrow(_ACTOR + "l.id = $1", login_id, tx.at)
    _seen(tx, row)
    return _actor(row)


def _seen(tx: Reading, row: Row | None) -> None:
    """Note the use, once a minute. Never waits: whoever has the row locked is ending it or notes the same."""
    if row is None or row["seen_at"] > utc(tx.now - SEEN_EVERY_S):
        return
    tx.note(
        "UPDATE logins SET seen_at = $2 WHERE id = (SELECT id FROM logins WHERE id = $1"
        " FOR UPDATE SKIP LOCKED)",
        row["login_id"],
        tx.at,
    )


def _actor(row: Row | None) -> Actor | None:
    return (
        None if row is None else Actor(row["user_id"], row["username"], row["login_id"], Staff(row["role"]))
    )


async def add_registration_token(
    tx: Transaction,
    *,
    author: Actor,
    site_id: str,
    token_sha256: bytes,
    name: str | None,
    approve: bool,
    device_type: str | None,
    expires_at: datetime,
) -> None:
    await tx.execute(
        "INSERT INTO registration_tokens (token_sha256, user_id, site_id, name, approve, created_at,"
        " expires_at, api_token_id, device_type) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        token_sha256,
        author.user_id,
        site_id,
        name,
        approve,
        tx.at,
        expires_at,
        author.api_token_id,
        device_type,
    )


async def burn_registration_token(tx: Transaction, token_sha256: bytes) -> Row | None:
    """user_id, site_id, name, approve, device_type of a token that was unused and in time; it is used now.

    Like the invitation, it falls with the role of whoever made it, and with the API token that did. Its site
    stays until commit.
    """
    site_id = await tx.fetchval(
        "SELECT site_id FROM registration_tokens WHERE token_sha256 = $1", token_sha256
    )
    if site_id is None:
        return None
    await places.hold_site(tx, site_id)
    return await tx.fetchrow(
        "UPDATE registration_tokens t SET used_at = $2 FROM users u WHERE t.token_sha256 = $1"
        " AND t.used_at IS NULL AND t.expires_at > $2 AND u.id = t.user_id AND u.disabled_at IS NULL"
        " AND EXISTS (SELECT 1 FROM site_roles r WHERE r.site_id = t.site_id AND r.user_id = t.user_id"
        " AND r.role >= 'admin') AND NOT EXISTS (SELECT 1 FROM api_tokens a WHERE a.id = t.api_token_id"
        " AND a.ended_at IS NOT NULL)"
        " RETURNING t.user_id, t.site_id, t.name, t.approve, t.device_type",
        token_sha256,
        tx.at,
    )


async def registration_token_state(tx: Transaction, token_sha256: bytes) -> str:
    """Why a token does not burn: unknown | used | expired | void (its author may not make one any more)."""
    row = await tx.fetchrow(
        "SELECT used_at, expires_at FROM registration_tokens WHERE token_sha256 = $1", token_sha256
    )
    if row is None:
        return "unknown"
    if row["used_at"] is not None:
        return "used"
    return "expired" if row["expires_at"] <= tx.at else "void"


async def hold(tx: Transaction, actor: Actor) -> bool:
    """Whether the actor's login or API token lasts; nobody ends it before commit.

    Call it before other rows are locked: in one order (login, device) these locks cannot deadlock.
    """
    by_login = actor.api_token_id is None
    table, key = ("logins", actor.login_id) if by_login else ("api_tokens", actor.api_token_id)
    held = f"SELECT true FROM {table} WHERE id = $1 AND ended_at IS NULL FOR SHARE"
    return bool(await tx.fetchval(held, key))


async def end_logins(tx: Transaction, user_id: UUID) -> int:
    """End every login of the person; how many. One that begins meanwhile is waited for and ended."""
    await hold_still(tx, user_id)
    return await tx.execute(
        "UPDATE logins SET ended_at = $2 WHERE id IN (SELECT id FROM logins WHERE user_id = $1"
        " AND ended_at IS NULL AND expires_at > $2 ORDER BY id FOR UPDATE)",
        user_id,
        tx.at,
    )


async def end_all_of_user(tx: Transaction, user_id: UUID) -> dict[str, int]:
    """End all by which the person is in: logins with their tokens, API tokens, sessions. How many of each."""
    return {
        "logins": await end_logins(tx, user_id),
        "api_tokens": await api_tokens.end_of_user(tx, user_id),
        "sessions": await sessions.end_of_user(tx, user_id),
    }

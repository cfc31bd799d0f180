"""Sessions and the links that open them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.policy.links import Binding, LinkFacts
from gateway.policy.live import Change
from gateway.store.transaction import Reading, Revocation, Row, Transaction, unix


@dataclass(frozen=True, slots=True)
class Session:
    """A person's time-boxed access to one service of one device; times in Unix seconds."""

    id: UUID
    label: str
    device_id: str
    device_name: str
    user_id: UUID
    username: str
    site_id: str
    owner: str
    """As of a device: who owns its site longest."""
    service: str
    service_kind: str
    grant_id: UUID
    created_at: float
    expires_at: float
    ended: bool
    redeemed_at: float | None
    support_id: UUID | None
    """Of the consent under which it was opened; None: by the person's own role."""
    consented_by: UUID | None
    consenter: str | None
    support_reason: str | None
    cookie_sha256: bytes | None
    """None until the link is redeemed."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link with its session."""

    jti: UUID
    facts: LinkFacts
    session: Session


_SESSION = (
    "s.id, s.label, s.device_id, s.service, s.service_kind, s.grant_id, s.created_at, s.expires_at,"
    " s.ended_at, s.redeemed_at, s.cookie_sha256, s.user_id, u.username, d.name AS device_name, d.site_id,"
    " d.status, (SELECT o.username FROM memberships m JOIN users o ON o.id = m.user_id JOIN sites p"
    " ON p.org_id = m.org_id WHERE p.id = d.site_id AND (m.site_id IS NULL OR m.site_id = p.id)"
    " AND m.role = 'owner' ORDER BY m.created_at, o.id LIMIT 1) AS owner, s.support_id,"
    " q.decided_by AS consented_by, (SELECT c.username FROM users c WHERE c.id = q.decided_by) AS consenter,"
    " q.reason AS support_reason"
)
_JOINS = (
    " JOIN users u ON u.id = s.user_id JOIN devices d ON d.id = s.device_id"
    " LEFT JOIN support_requests q ON q.id = s.support_id "
)


async def add(
    tx: Transaction,
    *,
    session_id: UUID,
    label: str,
    device_id: str,
    user_id: UUID,
    login_id: UUID | None,
    api_token_id: UUID | None,
    service: str,
    service_kind: str,
    grant_id: UUID,
    expires_at: datetime,
    support_id: UUID | None = None,
) -> None:
    await tx.execute(
        "INSERT INTO sessions (id, label, device_id, user_id, service, service_kind, grant_id, created_at,"
        " expires_at, login_id, api_token_id, support_id)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        session_id,
        label,
        device_id,
        user_id,
        service,
        service_kind,
        grant_id,
        tx.at,
        expires_at,
        login_id,
        api_token_id,
        support_id,
    )


async def add_link(
    tx: Transaction, jti: UUID, session_id: UUID, binding: Binding, expires_at: datetime
) -> None:
    await tx.execute(
        "INSERT INTO links (jti, session_id, binding, expires_at) VALUES ($1, $2, $3, $4)",
        jti,
        session_id,
        binding,
        expires_at,
    )


async def get(tx: Reading, session_id: UUID) -> Session | None:
    row = await tx.fetchrow(f"SELECT {_SESSION} FROM sessions s {_JOINS} WHERE s.id = $1", session_id)
    return None if row is None else _session(row)


async def list_live(tx: Reading, user_id: UUID, limit: int) -> list[Session]:
    """The person's sessions that have not ended, newest first."""
    rows = await tx.fetch(
        f"SELECT {_SESSION} FROM sessions s {_JOINS} WHERE s.user_id = $1 AND s.ended_at IS NULL"
        " AND s.expires_at > $2 AND d.status = 'approved' ORDER BY s.created_at DESC LIMIT $3",
        user_id,
        tx.at,
        limit,
    )
    return [_session(row) for row in rows]


async def list_of_device(tx: Reading, device_id: str, limit: int) -> list[Session]:
    """Everybody's sessions on the device that have not ended, newest first."""
    rows = await tx.fetch(
        f"SELECT {_SESSION} FROM sessions s {_JOINS} WHERE s.device_id = $1 AND s.ended_at IS NULL"
        " AND s.expires_at > $2 AND d.status = 'approved' ORDER BY s.created_at DESC LIMIT $3",
        device_id,
        tx.at,
        limit,
    )
    return [_session(row) for row in rows]


async def count_live(tx: Transaction, user_id: UUID) -> int:
    """Whoever counts the person's sessions takes turns until commit."""
    await tx.take_turns(f"sessions {user_id}")
    count: int = await tx.fetchval(
        "SELECT count(*) FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2",
        user_id,
        tx.at,
    )
    return count


async def find_by_cookie(tx: Transaction, label: str, cookie_sha256: bytes) -> Session | None:
    """The session that this cookie opens or opened on this label; it may have ended."""
    row = await tx.fetchrow(
        f"SELECT {_SESSION} FROM sessions s {_JOINS} WHERE s.label = $1 AND s.cookie_sha256 = $2",
        label,
        cookie_sha256,
    )
    return None if row is None else _session(row)


def is_live(session: Session, now: float) -> bool:
    return not session.ended and now < session.expires_at


async def end(tx: Transaction, session: Session) -> bool:
    """End it here and, through the feed, on every node. False when it had ended before."""
    ended = await tx.fetchrow(
        "UPDATE sessions SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL"
        " RETURNING id, expires_at, device_id, user_id",
        session.id,
        tx.at,
    )
    if ended is None:
        return False
    _tell_ended(tx, ended)
    return True


async def end_of_device(tx: Transaction, device_id: str, site_id: str) -> int:
    """End every live session of the device; how many. Those who run `site_id` are told: of a device that
    moved it is where it was, as its new people have nothing to do with them.
    """
    return await _end_where(tx, "device_id = $2", device_id, site_id)


async def end_of_login(tx: Transaction, login_id: UUID) -> int:
    """End every live session that this login opened; how many."""
    return await _end_where(tx, "login_id = $2", login_id)


async def end_of_logins(tx: Transaction, login_ids: Sequence[UUID]) -> int:
    """End every live session that these logins opened; how many."""
    return await _end_where(tx, "login_id = ANY($2)", login_ids)


async def hand_over(tx: Transaction, login_id: UUID, to: UUID) -> None:
    """What one login opened ends with another one from now on. Locked by id, as where sessions end."""
    await tx.execute(
        "UPDATE sessions SET login_id = $2 WHERE id IN"
        " (SELECT id FROM sessions WHERE login_id = $1 ORDER BY id FOR UPDATE)",
        login_id,
        to,
    )


async def end_of_api_token(tx: Transaction, token_id: UUID) -> int:
    """End every live session that this API token opened; how many."""
    return await _end_where(tx, "api_token_id = $2", token_id)


async def end_of_support(tx: Transaction, support_id: UUID, site_id: str) -> int:
    """End every live session under this consent, which was given at that site; how many."""
    return await _end_where(tx, "support_id = $2", support_id, site_id)


async def end_of_user(tx: Transaction, user_id: UUID) -> int:
    """End every live session of the person; how many."""
    return await _end_where(tx, "user_id = $2", user_id)


# By a role (a consent carries the others), and of nobody who is a member where the device is now.
_ROLE_GONE = (
    "support_id IS NULL AND NOT EXISTS (SELECT 1 FROM devices d JOIN site_roles r ON r.site_id = d.site_id"
    " WHERE d.id = sessions.device_id AND r.user_id = sessions.user_id AND r.role >= 'member')"
)


async def end_without_role(tx: Transaction, user_id: UUID) -> int:
    """End the person's live sessions on devices where they are no member any more; how many."""
    return await _end_where(tx, f"user_id = $2 AND {_ROLE_GONE}", user_id)


async def end_on_device_without_role(tx: Transaction, device_id: str, site_id: str) -> int:
    """End the live sessions on a device (it moved) of those who are no member there; how many. Those who run
    `site_id`, where it was, are told.
    """
    return await _end_where(tx, f"device_id = $2 AND {_ROLE_GONE}", device_id, site_id)


async def _end_where(tx: Transaction, condition: str, value: object, site_id: str | None = None) -> int:
    # Locked by id: two who end some of the same for different reasons do not wait for each other in a ring.
    rows = await tx.fetch(
        "UPDATE sessions SET ended_at = $1 WHERE id IN (SELECT id FROM sessions"
        f" WHERE {condition} AND ended_at IS NULL AND expires_at > $1 ORDER BY id FOR UPDATE)"
        " RETURNING id, expires_at, device_id, user_id",
        tx.at,
        value,
    )
    for row in rows:
        _tell_ended(tx, row, site_id)
    return len(rows)


def _tell_ended(tx: Transaction, row: Row, site_id: str | None = None) -> None:
    """To the nodes, and to the people who follow. `site_id` None: where the device is."""
    tx.revoke(Revocation("session", str(row["id"]), exp=row["expires_at"]))
    device, user, ref = row["device_id"], row["user_id"], str(row["id"])
    tx.tell(Change("session.ended", site_id=site_id, device_id=device, user_id=user, ref=ref))


_LINK = (
    f"SELECT l.jti, l.binding, l.burnt_at, l.expires_at AS link_expires_at, l.code_expires_at, {_SESSION}"
    f" FROM links l JOIN sessions s ON s.id = l.session_id {_JOINS} WHERE "
)
# The link and its session stay as they are until commit: two redeems of one link take turns.
_LOCK = " FOR UPDATE OF l, s"


async def link_by_jti(tx: Transaction, jti: UUID) -> Link | None:
    """The link, locked until commit."""
    return _link(await tx.fetchrow(_LINK + "l.jti = $1" + _LOCK, jti))


async def link_by_code(tx: Transaction, code_sha256: bytes) -> Link | None:
    """The link, locked until commit."""
    return _link(await tx.fetchrow(_LINK + "l.code_sha256 = $1" + _LOCK, code_sha256))


async def put_code(tx: Transaction, jti: UUID, code_sha256: bytes, expires_at: datetime) -> None:
    """The newest code is the only one that works."""
    await tx.execute(
        "UPDATE links SET code_sha256 = $2, code_expires_at = $3 WHERE jti = $1", jti, code_sha256, expires_at
    )


async def burn(tx: Transaction, link: Link, cookie_sha256: bytes) -> None:
    """Use the link up and let this cookie open its session."""
    await tx.execute("UPDATE links SET burnt_at = $2 WHERE jti = $1", link.jti, tx.at)
    await tx.execute(
        "UPDATE sessions SET cookie_sha256 = $2, redeemed_at = $3 WHERE id = $1",
        link.session.id,
        cookie_sha256,
        tx.at,
    )


def _link(row: Row | None) -> Link | None:
    if row is None:
        return None
    session = _session(row)
    code_expires_at = row["code_expires_at"]
    facts = LinkFacts(
        binding=row["binding"],
        kind=session.service_kind,
        burnt=row["burnt_at"] is not None,
        expires_at=unix(row["link_expires_at"]),
        code_expires_at=None if code_expires_at is None else unix(code_expires_at),
        session_ended=session.ended,
        session_expires_at=session.expires_at,
    )
    return Link(row["jti"], facts, session)


def _session(row: Row) -> Session:
    redeemed_at = row["redeemed_at"]
    return Session(
        id=row["id"],
        label=row["label"],
        device_id=row["device_id"],
        device_name=row["device_name"],
        user_id=row["user_id"],
        username=row["username"],
        site_id=row["site_id"],
        owner=row["owner"] or "nobody",
        service=row["service"],
        service_kind=row["service_kind"],
        grant_id=row["grant_id"],
        created_at=unix(row["created_at"]),
        expires_at=unix(row["expires_at"]),
        ended=row["ended_at"] is not None or row["status"] != "approved",
        redeemed_at=None if redeemed_at is None else unix(redeemed_at),
        support_id=row["support_id"],
        consented_by=row["consented_by"],
        consenter=row["consenter"],
        support_reason=row["support_reason"],
        cookie_sha256=row["cookie_sha256"],
    )

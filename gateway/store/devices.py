"""Devices, their enrolments, certificates and renewal nonces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from gateway.keys.authority import Issued
from gateway.policy.access import Role
from gateway.policy.names import DEVICE_ID_PATTERN
from gateway.policy.presence import NODE_SILENT_S
from gateway.store.transaction import Reading, Row, Transaction, unix, utc


class HardwareIdTakenError(Exception):
    """Another device with this hardware id is pending or approved, and nobody freed the id."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device as people see it; times in Unix seconds."""

    id: str
    site_id: str
    site: str
    owner: str
    """Name of the person who owns the site longest."""
    name: str
    type: str
    hardware_id: str
    tags: tuple[str, ...]
    status: str
    created_at: float
    released_until: float | None
    """Its owner lets go of it until then; None: not released, or claimed since."""
    version: int
    """Counts changes of what people set."""
    online: bool
    since: float | None
    last_seen: float | None
    last_error: str | None
    rtt_ms: float | None
    software: str
    services: tuple[dict[str, Any], ...]
    public_key: bytes
    key_id: bytes
    role: Role | None
    """Of the person who asked, at the device's site."""

    def service_kind(self, service: str) -> str | None:
        """web | tcp; None when the device has not announced such a service."""
        for entry in self.services:
            if entry.get("name") == service:
                return str(entry.get("kind", "web"))
        return None


LISTED_MAX = 201  # a page of the API, and the one that says whether there is another

# Which devices come into a page: decided by their own rows, so that owner and tunnels are looked up for those
# alone. $1 silent before, $2 who asks, $3 after, $4 limit. Each site gives its next ones in the order of the
# index on (site_id, id): neither other sites of the installation nor the rest of these are read. The number
# and the conditions stand as text because a plan for any parameters would know nothing of them.
_PAGE = f"""
SELECT next.* FROM site_roles mine CROSS JOIN LATERAL (
    SELECT p.* FROM devices p
    WHERE p.site_id = mine.site_id AND p.id > $3 AND p.status <> 'rejected' {{conditions}}
    ORDER BY p.id LIMIT {LISTED_MAX}
) next
WHERE mine.user_id = $2 {{place}} ORDER BY next.id LIMIT $4
"""
_ONLINE = (
    "p.status = 'approved' AND EXISTS (SELECT 1 FROM tunnels t JOIN nodes n ON n.name = t.node"
    " WHERE t.device_id = p.id AND n.last_heartbeat >= $1)"
)
_TEXT = "strpos(lower(p.name), {0}) > 0 OR strpos(p.id, {0}) > 0 OR strpos(lower(p.hardware_id), {0}) > 0"
# A tunnel counts while the node that holds it speaks. `seen` is how fresh that word is.
_SELECT = """
SELECT d.*, s.name AS site_name, owner.username AS owner_name, mine.role,
       live.tunnels, live.heard, live.rtt_ms AS live_rtt_ms, live.node_lost
FROM {devices} d
JOIN sites s ON s.id = d.site_id
LEFT JOIN LATERAL (
    SELECT max(r.role) AS role FROM site_roles r WHERE r.site_id = d.site_id AND r.user_id = $2
) mine ON true
LEFT JOIN LATERAL (
    SELECT u.username FROM memberships m JOIN users u ON u.id = m.user_id
    WHERE m.org_id = s.org_id AND (m.site_id IS NULL OR m.site_id = s.id) AND m.role = 'owner'
    ORDER BY m.created_at, u.id LIMIT 1
) owner ON true
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE n.last_heartbeat >= $1) AS tunnels,
           max(n.last_heartbeat) FILTER (WHERE n.last_heartbeat >= $1) AS heard,
           min(t.rtt_ms) FILTER (WHERE n.last_heartbeat >= $1) AS rtt_ms,
           max(n.last_heartbeat) FILTER (WHERE n.last_heartbeat < $1) AS node_lost
    FROM tunnels t JOIN nodes n ON n.name = t.node WHERE t.device_id = d.id
) live
"""
_ONE = _SELECT.format(devices="devices") + "WHERE d.id = $3"


def _silent_before(tx: Reading) -> datetime:
    return utc(tx.now - NODE_SILENT_S)


async def hold(tx: Transaction, device_id: str, asking: UUID | None = None) -> Device | None:
    """As `get`, and its row stays as it is until commit: its status cannot change meanwhile."""
    if DEVICE_ID_PATTERN.fullmatch(device_id) is None:
        return None
    await tx.execute("SELECT 1 FROM devices WHERE id = $1 FOR NO KEY UPDATE", device_id)
    return await get(tx, device_id, asking)


async def get(tx: Reading, device_id: str, asking: UUID | None = None) -> Device | None:
    """One device, with the role there of the person `asking`."""
    if DEVICE_ID_PATTERN.fullmatch(device_id) is None:
        return None
    row = await tx.fetchrow(_ONE, _silent_before(tx), asking, device_id)
    return None if row is None else _device(row)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which devices of a list; None or empty: any."""

    site_id: str | None = None
    status: str | None = None
    online: bool | None = None
    text: str = ""
    """Part of the name, id or hardware id, in any case."""
    tags: Sequence[str] = ()
    """All of them."""


async def list_seen(
    tx: Reading, asking: UUID, after: str, limit: int, wanted: Wanted | None = None
) -> list[Device]:
    """The devices where the person has a role, but rejected ones, by id, beginning behind `after`; `limit` is
    at most LISTED_MAX.
    """
    assert limit <= LISTED_MAX
    page, chosen = _page(wanted or Wanted())
    rows = await tx.fetch(
        f"{_SELECT.format(devices=page)} ORDER BY d.id", _silent_before(tx), asking, after, limit, *chosen
    )
    return [_device(row) for row in rows]


def _page(wanted: Wanted) -> tuple[str, list[object]]:
    """_PAGE for these, and its parameters from $5 on."""
    chosen: list[object] = []

    def given(value: object) -> str:
        chosen.append(value)
        return f"${len(chosen) + 4}"

    place = f"AND mine.site_id = {given(wanted.site_id)}" if wanted.site_id is not None else ""
    conditions = []
    if wanted.status is not None:
        conditions.append(f"p.status = {given(wanted.status)}")
    if wanted.online is not None:
        conditions.append(_ONLINE if wanted.online else f"NOT ({_ONLINE})")
    if wanted.text:
        conditions.append(f"({_TEXT.format(given(wanted.text.lower()))})")
    if wanted.tags:
        conditions.append(f"p.tags @> {given(list(wanted.tags))}::text[]")
    page = _PAGE.format(conditions="".join(f" AND {one}" for one in conditions), place=place)
    return f"({page})", chosen


async def change(
    tx: Transaction, device_id: str, *, name: str, tags: Sequence[str], site_id: str, type_id: str
) -> None:
    """Write what people set; the version grows. A device that moves is not released any more: to let go of it
    was the word of the place where it was.
    """
    await _leave(tx, device_id, site_id, type_id)
    await tx.execute(
        "UPDATE devices SET name = $2, tags = $3, site_id = $4, type = $5, version = version + 1,"
        " released_until = CASE WHEN site_id = $4 THEN released_until END WHERE id = $1",
        device_id,
        name,
        list(tags),
        site_id,
        type_id,
    )


async def set_released(tx: Transaction, device_id: str, until: datetime | None) -> None:
    """Let go of the device until then; None: keep it."""
    await tx.execute(
        "UPDATE devices SET released_until = $2, version = version + 1 WHERE id = $1", device_id, until
    )


async def move_claimed(tx: Transaction, device_id: str, site_id: str, name: str) -> None:
    """The device belongs there now. What its former people wrote about it stays behind."""
    await _leave(tx, device_id, site_id)
    await tx.execute(
        "UPDATE devices SET site_id = $2, name = $3, tags = '{}', released_until = NULL,"
        " version = version + 1 WHERE id = $1",
        device_id,
        site_id,
        name,
    )


async def _leave(
    tx: Transaction, device_id: str, site_id: str | None = None, type_id: str | None = None
) -> None:
    """Note where an approved device is, which goes to `site_id` as `type_id` (None: as it is), or nowhere:
    what it said here and is not stored yet belongs here (policy/stays.py).
    """
    stay = await tx.fetchrow(
        "SELECT d.id, s.org_id, d.site_id, d.type FROM devices d JOIN sites s ON s.id = d.site_id"
        " WHERE d.id = $1 AND d.status = 'approved'",
        device_id,
    )
    if stay is None or (stay["site_id"], stay["type"]) == (site_id, type_id or stay["type"]):
        return
    # A type that goes back and forth makes no row each time: it is all the same site's.
    known = await tx.execute(
        "UPDATE device_places p SET until = $2 WHERE device_id = $1 AND site_id = $3 AND type = $4"
        " AND until < $2 AND NOT EXISTS (SELECT 1 FROM device_places o WHERE o.device_id = $1"
        " AND o.until > p.until AND ((o.site_id, o.type) = ($3, $4) OR o.site_id <> $3 OR o.until = $2))",
        device_id,
        tx.at,
        stay["site_id"],
        stay["type"],
    )
    if not known:
        await tx.execute(
            "INSERT INTO device_places (device_id, until, org_id, site_id, type) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT DO NOTHING",
            device_id,
            tx.at,
            stay["org_id"],
            stay["site_id"],
            stay["type"],
        )


def _device(row: Row) -> Device:
    online = row["status"] == "approved" and row["tunnels"] > 0
    since, seen = row["since"], row["last_seen"]
    if online:
        seen = row["heard"]
    elif row["node_lost"] is not None:
        since = seen = row["node_lost"]  # its node fell silent: nobody reported the end of the tunnel
    return Device(
        id=row["id"],
        site_id=row["site_id"],
        site=row["site_name"],
        owner=row["owner_name"] or "nobody",
        name=row["name"],
        type=row["type"],
        hardware_id=row["hardware_id"],
        tags=tuple(row["tags"]),
        status=row["status"],
        created_at=unix(row["created_at"]),
        released_until=None if row["released_until"] is None else unix(row["released_until"]),
        version=row["version"],
        online=online,
        since=None if since is None else unix(since),
        last_seen=None if seen is None else unix(seen),
        last_error=row["last_error"],
        rtt_ms=(row["live_rtt_ms"] if online else None),
        software=row["software"],
        services=tuple(row["services"]),
        public_key=row["public_key"],
        key_id=row["key_id"],
        role=None if row["role"] is None else Role.of(row["role"]),
    )


async def add(
    tx: Transaction,
    *,
    device_id: str,
    site_id: str,
    name: str,
    hardware_id: str,
    status: str,
    public_key: bytes,
    key_id: bytes,
    software: str,
    type_id: str | None = None,
) -> None:
    """HardwareIdTakenError when that hardware is bound already. `type_id` None: the usual type."""
    try:
        await tx.execute(
            "INSERT INTO devices (id, site_id, name, hardware_id, status, public_key, key_id, software,"
            " created_at, type) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, 'linux'))",
            device_id,
            site_id,
            name,
            hardware_id,
            status,
            public_key,
            key_id,
            software,
            tx.at,
            type_id,
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "devices_hardware":
            raise
        raise HardwareIdTakenError from error


async def free_hardware_id(tx: Transaction, hardware_id: str) -> tuple[str, str] | None:
    """Take the id from the device that is bound by it: its own id and site; None: there is none."""
    row = await tx.fetchrow(
        "UPDATE devices SET hardware_id_freed_at = $2 WHERE hardware_id = $1"
        " AND status IN ('pending', 'approved') AND hardware_id_freed_at IS NULL RETURNING id, site_id",
        hardware_id,
        tx.at,
    )
    return None if row is None else (row["id"], row["site_id"])


async def set_status(tx: Transaction, device_id: str, status: str, *, allowed_from: Sequence[str]) -> bool:
    """False when the device is in none of the states `allowed_from`."""
    if status == "revoked":
        await _leave(tx, device_id)
    return bool(
        await tx.execute(
            "UPDATE devices SET status = $2, version = version + 1 WHERE id = $1 AND status = ANY($3)",
            device_id,
            status,
            list(allowed_from),
        )
    )


async def drop_tunnels(tx: Transaction, device_id: str) -> None:
    """Forget where the device is connected (it was revoked: nodes are told to cut it)."""
    gone = await tx.execute("DELETE FROM tunnels WHERE device_id = $1", device_id)
    if gone:
        await tx.execute("UPDATE devices SET since = $2, last_seen = $2 WHERE id = $1", device_id, tx.at)


async def nodes_of(tx: Transaction, device_id: str) -> list[str]:
    """Names of the nodes that hold a tunnel of the device and are not silent."""
    if DEVICE_ID_PATTERN.fullmatch(device_id) is None:
        return []
    rows = await tx.fetch(
        "SELECT DISTINCT t.node FROM tunnels t JOIN nodes n ON n.name = t.node"
        " WHERE t.device_id = $1 AND n.last_heartbeat >= $2 ORDER BY t.node",
        device_id,
        _silent_before(tx),
    )
    return [row["node"] for row in rows]


async def add_enrolment(tx: Transaction, device_id: str, poll_sha256: bytes) -> UUID:
    enrolment_id = uuid4()
    await tx.execute(
        "INSERT INTO enrolments (id, device_id, poll_sha256, created_at) VALUES ($1, $2, $3, $4)",
        enrolment_id,
        device_id,
        poll_sha256,
        tx.at,
    )
    return enrolment_id


async def repeat_enrolment(
    tx: Transaction, token_sha256: bytes, public_key: bytes, poll_sha256: bytes
) -> Row | None:
    """id, device_id, status, site_id of the enrolment that this token began for this key, with a new poll
    secret. Whose answer was lost asks again, and must not be a second device. None: there is no such one,
    or the token's time is over.
    """
    return await tx.fetchrow(
        "UPDATE enrolments e SET poll_sha256 = $3 FROM devices d, registration_tokens t"
        " WHERE t.token_sha256 = $1 AND t.expires_at > $4 AND e.created_at = t.used_at AND e.device_id = d.id"
        " AND d.public_key = $2 AND d.status IN ('pending', 'approved')"
        " RETURNING e.id, e.device_id, d.status, d.site_id",
        token_sha256,
        public_key,
        poll_sha256,
        tx.at,
    )


async def find_enrolment(tx: Transaction, enrolment_id: UUID, poll_sha256: bytes) -> Row | None:
    """device_id, status of the enrolment that the poll secret belongs to."""
    return await tx.fetchrow(
        "SELECT e.device_id, d.status FROM enrolments e JOIN devices d ON d.id = e.device_id"
        " WHERE e.id = $1 AND e.poll_sha256 = $2",
        enrolment_id,
        poll_sha256,
    )


async def add_certificate(tx: Transaction, device_id: str, issued: Issued) -> None:
    await tx.execute(
        "INSERT INTO device_certificates (serial, device_id, pem, issued_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5)",
        f"{issued.certificate.serial_number:x}",
        device_id,
        issued.certificate_pem().decode("ascii"),
        tx.at,
        issued.certificate.not_valid_after_utc,
    )


async def newest_certificate(tx: Transaction, device_id: str) -> str | None:
    """PEM of the last certificate that was issued to the device."""
    pem: str | None = await tx.fetchval(
        "SELECT pem FROM device_certificates WHERE device_id = $1 ORDER BY issued_at DESC LIMIT 1", device_id
    )
    return pem


async def add_nonce(tx: Transaction, device_id: str, nonce_sha256: bytes, expires_at: datetime) -> None:
    await tx.execute(
        "INSERT INTO renewal_nonces (nonce_sha256, device_id, expires_at) VALUES ($1, $2, $3)",
        nonce_sha256,
        device_id,
        expires_at,
    )


async def burn_nonce(tx: Transaction, device_id: str, nonce_sha256: bytes) -> bool:
    """True once: the nonce was given to this device, in time, and not used."""
    return bool(
        await tx.execute(
            "DELETE FROM renewal_nonces WHERE nonce_sha256 = $1 AND device_id = $2 AND expires_at > $3",
            nonce_sha256,
            device_id,
            tx.at,
        )
    )

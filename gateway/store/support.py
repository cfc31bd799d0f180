"""Support requests, the consent they get, and the log of what was done under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg

from gateway.policy.access import Role
from gateway.policy.names import DEVICE_ID_PATTERN
from gateway.policy.support import LOG_LINES_MAX, REQUEST_TTL_S, Part, State, state_at
from gateway.store import sessions
from gateway.store.transaction import AuditEvent, Reading, Row, Transaction, unix, utc


class AlreadyAskedError(Exception):
    """The engineer has an open request for this device."""


@dataclass(frozen=True, slots=True)
class SupportRequest:
    """One request as it is now; times in Unix seconds."""

    id: UUID
    n: int
    device_id: str
    device_name: str
    site_id: str
    site: str
    engineer_id: UUID
    engineer: str
    reason: str
    duration_s: int
    state: State
    created_at: float
    lapses_at: float
    decided_by: str | None
    decided_by_id: UUID | None
    decided_at: float | None
    until: float | None
    """Approved: when the consent runs out."""
    ended_by: str | None
    ended_at: float | None
    log_left_out: int
    """Entries that the log had no room for; what a node tells again for want of an answer counts again."""
    role: Role | None
    """Of the person who looks, at the site."""


@dataclass(frozen=True, slots=True)
class Passed:
    """One request in a support session, or a part of it; `at` Unix seconds, sizes in bytes.

    `entry` is the node's id of it, one for its parts: `whole`, or `began` and later `ended`. Of part `lost`
    it is a note instead: `lost` entries found no room at the node.
    """

    entry: UUID | None
    part: Part
    session_id: UUID
    at: float
    method: str
    path: str
    status: int
    received: int
    sent: int
    ms: float
    lost: int


@dataclass(frozen=True, slots=True)
class Noted:
    """What became of entries: `foreign` are of sessions that are no support's, `left_out` found no room."""

    foreign: int
    left_out: int
    ended: tuple[UUID, ...]
    """Consents that ended since their log is full."""


# The last number that a column holds: a node may say that it lost any.
_MOST = 2**63 - 1

# Still what they were when it was asked, and when it was decided: an engineer whose standing is gone has no
# consent, and a consent is worth what the owner's word is. The device is still where it was.
CONSENT_HOLDS = (
    "EXISTS (SELECT 1 FROM users e JOIN devices d ON d.id = q.device_id WHERE e.id = q.engineer_id"
    " AND e.disabled_at IS NULL AND d.site_id = q.site_id AND (e.role = 'support' OR EXISTS"
    " (SELECT 1 FROM site_roles r WHERE r.site_id = q.site_id AND r.user_id = e.id)))"
    " AND (q.decided_by IS NULL OR EXISTS (SELECT 1 FROM users o JOIN site_roles r ON r.user_id = o.id"
    " WHERE o.id = q.decided_by AND o.disabled_at IS NULL AND r.site_id = q.site_id AND r.role = 'owner'))"
)
_SELECT = (
    # How a device is named where it went is not for those who were asked, or asked, before.
    "SELECT q.*, CASE WHEN d.site_id = q.site_id THEN d.name ELSE d.id END AS device_name,"
    " s.name AS site, e.username AS engineer, c.username AS decider,"
    " x.username AS ender, r.role FROM support_requests q JOIN devices d ON d.id = q.device_id"
    " JOIN sites s ON s.id = q.site_id JOIN users e ON e.id = q.engineer_id"
    " LEFT JOIN users c ON c.id = q.decided_by LEFT JOIN users x ON x.id = q.ended_by"
    " LEFT JOIN site_roles r ON r.site_id = q.site_id AND r.user_id = $1 WHERE "
)
_SEEN = "(q.engineer_id = $1 OR r.role >= 'admin')"


async def add(
    tx: Transaction, *, device_id: str, site_id: str, engineer_id: UUID, reason: str, duration_s: int
) -> UUID:
    """Its id. AlreadyAskedError while one of theirs for the device is open."""
    request_id = uuid4()
    # What time ended gives its place to the new one.
    await tx.execute(
        "UPDATE support_requests SET state = CASE state WHEN 'pending' THEN 'lapsed' ELSE 'expired' END"
        " WHERE engineer_id = $1 AND device_id = $2"
        " AND (state = 'pending' AND lapses_at <= $3 OR state = 'approved' AND until <= $3)",
        engineer_id,
        device_id,
        tx.at,
    )
    try:
        await tx.execute(
            "INSERT INTO support_requests (id, device_id, site_id, engineer_id, reason, duration_s, state,"
            " created_at, lapses_at) VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $8)",
            request_id,
            device_id,
            site_id,
            engineer_id,
            reason,
            duration_s,
            tx.at,
            utc(tx.now + REQUEST_TTL_S),
        )
    except asyncpg.UniqueViolationError as error:
        raise AlreadyAskedError from error
    return request_id


async def get(
    tx: Transaction, request_id: UUID, asking: UUID, *, lock: bool = False
) -> SupportRequest | None:
    """The request; `lock` holds it until commit: a session under it cannot begin meanwhile."""
    if lock:
        await tx.execute("SELECT 1 FROM support_requests WHERE id = $1 FOR UPDATE", request_id)
    row = await tx.fetchrow(_SELECT + "q.id = $2", asking, request_id)
    return None if row is None else _request(row, tx.now)


async def list_seen(tx: Transaction, asking: UUID, before: int | None, limit: int) -> list[SupportRequest]:
    """What the person asked and what was asked about sites that they run; newest first, below `before`."""
    rows = await tx.fetch(
        _SELECT + _SEEN + " AND ($2::bigint IS NULL OR q.n < $2) ORDER BY q.n DESC LIMIT $3",
        asking,
        before,
        limit,
    )
    return [_request(row, tx.now) for row in rows]


async def consent_for(tx: Transaction, device_id: str, engineer_id: UUID) -> SupportRequest | None:
    """The consent under which the engineer may open the device now; locked, so that it ends after commit."""
    if DEVICE_ID_PATTERN.fullmatch(device_id) is None:
        return None
    row = await tx.fetchrow(
        "SELECT id FROM support_requests q WHERE device_id = $1 AND engineer_id = $2 AND state = 'approved'"
        f" AND until > $3 AND {CONSENT_HOLDS} FOR UPDATE OF q",
        device_id,
        engineer_id,
        tx.at,
    )
    return None if row is None else await get(tx, row["id"], engineer_id)


async def has_consent(tx: Reading, device_id: str, engineer_id: UUID) -> bool:
    """Whether there is such a consent now; it may end at any time."""
    found = await tx.fetchval(
        "SELECT true FROM support_requests q WHERE device_id = $1 AND engineer_id = $2"
        f" AND state = 'approved' AND until > $3 AND {CONSENT_HOLDS}",
        device_id,
        engineer_id,
        tx.at,
    )
    return bool(found)


async def decide(
    tx: Transaction, request_id: UUID, state: State, decided_by: UUID, until: datetime | None
) -> None:
    await tx.execute(
        "UPDATE support_requests SET state = $2, decided_by = $3, decided_at = $4, until = $5 WHERE id = $1",
        request_id,
        state.value,
        decided_by,
        tx.at,
        until,
    )


async def end(tx: Transaction, request_id: UUID, state: State, ended_by: UUID) -> int:
    """End it and every session under it, on every node; how many sessions."""
    site_id = await tx.fetchval(
        "UPDATE support_requests SET state = $2, ended_by = $3, ended_at = $4 WHERE id = $1"
        " RETURNING site_id",
        request_id,
        state.value,
        ended_by,
        tx.at,
    )
    return await sessions.end_of_support(tx, request_id, site_id)


async def end_of_device(tx: Transaction, device_id: str, by: UUID) -> int:
    """`by` took the device from where the consents were given: they end with their sessions: how many."""
    rows = await tx.fetch(
        "UPDATE support_requests SET state = CASE state WHEN 'pending' THEN 'withdrawn' ELSE 'ended' END,"
        f" ended_at = $2 WHERE device_id = $1 AND state IN ('pending', 'approved') RETURNING {_ENDED}",
        device_id,
        tx.at,
    )
    return sum([await _ended(tx, row, by) for row in rows])


async def end_without_standing(tx: Transaction, user_id: UUID, by: UUID) -> None:
    """The person is not what they were, as `by` wants it: what they asked or consented to as such ends."""
    rows = await tx.fetch(
        "UPDATE support_requests q SET state = CASE state WHEN 'pending' THEN 'withdrawn' ELSE 'ended' END,"
        " ended_at = $2 WHERE (engineer_id = $1 OR decided_by = $1) AND state IN ('pending', 'approved')"
        f" AND NOT ({CONSENT_HOLDS}) RETURNING {_ENDED}",
        user_id,
        tx.at,
    )
    for row in rows:
        await _ended(tx, row, by, standing_of=str(user_id))


_ENDED = "id, state, device_id, site_id, engineer_id"


async def _ended(tx: Transaction, row: Row, by: UUID | str, **detail: object) -> int:
    """The sessions under a consent that ended with what it rested on, and the line that says so."""
    ended = await sessions.end_of_support(tx, row["id"], row["site_id"])
    detail |= {"request": str(row["id"]), "engineer": str(row["engineer_id"]), "sessions": ended}
    kind, site = f"support.{row['state']}", row["site_id"]
    tx.audit(AuditEvent(kind, str(by), site=site, device=row["device_id"], detail=detail))
    return ended


async def add_passed(tx: Transaction, node: str, entries: Sequence[Passed]) -> Noted:
    """Write what passed in support sessions, once, as far as there is room in the consents' logs.

    A consent whose log is full ends: what is done under it could not be read any more.
    """
    found = await tx.fetch(
        "SELECT id, support_id FROM sessions WHERE id = ANY($1) AND support_id IS NOT NULL",
        list({entry.session_id for entry in entries}),
    )
    support: dict[UUID, UUID] = {row["id"]: row["support_id"] for row in found}
    ours = [entry for entry in entries if entry.session_id in support]
    # One writer of a log at a time: whoever follows it by its numbers must not be overtaken by lower ones.
    logs = await tx.fetch(
        "SELECT id, log_lines, log_left_out FROM support_requests WHERE id = ANY($1) ORDER BY id FOR UPDATE",
        list(set(support.values())),
    )
    new = await _not_written(tx, ours)
    left_out, ended = 0, []
    for log in logs:
        its = [entry for entry in new if support[entry.session_id] == log["id"]]
        room = max(0, LOG_LINES_MAX - log["log_lines"])
        await _write_passed(tx, node, log["id"], its[:room])
        over = sum(entry.lost if entry.part == "lost" else 1 for entry in its[room:])
        await tx.execute(
            "UPDATE support_requests SET log_lines = log_lines + $2, log_left_out = $3 WHERE id = $1",
            log["id"],
            len(its[:room]),
            min(_MOST, log["log_left_out"] + over),
        )
        left_out += over
        if over and await _end_full(tx, log["id"]):
            ended.append(log["id"])
    return Noted(len(entries) - len(ours), left_out, tuple(ended))


async def _not_written(tx: Transaction, entries: Sequence[Passed]) -> list[Passed]:
    """Those that are not in the log, each once: a node that got no answer tells again."""
    rows = await tx.fetch(
        "SELECT session_id, entry, part FROM request_log WHERE session_id = ANY($1) AND entry = ANY($2)",
        list({entry.session_id for entry in entries}),
        list({entry.entry for entry in entries}),
    )
    seen = {(row["session_id"], row["entry"], row["part"]) for row in rows}
    new = []
    for entry in entries:
        key = (entry.session_id, entry.entry, entry.part)
        if key not in seen:
            seen.add(key)
            new.append(entry)
    return new


async def _write_passed(tx: Transaction, node: str, request_id: UUID, entries: Sequence[Passed]) -> None:
    await tx.executemany(
        "INSERT INTO request_log (session_id, support_id, node, at, method, path, status, received, sent, ms,"
        " entry, part, lost) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        [
            (
                e.session_id,
                request_id,
                node,
                utc(e.at),
                e.method,
                e.path,
                e.status,
                e.received,
                e.sent,
                e.ms,
                e.entry,
                e.part,
                e.lost,
            )
            for e in entries
        ],
    )


async def _end_full(tx: Transaction, request_id: UUID) -> bool:
    """Whether there was a consent to end."""
    row = await tx.fetchrow(
        "UPDATE support_requests SET state = 'ended', ended_at = $2 WHERE id = $1 AND state = 'approved'"
        f" RETURNING {_ENDED}",
        request_id,
        tx.at,
    )
    if row is not None:
        await _ended(tx, row, "gateway", log_full=LOG_LINES_MAX)
    return row is not None


async def list_passed(tx: Transaction, request_id: UUID, after: int, limit: int) -> list[tuple[int, Passed]]:
    """What passed under the consent, in the order it was written, behind number `after`."""
    rows = await tx.fetch(
        "SELECT * FROM request_log WHERE support_id = $1 AND n > $2 ORDER BY n LIMIT $3",
        request_id,
        after,
        limit,
    )
    return [_passed(row) for row in rows]


async def list_newest(tx: Transaction, request_id: UUID, limit: int) -> list[tuple[int, Passed]]:
    """What passed last under the consent, newest first."""
    rows = await tx.fetch(
        "SELECT * FROM request_log WHERE support_id = $1 ORDER BY n DESC LIMIT $2", request_id, limit
    )
    return [_passed(row) for row in rows]


def _passed(row: Row) -> tuple[int, Passed]:
    return (
        row["n"],
        Passed(
            entry=row["entry"],
            part=row["part"],
            session_id=row["session_id"],
            at=unix(row["at"]),
            method=row["method"],
            path=row["path"],
            status=row["status"],
            received=row["received"],
            sent=row["sent"],
            ms=row["ms"],
            lost=row["lost"],
        ),
    )


def _request(row: Row, now: float) -> SupportRequest:
    until = None if row["until"] is None else unix(row["until"])
    lapses_at = unix(row["lapses_at"])
    return SupportRequest(
        id=row["id"],
        n=row["n"],
        device_id=row["device_id"],
        device_name=row["device_name"],
        site_id=row["site_id"],
        site=row["site"],
        engineer_id=row["engineer_id"],
        engineer=row["engineer"],
        reason=row["reason"],
        duration_s=row["duration_s"],
        state=state_at(State(row["state"]), lapses_at, until, now),
        created_at=unix(row["created_at"]),
        lapses_at=lapses_at,
        decided_by=row["decider"],
        decided_by_id=row["decided_by"],
        decided_at=None if row["decided_at"] is None else unix(row["decided_at"]),
        until=until,
        ended_by=row["ender"],
        ended_at=None if row["ended_at"] is None else unix(row["ended_at"]),
        log_left_out=row["log_left_out"],
        role=None if row["role"] is None else Role.of(row["role"]),
    )

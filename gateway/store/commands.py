"""Commands as rows. A state is written with its time, and never over one that is not before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from gateway.policy.commands import (
    DEVICE_MOVED,
    DEVICE_REVOKED,
    FINAL,
    Event,
    Standing,
    State,
    look_again_at,
    moved,
)
from gateway.policy.live import Change
from gateway.store.transaction import AuditEvent, Reading, Row, Transaction, unix, utc

COMMAND_CHANNEL: Final = "towline_commands"
"""Woken when a command changed: for who waits for one."""
DUE_CHANNEL: Final = "towline_commands_due"
"""Woken when one is to be published now."""
# Longer than a publish may take; a gateway that died with commands in hand holds them back no longer.
LEASE_S: Final = 5.0
# One look of a gateway: some 100 ms of work, so that others find the rest.
CLAIMED_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Command:
    """One row; times in Unix seconds, None: not reached."""

    id: UUID
    n: int
    device_id: str
    site_id: str
    author: str
    origin: str
    name: str
    params: dict[str, Any]
    state: State
    created_at: float
    expires_at: float
    timeout_s: int
    sent_at: float | None
    delivered_at: float | None
    finished_at: float | None
    late_at: float | None
    late: dict[str, Any] | None
    """What the device answered after the command had ended."""
    result: Any
    error: str | None
    publishes: int
    """How often it was published, or that was tried."""
    leased_until: datetime | None
    trace: str | None

    @property
    def standing(self) -> Standing:
        deadline = None if self.delivered_at is None else self.delivered_at + self.timeout_s
        return Standing(self.state, self.expires_at, deadline)


@dataclass(frozen=True, slots=True)
class Order:
    """A command that this process is to publish, and where to; `command.leased_until` says until when."""

    command: Command
    org_id: str
    device_type: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that came to its end, for whoever counts."""

    state: State
    seconds: float
    """Since it was made."""


async def add(
    tx: Transaction,
    *,
    command_id: UUID,
    device_id: str,
    site_id: str,
    author: str,
    origin: str,
    name: str,
    params: dict[str, Any],
    expires_at: float,
    timeout_s: int,
    trace: str,
    lease_s: float,
) -> Command:
    """A queued one, due at once. `lease_s` above 0: whoever made it publishes it; if they do not within that
    time, any gateway does.
    """
    row = await tx.fetchrow(
        "INSERT INTO commands (id, device_id, site_id, author, origin, name, params, state, created_at,"
        " expires_at, timeout_s, next_at, leased_until, trace)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, 'queued', $8, $9, $10, $8, $11, $12) RETURNING *",
        command_id,
        device_id,
        site_id,
        author,
        origin,
        name,
        params,
        tx.at,
        utc(expires_at),
        timeout_s,
        utc(tx.now + lease_s) if lease_s else None,
        trace,
    )
    assert row is not None  # RETURNING
    if not lease_s:
        tx.wake(DUE_CHANNEL)
    made = _command(row)
    _tell(tx, made)
    return made


async def get(tx: Reading, command_id: UUID) -> Command | None:
    row = await tx.fetchrow("SELECT * FROM commands WHERE id = $1", command_id)
    return None if row is None else _command(row)


async def list_of_device(
    tx: Reading, device_id: str, site_id: str, before: int | None, limit: int
) -> list[Command]:
    """Newest first, before number `before`; only those of the site: what people elsewhere asked of the device
    stays theirs.
    """
    rows = await tx.fetch(
        "SELECT * FROM commands WHERE device_id = $1 AND site_id = $2 AND ($3::bigint IS NULL OR n < $3)"
        " ORDER BY n DESC LIMIT $4",
        device_id,
        site_id,
        before,
        limit,
    )
    return [_command(row) for row in rows]


async def count_open(tx: Reading, device_id: str) -> int:
    count: int = await tx.fetchval(
        "SELECT count(*) FROM commands WHERE device_id = $1 AND next_at IS NOT NULL", device_id
    )
    return count


async def hold_of_device(tx: Transaction, device_id: str, named: Iterable[UUID] = ()) -> dict[UUID, Command]:
    """Every open command of the device, and those `named`, until commit. Always all of them and in one order:
    whoever changes several of one device cannot deadlock with another who does.
    """
    rows = await tx.fetch(
        "SELECT * FROM commands WHERE device_id = $1 AND (next_at IS NOT NULL OR id = ANY($2))"
        " ORDER BY id FOR UPDATE",
        device_id,
        list(named),
    )
    return {row["id"]: _command(row) for row in rows}


async def reach(
    tx: Transaction,
    command: Command,
    event: Event,
    at: float,
    *,
    by: str = "gateway",
    result: Any = None,
    error: str | None = None,
) -> Command | None:
    """Move a command that is held by this transaction; None: `event` changes nothing. `at`: when it happened;
    no time of a command lies before one that it reached earlier. `by`: who, for the audit log.
    """
    state = moved(command.state, event)
    if state is None:
        return None
    at = max(at, command.created_at, command.sent_at or 0.0, command.delivered_at or 0.0)
    final = state in FINAL
    after = replace(
        command,
        state=state,
        sent_at=at if state is State.SENT else command.sent_at,
        delivered_at=at if state is State.DELIVERED else command.delivered_at,
        finished_at=at if final else None,
        result=result,
        error=error,
    )
    again = None if final else look_again_at(after.standing, after.publishes, tx.now)
    changed = await tx.execute(
        "UPDATE commands SET state = $3, sent_at = $4, delivered_at = $5, finished_at = $6, result = $7,"
        " error = $8, next_at = $9, leased_until = NULL WHERE id = $1 AND state = $2",
        command.id,
        command.state,
        state,
        _utc(after.sent_at),
        _utc(after.delivered_at),
        _utc(after.finished_at),
        after.result,
        after.error,
        _utc(again),
    )
    if not changed:
        return None
    _tell(tx, after)
    if final:
        detail = {"command": str(command.id), "name": command.name, "state": str(state), "error": error}
        tx.audit(
            AuditEvent("command.ended", by, site=command.site_id, device=command.device_id, detail=detail)
        )
    return replace(after, leased_until=None)


def ended(command: Command) -> Ended:
    """For a command that is final."""
    assert command.finished_at is not None
    return Ended(command.state, command.finished_at - command.created_at)


async def note_late(tx: Transaction, command: Command, at: float, answer: dict[str, Any] | None) -> bool:
    """Keep the first word of the device, and its first answer, after the command had ended; the state stays.

    False when that is known.
    """
    if command.late_at is not None and (answer is None or command.late is not None):
        return False
    await tx.execute(
        "UPDATE commands SET late_at = coalesce(late_at, $2), late = coalesce(late, $3) WHERE id = $1",
        command.id,
        utc(max(at, command.finished_at or 0.0)),
        answer,
    )
    _tell(tx, command)
    return True


async def make_due(tx: Transaction, device_ids: Sequence[str]) -> int:
    """Every open command of these devices is to be published now; how many."""
    rows = await tx.fetch(
        "SELECT id FROM commands WHERE device_id = ANY($1) AND next_at IS NOT NULL ORDER BY id FOR UPDATE",
        list(device_ids),
    )
    if rows:
        await tx.execute(
            "UPDATE commands SET next_at = $2, leased_until = NULL WHERE id = ANY($1)",
            [row["id"] for row in rows],
            tx.at,
        )
        tx.wake(DUE_CHANNEL)
    return len(rows)


async def end_of_device(tx: Transaction, device_id: str, why: str, by: str) -> list[Ended]:
    """Fail every open command of the device, which was revoked or moved (`why`)."""
    done = []
    for command in (await hold_of_device(tx, device_id)).values():
        after = await reach(tx, command, Event.DEVICE_GONE, tx.now, by=by, error=why)
        if after is not None:
            done.append(ended(after))
    return done


_TIME_IS_OVER = (
    "(c.state = 'delivered' AND c.delivered_at + c.timeout_s * interval '1 second' <= $1"
    " OR c.state IN ('queued', 'sent') AND c.expires_at <= $1)"
)
_GONE = "(d.status <> 'approved' OR d.site_id <> c.site_id)"


async def settle(tx: Transaction) -> list[Ended]:
    """End what time ended, and what is for a device that is not there any more; at most CLAIMED_MAX."""
    rows = await tx.fetch(
        f"SELECT c.*, d.status, d.site_id AS place, {_TIME_IS_OVER} AS over"
        " FROM commands c JOIN devices d ON d.id = c.device_id"
        f" WHERE c.next_at <= $1 AND ({_TIME_IS_OVER} OR {_GONE})"
        " ORDER BY c.next_at LIMIT $2 FOR UPDATE OF c SKIP LOCKED",
        tx.at,
        CLAIMED_MAX,
    )
    done = []
    for row in rows:
        command = _command(row)
        error = None
        if row["status"] != "approved" or row["place"] != command.site_id:
            event = Event.DEVICE_GONE
            error = DEVICE_REVOKED if row["status"] != "approved" else DEVICE_MOVED
        elif command.state is State.DELIVERED:
            event = Event.DEADLINE
        else:
            event = Event.TTL_OVER
        after = await reach(tx, command, event, tx.now, error=error)
        if after is not None:
            done.append(ended(after))
    return done


async def claim(tx: Transaction) -> list[Order]:
    """Take what is due for this process alone, for LEASE_S; in the order in which they were made."""
    rows = await tx.fetch(
        "WITH due AS (SELECT id FROM commands WHERE next_at <= $1"
        " AND (leased_until IS NULL OR leased_until <= $1) ORDER BY next_at, n LIMIT $2"
        " FOR UPDATE SKIP LOCKED)"
        " UPDATE commands c SET leased_until = $3 FROM due, devices d JOIN sites s ON s.id = d.site_id"
        " WHERE c.id = due.id AND d.id = c.device_id RETURNING c.*, d.type, s.org_id",
        tx.at,
        CLAIMED_MAX,
        utc(tx.now + LEASE_S),
    )
    orders = [Order(_command(row), row["org_id"], row["type"]) for row in rows]
    return sorted(orders, key=lambda order: order.command.n)


async def published(tx: Transaction, order: Order, event: Event, at: float) -> None:
    """What became of a publish: `event` is TAKEN or UNHEARD. The device may have answered already; then only
    the time is noted.

    The wait for the next attempt begins only where the lease is still ours: a hello made it due again.
    """
    row = await tx.fetchrow("SELECT * FROM commands WHERE id = $1 FOR UPDATE", order.command.id)
    if row is None:
        return
    command = _command(row)
    tried = replace(command, publishes=command.publishes + 1)
    state = moved(command.state, event) or command.state
    after = replace(tried, state=state)
    if event is Event.TAKEN and command.sent_at is None:
        after = replace(after, sent_at=max(at, command.created_at))
    ours = command.leased_until is not None and command.leased_until == order.command.leased_until
    again = look_again_at(after.standing, after.publishes, tx.now)
    await tx.execute(
        "UPDATE commands SET state = $2, sent_at = $3, publishes = $4,"
        " next_at = CASE WHEN $5 THEN $6 ELSE next_at END,"
        " leased_until = CASE WHEN $5 THEN NULL ELSE leased_until END WHERE id = $1",
        command.id,
        state,
        _utc(after.sent_at),
        after.publishes,
        ours and command.state not in FINAL,
        utc(again),
    )
    if state is not command.state:
        _tell(tx, after)


def _tell(tx: Transaction, command: Command) -> None:
    tx.tell(
        Change("command.changed", site_id=command.site_id, device_id=command.device_id, ref=str(command.id))
    )
    tx.wake(COMMAND_CHANNEL)


def _utc(at: float | None) -> datetime | None:
    return None if at is None else utc(at)


def _unix(at: datetime | None) -> float | None:
    return None if at is None else unix(at)


def _command(row: Row) -> Command:
    return Command(
        id=row["id"],
        n=row["n"],
        device_id=row["device_id"],
        site_id=row["site_id"],
        author=row["author"],
        origin=row["origin"],
        name=row["name"],
        params=row["params"],
        state=State(row["state"]),
        created_at=unix(row["created_at"]),
        expires_at=unix(row["expires_at"]),
        timeout_s=row["timeout_s"],
        sent_at=_unix(row["sent_at"]),
        delivered_at=_unix(row["delivered_at"]),
        finished_at=_unix(row["finished_at"]),
        late_at=_unix(row["late_at"]),
        late=row["late"],
        result=row["result"],
        error=row["error"],
        publishes=row["publishes"],
        leased_until=row["leased_until"],
        trace=row["trace"],
    )

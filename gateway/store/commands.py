"""Commands as rows. A state is written with its time, and never over one that is not before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from gateway.policy.access import Role
from gateway.policy.commands import (
    DEVICE_AWAY,
    DEVICE_MOVED,
    DEVICE_RETYPED,
    DEVICE_REVOKED,
    FINAL,
    SENDER_NOT_ALLOWED,
    Event,
    Standing,
    State,
    look_again_at,
    moved,
)
from gateway.policy.live import Change
from gateway.store.support import CONSENT_HOLDS
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
    device_type: str
    author: str
    origin: str
    name: str
    params: dict[str, Any]
    state: State
    queue: bool
    """False: it fails rather than wait for the device."""
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
    took_at: float | None
    """When the device had stored its id, by the device's own clock; None: that has none, or did not say."""
    done_at: float | None
    """When the device was through with it, by the same clock."""
    logged_at: float | None
    """When the log took the device's last answer."""
    log_place: str | None
    """Where in the log that is."""

    @property
    def standing(self) -> Standing:
        deadline = None if self.delivered_at is None else self.delivered_at + self.timeout_s
        return Standing(self.state, self.expires_at, deadline)


@dataclass(frozen=True, slots=True)
class Order:
    """A command that this process is to publish, and where to; `command.leased_until` says until when."""

    command: Command
    org_id: str


@dataclass(frozen=True, slots=True)
class Grounds:
    """By what a person may have it done: as long as that lasts the device may be told."""

    user_id: UUID
    login_id: UUID | None
    api_token_id: UUID | None
    role: Role | None
    """The least that is needed at the site; None: it is done by a consent."""
    support_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What is known of a device's answer beside what it says. Times in Unix seconds."""

    said_at: float | None
    """By the device's clock; None: it has none."""
    logged_at: float
    log_place: str


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
    device_type: str,
    author: str,
    origin: str,
    grounds: Grounds | None,
    name: str,
    params: dict[str, Any],
    queue: bool,
    expires_at: float,
    timeout_s: int,
    trace: str,
    lease_s: float,
) -> Command:
    """A queued one, due at once. `grounds` None: no person asked for it. `lease_s` above 0: whoever made it
    publishes it; if they do not within that time, any gateway does.
    """
    row = await tx.fetchrow(
        "INSERT INTO commands (id, device_id, site_id, author, origin, name, params, state, created_at,"
        " expires_at, timeout_s, next_at, leased_until, trace, device_type, queue, user_id, login_id,"
        " api_token_id, role, support_id)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, 'queued', $8, $9, $10, $8, $11, $12, $13, $14, $15, $16, $17,"
        " $18, $19) RETURNING *",
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
        device_type,
        queue,
        None if grounds is None else grounds.user_id,
        None if grounds is None else grounds.login_id,
        None if grounds is None else grounds.api_token_id,
        None if grounds is None or grounds.role is None else grounds.role.word,
        None if grounds is None else grounds.support_id,
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


async def hold_open(tx: Transaction, device_ids: Sequence[str]) -> list[UUID]:
    """Every open command of these devices until commit, by device and then by id: everybody who waits for
    several takes them in this order, so nobody waits in a ring.
    """
    rows = await tx.fetch(
        "SELECT id FROM commands WHERE device_id = ANY($1) AND next_at IS NOT NULL"
        " ORDER BY device_id, id FOR UPDATE",
        list(device_ids),
    )
    return [row["id"] for row in rows]


async def hold_of_device(tx: Transaction, device_id: str, named: Iterable[UUID] = ()) -> dict[UUID, Command]:
    """Every open command of the device, and those `named`, until commit; in the order of `hold_open`, which
    comes before it where there are several devices.
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
    answered: Answered | None = None,
) -> Command | None:
    """Move a command that is held by this transaction; None: `event` changes nothing. `at`: when it happened;
    no time of a command lies before one that it reached earlier. `by`: who, for the audit log. `answered`: of
    an event that is the device's answer.
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
    if answered is not None:
        after = _with_answer(after, event, answered)
    again = None if final else look_again_at(after.standing, after.publishes, tx.now)
    changed = await tx.execute(
        "UPDATE commands SET state = $3, sent_at = $4, delivered_at = $5, finished_at = $6, result = $7,"
        " error = $8, next_at = $9, leased_until = NULL, took_at = $10, done_at = $11, logged_at = $12,"
        " log_place = $13 WHERE id = $1 AND state = $2",
        command.id,
        command.state,
        state,
        _utc(after.sent_at),
        _utc(after.delivered_at),
        _utc(after.finished_at),
        after.result,
        after.error,
        _utc(again),
        _utc(after.took_at),
        _utc(after.done_at),
        _utc(after.logged_at),
        after.log_place,
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


def _with_answer(command: Command, event: Event, answered: Answered) -> Command:
    received = event is Event.RECEIVED
    return replace(
        command,
        took_at=answered.said_at if received else command.took_at,
        done_at=command.done_at if received else answered.said_at,
        logged_at=answered.logged_at,
        log_place=answered.log_place,
    )


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
    held = await hold_open(tx, device_ids)
    if held:
        await tx.execute(
            "UPDATE commands SET next_at = $2, leased_until = NULL WHERE id = ANY($1)", held, tx.at
        )
        tx.wake(DUE_CHANNEL)
    return len(held)


async def end_of_device(tx: Transaction, device_id: str, why: str, by: str) -> list[Ended]:
    """Fail every open command of the device, which was revoked, moved or became another type's (`why`)."""
    done = []
    for command in (await hold_of_device(tx, device_id)).values():
        after = await reach(tx, command, Event.DEVICE_GONE, tx.now, by=by, error=why)
        if after is not None:
            done.append(ended(after))
    return done


async def hand_over(tx: Transaction, login_id: UUID, to: UUID) -> None:
    """What one login asked for goes on by another one. Held in the order of `hold_open`."""
    await tx.execute(
        "UPDATE commands SET login_id = $2 WHERE id IN (SELECT id FROM commands WHERE login_id = $1"
        " AND next_at IS NOT NULL ORDER BY device_id, id FOR UPDATE)",
        login_id,
        to,
    )


# Of a command `c` and its device `d`; $1 is now.
_GONE = "(d.status <> 'approved' OR d.site_id <> c.site_id OR d.type <> c.device_type)"
_TIME_IS_OVER = (
    "(c.state = 'delivered' AND c.delivered_at + c.timeout_s * interval '1 second' <= $1"
    " OR c.state IN ('queued', 'sent') AND c.expires_at <= $1)"
)
# Not of one that is delivered: the device does it, whatever becomes of who asked for it.
_NOT_ALLOWED = (
    "(c.state IN ('queued', 'sent') AND c.user_id IS NOT NULL AND ("
    "NOT EXISTS (SELECT 1 FROM users u WHERE u.id = c.user_id AND u.disabled_at IS NULL)"
    " OR NOT EXISTS (SELECT 1 FROM logins l WHERE l.id = c.login_id AND l.ended_at IS NULL)"
    " AND NOT EXISTS (SELECT 1 FROM api_tokens a WHERE a.id = c.api_token_id AND a.ended_at IS NULL)"
    " OR c.role IS NOT NULL AND NOT EXISTS (SELECT 1 FROM site_roles r WHERE r.site_id = c.site_id"
    " AND r.user_id = c.user_id AND r.role >= c.role)"
    " OR c.support_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM support_requests q WHERE q.id = c.support_id"
    f" AND q.state = 'approved' AND q.until > $1 AND {CONSENT_HOLDS})))"
)
_OVER = f"({_GONE} OR {_TIME_IS_OVER} OR {_NOT_ALLOWED})"


async def settle(tx: Transaction) -> list[Ended]:
    """End what time ended, what is for a device that is not there any more, and what nobody has told a device
    of whose sender may not ask for it any more; at most CLAIMED_MAX.
    """
    rows = await tx.fetch(
        f"SELECT c.*, d.status, d.site_id AS place, {_GONE} AS gone, {_TIME_IS_OVER} AS late_now"
        " FROM commands c JOIN devices d ON d.id = c.device_id"
        f" WHERE c.next_at <= $1 AND {_OVER} ORDER BY c.next_at LIMIT $2 FOR UPDATE OF c SKIP LOCKED",
        tx.at,
        CLAIMED_MAX,
    )
    done = []
    for row in rows:
        event, error = _end(row)
        after = await reach(tx, _command(row), event, tx.now, error=error)
        if after is not None:
            done.append(ended(after))
    return done


def _end(row: Row) -> tuple[Event, str | None]:
    """Why a row that `settle` found is over."""
    if row["gone"]:
        if row["status"] != "approved":
            return Event.DEVICE_GONE, DEVICE_REVOKED
        return Event.DEVICE_GONE, DEVICE_MOVED if row["place"] != row["site_id"] else DEVICE_RETYPED
    if not row["late_now"]:
        return Event.NOT_ALLOWED, SENDER_NOT_ALLOWED
    return (Event.DEADLINE if row["state"] == State.DELIVERED else Event.TTL_OVER), None


async def claim(tx: Transaction) -> list[Order]:
    """Take what is due for this process alone, for LEASE_S; in the order in which they were made."""
    rows = await tx.fetch(
        "WITH due AS (SELECT c.id FROM commands c JOIN devices d ON d.id = c.device_id WHERE c.next_at <= $1"
        f" AND (c.leased_until IS NULL OR c.leased_until <= $1) AND NOT {_OVER} ORDER BY c.next_at, c.n"
        " LIMIT $2 FOR UPDATE OF c SKIP LOCKED)"
        " UPDATE commands c SET leased_until = $3 FROM due, sites s"
        " WHERE c.id = due.id AND s.id = c.site_id RETURNING c.*, s.org_id",
        tx.at,
        CLAIMED_MAX,
        utc(tx.now + LEASE_S),
    )
    orders = [Order(_command(row), row["org_id"]) for row in rows]
    return sorted(orders, key=lambda order: order.command.n)


async def turned_away(tx: Transaction, order: Order) -> Ended | None:
    """Nobody listened to a publish of a command that may not wait. None: the device had it before."""
    row = await tx.fetchrow("SELECT * FROM commands WHERE id = $1 FOR UPDATE", order.command.id)
    if row is None:
        return None
    after = await reach(tx, _command(row), Event.AWAY, tx.now, error=DEVICE_AWAY)
    return None if after is None else ended(after)


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
        device_type=row["device_type"],
        author=row["author"],
        origin=row["origin"],
        name=row["name"],
        params=row["params"],
        state=State(row["state"]),
        queue=row["queue"],
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
        took_at=_unix(row["took_at"]),
        done_at=_unix(row["done_at"]),
        logged_at=_unix(row["logged_at"]),
        log_place=row["log_place"],
    )

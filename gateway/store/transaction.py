"""What one may ask and write in one go: statements that only look, and the transaction that writes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg

from gateway.policy.audit_chain import chain_hash
from gateway.policy.live import Change, told

# No statement of a request takes long. Postgres itself ends one that does (a lock that somebody holds): then
# it is alive. Where it says nothing for a second longer it hangs, and nobody waits for it any more.
STATEMENT_TIMEOUT_S = 3.0
COMMAND_TIMEOUT_S = STATEMENT_TIMEOUT_S + 1.0

SET_TIMEOUT = "SELECT set_config('statement_timeout', $1, true)"

REVOCATION_CHANNEL = "towline_revocations"
EVENT_CHANNEL = "towline_events"

Row = asyncpg.Record

_TURNS = 20_004  # sets these advisory locks apart from others; they are two numbers, the migrations' is one


def milliseconds(seconds: float) -> str:
    """As Postgres's settings have it."""
    return str(int(seconds * 1000))


def utc(unix_s: float) -> datetime:
    """Unix seconds → timestamptz value."""
    return datetime.fromtimestamp(unix_s, UTC)


def unix(moment: datetime) -> float:
    """timestamptz value → Unix seconds."""
    return moment.timestamp()


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the audit log. Ids in text form. `site`: those who run it may read the line; `owner`: the
    person whose own account it is about.
    """

    kind: str
    actor: str
    owner: str | None = None
    site: str | None = None
    device: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry of the feed: kind session | device | replaced (see the API page)."""

    kind: str
    ref: str
    keep: bytes | None = None
    exp: datetime | None = None


class Reading:
    """Statements that only look, each for itself: no transaction is around them. Each sees what is committed
    when it begins, which is what it sees in a transaction too (READ COMMITTED).
    """

    def __init__(
        self,
        connection: asyncpg.pool.PoolConnectionProxy[Row],
        now: float,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self.now = now
        """Unix seconds at the beginning, by the gateway's clock: one time for one decision."""
        self._notes: list[tuple[str, tuple[object, ...]]] = []

    @property
    def at(self) -> datetime:
        """`now` as a timestamptz value."""
        return utc(self.now)

    async def fetch(self, query: str, *args: object) -> list[Row]:
        return await self._connection.fetch(query, *args, timeout=self._timeout_s)

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        return await self._connection.fetchrow(query, *args, timeout=self._timeout_s)

    async def fetchval(self, query: str, *args: object) -> Any:
        return await self._connection.fetchval(query, *args, timeout=self._timeout_s)

    def note(self, query: str, *args: object) -> None:
        """Run this statement at the very end: for a note of use that may be lost. It must not wait for a lock
        (SKIP LOCKED), and what it locks nobody then waits for while this waits for something.
        """
        self._notes.append((query, args))

    async def flush(self) -> None:
        """Called once, last, by Database."""
        for query, args in self._notes:
            await self._connection.execute(query, *args, timeout=self._timeout_s)


class Transaction(Reading):
    """One database transaction. Revocations, live events and audit events are written at its end, in that
    order, because each takes a lock until commit: late, short and in one order, they cannot deadlock.
    """

    def __init__(
        self,
        connection: asyncpg.pool.PoolConnectionProxy[Row],
        now: float,
        timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        super().__init__(connection, now, timeout_s)
        self._audits: list[AuditEvent] = []
        self._revocations: list[Revocation] = []
        self._changes: list[Change] = []
        self.wakes: set[str] = set()
        """Channels that are woken when this commits."""

    async def execute(self, query: str, *args: object) -> int:
        """Rows that the statement touched."""
        status = await self._connection.execute(query, *args, timeout=self._timeout_s)
        count = status.rsplit(" ", 1)[-1]
        return int(count) if count.isdigit() else 0

    async def take_turns(self, name: str) -> None:
        """Until commit nobody else has the turn of this name: for limits that count rows, where two who count
        at once would both find room. Take it last: whoever has it waits for nobody.
        """
        await self.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _TURNS, name)

    @asynccontextmanager
    async def brief(self, statement_s: float) -> AsyncIterator[None]:
        """For a look that may be given up: QueryCanceledError ends it, and not the transaction. Nothing that
        is written inside stays.
        """
        point = self._connection.transaction()
        await point.start()
        await self.execute(SET_TIMEOUT, milliseconds(statement_s))
        try:
            yield
        except asyncpg.QueryCanceledError:
            await point.rollback()
            raise
        await point.rollback()  # it puts the time that a statement may take back to what it was

    async def executemany(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        await self._connection.executemany(query, rows, timeout=self._timeout_s)

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """COPY: many rows at once, all or none; what breaks a rule of the table breaks the transaction."""
        await self._connection.copy_records_to_table(
            table, columns=list(columns), records=rows, timeout=self._timeout_s
        )

    def audit(self, event: AuditEvent) -> None:
        """Write `event` with this transaction: both happen or neither. Those who follow are told of it."""
        self._audits.append(event)
        change = told(
            event.kind,
            actor=event.actor,
            owner=event.owner,
            site=event.site,
            device=event.device,
            detail=event.detail,
        )
        if change is not None:
            self.tell(change)

    def tell(self, change: Change) -> None:
        """Tell those who follow live, with this transaction. What `audit` tells needs no second word."""
        self._changes.append(change)
        self.wake(EVENT_CHANNEL)

    def revoke(self, entry: Revocation) -> None:
        """Put `entry` into the feed with this transaction."""
        self._revocations.append(entry)
        self.wake(REVOCATION_CHANNEL)

    def wake(self, channel: str) -> None:
        """Wake the followers of `channel` (see shortlived) once this is committed, and only then."""
        self.wakes.add(channel)

    async def flush(self) -> None:
        if self._revocations:
            await self._write_revocations()
        if self._changes:
            await self._write_changes()
        if self._audits:
            await self._write_audits()
        await super().flush()

    async def notify(self) -> None:
        """Wake by Postgres itself: it tells with the commit."""
        for channel in sorted(self.wakes):
            await self.execute("SELECT pg_notify($1, '')", channel)

    async def _write_revocations(self) -> None:
        entries = self._revocations
        head: int = await self.fetchval("UPDATE revocation_head SET n = n + $1 RETURNING n", len(entries))
        first = head - len(entries) + 1
        await self.executemany(
            "INSERT INTO revocations (n, kind, ref, keep, exp, at) VALUES ($1, $2, $3, $4, $5, $6)",
            [(first + i, e.kind, e.ref, e.keep, e.exp, self.at) for i, e in enumerate(entries)],
        )

    async def _write_changes(self) -> None:
        changes = self._changes
        head: int = await self.fetchval("UPDATE event_head SET n = n + $1 RETURNING n", len(changes))
        first = head - len(changes) + 1
        await self.executemany(
            "INSERT INTO events (n, kind, at, org_id, site_id, user_id, device_id, ref)"
            " SELECT $1, $2, $3, coalesce($4::text, s.org_id), w.site_id, $6, $7::text, $8"
            " FROM (SELECT coalesce($5::text, (SELECT site_id FROM devices WHERE id = $7)) AS site_id) w"
            " LEFT JOIN sites s ON s.id = w.site_id",
            [
                (first + i, c.kind, self.at, c.org_id, c.site_id, c.user_id, c.device_id, c.ref)
                for i, c in enumerate(changes)
            ],
        )

    async def _write_audits(self) -> None:
        head = await self.fetchrow("SELECT seq, hash FROM audit_head FOR UPDATE")
        assert head is not None  # the migration inserts the row
        seq, last = int(head["seq"]), bytes(head["hash"])
        rows: list[Sequence[object]] = []
        for event in self._audits:
            seq += 1
            record = audit_record(seq, self.now, event)
            previous, last = last, chain_hash(last, record)
            rows.append((seq, record, previous, last))
        await self.executemany(
            "INSERT INTO audit_events (seq, record, prev_hash, hash) VALUES ($1, $2, $3, $4)", rows
        )
        await self.execute("UPDATE audit_head SET seq = $1, hash = $2", seq, last)


def audit_record(seq: int, now: float, event: AuditEvent) -> str:
    """Canonical JSON: sorted keys, no blanks, ASCII. This exact text is what the hash covers."""
    return json.dumps(
        {
            "seq": seq,
            "at": utc(now).isoformat(timespec="milliseconds"),
            "kind": event.kind,
            "actor": event.actor,
            "owner": event.owner,
            "site": event.site,
            "device": event.device,
            "detail": event.detail,
        },
        sort_keys=True,
        separators=(",", ":"),
    )

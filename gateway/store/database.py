"""The pool, transactions, and the one place where a lost database becomes StoreUnavailableError."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg

from gateway.audit.chain import chain_hash
from gateway.errors import StoreUnavailableError
from gateway.guard import Fault, Guard
from gateway.metrics import GatewayMetrics, gateway_metrics
from gateway.policy.live import Change, told
from runtime.metrics import Registry
from runtime.settings import SettingsError

# A visitor waits at most this long for a free connection before the 503; longer queues only hide overload.
ACQUIRE_TIMEOUT_S = 3.0
# No statement of a request takes long. Postgres itself ends one that does (a lock that somebody holds): then
# it is alive. Where it says nothing for a second longer it hangs, and nobody waits for it any more.
STATEMENT_TIMEOUT_S = 3.0
COMMAND_TIMEOUT_S = STATEMENT_TIMEOUT_S + 1.0
CONNECT_TIMEOUT_S = 3.0
# The look that comes each second, and a trial while nobody is let through: a healthy server answers in
# milliseconds. The look notices a server that hangs before the statements of requests give up.
LOOK_TIMEOUT_S = 2.0
TRIAL_TIMEOUT_S = 1.0
# Idle connections are closed so that a failed-over database is not met with a full pool of dead sockets.
IDLE_LIFETIME_S = 60.0
# Told to Postgres as well: a gateway that was stopped mid-transaction must not hold row locks for ever.
IDLE_IN_TRANSACTION_MS = 15_000

REVOCATION_CHANNEL = "towline_revocations"
EVENT_CHANNEL = "towline_events"

# What asyncpg raises when the server is gone, starting, stopping, full, or too slow.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,  # admin_shutdown, crash_shutdown, cannot_connect_now
    asyncpg.InsufficientResourcesError,  # too_many_connections, disk_full
    asyncpg.TransactionRollbackError,  # deadlock, serialization: the client may try again
    asyncpg.PostgresSystemError,  # the server's own I/O failed
    asyncpg.ReadOnlySQLTransactionError,  # a standby answers during failover
    asyncpg.InvalidCatalogNameError,  # the database itself is being restored
)
# Of these, what a server says that is well: it chose among transactions, or ended a slow one.
_BUSY = (asyncpg.TransactionRollbackError, asyncpg.QueryCanceledError)

Row = asyncpg.Record

_TURNS = 20_004  # sets these advisory locks apart from others; they are two numbers, the migrations' is one


def fault(error: BaseException) -> Fault:
    """What an exception says about Postgres."""
    if isinstance(error, TimeoutError):
        return Fault.HUNG
    return Fault.FAILED if isinstance(error, _AWAY) and not isinstance(error, _BUSY) else Fault.NONE


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


class Transaction:
    """One database transaction. Revocations, live events and audit events are written at its end, in that
    order, because each takes a lock until commit: late, short and in one order, they cannot deadlock.
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
        """Unix seconds at the transaction's begin, by the gateway's clock: one time for one decision."""
        self._audits: list[AuditEvent] = []
        self._revocations: list[Revocation] = []
        self._changes: list[Change] = []
        self._notes: list[tuple[str, tuple[object, ...]]] = []
        self.wakes: set[str] = set()
        """Channels that are woken when this commits."""

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

    async def executemany(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        await self._connection.executemany(query, rows, timeout=self._timeout_s)

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

    def note(self, query: str, *args: object) -> None:
        """Run this statement at the very end: for a note of use that may be lost. It must not wait for a lock
        (SKIP LOCKED), and what it locks nobody then waits for while this transaction waits for something.
        """
        self._notes.append((query, args))

    def wake(self, channel: str) -> None:
        """Wake the followers of `channel` (see shortlived) once this is committed, and only then."""
        self.wakes.add(channel)

    async def flush(self) -> None:
        """Called once, last, by Database.transaction."""
        if self._revocations:
            await self._write_revocations()
        if self._changes:
            await self._write_changes()
        if self._audits:
            await self._write_audits()
        for query, args in self._notes:
            await self.execute(query, *args)

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


class Database:
    """A lazily connecting pool: it exists also while Postgres does not, and recovers by itself."""

    def __init__(self, url: str, *, pool_max: int, wall: Any, metrics: GatewayMetrics | None = None) -> None:
        """`metrics` None: those of a command that nobody scrapes."""
        self._url = url
        self._pool_max = pool_max
        self._wall = wall
        self._pool: asyncpg.Pool[Row] | None = None
        self._distrusted = False  # set when the breaker opens: connections of before may lead nowhere
        self.guard = Guard(
            "postgres",
            metrics or gateway_metrics(Registry()),
            fault=fault,
            refuse=StoreUnavailableError,
            probed=True,
            slots=pool_max,
            slot_wait_s=ACQUIRE_TIMEOUT_S,
        )
        self.guard.on_open.append(self._distrust)
        self.announce: Callable[[set[str]], None] | None = None
        """Tells the channels that a commit wakes, where that is not Postgres's own task."""
        self.prepared = False
        """Set once the schema is known to be right; until then every transaction is refused."""

    def __repr__(self) -> str:
        return f"<Database prepared={self.prepared} pool={self._pool is not None} {self.guard}>"

    async def check_url(self, field: str) -> None:
        """SettingsError naming ``field`` when the URL cannot be read; it holds a password, so none of it is
        told.

        asyncpg reads all of it before it first waits, and there the attempt is given up.
        """
        try:
            async with asyncio.timeout(0):
                connection = await asyncpg.connect(self._url)
            connection.terminate()  # where that needed no wait at all
        except asyncpg.ClientConfigurationError as error:  # its words name an option and its values
            raise SettingsError(f"{field}: {error}") from None
        except ValueError:
            raise SettingsError(
                f"{field}: this is no URL like postgresql://user:password@host:port/database; a /, : or @ in"
                " the password is written %2F, %3A or %40"
            ) from None
        except _AWAY:
            return

    async def open(self) -> None:
        """Make the pool. Connects to nothing yet."""
        self._pool = asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=self._pool_max + 1,  # the guard's slots and the look of every second
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            max_inactive_connection_lifetime=IDLE_LIFETIME_S,
            init=_prepare_connection,
            reset=_keep,
            server_settings={
                "application_name": "towline-gateway",
                "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
                # What we gave up waiting for must not go on holding locks.
                "statement_timeout": _milliseconds(STATEMENT_TIMEOUT_S),
            },
        )
        await self._pool

    async def close(self) -> None:
        """Close every connection, by force when they do not end by themselves."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), CONNECT_TIMEOUT_S)
        except _AWAY:
            pool.terminate()

    async def connect(self) -> asyncpg.Connection[Row]:
        """A connection of its own, for the caller to close (LISTEN, migrations)."""
        try:
            connection: asyncpg.Connection[Row] = await asyncpg.connect(
                self._url, timeout=CONNECT_TIMEOUT_S, command_timeout=COMMAND_TIMEOUT_S
            )
        except _AWAY as error:
            raise StoreUnavailableError(type(error).__name__) from error
        return connection

    @asynccontextmanager
    async def transaction(
        self, *, probe: bool = False, statement_s: float | None = None
    ) -> AsyncIterator[Transaction]:
        """Commit when the block ends well, roll back when it raises. StoreUnavailableError when Postgres is
        away: at once when that is known.

        `probe` is for the one that looks every second: it also asks while nobody else may. `statement_s`: the
        longest that one statement may take, where it is no request's.
        """
        if self._pool is None or not self.prepared:
            raise StoreUnavailableError("not prepared")
        timeout_s = COMMAND_TIMEOUT_S if statement_s is None else statement_s + 1.0
        try:
            async with (
                self.guard.call(probe=probe, patience_s=self._patience_s(probe)),
                self._connection(self._pool) as connection,
                _transaction(connection),
            ):
                transaction = Transaction(connection, self._wall(), timeout_s)
                if statement_s is not None:
                    await transaction.execute(_SET_TIMEOUT, _milliseconds(statement_s))
                yield transaction
                await transaction.flush()
                if self.announce is None:
                    await transaction.notify()
        except _AWAY as error:
            raise StoreUnavailableError(type(error).__name__) from error
        if self.announce is not None and transaction.wakes:
            self.announce(transaction.wakes)

    def _patience_s(self, probe: bool) -> float | None:
        if not probe:
            return None
        return LOOK_TIMEOUT_S if self.guard.is_closed else TRIAL_TIMEOUT_S

    @asynccontextmanager
    async def _connection(
        self, pool: asyncpg.Pool[Row]
    ) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[Row]]:
        if self._distrusted:
            self._distrusted = False
            await pool.expire_connections()
        # The guard's slots are as many as the pool's connections: this waits for a new connection alone.
        connection = await pool.acquire(timeout=CONNECT_TIMEOUT_S)
        try:
            yield connection
        finally:
            await pool.release(connection, timeout=CONNECT_TIMEOUT_S)

    def _distrust(self) -> None:
        self._distrusted = True


_SET_TIMEOUT = "SELECT set_config('statement_timeout', $1, true)"


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


@asynccontextmanager
async def _transaction(connection: asyncpg.pool.PoolConnectionProxy[Row]) -> AsyncIterator[None]:
    """Like asyncpg's own, but a cancelled one, or one that timed out, drops its connection instead of rolling
    back over it.

    A rollback first waits for the running statement, and Postgres may miss the wish to cancel that one
    (it ignores a wish that overtakes its statement). With the connection gone it rolls back by itself.
    """
    work = connection.transaction()
    await work.start()
    try:
        yield
        await work.commit()
    except (asyncio.CancelledError, TimeoutError):
        connection.terminate()
        raise
    except BaseException:
        if not connection.is_closed():
            await work.rollback()
        raise


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """The same translation for code that holds its own connection."""
    try:
        yield
    except _AWAY as error:
        raise StoreUnavailableError(type(error).__name__) from error


async def _prepare_connection(connection: asyncpg.Connection[Row]) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def _keep(connection: asyncpg.Connection[Row]) -> None:
    """Leave the session as it is. asyncpg's own reset costs each transaction another round trip, for what
    nothing here does: settings and advisory locks end with their transaction, and nobody listens on the
    pool's connections. A transaction that is still open is rolled back before this is called.
    """

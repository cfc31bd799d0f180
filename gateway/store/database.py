"""The pool, and the one place where a lost database becomes StoreUnavailableError."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pydantic_core import from_json

from gateway.errors import StoreUnavailableError
from gateway.guard import Fault, Guard
from gateway.metrics import GatewayMetrics, gateway_metrics
from gateway.store.transaction import (
    COMMAND_TIMEOUT_S,
    SET_TIMEOUT,
    STATEMENT_TIMEOUT_S,
    Reading,
    Row,
    Transaction,
    milliseconds,
)
from runtime.metrics import Registry
from runtime.settings import SettingsError

# A visitor waits at most this long for a free connection before the 503; longer queues only hide overload.
ACQUIRE_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 3.0
# The look that comes each second, and a trial while nobody is let through: a healthy server answers in
# milliseconds. The look notices a server that hangs before the statements of requests give up.
LOOK_TIMEOUT_S = 2.0
TRIAL_TIMEOUT_S = 1.0
# Idle connections are closed so that a failed-over database is not met with a full pool of dead sockets.
IDLE_LIFETIME_S = 60.0
# Told to Postgres as well: a gateway that was stopped mid-transaction must not hold row locks for ever.
IDLE_IN_TRANSACTION_MS = 15_000

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


def fault(error: BaseException) -> Fault:
    """What an exception says about Postgres."""
    if isinstance(error, TimeoutError):
        return Fault.HUNG
    return Fault.FAILED if isinstance(error, _AWAY) and not isinstance(error, _BUSY) else Fault.NONE


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
                "statement_timeout": milliseconds(STATEMENT_TIMEOUT_S),
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
    async def reading(self) -> AsyncIterator[Reading]:
        """For who only looks: without a transaction around it there are two round trips less.
        StoreUnavailableError as `transaction`.
        """
        async with self._called() as connection:
            reading = Reading(connection, self._wall())
            try:
                yield reading
                await reading.flush()
            except (asyncio.CancelledError, TimeoutError):
                connection.terminate()  # as `_transaction` says
                raise

    @asynccontextmanager
    async def transaction(
        self, *, probe: bool = False, statement_s: float | None = None
    ) -> AsyncIterator[Transaction]:
        """Commit when the block ends well, roll back when it raises. StoreUnavailableError when Postgres is
        away: at once when that is known.

        `probe` is for the one that looks every second: it also asks while nobody else may. `statement_s`: the
        longest that one statement may take, where it is no request's.
        """
        timeout_s = COMMAND_TIMEOUT_S if statement_s is None else statement_s + 1.0
        async with self._called(probe) as connection, _transaction(connection):
            transaction = Transaction(connection, self._wall(), timeout_s)
            if statement_s is not None:
                await transaction.execute(SET_TIMEOUT, milliseconds(statement_s))
            yield transaction
            await transaction.flush()
            if self.announce is None:
                await transaction.notify()
        if self.announce is not None and transaction.wakes:
            self.announce(transaction.wakes)

    @asynccontextmanager
    async def _called(self, probe: bool = False) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[Row]]:
        """A connection for one call behind the guard."""
        if self._pool is None or not self.prepared:
            raise StoreUnavailableError("not prepared")
        try:
            async with (
                self.guard.call(probe=probe, patience_s=self._patience_s(probe)),
                self._connection(self._pool) as connection,
            ):
                yield connection
        except _AWAY as error:
            raise StoreUnavailableError(type(error).__name__) from error

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


@asynccontextmanager
async def _transaction(connection: asyncpg.pool.PoolConnectionProxy[Row]) -> AsyncIterator[None]:
    """Like asyncpg's own, but a cancelled one, or one that timed out, drops its connection instead of rolling
    back over it.

    A rollback first waits for the running statement, and Postgres may miss the wish to cancel that one
    (it ignores a wish that overtakes its statement). With the connection gone it rolls back by itself.
    """
    work = connection.transaction()
    try:
        await work.start()
    except BaseException:
        connection.terminate()  # whether it began is not known
        raise
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
    # Binary: COPY takes no other. A version of one byte stands before the text.
    await connection.set_type_codec(
        "jsonb", encoder=_to_jsonb, decoder=_from_jsonb, schema="pg_catalog", format="binary"
    )


def _to_jsonb(value: object) -> bytes:
    return b"\x01" + json.dumps(value).encode()


def _from_jsonb(raw: bytes) -> Any:
    return from_json(raw[1:])


async def _keep(connection: asyncpg.Connection[Row]) -> None:
    """Leave the session as it is. asyncpg's own reset costs each transaction another round trip, for what
    nothing here does: settings and advisory locks end with their transaction, and nobody listens on the
    pool's connections. A transaction that is still open is rolled back before this is called.
    """

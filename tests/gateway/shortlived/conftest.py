"""Redis and both PostgreSQLs once a run; stores over them, two at a time, as two gateways have them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from gateway.metrics import gateway_metrics
from gateway.shortlived.in_postgres import PostgresShortLived
from gateway.shortlived.in_redis import RedisShortLived
from gateway.shortlived.interface import ShortLived
from gateway.shortlived.redis_url import parse_redis_url
from gateway.store import migrate
from gateway.store.database import Database
from runtime.clock import Clock, FakeClock
from runtime.metrics import Registry
from runtime.tasks import TaskOwner
from testbed.debian_postgres import DebianPostgres, debian_postgres
from testbed.postgres_server import PostgresServer
from testbed.redis_server import RedisServer

KINDS = ("postgres-18", "postgres-15", "redis")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_15() -> Iterator[DebianPostgres]:
    with debian_postgres() as server:
        yield server


class Site:
    """The stores of one site's gateways: `gateway` makes one more, over the same servers."""

    def __init__(self, kind: str, database_url: str, redis_url: str, clock: Clock) -> None:
        self.kind = kind
        self.prefix = "t" + secrets.token_hex(4)
        self._database_url = database_url
        self._redis_url = redis_url
        self._clock = clock
        self._ends = AsyncExitStack()

    async def database(self) -> Database:
        database = Database(self._database_url, pool_max=10, wall=self._clock.wall)
        await database.open()
        self._ends.push_async_callback(database.close)
        database.prepared = True
        return database

    async def gateway(self) -> ShortLived:
        """Another gateway's store, which runs."""
        store = self._made(await self.database())
        tasks = TaskOwner("stores")
        tasks.start(store.run(), "run")
        self._ends.push_async_callback(store.close)
        self._ends.push_async_callback(tasks.close, 5.0)
        return store

    def _made(self, database: Database) -> ShortLived:
        in_postgres = PostgresShortLived(database)
        if self.kind != "redis":
            return in_postgres
        address = parse_redis_url(self._redis_url)
        return RedisShortLived(address, self.prefix, self._clock, in_postgres, gateway_metrics(Registry()))

    async def close(self) -> None:
        await self._ends.aclose()


@pytest.fixture(scope="session")
def schema_15(postgres_15: DebianPostgres) -> str:
    """A database with the schema on PostgreSQL 15."""
    name = postgres_15.create_database()

    async def fill() -> None:
        database = Database(postgres_15.url(name), pool_max=1, wall=FakeClock().wall)
        connection = await database.connect()
        try:
            await migrate.migrate(connection, migrate.load())
        finally:
            await connection.close()

    asyncio.run(fill())
    return name


@pytest.fixture(params=KINDS)
def kind_and_database(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which store, and the Postgres URL of it or beside it."""
    if request.param == "postgres-15":
        server: DebianPostgres = request.getfixturevalue("postgres_15")
        return request.param, server.url(request.getfixturevalue("schema_15"))
    return request.param, request.getfixturevalue("shared_database")


@pytest.fixture
async def site(
    kind_and_database: tuple[str, str], redis_server: RedisServer, clock: FakeClock
) -> AsyncIterator[Site]:
    made = Site(*kind_and_database, redis_server.url(), clock)
    yield made
    await made.close()


@pytest.fixture(scope="session")
def shared_database(postgres: PostgresServer, template: str) -> str:
    """One for all of these: their keys are random."""
    return postgres.url(postgres.create_database(template))


@pytest.fixture
async def pair(site: Site) -> tuple[ShortLived, ShortLived]:
    """The stores of two gateways."""
    return await site.gateway(), await site.gateway()

"""Migrations, the audit chain, and a database that goes away."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from gateway.api.app import FORMS, documented_routes
from gateway.errors import MigrationError, StoreUnavailableError
from gateway.internal.app import ROUTERS
from gateway.internal.peer import any_peer, ingest_of, node_of
from gateway.messages.settings import LogSettings
from gateway.store import migrate
from gateway.store.database import Database
from gateway.store.transaction import AuditEvent, Revocation
from runtime.clock import SYSTEM_CLOCK
from testbed.postgres_server import PostgresServer
from tests.gateway.contract.spoilt import fitting, schema_of
from tests.gateway.contract.test_junk import INTERNAL, internal
from tests.gateway.test_peers import peer
from tests.gateway.world import World, settings_for

RECOVERY_S = 15.0
POLL_S = 0.05
CANCEL_S = 2.0
# An answer takes milliseconds; below what a connection to the database may take (ACQUIRE_TIMEOUT_S).
AT_ONCE_S = 2.0
UNKNOWN = "00000000-0000-4000-8000-000000000000"
FORM = {"grant_type": "refresh_token", "refresh_token": "x", "token": "x", "client_id": "towline"}


async def test_migrations_are_applied_once_by_many(postgres: PostgresServer) -> None:
    name = await asyncio.to_thread(postgres.create_database)
    connections = [await asyncpg.connect(postgres.url(name)) for _ in range(4)]
    counts = await asyncio.gather(*(migrate.migrate(c, migrate.load()) for c in connections))
    assert sorted(counts) == [0, 0, 0, len(migrate.load())]
    for connection in connections:
        await connection.close()


async def test_a_migration_that_changed_or_is_unknown_stops_the_gateway(owner_url: str) -> None:
    connection = await asyncpg.connect(owner_url)
    known = migrate.load()
    changed = [migrate.Migration(m.number, m.name, m.sql + " ") for m in known]
    with pytest.raises(MigrationError, match="was changed"):
        await migrate.migrate(connection, changed)
    with pytest.raises(MigrationError, match="does not know"):
        await migrate.migrate(connection, known[:-1])
    broken = migrate.Migration(len(known) + 1, "0009_broken", "CREATE TABLE half (a int); SELECT 1/0")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(connection, [*known, broken])
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    assert await migrate.migrate(connection, known) == 0
    await connection.close()


def test_migration_files_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "0002_late.sql").write_text("")
    with pytest.raises(MigrationError, match="without gaps"):
        migrate.load(tmp_path)
    (tmp_path / "first.sql").write_text("")
    with pytest.raises(MigrationError, match=r"first\.sql"):
        migrate.load(tmp_path)


async def test_the_schema_stays_at_postgres_15() -> None:
    text = "\n".join(m.sql.lower() for m in migrate.load())
    for newer in ("uuidv7", "any_value", "json_table", "merge_action", "virtual", "without overlaps"):
        assert newer not in text


async def test_audit_and_revocations_belong_to_their_transaction(database_url: str) -> None:
    database = await opened(database_url)

    async def fail() -> None:
        async with database.transaction() as tx:
            tx.audit(AuditEvent("never", "someone"))
            tx.revoke(Revocation("device", "d"))
            await tx.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with database.transaction() as tx:
        tx.revoke(Revocation("device", "d"))
    async with database.transaction() as tx:
        assert await tx.fetchval("SELECT count(*) FROM audit_events") == 0
        assert [r["n"] for r in await tx.fetch("SELECT n FROM revocations")] == [1]
    await database.close()


@pytest.mark.parametrize("way", ["transaction", "reading"])
async def test_cancelling_a_statement_gives_its_connection_back(database_url: str, way: str) -> None:
    database = await opened(database_url, pool_max=1)
    begin = database.transaction if way == "transaction" else database.reading
    entered = asyncio.Event()

    async def hang() -> None:
        async with begin() as tx:
            entered.set()
            await tx.fetchval("SELECT pg_sleep(60)")

    for _ in range(10):
        entered.clear()
        task = asyncio.ensure_future(hang())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(CANCEL_S):
                await task
    async with database.transaction() as tx:
        assert await tx.fetchval("SELECT 1") == 1
    await database.close()


async def test_who_only_looks_begins_no_transaction(database_url: str) -> None:
    """And what is noted on the way is written all the same."""
    database = await opened(database_url, pool_max=1)
    noted = "INSERT INTO short_lived (digest, value, expires_at) VALUES ($1, 'v', $2)"
    begun = "SELECT now(), clock_timestamp()"
    async with database.reading() as tx:
        tx.note(noted, bytes(32), tx.at)
        first, second = await tx.fetchrow(begun), await tx.fetchrow(begun)
        assert await tx.fetchval("SELECT count(*) FROM short_lived") == 0
    assert first is not None
    assert second is not None
    assert first["now"] < first["clock_timestamp"] < second["now"]  # a transaction's time would stand still
    async with database.reading() as tx:
        assert await tx.fetchval("SELECT count(*) FROM short_lived") == 1
    await database.close()


async def test_nothing_of_a_transaction_stays_on_its_connection(database_url: str) -> None:
    """The pool does not clean a connection between two users of it."""
    state = (
        "SELECT pg_backend_pid() AS pid, current_setting('statement_timeout') AS patience,"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,"
        " (SELECT count(*) FROM pg_listening_channels()) AS channels,"
        " (SELECT count(*) FROM pg_cursors) AS cursors"
    )
    database = await opened(database_url, pool_max=1)
    async with database.transaction() as tx:
        before = await tx.fetchrow(state)
    async with database.transaction(statement_s=30.0) as tx:
        await tx.take_turns("limit")
        tx.audit(AuditEvent("kind", "someone"))
        tx.revoke(Revocation("device", "d"))
        during = await tx.fetchrow(state)
    with pytest.raises(RuntimeError):
        await left_open(database)
    async with database.transaction() as tx:
        after = await tx.fetchrow(state)
        assert await tx.fetchval("SELECT count(*) FROM short_lived") == 0
    await database.close()
    assert during is not None
    assert (during["patience"], during["locks"]) == ("30s", 1)
    assert after == before


async def left_open(database: Database) -> None:
    """Fail in the middle of a transaction that wrote and that has a lock."""
    async with database.transaction() as tx:
        await tx.take_turns("another limit")
        put = "INSERT INTO short_lived (digest, value, expires_at) VALUES ($1, 'v', $2)"
        await tx.execute(put, bytes(32), tx.at)
        raise RuntimeError


async def opened(url: str, pool_max: int = 4) -> Database:
    database = Database(url, pool_max=pool_max, wall=time.time)
    await database.open()
    database.prepared = True
    return database


async def until(client: httpx.AsyncClient, path: str, status: int) -> httpx.Response:
    async with asyncio.timeout(RECOVERY_S):
        while True:
            answer = await client.get(path)
            if answer.status_code == status:
                return answer
            # The state of another process: nothing here sets an event.
            await asyncio.sleep(POLL_S)


async def test_a_database_that_dies_gives_503_and_comes_back(
    tmp_path: Path, database_url: str, keys_dir: Path, postgres: PostgresServer
) -> None:
    settings = settings_for(tmp_path, database_url, keys_dir, log=LogSettings(kind="table"))
    world = World(settings, SYSTEM_CLOCK, tmp_path)
    await (await world.start()).prepared()
    owner, node, ingest = await world.person(), world.node().http, peer(world, "ingest")
    await until(owner, "/readyz", 200)
    assert (await node.get("/internal/v1/presence/elsewhere")).status_code == 200
    await asyncio.to_thread(postgres.kill)
    try:
        for method, path, body in every_call():
            await refused_at_once(owner, method, path, json=body)
        callers = {node_of: node, any_peer: node, ingest_of: ingest}
        for asked, method, path, body in every_internal_call():
            await refused_at_once(callers[asked], method, path, json=body)
        await until_the_feed_is_refused(node)
        for path in FORMS:
            await refused_at_once(world.program(), "POST", path, data=FORM)
        for name in STORELESS - {"GET /readyz"}:
            assert (await owner.get(name.removeprefix("GET "))).status_code < 500, name
        page = await owner.get("/", headers={"accept": "text/html"})
        assert page.status_code == 503
        assert "text/html" in page.headers["content-type"]
        not_ready = await until(owner, "/readyz", 503)
        assert not_ready.json() == {"ready": False, "failed": ["postgres"]}
        assert (await owner.get("/livez")).status_code == 200
        with pytest.raises(StoreUnavailableError):
            await world.gateway.parts.database.connect()
    finally:
        await postgres.start()
    await until(owner, "/readyz", 200)
    assert (await owner.get("/v1/me")).status_code == 200
    ops = f"http://{world.gateway.ops_address}"
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(f"{ops}/metrics")).text
        assert (await client.get(f"{ops}/readyz")).status_code == 200
    assert "towline_gateway_store_unavailable_total" in metrics
    await world.close()


async def test_a_gateway_may_start_before_its_database(
    tmp_path: Path, database_url: str, keys_dir: Path, postgres: PostgresServer
) -> None:
    await asyncio.to_thread(postgres.stop)
    world = World(settings_for(tmp_path, database_url, keys_dir), SYSTEM_CLOCK, tmp_path)
    try:
        await world.start()
        answer = await world.program().get("/readyz")
        assert (answer.status_code, answer.json()["failed"]) == (503, ["schema"])
        assert (await world.program("x").get("/v1/me")).status_code == 503
    finally:
        await postgres.start()
    async with asyncio.timeout(RECOVERY_S):
        await world.prepared()
    assert (await (await world.person()).get("/v1/me")).status_code == 200
    await world.close()


# They ask no store; /readyz is looked at apart.
STORELESS = {
    "GET /.well-known/oauth-authorization-server",
    "GET /.well-known/jwks.json",
    "GET /v1/login/providers",
    "GET /v1/openapi.json",
    "GET /livez",
    "GET /readyz",
}
# What a route reads before it asks a store.
FIRST = {
    "GET /v1/oauth/authorize": "a page",
    "POST /v1/oauth/token": "a form",
    "POST /v1/oauth/revoke": "a form",
    "POST /v1/telemetry": "a signed token",
}
NEEDED = {"GET /v1/dead-letters": f"?site_id=s_{'a' * 16}"}


def every_call() -> list[tuple[str, str, Any]]:
    """A request of each documented route that asks a store, as far as it can be told before."""
    known = {name: f"{name[0]}_{'a' * 16}" for name in ("device_id", "site_id", "org_id")}
    calls = []
    for route in documented_routes():
        for method in sorted(route.methods or ()):
            if f"{method} {route.path}" in STORELESS | set(FIRST):
                continue
            known["place_id"] = known["org_id" if route.path.startswith("/v1/orgs/") else "site_id"]
            path = re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], UNKNOWN), route.path)
            schema = schema_of(route)
            path += NEEDED.get(f"{method} {route.path}", "")
            calls.append((method, path, None if schema is None else fitting(schema)))
    assert len(calls) > 60
    return calls


def every_internal_call() -> list[tuple[Callable[..., Any], str, str, Any]]:
    """The same of the peers' listener with who may ask, without the keys (a file) and the feed (a stream)."""
    asked = {id(route): who for router, who in ROUTERS for route in router.routes}
    calls = []
    for route in internal():
        if not route.path.endswith(("/keys", "/revocations")):
            path, body = re.sub(r"\{(\w+)\}", UNKNOWN, route.path), INTERNAL.get(route.path)
            calls += [(asked[id(route)], method, path, body) for method in sorted(route.methods or ())]
    assert len(calls) > 7
    return calls


async def until_the_feed_is_refused(node: httpx.AsyncClient) -> None:
    """It is, once nothing was heard of the store for longer than a look may take."""
    async with asyncio.timeout(RECOVERY_S):
        while True:
            async with node.stream("GET", "/internal/v1/revocations") as answer:
                if answer.status_code == 503:
                    return
            # The age of what was last read: nothing here sets an event.
            await asyncio.sleep(POLL_S)


async def refused_at_once(client: httpx.AsyncClient, method: str, path: str, **sent: Any) -> None:
    async with asyncio.timeout(AT_ONCE_S):
        answer = await client.request(method, path, **sent)
    assert answer.status_code == 503, (method, path, answer.text)
    assert answer.json()["code"] == "store_unavailable"
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0


async def test_a_gateway_is_not_ready_before_its_administrator_can_log_in(
    tmp_path: Path, database_url: str, owner_url: str, keys_dir: Path
) -> None:
    settings = settings_for(tmp_path, database_url, keys_dir)
    first = World(settings, SYSTEM_CLOCK, tmp_path)
    await (await first.start()).prepared()
    await first.close()
    world = World(settings, SYSTEM_CLOCK, tmp_path)
    connection = await asyncpg.connect(owner_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
            await world.start()
            async with asyncio.timeout(RECOVERY_S):
                while (await world.program().get("/readyz")).json()["failed"] != ["administrator"]:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        await until(world.browser(), "/readyz", 200)
        assert (await (await world.person()).get("/v1/me")).status_code == 200
    finally:
        await connection.close()
        await world.close()

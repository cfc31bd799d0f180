"""Migrations, the audit chain, and a database that goes away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from gateway.errors import MigrationError, StoreUnavailableError
from gateway.store import migrate
from gateway.store.database import AuditEvent, Database, Revocation
from runtime.clock import SYSTEM_CLOCK
from testbed.postgres_server import PostgresServer
from tests.gateway.world import World, settings_for

RECOVERY_S = 15.0
POLL_S = 0.05
CANCEL_S = 2.0


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


async def test_cancelling_a_transaction_gives_its_connection_back(database_url: str) -> None:
    database = await opened(database_url, pool_max=1)
    entered = asyncio.Event()

    async def hang() -> None:
        async with database.transaction() as tx:
            entered.set()
            await tx.execute("SELECT pg_sleep(60)")

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
    world = World(settings_for(tmp_path, database_url, keys_dir), SYSTEM_CLOCK, tmp_path)
    await (await world.start()).prepared()
    owner = await world.person()
    await until(owner, "/readyz", 200)
    await asyncio.to_thread(postgres.kill)
    try:
        for method, path, body in every_call():
            answer = await owner.request(method, path, json=body)
            assert answer.status_code == 503, (path, answer.text)
            assert answer.json()["code"] == "store_unavailable"
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) > 0
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


def every_call() -> list[tuple[str, str, Any]]:
    device = "d_" + "a" * 16
    session = "00000000-0000-4000-8000-000000000000"
    return [
        ("GET", "/v1/me", None),
        ("POST", "/v1/login", {"username": "admin", "password": "x"}),
        ("POST", "/v1/login/welcome", {"secret": "x"}),
        ("POST", "/v1/registration-tokens", {}),
        ("GET", "/v1/devices", None),
        ("GET", f"/v1/devices/{device}", None),
        ("POST", f"/v1/devices/{device}/approve", None),
        ("POST", f"/v1/devices/{device}/revoke", None),
        ("POST", f"/v1/devices/{device}/sessions", {}),
        ("POST", f"/v1/devices/{device}/certificate/challenge", None),
        ("GET", "/v1/sessions", None),
        ("DELETE", f"/v1/sessions/{session}", None),
        ("POST", "/v1/links/inspect", {"token": "x"}),
        ("POST", "/v1/links/code", {"token": "x"}),
    ]


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

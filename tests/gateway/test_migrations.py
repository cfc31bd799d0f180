"""From every schema that ever was, with rows in every table, to this one: nobody and nothing is lost.

`releases/NNNN.sql` holds the rows that came with schema NNNN, as that program wrote them. Whoever adds a
migration adds its file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from gateway.api.credentials import cookie_name
from gateway.audit.verify import verify_log
from gateway.settings import Settings
from gateway.store import migrate
from gateway.store.database import AuditEvent
from runtime.clock import SYSTEM_CLOCK
from testbed.debian_postgres import DebianPostgres, debian_postgres
from testbed.postgres_server import PostgresServer
from tests.gateway.world import World, settings_for

RELEASES = Path(__file__).parent / "releases"
ROWS = {int(path.stem): path.read_text("utf-8") for path in sorted(RELEASES.glob("*.sql"))}
ALL = migrate.load()
# Kept by the migrations themselves.
NOT_ROWS = {"schema_migrations"}
ADA, PUMP, LIVE_SESSION = "ada", "d_aaaaaaaaaaaaaaaa", "55555555-5555-4555-8555-555555555555"


@pytest.fixture(scope="module")
def postgres_15() -> Iterator[DebianPostgres]:
    with debian_postgres() as server:
        yield server


@pytest.fixture
def on_15(postgres_15: DebianPostgres) -> str:
    """An empty database of the oldest PostgreSQL that is supported."""
    return postgres_15.url(postgres_15.create_database())


@pytest.fixture
def on_18(postgres: PostgresServer) -> str:
    """An empty database of the embedded one."""
    return postgres.url(postgres.create_database())


async def build(url: str, number: int) -> None:
    """Schema `number` with the rows of its time and of all before."""
    connection = await asyncpg.connect(url)
    try:
        for upto in range(1, number + 1):
            await migrate.migrate(connection, ALL[:upto])
            await connection.execute(ROWS[upto])
        tables = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
        )
        for table in {row["tablename"] for row in tables} - NOT_ROWS:
            count = await connection.fetchval(f'SELECT count(*) FROM "{table}"')
            assert count > 0, f"releases/{number:04d}.sql puts no row into {table}"
    finally:
        await connection.close()


def test_every_schema_has_its_rows() -> None:
    assert sorted(ROWS) == [migration.number for migration in ALL], (
        "tests/gateway/releases wants a file for each migration: rows in all that it made"
    )


@pytest.mark.parametrize("number", [migration.number for migration in ALL])
async def test_a_database_of_then_serves_now(on_15: str, number: int, tmp_path: Path, keys_dir: Path) -> None:
    await serve(on_15, number, settings_for(tmp_path, on_15, keys_dir), tmp_path)


@pytest.mark.parametrize("number", [1, len(ALL)])
async def test_it_does_so_on_the_embedded_one(
    on_18: str, number: int, tmp_path: Path, keys_dir: Path
) -> None:
    await serve(on_18, number, settings_for(tmp_path, on_18, keys_dir), tmp_path)


async def serve(url: str, number: int, settings: Settings, folder: Path) -> None:
    await build(url, number)
    world = World(settings, SYSTEM_CLOCK, folder)
    try:
        await (await world.start()).prepared()
        await check_people(world)
        await check_devices(world)
        await check_sessions(world)
        await check_audit(world)
    finally:
        await world.close()


async def check_people(world: World) -> None:
    """Passwords, roles at sites, the live login; who was disabled and what had ended stays so."""
    ada = await logged_in(world, ADA)
    assert (await ada.get("/v1/me")).json()["username"] == ADA
    with_cookie = world.browser()
    for secret, status in (("ada-cookie", 200), ("ada-ended", 401)):
        with_cookie.cookies.set(cookie_name(world.settings), secret)
        answer = await with_cookie.get("/v1/me")
        # A login of long ago may have idled out since; it must never be an error, nor an ended one count.
        assert answer.status_code in {status, 401}, answer.text
    body = {"username": "gone", "password": "x"}
    assert (await world.program().post("/v1/login", json=body)).status_code == 401


async def check_devices(world: World) -> None:
    ada, bob = await logged_in(world, ADA), await logged_in(world, "bob")
    pump = (await ada.get(f"/v1/devices/{PUMP}")).json()
    assert (pump["name"], pump["status"]) == ("Pump", "approved")
    assert (await ada.get("/v1/devices/d_cccccccccccccccc")).json()["status"] == "revoked"
    assert (await ada.get("/v1/devices/d_bbbbbbbbbbbbbbbb")).status_code == 404
    assert (await bob.get(f"/v1/devices/{PUMP}")).status_code == 404
    assert (await bob.get("/v1/devices/d_bbbbbbbbbbbbbbbb")).json()["status"] == "pending"
    assert (await bob.post("/v1/devices/d_bbbbbbbbbbbbbbbb/approve")).status_code == 200


async def check_sessions(world: World) -> None:
    """Of schema 0002 on: what was revoked is revoked, what lived can be ended, and the feed goes on."""
    ada = await logged_in(world, ADA)
    async with world.gateway.parts.database.transaction() as tx:
        ended = await tx.fetch("SELECT id, ended_at FROM sessions ORDER BY id")
        before = await tx.fetchval("SELECT n FROM revocation_head")
    if not ended:
        return
    assert [row["ended_at"] is None for row in ended] == [True, False]
    answer = await ada.delete(f"/v1/sessions/{LIVE_SESSION}")
    assert answer.status_code == 204, answer.text
    async with world.gateway.parts.database.transaction() as tx:
        assert await tx.fetchval("SELECT n FROM revocation_head") == before + 1


async def check_audit(world: World) -> None:
    """The chain of then holds, and goes on."""
    database = world.gateway.parts.database
    assert (await verify_log(database, None, seen)).is_whole
    async with database.transaction() as tx:
        tx.audit(AuditEvent("test", "tests"))
    assert (await verify_log(database, None, seen)).is_whole


def seen(events: int) -> None:
    """Nobody watches the progress."""


async def logged_in(world: World, username: str) -> httpx.AsyncClient:
    client = world.browser()
    body = {"username": username, "password": f"{username}'s password"}
    answer = await client.post("/v1/login", json=body)
    assert answer.status_code == 200, answer.text
    return client

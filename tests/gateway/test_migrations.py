"""From every schema that ever was, with rows in every table, to this one: nobody and nothing is lost.

`releases/NNNN.sql` holds the rows that came with schema NNNN, as that program wrote them. Whoever adds a
migration adds its file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from gateway.api.credentials import cookie_name
from gateway.audit.verify import verify_log
from gateway.policy.clients import NativeClient
from gateway.settings import Settings
from gateway.store import migrate, upkeep
from gateway.store.database import Database
from gateway.store.transaction import AuditEvent
from runtime.clock import SYSTEM_CLOCK, FakeClock
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


TOKENS_SINCE, CONSENT_SINCE = 7, 8
REFRESH = "twr_qqqqqqqqSqqKqqqqqqqqqmEgcmVmcmVzaCB0b2tlbiBvZiBsb25nIGFnbyBBZGEu"
API_TOKEN = "twl_YW4gQVBJIHRva2VuIG9mIGxvbmcgYWdvLiBBZGEncy4"
APP = NativeClient("The app", ("com.example.app:/done",))
COOKIE_USED = datetime(2026, 1, 5, 8, 1, tzinfo=UTC)
TOKENS_USED = datetime(2026, 6, 3, 8, 30, tzinfo=UTC)
CONSENT_ENDS = datetime(2026, 7, 1, 11, 0, tzinfo=UTC)


@pytest.fixture
def then(clock: FakeClock) -> FakeClock:
    """The time at which the cookie of the first schema had been used an hour ago."""
    clock.set_wall((COOKIE_USED + timedelta(hours=1)).timestamp())
    return clock


@pytest.mark.parametrize("number", [migration.number for migration in ALL])
async def test_what_people_held_is_good_and_ends_as_it_would_have(
    on_18: str, number: int, tmp_path: Path, keys_dir: Path, then: FakeClock
) -> None:
    """With the clocks of those days: cookies, refresh tokens, API tokens, a consent."""
    await build(on_18, number)
    settings = settings_for(tmp_path, on_18, keys_dir, native_clients={"towline-app": APP})
    world = World(settings, then, tmp_path)
    try:
        await (await world.start()).prepared()
        await check_cookies(world, then)
        if number >= TOKENS_SINCE:
            await check_tokens(world, then)
        if number >= CONSENT_SINCE:
            await check_consent(world, then)
    finally:
        await world.close()


def go_to(clock: FakeClock, at: datetime) -> None:
    clock.advance(at.timestamp() - clock.wall())


async def with_cookie(world: World, secret: str) -> int:
    browser = world.browser()
    browser.cookies.set(cookie_name(world.settings), secret)
    return (await browser.get("/v1/me")).status_code


async def check_cookies(world: World, clock: FakeClock) -> None:
    """Good until it was not used for as long as the settings say; an ended one never."""
    assert (await with_cookie(world, "ada-cookie"), await with_cookie(world, "ada-ended")) == (200, 401)
    clock.advance(world.settings.login_idle_s - 60)  # it was used just now
    assert await with_cookie(world, "ada-cookie") == 200
    clock.advance(world.settings.login_idle_s + 1)
    assert await with_cookie(world, "ada-cookie") == 401


async def check_tokens(world: World, clock: FakeClock) -> None:
    go_to(clock, TOKENS_USED)
    answer = await world.program(API_TOKEN).get("/v1/devices")
    assert answer.status_code == 200, answer.text
    assert PUMP in {one["id"] for one in answer.json()["items"]}
    form = {"grant_type": "refresh_token", "client_id": "towline-app"}
    given = await world.program().post("/v1/oauth/token", data=form | {"refresh_token": REFRESH})
    assert given.status_code == 200, given.text
    access = given.json()["access_token"]
    assert (await world.program(access).get("/v1/me")).json()["username"] == ADA
    # Once: a second use later is a theft, and ends the login.
    clock.advance(world.settings.refresh_grace_s + 1)
    again = await world.program().post("/v1/oauth/token", data=form | {"refresh_token": REFRESH})
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert (await world.program(access).get("/v1/me")).status_code == 401


async def check_consent(world: World, clock: FakeClock) -> None:
    """Bob is of the support: he sees the device as long as Ada allowed it, and she reads what was done."""
    go_to(clock, CONSENT_ENDS - timedelta(minutes=1))
    bob, ada = await logged_in(world, "bob"), await logged_in(world, ADA)
    assert (await bob.get(f"/v1/devices/{PUMP}")).status_code == 200
    requests = (await ada.get("/v1/support-requests")).json()["items"]
    assert sorted(one["state"] for one in requests) == ["approved", "ended"]
    [ended] = [one["id"] for one in requests if one["state"] == "ended"]
    log = await ada.get(f"/v1/support-requests/{ended}/log")
    assert [one["path"] for one in log.json()["items"]][:1] == ["/"]
    clock.advance(61)
    assert (await bob.get(f"/v1/devices/{PUMP}")).status_code == 404
    states = [one["state"] for one in (await ada.get("/v1/support-requests")).json()["items"]]
    assert sorted(states) == ["ended", "expired"]


EVERYTHING_ENDS = datetime(2026, 8, 3, tzinfo=UTC)
LATER = timedelta(days=400)
FIRST_LOGGED = datetime(2026, 7, 1, 8, 10, tzinfo=UTC)  # the second entry: a minute later
KEPT = timedelta(days=90)
# People end these, or they are the proof of what was; every other table is empty when all is long over.
KEPT_FOR_EVER = {
    *("users", "identities", "orgs", "sites", "memberships", "devices", "enrolments", "nodes", "tunnels"),
    *("audit_events", "audit_head", "revocations", "revocation_head", "event_head", "support_requests"),
    *("device_types", "device_lines", "device_boots", "device_states", "device_connections"),
    *("device_broker_passwords", "log_positions", "log_heads", "configurations", "configuration_heads"),
    # What reads the log drops these days, by the retention that its settings say.
    *("device_history", "device_history_20260701", "device_history_20260702", "device_places"),
}


@pytest.fixture
async def full(on_18: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """The database with rows in all tables, whose last end is at EVERYTHING_ENDS."""
    await build(on_18, len(ALL))
    connection = await asyncpg.connect(on_18)
    for table in (
        "logins",
        "registration_tokens",
        "sessions",
        "short_lived",
        "api_tokens",
        "refresh_families",
    ):
        await connection.execute(f"UPDATE {table} SET expires_at = least(expires_at, $1)", EVERYTHING_ENDS)
    # The session of 0002 that the entries of 0008 name had ended before: it would take them along.
    await connection.execute(
        "UPDATE sessions SET expires_at = $1 WHERE id = (SELECT session_id FROM request_log LIMIT 1)",
        EVERYTHING_ENDS,
    )
    yield connection
    await connection.close()


async def tidy(url: str, at: datetime) -> int:
    """The tidying of that time."""
    database = Database(url, pool_max=2, wall=at.timestamp)
    await database.open()
    database.prepared = True
    try:
        async with database.transaction() as tx:
            return await upkeep.run(tx)
    finally:
        await database.close()


async def test_tidying_a_year_later_leaves_what_is_kept_and_nothing_else(
    on_18: str, full: asyncpg.Connection[Any]
) -> None:
    """Over rows in every table that point at each other: none stands in another one's way."""
    assert await tidy(on_18, EVERYTHING_ENDS + LATER) > 0
    tables = await full.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    left = {
        row["tablename"]
        for row in tables
        if await full.fetchval(f'SELECT count(*) FROM "{row["tablename"]}"')
    }
    assert left == KEPT_FOR_EVER | NOT_ROWS
    # A device's certificate may be shown at any time: its revocation has no end. A session's has.
    assert {row["kind"] for row in await full.fetch("SELECT kind FROM revocations")} == {"device"}
    assert await tidy(on_18, EVERYTHING_ENDS + LATER) == 0


async def test_the_log_of_requests_is_kept_for_90_days_to_the_minute(
    on_18: str, full: asyncpg.Connection[Any]
) -> None:
    for later, paths in ((-1, ["/", "/log"]), (30, ["/log"]), (90, [])):
        await tidy(on_18, FIRST_LOGGED + KEPT + timedelta(seconds=later))
        assert [row["path"] for row in await full.fetch("SELECT path FROM request_log ORDER BY n")] == paths


async def check_people(world: World) -> None:
    """Passwords and names; who was disabled stays so, and a login that ended."""
    assert await with_cookie(world, "ada-ended") == 401
    ada = await logged_in(world, ADA)
    assert (await ada.get("/v1/me")).json()["username"] == ADA
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

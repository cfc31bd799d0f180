"""Refresh tokens: one is good at a time, a used one ends the login, a lost answer does not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway import program_logins
from gateway.store import people
from runtime.clock import FakeClock
from testbed.redis_server import RedisServer
from tests.gateway.world import ADMIN_PASSWORD, Device, World, open_session, settings_for

FORM = {"content-type": "application/x-www-form-urlencoded"}


async def log_in(world: World, username: str = "admin") -> dict[str, Any]:
    """A program's login."""
    body = {"username": username, "password": ADMIN_PASSWORD, "refresh": True}
    answer = await world.program().post("/v1/login", json=body)
    assert answer.status_code == 200, answer.text
    assert "set-cookie" not in answer.headers
    return dict(answer.json())


async def refresh(world: World, token: str, client_id: str = "towline") -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": client_id}
    return await world.program().post("/v1/oauth/token", data=form)


async def works(world: World, access: str) -> bool:
    return (await world.program(access).get("/v1/me")).status_code == 200


async def audit_kinds(world: World) -> list[str]:
    async with world.gateway.parts.database.transaction() as tx:
        return [row["kind"] for row in await tx.fetch("SELECT kind FROM audit_events ORDER BY seq")]


async def opened(world: World, access: str) -> tuple[Device, str]:
    """A device online, and a session to it that this program opened."""
    program = world.program(access)
    device = await world.enrol(program)
    await world.node().connect(device)
    link = await open_session(program, device, binding="click")
    return device, link.session


async def is_live(world: World, session: str) -> bool:
    async with world.gateway.parts.database.transaction() as tx:
        return bool(await tx.fetchval("SELECT ended_at IS NULL FROM sessions WHERE id::text = $1", session))


async def test_refreshing_goes_on_and_each_token_is_good_once(world: World, clock: FakeClock) -> None:
    given = await log_in(world)
    assert given["client_id"] == "towline"
    assert given["refresh_token"].startswith("twr_")
    seen = {given["refresh_token"]}
    for _ in range(5):
        clock.advance(world.settings.access_token_ttl_s + 31)
        assert not await works(world, given["access_token"])
        answer = await refresh(world, given["refresh_token"])
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        given = answer.json()
        assert given["token_type"] == "Bearer"
        assert given["expires_in"] == world.settings.access_token_ttl_s
        assert given["refresh_token"] not in seen
        seen.add(given["refresh_token"])
        assert await works(world, given["access_token"])


async def test_a_used_token_ends_the_login_and_both_are_out(world: World, clock: FakeClock) -> None:
    given = await log_in(world)
    _, session = await opened(world, given["access_token"])
    other = await log_in(world)
    honest = (await refresh(world, given["refresh_token"])).json()
    clock.advance(world.settings.refresh_grace_s)
    thief = await refresh(world, given["refresh_token"])
    assert (thief.status_code, thief.json()["error"]) == (400, "invalid_grant")
    assert not await works(world, given["access_token"])
    assert not await works(world, honest["access_token"])
    again = await refresh(world, honest["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert not await is_live(world, session)
    assert (await audit_kinds(world)).count("login.refresh_reused") == 1
    assert await works(world, other["access_token"])


async def test_any_older_token_ends_the_login_too(world: World, clock: FakeClock) -> None:
    given = await log_in(world)
    first, newest = given["refresh_token"], given["refresh_token"]
    for _ in range(3):
        clock.advance(1)
        newest = (await refresh(world, newest)).json()["refresh_token"]
    # All of this is within the grace: it is for the one before alone.
    assert (await refresh(world, first)).status_code == 400
    assert (await refresh(world, newest)).status_code == 400


async def test_a_lost_answer_logs_nobody_out(world: World, clock: FakeClock) -> None:
    """The cut came right after the trade: the app has the old token alone, and tries again with it."""
    given = await log_in(world)
    _, session = await opened(world, given["access_token"])
    lost = (await refresh(world, given["refresh_token"])).json()
    clock.advance(world.settings.refresh_grace_s - 1)
    answer = await refresh(world, given["refresh_token"])
    assert answer.status_code == 200
    got = answer.json()
    assert got["refresh_token"] != lost["refresh_token"]
    assert (await audit_kinds(world)).count("login.refresh_repeated") == 1
    clock.advance(600)
    assert (await refresh(world, got["refresh_token"])).status_code == 200
    assert await is_live(world, session)


@pytest.mark.parametrize("first", ["the thief", "the app"])
async def test_the_grace_hides_no_thief(world: World, first: str) -> None:
    """Both trade the same token at once: whoever was first, their tokens differ, and the next trade tells."""
    given = await log_in(world)
    one = (await refresh(world, given["refresh_token"])).json()
    two = (await refresh(world, given["refresh_token"])).json()
    app, thief = (two, one) if first == "the thief" else (one, two)
    answers = [await refresh(world, app["refresh_token"]), await refresh(world, thief["refresh_token"])]
    assert 400 in [answer.status_code for answer in answers]
    assert not await works(world, app["access_token"])
    assert not await works(world, thief["access_token"])
    assert "login.refresh_reused" in await audit_kinds(world)


async def test_the_grace_counts_from_the_first_trade(world: World, clock: FakeClock) -> None:
    given = await log_in(world)
    for _ in range(2):
        assert (await refresh(world, given["refresh_token"])).status_code == 200
        clock.advance(world.settings.refresh_grace_s / 2)
    assert (await refresh(world, given["refresh_token"])).status_code == 400


async def test_without_grace_the_second_use_ends_it(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    world = World(settings_for(tmp_path, database_url, keys_dir, refresh_grace_s=0), clock, tmp_path)
    await (await world.start()).prepared()
    try:
        given = await log_in(world)
        assert (await refresh(world, given["refresh_token"])).status_code == 200
        assert (await refresh(world, given["refresh_token"])).status_code == 400
        assert not await works(world, given["access_token"])
        # At once, as on two gateways: the second is judged by what the first did.
        given = await log_in(world)
        parts, token = world.gateway.parts, given["refresh_token"]
        async with parts.database.transaction() as first:
            assert await program_logins.trade(first, parts, token, "towline", "")
            second = asyncio.create_task(refresh(world, token))
            async with asyncio.timeout(10), parts.database.transaction() as looking:
                while not await looking.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    assert not second.done()
        assert (await second).status_code == 400
        assert not await works(world, given["access_token"])
    finally:
        await world.close()


async def test_of_many_trades_at_once_one_token_is_good(world: World) -> None:
    given = await log_in(world)
    answers = await asyncio.gather(*(refresh(world, given["refresh_token"]) for _ in range(8)))
    tokens = {answer.json()["refresh_token"] for answer in answers if answer.status_code == 200}
    assert len(tokens) == 8
    async with world.gateway.parts.database.transaction() as tx:
        assert await tx.fetchval("SELECT count(*) FROM refresh_families") == 1


async def test_idle_and_absolute_ends(world: World, clock: FakeClock) -> None:
    settings = world.settings
    idle = await log_in(world)
    clock.advance(settings.refresh_idle_s + 0.01)  # Postgres rounds times to microseconds
    assert (await refresh(world, idle["refresh_token"])).status_code == 400
    given = await log_in(world)
    steps = settings.refresh_absolute_s // (settings.refresh_idle_s - 60)
    for _ in range(steps):
        clock.advance(settings.refresh_idle_s - 60)
        answer = await refresh(world, given["refresh_token"])
        assert answer.status_code == 200
        given = answer.json()
    clock.advance(settings.refresh_absolute_s - steps * (settings.refresh_idle_s - 60) - 10)
    last = (await refresh(world, given["refresh_token"])).json()
    assert last["expires_in"] <= 10  # an access token does not outlive its login
    clock.advance(11)
    assert (await refresh(world, last["refresh_token"])).status_code == 400
    assert not await works(world, last["access_token"])


async def test_it_belongs_to_its_client_and_to_its_person(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    from gateway.policy.clients import NativeClient

    clients = {"phone": NativeClient("Phone", ("com.example.phone:/back",))}
    world = World(settings_for(tmp_path, database_url, keys_dir, native_clients=clients), clock, tmp_path)
    await (await world.start()).prepared()
    try:
        given = await log_in(world)
        wrong = await refresh(world, given["refresh_token"], "phone")
        assert wrong.json()["error"] == "invalid_grant"
        unknown = await refresh(world, given["refresh_token"], "nobody")
        assert (unknown.status_code, unknown.json()["error"]) == (401, "invalid_client")
        # Neither changed anything.
        assert (await refresh(world, given["refresh_token"])).status_code == 200
    finally:
        await world.close()


async def test_only_hashes_are_stored(world: World) -> None:
    given = await log_in(world)
    newest = (await refresh(world, given["refresh_token"])).json()["refresh_token"]
    async with world.gateway.parts.database.transaction() as tx:
        tables = [
            r["tablename"]
            for r in await tx.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]
        for table in tables:
            for row in await tx.fetch(f"SELECT t::text AS text FROM {table} t"):
                for secret in (given["refresh_token"], newest, given["access_token"]):
                    assert secret not in row["text"]
                    assert secret[20:] not in row["text"]


@pytest.mark.parametrize("way", ["logout", "everywhere", "revoke refresh", "revoke access", "disabled"])
async def test_every_way_out_ends_the_family(world: World, way: str) -> None:
    await world.add_user("ann")
    given = await log_in(world, "ann")
    program = world.program(given["access_token"])
    _, session = await opened(world, given["access_token"])
    if way == "logout":
        assert (await program.post("/v1/logout")).status_code == 204
    elif way == "everywhere":
        answer = await program.post("/v1/me/logout-everywhere")
        assert answer.json() == {"logins": 1, "api_tokens": 0, "sessions": 1}
    elif way == "disabled":
        user = (await program.get("/v1/me")).json()["id"]
        answer = await (await world.person()).patch(f"/v1/users/{user}", json={"disabled": True})
        assert answer.status_code == 200, answer.text
    else:
        token = given["refresh_token" if way == "revoke refresh" else "access_token"]
        form = {"token": token, "client_id": "towline", "token_type_hint": "whatever"}
        for _ in range(2):  # what has ended is ended
            answer = await world.program().post("/v1/oauth/revoke", data=form)
            assert (answer.status_code, answer.content) == (200, b"")
    assert not await works(world, given["access_token"])
    assert (await refresh(world, given["refresh_token"])).status_code == 400
    assert not await is_live(world, session)


async def test_ended_stays_ended_after_a_flush_of_redis_and_a_restart(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    """Redis holds nothing that lets anybody in or keeps anybody out."""
    redis = RedisServer(tmp_path)
    redis.start()
    settings = settings_for(tmp_path, database_url, keys_dir, redis_url=redis.url())
    world = await (await World(settings, clock, tmp_path).start()).prepared()
    try:
        ended, live = await log_in(world), await log_in(world)
        assert (await world.program(ended["access_token"]).post("/v1/logout")).status_code == 204
        used = live["refresh_token"]
        live = (await refresh(world, used)).json()
        clock.advance(settings.refresh_grace_s)
        assert redis.ask("FLUSHALL") == "+OK"
        await _holds(world, ended, live)
        await world.close()
        world = await (await World(settings, clock, tmp_path).start()).prepared()
        await _holds(world, ended, live)
        assert (await refresh(world, used)).status_code == 400  # still known as used
        assert not await works(world, live["access_token"])
    finally:
        await world.close()
        redis.stop()


async def _holds(world: World, ended: dict[str, Any], live: dict[str, Any]) -> None:
    assert not await works(world, ended["access_token"])
    assert (await refresh(world, ended["refresh_token"])).status_code == 400
    assert await works(world, live["access_token"])


WRONG_FORMS: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "empty": (b"", FORM, 400, "invalid_request"),
    "JSON": (
        b'{"grant_type": "refresh_token"}',
        {"content-type": "application/json"},
        400,
        "invalid_request",
    ),
    "no type": (b"grant_type=refresh_token", {}, 400, "invalid_request"),
    "a field twice": (
        b"client_id=towline&grant_type=refresh_token&grant_type=x",
        FORM,
        400,
        "invalid_request",
    ),
    "not ASCII": ("client_id=tülin".encode(), FORM, 400, "invalid_request"),
    "not UTF-8 behind percents": (b"client_id=%ff", FORM, 400, "invalid_request"),
    "too long": (b"client_id=" + b"x" * 9000, FORM, 400, "invalid_request"),
    "no client": (b"grant_type=refresh_token&refresh_token=x", FORM, 400, "invalid_request"),
    "no grant type": (b"client_id=towline", FORM, 400, "invalid_request"),
    "no token": (b"client_id=towline&grant_type=refresh_token", FORM, 400, "invalid_request"),
    "an empty token": (
        b"client_id=towline&grant_type=refresh_token&refresh_token=",
        FORM,
        400,
        "invalid_request",
    ),
    "password grant": (
        b"client_id=towline&grant_type=password&username=admin&password=x",
        FORM,
        400,
        "unsupported_grant_type",
    ),
    "code of our own client": (
        b"client_id=towline&grant_type=authorization_code&code=x&redirect_uri=x",
        FORM,
        400,
        "unauthorized_client",
    ),
    "a secret": (
        b"client_id=towline&grant_type=refresh_token&client_secret=x&refresh_token=x",
        FORM,
        401,
        "invalid_client",
    ),
    "Basic": (
        b"client_id=towline&grant_type=refresh_token&refresh_token=x",
        {**FORM, "authorization": "Basic dG93bGluZTo="},
        401,
        "invalid_client",
    ),
    "junk token": (
        b"client_id=towline&grant_type=refresh_token&refresh_token=twr_x",
        FORM,
        400,
        "invalid_grant",
    ),
    "unknown family": (
        b"client_id=towline&grant_type=refresh_token&refresh_token=twr_" + b"A" * 64,
        FORM,
        400,
        "invalid_grant",
    ),
    "not our alphabet": (
        b"client_id=towline&grant_type=refresh_token&refresh_token=twr_" + b"%2B" * 64,
        FORM,
        400,
        "invalid_grant",
    ),
}


async def test_wrong_forms_get_the_rfcs_errors(world: World) -> None:
    program = world.program()
    for name, (body, headers, status, error) in WRONG_FORMS.items():
        answer = await program.post("/v1/oauth/token", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (status, error), name
        assert answer.headers["content-type"] == "application/json", name
        assert answer.headers["pragma"] == "no-cache", name


async def test_revoking_needs_the_tokens_own_client(world: World) -> None:
    given = await log_in(world)
    form = {"token": given["refresh_token"], "client_id": "another"}
    answer = await world.program().post("/v1/oauth/revoke", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert await works(world, given["access_token"])
    for junk in ("x", "twr_x", "twl_x", "a.b.c"):
        assert (await world.program().post("/v1/oauth/revoke", data={"token": junk})).status_code == 200


@pytest.mark.parametrize("way", ["login", "API token"])
async def test_a_session_that_opens_while_its_login_ends_does_not_stay(world: World, way: str) -> None:
    given = await log_in(world)
    device, _ = await opened(world, given["access_token"])
    access, table = given["access_token"], "logins"
    if way == "API token":
        wish = {"name": "x", "scopes": ["sessions"]}
        access = (await world.program(access).post("/v1/me/api-tokens", json=wish)).json()["token"]
        table = "api_tokens"
    database = world.gateway.parts.database
    async with database.transaction() as ending:
        await ending.execute(f"UPDATE {table} SET ended_at = $1", ending.at)
        program = world.program(access)
        opening = asyncio.create_task(program.post(f"/v1/devices/{device.id}/sessions", json={}))
        async with asyncio.timeout(10), database.transaction() as looking:
            while not await looking.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not opening.done()
    assert (await opening).status_code == 401


async def test_an_app_that_logs_in_while_everything_ends_does_not_stay(world: World) -> None:
    given = await log_in(world)
    database = world.gateway.parts.database
    user = (await world.program(given["access_token"]).get("/v1/me")).json()["id"]
    async with database.transaction() as beginning:
        assert await people.hold_person(beginning, UUID(user))  # as each of begin's callers does
        _, late = await program_logins.begin(
            beginning, world.gateway.parts, UUID(user), "password", "towline", ""
        )
        ending = asyncio.create_task(world.program(given["access_token"]).post("/v1/me/logout-everywhere"))
        async with asyncio.timeout(10), database.transaction() as looking:
            while not await looking.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                assert not ending.done()
    assert (await ending).json()["logins"] == 2
    assert not await works(world, late.access_token)

"""Keys of tokens change while gateways run: nobody is logged out, and every gateway of the folder follows."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.keys.files import write_private
from gateway.keys.keyring import load_keyring
from gateway.keys.rotation import LOOK_EVERY_S, KeyWatch, RotationRefusedError, rotate
from gateway.policy.rotation import Schedule, due, retires_at, signing
from gateway.settings import ACCESS_CEILING_S, SESSION_CEILING_S
from runtime.clock import FakeClock
from tests.gateway.test_refresh import log_in, refresh, works
from tests.gateway.world import World, settings_for

DAY_S = 86_400.0
PLAN = Schedule(wait_s=900.0, life_s=3720.0, every_s=90 * DAY_S)


async def look(world: World) -> None:
    await world.gateway.keys.look()


async def jwks(world: World) -> list[str]:
    answer = (await world.program().get("/.well-known/jwks.json")).json()
    return [key["kid"] for key in answer["keys"]]


def kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def test_a_login_key_is_published_waits_signs_and_goes(world: World, clock: FakeClock) -> None:
    wait = world.settings.login_key_wait_s
    plan = world.settings.key_schedules()
    given = await log_in(world)
    [old] = await jwks(world)
    done = rotate(world.settings.keys_dir, "login", plan, clock.wall(), leaked=False)
    await look(world)
    assert await jwks(world) == [old, done.kid]
    given = (await refresh(world, given["refresh_token"])).json()
    assert kid(given["access_token"]) == old
    clock.advance(wait - 1)
    assert kid((await log_in(world))["access_token"]) == old
    last = await log_in(world)
    clock.advance(1)
    # Nobody had to look: the wait runs out in a process that goes on.
    new = await log_in(world)
    assert kid(new["access_token"]) == done.kid
    assert await works(world, last["access_token"])
    clock.advance(world.settings.access_token_ttl_s + 28)
    assert await works(world, last["access_token"])
    clock.advance(done.retires_at - clock.wall() - 1 if done.retires_at else 0)
    await look(world)
    assert await jwks(world) == [old, done.kid]
    clock.advance(1)
    await look(world)
    assert await jwks(world) == [done.kid]
    assert len(list(world.settings.keys_dir.glob("login-*.pem"))) == 1
    assert (await refresh(world, given["refresh_token"])).status_code == 200


async def test_the_calendar_rotates_both_and_logs_nobody_out(world: World, clock: FakeClock) -> None:
    given, person = await log_in(world), await world.person()
    seen: set[str] = set()
    for day in range(0, 176, 4):
        clock.advance(4 * DAY_S)
        for _ in range(2):  # what a look finds may make the next thing due
            await look(world)
        if day % 20 == 0:
            answer = await refresh(world, given["refresh_token"])
            assert answer.status_code == 200, day
            given = answer.json()
        assert 1 <= len(await jwks(world)) <= 2
        assert 1 <= len(world.gateway.parts.keyring.grant.keys) <= 2
        seen.update(await jwks(world))
    assert len(seen) == 2
    assert await works(world, given["access_token"]) is False  # of fifteen minutes
    assert (await refresh(world, given["refresh_token"])).status_code == 200
    assert (await person.get("/v1/me")).status_code == 401  # its own twelve hours, not the rotation


async def test_two_gateways_of_one_folder_follow_each_other(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    one_settings = settings_for(tmp_path, database_url, keys_dir)
    one, two = World(one_settings, clock, tmp_path), World(one_settings, clock, tmp_path)
    await (await one.start()).prepared()
    await (await two.start()).prepared()
    try:
        clock.advance(90 * DAY_S)
        await asyncio.gather(look(one), look(two))
        await look(one)
        await look(two)
        assert await jwks(one) == await jwks(two)
        assert len(await jwks(one)) == 2
        assert one.gateway.parts.keyring.key_list == two.gateway.parts.keyring.key_list
        clock.advance(one_settings.login_key_wait_s)
        given = await log_in(one)
        assert kid(given["access_token"]) == (await jwks(one))[-1]
        assert await works(two, given["access_token"])
        assert await works(one, (await log_in(two))["access_token"])
    finally:
        await one.close()
        await two.close()


async def test_the_command_is_seen_without_a_restart(world: World) -> None:
    """By its own process and its own clock, within a look."""
    [old] = await jwks(world)
    config = _config(world, world.folder)
    done = _command(config, "login")
    assert done.returncode == 0, done.stderr
    assert "is published; it signs from" in done.stdout
    async with asyncio.timeout(LOOK_EVERY_S * 4):
        while len(await jwks(world)) == 1:  # noqa: ASYNC110 - another process writes the folder
            await asyncio.sleep(0.2)
    assert (await jwks(world))[0] == old
    again = _command(config, "login")
    assert (again.returncode, "a rotation is under way" in again.stderr) == (1, True)
    leaked = _command(config, "login", "--leaked")
    assert (leaked.returncode, "signs now" in leaked.stdout) == (0, True)
    await look(world)
    assert len(await jwks(world)) == 1
    assert old not in await jwks(world)


async def test_a_leaked_login_key_forges_nothing_more_and_apps_go_on(world: World, clock: FakeClock) -> None:
    given, person = await log_in(world), await world.person()
    plan = world.settings.key_schedules()
    rotate(world.settings.keys_dir, "login", plan, clock.wall(), leaked=True)
    await look(world)
    assert not await works(world, given["access_token"])
    assert (await person.get("/v1/me")).status_code == 200
    answer = await refresh(world, given["refresh_token"])
    assert answer.status_code == 200
    assert await works(world, answer.json()["access_token"])


async def test_grant_keys_rotate_with_the_signed_list(world: World, clock: FakeClock) -> None:
    keyring, plan = world.gateway.parts.keyring, world.settings.key_schedules()
    old = keyring.grant.active(clock.wall()).kid
    done = rotate(world.settings.keys_dir, "grant", plan, clock.wall(), leaked=False)
    await look(world)
    assert _list(world) == (2, [old, done.kid])
    with pytest.raises(RotationRefusedError, match="waits to sign"):
        rotate(world.settings.keys_dir, "grant", plan, clock.wall(), leaked=False)
    clock.advance(world.settings.grant_key_wait_s)
    assert keyring.grant.active(clock.wall()).kid == done.kid
    with pytest.raises(RotationRefusedError, match="stays"):
        rotate(world.settings.keys_dir, "grant", plan, clock.wall(), leaked=False)
    clock.advance(SESSION_CEILING_S)
    await look(world)
    assert _list(world) == (2, [old, done.kid])
    clock.advance(plan["grant"].life_s - SESSION_CEILING_S)
    await look(world)
    assert _list(world) == (3, [done.kid])


async def test_files_that_do_not_fit_change_nothing(world: World, clock: FakeClock) -> None:
    given = await log_in(world)
    before = await jwks(world)
    bad = world.settings.keys_dir / "login-99990101T000000Z.pem"
    write_private(bad, b"garbage")
    await look(world)
    assert await jwks(world) == before
    assert await works(world, given["access_token"])
    bad.unlink()
    rotate(world.settings.keys_dir, "login", world.settings.key_schedules(), clock.wall(), leaked=False)
    await look(world)
    assert len(await jwks(world)) == 2


def test_a_clock_that_went_back_makes_no_older_name(keys_dir: Path) -> None:
    plan: Any = {"login": PLAN, "grant": PLAN}
    now = load_keyring(keys_dir, 1e9).directory.stat().st_mtime
    first = rotate(keys_dir, "login", plan, now, leaked=True)
    second = rotate(keys_dir, "login", plan, now - 5 * DAY_S, leaked=False)
    assert [key.kid for key in load_keyring(keys_dir, now).login.keys] == [first.kid, second.kid]


def test_who_only_issues_certificates_starts_no_wait(keys_dir: Path) -> None:
    now = 1_800_000_000.0
    load_keyring(keys_dir, now)
    shutil.copy(keys_dir / "login_published.json", keys_dir / "before")
    (keys_dir / "login_published.json").unlink()
    load_keyring(keys_dir, now, serves=False)
    assert not (keys_dir / "login_published.json").exists()


class TestPolicy:
    """Every history of a calendar that is looked at now and then."""

    @settings(max_examples=200, deadline=None)
    @given(gaps=st.lists(st.floats(1.0, 40 * DAY_S), min_size=1, max_size=60))
    def test_whatever_was_signed_is_accepted_and_never_two_rotations_at_once(self, gaps: list[float]) -> None:
        now, published = 0.0, [0.0]
        signed: list[tuple[float, float]] = []  # when, by the key published at
        for gap in gaps:
            now += gap
            signed.append((now, published[signing(published, PLAN, now)]))
            steps = due(published, PLAN, now)
            gone, published = published[: steps.retire], published[steps.retire :]
            for at in gone:
                assert all(now - when >= PLAN.life_s - 1e-6 for when, key in signed if key == at)
            if steps.make:
                assert len(published) == 1
                published.append(now)
            assert 1 <= len(published) <= 2

    def test_the_boundaries(self) -> None:
        assert due([0.0], PLAN, PLAN.every_s - 1) == due([0.0, 10.0], PLAN, 20.0)
        assert due([0.0], PLAN, PLAN.every_s).make
        over = retires_at([0.0, 10.0], PLAN, 1)
        assert over == 10.0 + PLAN.wait_s + PLAN.life_s
        assert due([0.0, 10.0], PLAN, over - 1).retire == 0
        assert due([0.0, 10.0], PLAN, over).retire == 1
        assert not due([0.0], Schedule(900.0, 3600.0, 0.0), 1e12).make
        assert PLAN.life_s > ACCESS_CEILING_S


def test_a_watch_says_a_problem_once(
    keys_dir: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    watch = KeyWatch(load_keyring(keys_dir, clock.wall()), {"login": PLAN, "grant": PLAN}, clock)
    write_private(keys_dir / "grant-99990101T000000Z.pem", b"garbage")

    async def twice() -> None:
        await watch.look()
        await watch.look()

    with caplog.at_level("ERROR"):
        asyncio.run(twice())
    assert len([r for r in caplog.records if "keys not loaded" in r.message]) == 1


def _list(world: World) -> tuple[int, list[str]]:
    claims = jwt.decode(world.gateway.parts.keyring.key_list, options={"verify_signature": False})
    return claims["n"], [key["kid"] for key in claims["keys"]]


def _config(world: World, folder: Path) -> Path:
    path = folder / "gateway.toml"
    path.write_text(
        f'public_url = "{world.settings.public_url}"\n'
        f'keys_dir = "{world.settings.keys_dir}"\n'
        'agent_tunnel_urls = ["wss://localhost:8082/tunnel"]\n'
        'database_url = "postgresql://nobody@localhost/none"\n'
    )
    return path


def _command(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "rotate-keys", *arguments, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

"""One rule for the names of new people, whoever makes them; who has another name from before keeps it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.policy.access import Staff
from gateway.policy.usernames import USERNAME_MAX, is_username
from gateway.store import people
from runtime.clock import FakeClock
from tests.gateway.world import ADMIN_PASSWORD, World, settings_for

NAMES = ["a", "ann", "a.b-c_d", "7", "x" * USERNAME_MAX]
NO_NAMES = [
    "",
    "Ann",
    "ann ",
    "ann@example.com",
    ".ann",
    "ann-",
    "an\u0301n",
    "\u0430nn",
    "ann\n",
    "a b",
    "x" * 33,
]
OLD = "Ops Team"


def test_what_a_name_is() -> None:
    assert all(map(is_username, NAMES))
    assert not any(map(is_username, NO_NAMES))


@pytest.mark.parametrize("name", NO_NAMES)
async def test_nobody_new_gets_another_name(world: World, name: str) -> None:
    admin = await world.person()
    made = await admin.post("/v1/users", json={"username": name, "password": ADMIN_PASSWORD})
    assert (made.status_code, made.json()["code"], made.json()["field"]) == (422, "invalid_field", "username")
    for add in (people.add_user, people.put_user):
        with pytest.raises(ValueError, match="a-z"):
            async with world.gateway.parts.database.transaction() as tx:
                await add(tx, name, None, Staff.USER)


async def with_old_name(world: World) -> None:
    """As an older release took it."""
    user_id = await world.add_user("ops")
    async with world.gateway.parts.database.transaction() as tx:
        await tx.execute("UPDATE users SET username = $2 WHERE id = $1", user_id, OLD)


async def test_a_name_from_before_goes_on(world: World) -> None:
    await with_old_name(world)
    admin, ops = await world.person(), world.browser()
    body = {"username": OLD, "password": ADMIN_PASSWORD}
    assert (await ops.post("/v1/login", json=body)).status_code == 200
    [user] = [one for one in (await admin.get("/v1/users")).json()["items"] if one["username"] == OLD]
    changed = await admin.patch(f"/v1/users/{user['id']}", json={"password": "another one that is long"})
    assert (changed.status_code, changed.json()["username"]) == (200, OLD)


async def test_an_administrator_of_the_settings_with_a_name_from_before_goes_on(world: World) -> None:
    await with_old_name(world)
    settings = replace(world.settings, admin_username=OLD)
    (world.folder / "admin").write_text("a new password of the file\n")
    later = await (await World(settings, world.clock, world.folder).start()).prepared()
    try:
        body = {"username": OLD, "password": "a new password of the file"}
        ops = later.browser()
        assert (await ops.post("/v1/login", json=body)).status_code == 200
        assert (await ops.get("/v1/me")).json()["role"] == "admin"
    finally:
        await later.close()


async def test_the_settings_make_nobody_new_with_another_name(
    tmp_path: Path,
    database_url: str,
    keys_dir: Path,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = settings_for(tmp_path, database_url, keys_dir, admin_username=OLD)
    world = await (await World(settings, clock, tmp_path).start()).prepared()
    try:
        assert "admin_username must be 1..32 of a-z" in caplog.text
        async with world.gateway.parts.database.transaction() as tx:
            assert await tx.fetchval("SELECT count(*) FROM users") == 0
    finally:
        await world.close()


async def test_an_administrator_who_was_shut_out_stays_so(world: World) -> None:
    """Also where the settings' password is another one by now."""
    admin = await world.person()
    boss = {"username": "boss", "password": ADMIN_PASSWORD, "role": "admin"}
    assert (await admin.post("/v1/users", json=boss)).status_code == 201
    other, me = world.browser(), (await admin.get("/v1/me")).json()["id"]
    await other.post("/v1/login", json={"username": "boss", "password": ADMIN_PASSWORD})
    assert (await other.patch(f"/v1/users/{me}", json={"disabled": True})).status_code == 200
    (world.folder / "admin").write_text("a new password of the file\n")
    later = await (await World(world.settings, world.clock, world.folder).start()).prepared()
    try:
        body = {"username": "admin", "password": "a new password of the file"}
        assert (await later.browser().post("/v1/login", json=body)).status_code == 401
    finally:
        await later.close()

"""Logins that begin beside those that end: whoever waits, waits in one order, and nobody in a ring.

Postgres ends a ring by refusing one of the two, which is a 503 here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest

from gateway.api.limits import LOGIN_PER_ACCOUNT
from gateway.policy.clients import OWN_CLIENT
from runtime.clock import FakeClock
from tests.gateway.standing_still import meanwhile
from tests.gateway.test_places import Home, home
from tests.gateway.world import ADMIN_PASSWORD, World

pytestmark = pytest.mark.usefixtures("patient_statements")

ANN = {"username": "ann", "password": ADMIN_PASSWORD}
OF_ANN = "user_id = (SELECT id FROM users WHERE username = 'ann')"
# The first of her logins is free, the last one is held: who takes both stands between them.
LAST_LOGIN = f"SELECT 1 FROM logins WHERE {OF_ANN} ORDER BY created_at DESC LIMIT 1 FOR UPDATE"
HER_ROW = "SELECT 1 FROM users WHERE username = 'ann' FOR NO KEY UPDATE"


async def deadlocks(world: World) -> int:
    """How many Postgres has seen in this database."""
    connection = await asyncpg.connect(world.settings.database_url)
    try:
        count: int = await connection.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    finally:
        await connection.close()
    return count


async def another_browser(world: World, clock: FakeClock) -> httpx.AsyncClient:
    clock.advance(LOGIN_PER_ACCOUNT.refill_s)
    browser = world.browser()
    assert (await browser.post("/v1/login", json=ANN)).status_code == 200
    return browser


async def test_a_login_beside_logging_out_everywhere_in_its_browser(world: World, clock: FakeClock) -> None:
    ann = await home(world, "ann")
    await another_browser(world, clock)
    out, login = await meanwhile(
        world,
        ann.http.post("/v1/me/logout-everywhere", json={}),
        ann.http.post("/v1/login", json=ANN),
        lock=LAST_LOGIN,
    )
    assert (out.status_code, login.status_code) == (200, 200), (out.text, login.text)
    assert await deadlocks(world) == 0


async def test_logging_out_everywhere_twice_at_once(world: World, clock: FakeClock) -> None:
    """Each has its own login noted as used: that lock must not be held while it waits for the other."""
    ann = await home(world, "ann")
    other = await another_browser(world, clock)
    clock.advance(120)  # a use is noted once a minute
    first, second = await meanwhile(
        world,
        ann.http.post("/v1/me/logout-everywhere", json={}),
        other.post("/v1/me/logout-everywhere", json={}),
        lock=HER_ROW,
    )
    assert (first.status_code, second.status_code) == (200, 200), (first.text, second.text)
    assert await deadlocks(world) == 0


async def test_a_new_password_beside_logging_out_everywhere(world: World, clock: FakeClock) -> None:
    admin, ann = await home(world, "admin"), await home(world, "ann")
    await another_browser(world, clock)
    out, changed = await meanwhile(
        world,
        ann.http.post("/v1/me/logout-everywhere", json={}),
        admin.http.patch(f"/v1/users/{ann.id}", json={"password": "another one that is long"}),
        lock=LAST_LOGIN,
    )
    assert (out.status_code, changed.status_code) == (200, 200), (out.text, changed.text)
    assert await deadlocks(world) == 0


ROUNDS = 15


@pytest.mark.timeout(120)
async def test_everything_that_begins_and_ends_logins_at_once(world: World, clock: FakeClock) -> None:
    """Many rounds over one person's logins, from one browser, programs and the administrator."""
    admin, ann = await home(world, "admin"), await home(world, "ann")
    device = await world.enrol(ann.http)
    node = world.node()
    seen: dict[int, int] = {}
    for _ in range(ROUNDS):
        clock.advance(10 * LOGIN_PER_ACCOUNT.refill_s)
        await node.connect(device)
        answers = await asyncio.gather(*(act() for act in await _acts(world, admin, ann, device.id)))
        for answer in answers:
            assert answer.status_code < 500, answer.text
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    assert await deadlocks(world) == 0
    assert seen[200] >= 3 * ROUNDS, seen


Act = Callable[[], Awaitable[httpx.Response]]


async def _acts(world: World, admin: Home, ann: Home, device_id: str) -> list[Act]:
    """What one round does at once; ann has a browser, a program and an open session before it."""
    first = await ann.http.post("/v1/login", json=ANN)
    assert first.status_code == 200, first.text
    program = await world.program().post("/v1/login", json={**ANN, "refresh": True})
    form = {
        "grant_type": "refresh_token",
        "client_id": OWN_CLIENT,
        "refresh_token": program.json()["refresh_token"],
    }
    opened = await ann.http.post(f"/v1/devices/{device_id}/sessions", json={})
    assert opened.status_code == 201, opened.text
    bearer = world.program(program.json()["access_token"])
    cookie = dict(ann.http.cookies)

    def same_browser() -> httpx.AsyncClient:
        """Another tab: what it gets does not replace what the others send."""
        tab = world.browser()
        tab.cookies.update(cookie)
        return tab

    tabs = [same_browser() for _ in range(4)]
    return [
        lambda: tabs[0].post("/v1/login", json=ANN),
        lambda: ann.http.post("/v1/login", json=ANN),
        lambda: tabs[1].post("/v1/me/logout-everywhere", json={}),
        lambda: bearer.post("/v1/me/logout-everywhere", json={}),
        lambda: tabs[2].delete("/v1/me/logins"),
        lambda: tabs[3].post(f"/v1/devices/{device_id}/sessions", json={}),
        lambda: world.program().post("/v1/oauth/token", data=form),
        lambda: admin.http.patch(f"/v1/users/{ann.id}", json={"password": ADMIN_PASSWORD}),
    ]

"""A browser's login: how it begins anew each time, ends, and is looked at by its person."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from gateway.login.settings import ProviderSettings
from gateway.settings import Settings
from gateway.store.people import SEEN_EVERY_S
from runtime.clock import FakeClock
from runtime.settings import SettingsError, from_table
from tests.gateway.login.free_provider import FreeProvider
from tests.gateway.login.visitor import LOGIN_COOKIE, Visitor
from tests.gateway.world import ADMIN_PASSWORD, WELCOME_SECRET, World, open_session

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0"


async def log_in(client: httpx.AsyncClient, username: str = "admin") -> str:
    """The new cookie's value."""
    answer = await client.post("/v1/login", json={"username": username, "password": ADMIN_PASSWORD})
    assert answer.status_code == 200, answer.text
    return client.cookies[LOGIN_COOKIE]


def with_cookie(world: World, value: str) -> httpx.AsyncClient:
    client = world.browser()
    client.cookies.set(LOGIN_COOKIE, value)
    return client


async def test_every_login_has_a_new_id(world: World) -> None:
    """Session fixation: a cookie that was planted before is not the one that is logged in."""
    browser = with_cookie(world, "planted-by-somebody-who-waits-for-the-login-0")
    browser.cookies.clear()
    browser.headers["cookie"] = f"{LOGIN_COOKIE}=planted-by-somebody-who-waits-for-the-login-0"
    answer = await browser.post("/v1/login", json={"username": "admin", "password": ADMIN_PASSWORD})
    assert answer.cookies[LOGIN_COOKIE] != "planted-by-somebody-who-waits-for-the-login-0"
    attacker = with_cookie(world, "planted-by-somebody-who-waits-for-the-login-0")
    assert (await attacker.get("/v1/me")).status_code == 401


async def test_logging_in_again_ends_the_browsers_former_login(world: World) -> None:
    browser = world.browser()
    device = await world.enrol(await world.person())
    await world.node().connect(device)
    first = await log_in(browser)
    session = await open_session(browser, device)
    second = await log_in(browser)
    assert first != second
    assert (await with_cookie(world, first).get("/v1/me")).status_code == 401
    assert len((await browser.get("/v1/sessions")).json()["items"]) == 1  # the same person's goes on
    await browser.post("/v1/logout")
    async with world.gateway.parts.database.transaction() as tx:
        ended = await tx.fetchval("SELECT ended_at FROM sessions WHERE id = $1::uuid", session.session)
    assert ended is not None  # and is the new login's now


async def test_somebody_elses_login_in_the_same_browser_ends_what_was_open(world: World) -> None:
    browser = world.browser()
    device = await world.enrol(await world.person())
    await world.node().connect(device)
    await log_in(browser)
    session = await open_session(browser, device)
    await world.add_user("bob")
    await log_in(browser, "bob")
    async with world.gateway.parts.database.transaction() as tx:
        ended = await tx.fetchval("SELECT ended_at FROM sessions WHERE id = $1::uuid", session.session)
    assert ended is not None
    (line,) = (await (await world.person()).get("/v1/me/audit?kind=login.ended")).json()["items"]
    assert (line["detail"]["replaced"], line["detail"]["sessions"]) == (True, 1)
    assert line["actor"]["id"] == "anonymous"  # not who sat there next


async def test_a_provider_login_ends_the_browsers_former_one(
    login_world: World, provider: FreeProvider
) -> None:
    visitor = Visitor(login_world)
    await visitor.log_in(provider)
    first = visitor.cookie
    assert first is not None
    await visitor.log_in(provider)
    assert visitor.cookie != first
    assert (await with_cookie(login_world, first).get("/v1/me")).status_code == 401


async def test_a_login_that_is_not_used_ends(world: World, clock: FakeClock) -> None:
    browser = world.browser()
    await log_in(browser)
    for _ in range(4):
        clock.advance(world.settings.login_idle_s - SEEN_EVERY_S - 1)
        assert (await browser.get("/v1/me")).status_code == 200
    clock.advance(world.settings.login_idle_s)
    assert (await browser.get("/v1/me")).status_code == 401
    watcher = world.browser()
    await log_in(watcher)
    assert len((await watcher.get("/v1/me/logins")).json()["items"]) == 1  # an idle one is none


async def test_a_login_that_is_used_ends_all_the_same(world: World, clock: FakeClock) -> None:
    browser = world.browser()
    await log_in(browser)
    began = clock.wall()
    while clock.wall() - began < world.settings.login_duration_s - 3600:
        clock.advance(3600)
        assert (await browser.get("/v1/me")).status_code == 200
    clock.advance(3600)
    assert (await browser.get("/v1/me")).status_code == 401


async def test_use_is_noted_once_a_minute(world: World, clock: FakeClock) -> None:
    browser = world.browser()
    await log_in(browser)

    async def seen() -> float:
        async with world.gateway.parts.database.transaction() as tx:
            moment = await tx.fetchval("SELECT max(seen_at) FROM logins")
        return float(moment.timestamp())

    began = await seen()
    clock.advance(SEEN_EVERY_S / 2)
    await asyncio.gather(*(browser.get("/v1/me") for _ in range(10)))
    assert await seen() == began
    clock.advance(SEEN_EVERY_S)
    await asyncio.gather(*(browser.get("/v1/me") for _ in range(10)))
    assert await seen() == pytest.approx(clock.wall(), abs=0.01)


async def test_one_sees_where_one_is_logged_in(login_world: World, provider: FreeProvider) -> None:
    visitor = Visitor(login_world)
    visitor.http.headers["user-agent"] = FIREFOX
    await visitor.log_in(provider)
    other = Visitor(login_world)
    other.http.headers["user-agent"] = "<script>alert(1)</script>" * 20
    await other.log_in(provider)
    stranger = login_world.browser()
    await log_in(stranger)
    items = (await visitor.http.get("/v1/me/logins")).json()["items"]
    assert len(items) == 2  # nobody else's
    (mine,) = [one for one in items if one["current"]]
    (second,) = [one for one in items if not one["current"]]
    assert (mine["kind"], mine["provider"], mine["address"]) == ("provider", "free", "127.0.0.1")
    assert mine["user_agent"] == "Firefox on Linux"
    assert second["user_agent"] == "unknown"
    assert mine["since"] <= mine["last_seen"] < mine["expires_at"]


async def test_one_ends_ones_own_logins_and_nobody_elses(world: World) -> None:
    owner, laptop, phone = (world.browser() for _ in range(3))
    for browser in (owner, laptop, phone):
        await log_in(browser)
    await world.add_user("bob")
    bob = world.browser()
    await log_in(bob, "bob")
    items = (await owner.get("/v1/me/logins")).json()["items"]
    assert len(items) == 3
    others = [one["id"] for one in items if not one["current"]]
    assert (await bob.delete(f"/v1/me/logins/{others[0]}")).status_code == 404
    assert (await owner.delete(f"/v1/me/logins/{others[0]}")).status_code == 204
    assert (await owner.delete(f"/v1/me/logins/{others[0]}")).status_code == 404
    assert sorted([(await one.get("/v1/me")).status_code for one in (laptop, phone)]) == [200, 401]
    answer = await owner.delete("/v1/me/logins")
    assert answer.json() == {"logins": 1, "sessions": 0}
    assert [(await one.get("/v1/me")).status_code for one in (laptop, phone)] == [401, 401]
    assert (await owner.get("/v1/me")).status_code == 200
    assert (await bob.get("/v1/me")).status_code == 200
    (own,) = (await owner.get("/v1/me/logins")).json()["items"]
    assert (await owner.delete(f"/v1/me/logins/{own['id']}")).status_code == 204
    assert (await owner.get("/v1/me")).status_code == 401


async def test_ending_a_login_ends_what_it_opened(world: World) -> None:
    owner, laptop = world.browser(), world.browser()
    await log_in(owner)
    await log_in(laptop)
    device = await world.enrol(owner)
    await world.node().connect(device)
    await open_session(laptop, device)
    assert (await owner.delete("/v1/me/logins")).json() == {"logins": 1, "sessions": 1}
    assert (await owner.get("/v1/sessions")).json()["items"] == []


async def test_the_logins_of_a_stranger_are_not_told(world: World) -> None:
    for method, path in (
        ("GET", "/v1/me/logins"),
        ("DELETE", "/v1/me/logins"),
        ("DELETE", "/v1/me/logins/00000000-0000-4000-8000-000000000000"),
        ("GET", "/v1/me/identities"),
    ):
        assert (await world.browser().request(method, path)).status_code == 401
    browser = world.browser()
    await log_in(browser)
    evil = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    assert (await browser.delete("/v1/me/logins", headers=evil)).status_code == 403
    assert (await browser.delete("/v1/me/logins/not-a-uuid")).status_code == 422


async def test_a_thousand_passwords_are_not_checked(world: World) -> None:
    """The same thousand over HTTP, at most twenty of them looked at."""
    program, gate = world.program(), asyncio.Semaphore(20)

    async def guess(number: int) -> int:
        async with gate:
            body = {"username": "admin", "password": f"guess-{number}"}
            return (await program.post("/v1/login", json=body)).status_code

    answers = await asyncio.gather(*(guess(number) for number in range(1000)))
    assert set(answers) == {401, 429}
    assert 1 <= answers.count(401) <= 20


async def test_the_welcome_login_begins_anew_too(world: World) -> None:
    browser = world.browser()
    await browser.post("/v1/login/welcome", json={"secret": WELCOME_SECRET})
    first = browser.cookies[LOGIN_COOKIE]
    await browser.post("/v1/login/welcome", json={"secret": WELCOME_SECRET})
    assert browser.cookies[LOGIN_COOKIE] != first
    assert (await with_cookie(world, first).get("/v1/me")).status_code == 401


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"metadata_url": "http://provider.example/.well-known/openid-configuration"}, "metadata_url"),
        ({"metadata_url": "https://provider.example/"}, "metadata_url"),
        ({"metadata_url": "https://u:p@provider.example/.well-known/openid-configuration"}, "metadata_url"),
        ({"preset": "google"}, "login_providers.works"),
        ({"metadata_url": None}, "login_providers.works"),
        ({"scopes": ["email"]}, "scopes"),
        ({"scopes": ["openid", "a b"]}, "scopes"),
        ({"email_domains": ["Works.example"]}, "email_domains"),
        ({"client_id": ""}, "client_id"),
        ({"client_secret": "in the settings"}, "client_secret"),
        ({"preset": "gogle", "metadata_url": None}, "preset"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, changes: dict[str, object], named: str) -> None:

    table: dict[str, object] = {
        "client_id": "x",
        "client_secret_file": "secret",
        "metadata_url": "https://provider.example/.well-known/openid-configuration",
    }
    works = {name: value for name, value in (table | changes).items() if value is not None}
    whole = {
        "public_url": "https://gateway.example.com",
        "keys_dir": "keys",
        "agent_tunnel_urls": ["wss://t.example/tunnel"],
        "database_url": "postgresql://x",
        "login_providers": {"works": works},
    }
    with pytest.raises(SettingsError, match=named):
        from_table(Settings, whole, source=tmp_path / "gateway.toml")
    whole["login_providers"] = {"Wrong Id": table}
    with pytest.raises(SettingsError, match="login_providers"):
        from_table(Settings, whole, source=tmp_path / "gateway.toml")


def test_google_needs_an_id_and_a_secret_alone(tmp_path: Path) -> None:

    table = {"preset": "google", "client_id": "x", "client_secret_file": "secret"}
    google = from_table(ProviderSettings, table, source=tmp_path / "gateway.toml")
    assert google.metadata == "https://accounts.google.com/.well-known/openid-configuration"
    assert google.shown("google") == "Google"

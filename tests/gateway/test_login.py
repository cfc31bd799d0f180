"""Logging in and out over real HTTP and a real Postgres."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.api.limits import LOGIN_PER_ACCOUNT, LOGIN_PER_ACCOUNT_ALL, LOGIN_PER_ADDRESS
from gateway.policy.limits import Limit
from runtime.clock import FakeClock
from tests.gateway.world import (
    ADMIN_PASSWORD,
    ORIGIN,
    WELCOME_SECRET,
    World,
    open_session,
    settings_for,
)


async def is_granted(world: World, wanted: list[tuple[Limit, str]]) -> bool:
    return (await world.gateway.parts.shortlived.take(wanted)).refused is None


def tries(address: str, username: str) -> list[tuple[Limit, str]]:
    """What one try to log in takes from the buckets."""
    return [
        (LOGIN_PER_ADDRESS, address),
        (LOGIN_PER_ACCOUNT, f"{address} {username}"),
        (LOGIN_PER_ACCOUNT_ALL, username),
    ]


async def test_password_login_gives_a_cookie_and_an_access_token(world: World) -> None:
    browser = world.browser()
    answer = await browser.post("/v1/login", json={"username": "admin", "password": ADMIN_PASSWORD})
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("towline_login=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert (await browser.get("/v1/me")).json()["username"] == "admin"
    token = answer.json()["access_token"]
    assert answer.json()["token_type"] == "Bearer"
    assert (await world.program(token).get("/v1/me")).json()["username"] == "admin"


async def test_wrong_password_and_unknown_user_get_the_same_answer(world: World) -> None:
    wrong = await world.program().post("/v1/login", json={"username": "admin", "password": "nope"})
    unknown = await world.program().post("/v1/login", json={"username": "nobody", "password": "nope"})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()
    assert wrong.headers["content-type"] == "application/problem+json"
    assert wrong.json()["code"] == "wrong_login"


async def test_nothing_without_login(world: World) -> None:
    for method, path in [
        ("GET", "/v1/me"),
        ("GET", "/v1/devices"),
        ("GET", "/v1/devices/d_aaaaaaaaaaaaaaaa"),
        ("GET", "/v1/sessions"),
        ("POST", "/v1/logout"),
        ("DELETE", "/v1/sessions/00000000-0000-4000-8000-000000000000"),
    ]:
        answer = await world.browser().request(method, path)
        assert answer.status_code == 401, path
        assert answer.json()["code"] == "login_needed"


async def test_logout_ends_cookie_and_access_token(world: World) -> None:
    browser = world.browser()
    answer = await browser.post("/v1/login", json={"username": "admin", "password": ADMIN_PASSWORD})
    stolen = browser.cookies["towline_login"]
    assert (await browser.post("/v1/logout")).status_code == 204
    again = world.browser()
    again.cookies.set("towline_login", stolen)
    assert (await again.get("/v1/me")).status_code == 401
    assert (await world.program(answer.json()["access_token"]).get("/v1/me")).status_code == 401


async def test_login_and_access_token_expire(world: World, clock: FakeClock) -> None:
    browser = await world.person()
    answer = await world.program().post("/v1/login", json={"username": "admin", "password": ADMIN_PASSWORD})
    program = world.program(answer.json()["access_token"])
    clock.advance(world.settings.access_token_ttl_s + 31)
    assert (await program.get("/v1/me")).status_code == 401
    assert (await browser.get("/v1/me")).status_code == 200
    clock.advance(world.settings.login_duration_s)
    assert (await browser.get("/v1/me")).status_code == 401


async def test_a_thousand_tries_are_not_checked(world: World) -> None:
    program = world.program()

    async def attempt(number: int) -> int:
        body = {"username": "admin", "password": f"guess-{number}"}
        return (await program.post("/v1/login", json=body)).status_code

    answers = await asyncio.gather(*(attempt(n) for n in range(100)))
    assert set(answers) == {401, 429}
    wanted = tries("127.0.0.1", "admin")
    granted = [await is_granted(world, wanted) for _ in range(900)]
    assert answers.count(401) + granted.count(True) <= 20
    limited = await program.post("/v1/login", json={"username": "admin", "password": ADMIN_PASSWORD})
    assert limited.status_code == 429
    assert int(limited.headers["retry-after"]) >= 1


async def test_a_stranger_locks_nobody_out(
    tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock
) -> None:
    behind_proxy = settings_for(tmp_path, database_url, keys_dir, trusted_proxies=("127.0.0.1",))
    world = World(behind_proxy, clock, tmp_path)
    await (await world.start()).prepared()
    try:

        async def log_in(address: str, password: str) -> int:
            body = {"username": "admin", "password": password}
            headers = {"x-forwarded-for": address}
            return (await world.program().post("/v1/login", json=body, headers=headers)).status_code

        stranger = [await log_in("198.51.100.7", "guess") for _ in range(30)]
        assert stranger.count(401) == LOGIN_PER_ACCOUNT.burst
        assert set(stranger) == {401, 429}
        for _ in range(LOGIN_PER_ACCOUNT_ALL.burst):
            await is_granted(world, tries("198.51.100.7", "admin"))
        assert await log_in("203.0.113.5", ADMIN_PASSWORD) == 200
    finally:
        await world.close()


async def test_limits_count_the_account_across_addresses(world: World, clock: FakeClock) -> None:
    granted = 0
    for number in range(LOGIN_PER_ACCOUNT_ALL.burst + 20):
        granted += await is_granted(world, tries(f"198.51.{number // 250}.{number % 250}", "admin"))
    assert granted == LOGIN_PER_ACCOUNT_ALL.burst
    clock.advance(LOGIN_PER_ACCOUNT_ALL.refill_s)
    assert await is_granted(world, [(LOGIN_PER_ACCOUNT_ALL, "admin")])
    assert not await is_granted(world, [(LOGIN_PER_ACCOUNT_ALL, "admin")])


async def test_a_clock_set_back_locks_nobody_out_for_long(world: World, clock: FakeClock) -> None:
    await is_granted(world, [(LOGIN_PER_ACCOUNT, "admin")])
    clock.set_wall(clock.wall() - 86_400)
    taken = await world.gateway.parts.shortlived.take([(LOGIN_PER_ACCOUNT, "admin")])
    assert all(one.wait_s <= one.limit.burst * one.limit.refill_s for one in taken.standings)


async def test_welcome_secret_logs_in_again_and_again(world: World) -> None:
    for _ in range(2):
        browser = world.browser()
        answer = await browser.post("/v1/login/welcome", json={"secret": WELCOME_SECRET})
        assert answer.status_code == 204
        assert (await browser.get("/v1/me")).json()["username"] == "admin"
    wrong = await world.browser().post("/v1/login/welcome", json={"secret": "guess"})
    assert wrong.status_code == 401


async def test_a_cookie_works_only_from_our_own_pages(world: World) -> None:
    browser = await world.person()
    cookie = {"towline_login": browser.cookies["towline_login"]}
    evil = [
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "http://label.localhost:8081", "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {},
    ]
    for headers in evil:
        client = world.program()
        client.cookies.update(cookie)
        answer = await client.post("/v1/registration-tokens", json={}, headers=headers)
        assert answer.status_code == 403, headers
        assert answer.json()["code"] == "cross_origin"
    old = world.program()
    old.cookies.update(cookie)
    answer = await old.post("/v1/registration-tokens", json={}, headers={"origin": ORIGIN})
    assert answer.status_code == 201


async def test_login_itself_refuses_other_sites(world: World) -> None:
    body = {"username": "admin", "password": ADMIN_PASSWORD}
    answer = await world.program().post("/v1/login", json=body, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


async def test_two_cookies_of_our_name_are_none(world: World) -> None:
    browser = await world.person()
    real = browser.cookies["towline_login"]
    for pair in (("planted", real), (real, "planted"), (real, real)):
        cookie = "; ".join(f"towline_login={value}" for value in pair)
        answer = await world.program().get("/v1/me", headers={"cookie": cookie})
        assert answer.status_code == 401, pair.index(real)


async def test_a_form_is_no_json(world: World) -> None:
    answer = await world.browser().post(
        "/v1/login",
        content='{"username":"admin","password":"x"}',
        headers={"content-type": "text/plain"},
    )
    assert answer.status_code == 415
    assert answer.json()["code"] == "unsupported_media_type"


async def test_secrets_are_not_in_the_database(world: World) -> None:
    browser = await world.person()
    token = (await browser.post("/v1/registration-tokens", json={})).json()["token"]
    cookie = browser.cookies["towline_login"]
    async with world.gateway.parts.database.transaction() as tx:
        tables = await tx.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        text = ""
        for row in tables:
            rows = await tx.fetch(f"SELECT t::text AS line FROM {row['tablename']} t")
            text += "\n".join(line["line"] for line in rows)
    for secret in (token, cookie, ADMIN_PASSWORD, WELCOME_SECRET):
        assert secret not in text


async def test_another_password_in_the_file_ends_what_the_old_one_began(world: World) -> None:
    admin, node = await world.person(), world.node()
    made = await admin.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:read"]})
    device = await world.enrol(admin)
    await node.connect(device)
    await open_session(admin, device)
    (world.folder / "admin").write_text("another one that is long\n")
    second = await (await World(world.settings, world.clock, world.folder).start()).prepared()
    try:
        assert (await admin.get("/v1/me")).status_code == 401
        assert (await world.program(made.json()["token"]).get("/v1/me")).status_code == 401
        async with second.gateway.parts.database.transaction() as tx:
            assert await tx.fetchval("SELECT count(*) FROM sessions WHERE ended_at IS NULL") == 0
    finally:
        await second.close()

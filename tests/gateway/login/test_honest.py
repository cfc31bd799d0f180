"""Logging in by a provider that keeps the rules."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.api.provider_login import flow_cookie_name
from runtime.clock import FakeClock
from tests.gateway.login.conftest import StartWorld, provider_settings
from tests.gateway.login.free_provider import (
    CLIENT_SECRET,
    EC_KEY,
    KEY,
    OTHER_KEY,
    FreeProvider,
    Received,
    Reply,
)
from tests.gateway.login.visitor import FLOW_COOKIE, PAGE, PERSON, Visitor, code_of
from tests.gateway.world import ORIGIN, World


async def test_the_first_login_makes_a_user_with_a_home(login_world: World, provider: FreeProvider) -> None:
    visitor = Visitor(login_world)
    answer = await visitor.log_in(provider)
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == "/"
    me = await visitor.me()
    assert me is not None
    assert (me["username"], me["role"]) == ("ada", "user")
    token = await visitor.from_own_page().post("/v1/registration-tokens", json={})
    assert token.status_code == 201  # there is a site for it
    identities = (await visitor.http.get("/v1/me/identities")).json()["items"]
    assert [(one["provider"], one["issuer"]) for one in identities] == [("free", provider.issuer)]
    assert (identities[0]["email"], identities[0]["email_verified"]) == ("ada@example.com", True)


async def test_the_request_holds_what_it_must(login_world: World, provider: FreeProvider) -> None:
    visitor = Visitor(login_world)
    answer = await visitor.begin()
    asked = visitor.asked
    assert visitor.asked_at == f"{provider.issuer}/authorize"
    assert asked["response_type"] == "code"
    assert asked["redirect_uri"] == f"{ORIGIN}/login/from/free"
    assert asked["code_challenge_method"] == "S256"
    assert set(asked["scope"].split()) == {"openid", "email", "profile"}
    assert all(len(asked[name]) == 43 for name in ("state", "nonce", "code_challenge"))
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{FLOW_COOKIE}=")
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Max-Age=600"} <= set(cookie.split("; "))
    first = dict(asked)
    await visitor.begin()
    assert all(visitor.asked[name] != first[name] for name in ("state", "nonce", "code_challenge"))


async def test_cookies_are_pinned_to_the_host_on_tls(
    start_world: StartWorld, provider: FreeProvider, tmp_path: Path
) -> None:
    providers = {"free": provider_settings(tmp_path, provider.url)}
    world = await start_world(
        providers, public_url="https://gateway.example.com", welcome_secret_file=None, tunnel_scheme="https"
    )
    visitor = Visitor(world)
    began = await visitor.begin()
    flow = began.headers["set-cookie"]
    assert flow.startswith(f"{flow_cookie_name(world.settings)}=")
    assert flow.startswith("__Host-")
    # httpx keeps no Secure cookie of plain HTTP; a browser behind the proxy does.
    visitor.http.headers["cookie"] = flow.partition(";")[0]
    answer = await visitor.come_back(code=provider.agree(visitor.asked, **PERSON))
    (login,) = [c for c in answer.headers.get_list("set-cookie") if c.startswith("__Host-towline_login=")]
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Secure"} <= set(login.split("; "))
    assert "Domain" not in login + flow


async def test_the_same_person_comes_back_as_the_same_user(
    login_world: World, provider: FreeProvider
) -> None:
    first, again = Visitor(login_world), Visitor(login_world)
    await first.log_in(provider)
    await again.log_in(provider, email="ada@elsewhere.example", preferred_username="countess", name="Ada L.")
    one, other = await first.me(), await again.me()
    assert one is not None
    assert one == other
    identities = (await again.http.get("/v1/me/identities")).json()["items"]
    assert [identity["email"] for identity in identities] == ["ada@elsewhere.example"]


async def test_one_goes_on_to_where_one_wanted_to_be(login_world: World, provider: FreeProvider) -> None:
    answer = await Visitor(login_world).log_in(provider, following="/devices/d_aaaaaaaaaaaaaaaa?tab=log")
    assert answer.headers["location"] == "/devices/d_aaaaaaaaaaaaaaaa?tab=log"


async def test_the_page_shows_a_button_for_each_provider(
    start_world: StartWorld, provider: FreeProvider, second: FreeProvider, tmp_path: Path
) -> None:
    world = await start_world(
        {
            "works": provider_settings(tmp_path, provider.url, name="The <Works>"),
            "home": provider_settings(tmp_path, second.url),
            "google": provider_settings(tmp_path, "", preset="google", metadata_url=None),
        }
    )
    text = (await Visitor(world).http.get("/login?next=/devices/d_x", headers=PAGE)).text
    for name, provider_id in (("The &lt;Works&gt;", "works"), ("home", "home"), ("Google", "google")):
        assert f"Continue with {name}" in text
        assert f'href="/login/with/{provider_id}?next=%2Fdevices%2Fd_x"' in text
    assert 'id="password"' in text
    listed = (await world.program().get("/v1/login/providers")).json()["items"]
    assert [one["id"] for one in listed] == ["works", "home", "google"]
    assert listed[0]["url"] == f"{ORIGIN}/login/with/works"
    assert provider.received == []  # a page that is looked at costs no provider anything


async def test_a_provider_that_nobody_set_is_none(login_world: World) -> None:
    for path in ("/login/with/other", "/login/from/other?code=x&state=y"):
        assert (await login_world.program().get(path)).status_code == 404


async def test_names_are_clean_and_nobody_gets_a_taken_one(
    login_world: World, provider: FreeProvider
) -> None:
    wishes: list[tuple[dict[str, Any], str]] = [
        ({"preferred_username": "Ada Lovelace"}, "ada-lovelace"),
        ({"preferred_username": "ADA lovelace"}, "ada-lovelace-2"),
        ({"preferred_username": "аdmin"}, "dmin"),  # a Cyrillic а
        ({"preferred_username": "admin", "email": "root@example.com"}, "user-2"),
        ({"preferred_username": None, "email": "Grace.Hopper@navy.example"}, "grace.hopper"),
        ({"preferred_username": "\u202eevil\x00\n<script>"}, "evil-script"),
        ({"preferred_username": {"an": "object"}, "email": None, "name": 7}, "user-3"),
        ({"preferred_username": "x" * 500}, "x" * 32),
    ]
    for number, (claims, expected) in enumerate(wishes):
        visitor = Visitor(login_world)
        answer = await visitor.log_in(provider, sub=f"person-{number}", **claims)
        assert answer.status_code == 303, answer.text
        me = await visitor.me()
        assert me is not None
        assert me["username"] == expected


async def test_two_first_logins_at_once_make_one_user(login_world: World, provider: FreeProvider) -> None:
    visitors = [Visitor(login_world) for _ in range(6)]
    answers = await asyncio.gather(*(visitor.log_in(provider) for visitor in visitors))
    assert {answer.status_code for answer in answers} == {303}
    people = [await visitor.me() for visitor in visitors]
    assert len({me["id"] for me in people if me is not None}) == 1
    async with login_world.gateway.parts.database.transaction() as tx:
        assert await tx.fetchval("SELECT count(*) FROM users WHERE username LIKE 'ada%'") == 1


async def test_keys_that_the_provider_rotates(
    login_world: World, provider: FreeProvider, clock: FakeClock
) -> None:
    assert (await Visitor(login_world).log_in(provider)).status_code == 303
    provider.keys, provider.signing_key = [KEY, OTHER_KEY], OTHER_KEY
    assert (await Visitor(login_world).log_in(provider)).status_code == 303
    provider.keys, provider.signing_key, provider.algorithm = [EC_KEY], EC_KEY, "ES256"
    assert (await Visitor(login_world).log_in(provider)).status_code == 303
    assert provider.asked("/keys") == 3
    for _ in range(3):
        assert (await Visitor(login_world).log_in(provider)).status_code == 303
    assert provider.asked("/keys") == 3  # kept
    assert provider.asked("/.well-known/openid-configuration") == 1
    clock.advance(3601)
    assert (await Visitor(login_world).log_in(provider)).status_code == 303
    assert provider.asked("/keys") == 4


async def test_a_withdrawn_key_counts_no_more_after_an_hour(
    login_world: World, provider: FreeProvider, clock: FakeClock
) -> None:
    assert (await Visitor(login_world).log_in(provider)).status_code == 303
    provider.keys = [OTHER_KEY]
    clock.advance(3601)
    assert (await Visitor(login_world).log_in(provider)).status_code == 502


async def test_claims_that_only_userinfo_tells(login_world: World, provider: FreeProvider) -> None:
    provider.metadata_changes["userinfo_endpoint"] = f"{provider.issuer}/userinfo"
    about = {"sub": "subject-1", "email": "ada@example.com", "email_verified": False}

    def userinfo(received: Received) -> Reply:
        assert received.headers["authorization"].startswith("Bearer ")
        return 200, about

    provider.replies["/userinfo"] = userinfo
    visitor = Visitor(login_world)
    assert (await visitor.log_in(provider, email=None, email_verified=None)).status_code == 303
    (identity,) = (await visitor.http.get("/v1/me/identities")).json()["items"]
    assert (identity["email"], identity["email_verified"]) == ("ada@example.com", False)
    about["sub"] = "somebody-else"
    answer = await Visitor(login_world).log_in(provider, email=None, email_verified=None)
    assert (answer.status_code, code_of(answer)) == (502, "provider_refused")


async def test_only_who_has_an_account(
    start_world: StartWorld, provider: FreeProvider, tmp_path: Path
) -> None:
    world = await start_world(
        {
            "free": provider_settings(tmp_path, provider.url),
            "closed": provider_settings(tmp_path, provider.url, sign_up=False),
        }
    )
    stranger = Visitor(world)
    answer = await stranger.log_in(provider, "closed")
    assert (answer.status_code, code_of(answer)) == (403, "no_account")
    assert "You have no account here" in answer.text
    assert await stranger.me() is None
    await Visitor(world).log_in(provider, "free")
    assert (await stranger.log_in(provider, "closed")).status_code == 303


@pytest.mark.parametrize(
    ("claims", "admitted"),
    [
        ({"email": "ada@works.example", "email_verified": True}, True),
        ({"email": "ada@WORKS.example", "email_verified": True}, True),
        ({"email": "ada@works.example", "email_verified": False}, False),
        ({"email": "ada@works.example", "email_verified": "true"}, False),
        ({"email": "ada@works.example@evil.example", "email_verified": True}, False),
        ({"email": "ada@notworks.example", "email_verified": True}, False),
        ({"email": None, "email_verified": True}, False),
    ],
)
async def test_only_people_of_a_domain(
    start_world: StartWorld, provider: FreeProvider, tmp_path: Path, claims: dict[str, Any], admitted: bool
) -> None:
    settings = provider_settings(tmp_path, provider.url, email_domains=("works.example",))
    visitor = Visitor(await start_world({"free": settings}))
    answer = await visitor.log_in(provider, **claims)
    expected = (303, "") if admitted else (403, "email_domain")
    assert (answer.status_code, code_of(answer) if not admitted else "") == expected
    assert (await visitor.me() is not None) is admitted


async def test_who_was_disabled_stays_out(login_world: World, provider: FreeProvider) -> None:
    visitor = Visitor(login_world)
    await visitor.log_in(provider)
    async with login_world.gateway.parts.database.transaction() as tx:
        await tx.execute("UPDATE users SET disabled_at = $1 WHERE username = 'ada'", tx.at)
    assert await visitor.me() is None
    answer = await visitor.log_in(provider)
    assert (answer.status_code, code_of(answer)) == (403, "account_disabled")


async def test_the_audit_log_tells_of_it(login_world: World, provider: FreeProvider) -> None:
    await Visitor(login_world).log_in(provider)
    async with login_world.gateway.parts.database.transaction() as tx:
        rows = await tx.fetch("SELECT record FROM audit_events ORDER BY seq")
        secrets = await tx.fetchval("SELECT string_agg(i::text, ' ') FROM identities i")
    text = "\n".join(row["record"] for row in rows)
    assert '"kind":"user.created"' in text.replace(" ", "")
    assert '"provider":"free"' in text.replace(" ", "")
    assert CLIENT_SECRET not in text + secrets


async def test_the_secret_goes_to_the_token_endpoint_alone(
    login_world: World, provider: FreeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    visitor = Visitor(login_world)
    began = await visitor.begin()
    code = provider.agree(visitor.asked, **PERSON)
    ended = await visitor.come_back(code=code)
    seen = [*began.headers.values(), *ended.headers.values(), began.text, ended.text]
    # Ours and what we call; the test's own client and server loggers say everything at this level.
    ours = ("gateway", "runtime", "httpx2", "httpcore2", "authlib", "joserfc", "asyncio", "root")
    records = [record for record in caplog.records if record.name.startswith(ours)]
    assert records
    logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in records)
    for secret in (CLIENT_SECRET, code, visitor.asked["state"], visitor.asked["nonce"]):
        assert secret not in logged
    assert CLIENT_SECRET not in "\n".join(seen)
    (token,) = [one for one in provider.received if one.path == "/token"]
    assert CLIENT_SECRET not in token.form.values()
    assert all("authorization" not in one.headers for one in provider.received if one.path != "/token")
    assert urlsplit(ended.headers["location"]).netloc == ""


async def test_the_secret_in_the_form_where_the_provider_wants_that(
    login_world: World, provider: FreeProvider
) -> None:
    provider.metadata_changes["token_endpoint_auth_methods_supported"] = ["client_secret_post", "none"]
    normal = provider.token

    def by_form(received: Received) -> Reply:
        assert "authorization" not in received.headers
        assert received.form.pop("client_secret") == CLIENT_SECRET
        provider.knows_client = lambda received: True  # type: ignore[method-assign]
        return normal(received)

    provider.replies["/token"] = by_form
    assert (await Visitor(login_world).log_in(provider)).status_code == 303

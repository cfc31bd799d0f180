"""Logging in by providers that others wrote: one with PKCE and `iss`, one without either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from testbed.processes import short_folder
from tests.device_uis.programs import Program
from tests.gateway.login.conftest import StartWorld, provider_settings
from tests.gateway.login.free_provider import CLIENT_ID, CLIENT_SECRET, WELL_KNOWN
from tests.gateway.login.real_providers import Browser, npm_provider, python_provider
from tests.gateway.login.visitor import Visitor, code_of, refused
from tests.gateway.world import ORIGIN, World


@pytest.fixture(scope="module")
def npm() -> Iterator[Program]:
    with (
        short_folder() as folder,
        closing(npm_provider(folder / "npm", [f"{ORIGIN}/login/from/npm"])) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def pypi() -> Iterator[Program]:
    with short_folder() as folder, closing(python_provider(folder / "pypi")) as running:
        yield running


@pytest.fixture
async def world(start_world: StartWorld, tmp_path: Path, npm: Program, pypi: Program) -> World:
    return await start_world(
        {
            name: provider_settings(tmp_path, one.url + WELL_KNOWN)
            for name, one in (("npm", npm), ("pypi", pypi))
        }
    )


@pytest.fixture
def browser() -> Iterator[Browser]:
    with closing(Browser()) as one:
        yield one


async def answered(visitor: Visitor, browser: Browser, provider_id: str, **fields: str) -> dict[str, str]:
    """Begin, walk through the provider's pages; what it sends back."""
    began = await visitor.begin(provider_id)
    assert began.status_code == 303, began.text
    back = browser.walk(began.headers["location"], f"{ORIGIN}/login/from/{provider_id}", **fields)
    return dict(parse_qsl(urlsplit(back).query))


async def test_login_and_consent_at_npms(world: World, browser: Browser, npm: Program) -> None:
    visitor = Visitor(world)
    answer = await answered(visitor, browser, "npm", login="grace", password="any")
    assert answer["iss"] == npm.url
    ended = await visitor.come_back("npm", **answer)
    assert ended.status_code == 303, ended.text
    me = await visitor.me()
    assert me is not None
    assert me["username"] == "grace"
    (identity,) = (await visitor.http.get("/v1/me/identities")).json()["items"]
    assert (identity["issuer"], identity["email"], identity["email_verified"]) == (
        npm.url,
        "grace@example.com",
        True,
    )


async def test_an_unverified_address_at_npms(world: World, browser: Browser) -> None:
    visitor = Visitor(world)
    answer = await answered(visitor, browser, "npm", login="unverified", password="any")
    assert (await visitor.come_back("npm", **answer)).status_code == 303
    (identity,) = (await visitor.http.get("/v1/me/identities")).json()["items"]
    assert identity["email_verified"] is False


async def test_npms_takes_no_code_without_its_verifier(world: World, browser: Browser, npm: Program) -> None:
    """The PKCE downgrade: a thief who has the code and the secret, and not what only our gateway knows."""
    for verifier in ({}, {"code_verifier": "v" * 43}):
        visitor = Visitor(world)
        answer = await answered(visitor, browser, "npm", login="grace", password="any")
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": visitor.asked["redirect_uri"],
            **verifier,
        }
        stolen = await visitor.http.post(npm.url + "/token", data=form, auth=(CLIENT_ID, CLIENT_SECRET))
        assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    visitor = Visitor(world)
    began = await visitor.begin("npm")
    downgraded = httpx.URL(began.headers["location"])
    for name in ("code_challenge", "code_challenge_method"):
        downgraded = downgraded.copy_remove_param(name)
    back = browser.walk(str(downgraded), f"{ORIGIN}/login/from/npm", login="grace", password="any")
    answer = dict(parse_qsl(urlsplit(back).query))
    assert answer["error"] == "invalid_request"
    await refused(visitor, await visitor.come_back("npm", **answer), 403, "login_denied")


async def test_a_code_works_once_at_npms(world: World, browser: Browser) -> None:
    victim, thief = Visitor(world), Visitor(world)
    answer = await answered(victim, browser, "npm", login="grace", password="any")
    await thief.begin("npm")
    injected = await thief.come_back("npm", **(answer | {"state": thief.asked["state"]}))
    await refused(thief, injected, 502, "provider_refused")


async def test_a_mix_up_of_two_real_providers(world: World, browser: Browser, npm: Program) -> None:
    visitor = Visitor(world)
    answer = await answered(visitor, browser, "pypi", sub="grace")
    mixed = await visitor.come_back("npm", **answer)
    await refused(visitor, mixed, 400, "login_not_open")
    answer = await answered(visitor, browser, "pypi", sub="grace")
    mixed = await visitor.come_back("pypi", **(answer | {"iss": npm.url}))
    await refused(visitor, mixed, 502, "provider_refused")


async def test_login_at_pypis(world: World, browser: Browser, pypi: Program) -> None:
    """It knows neither PKCE nor `iss`, and keeps the address out of nothing."""
    visitor = Visitor(world)
    answer = await answered(visitor, browser, "pypi", sub="ada@example.com")
    assert (await visitor.come_back("pypi", **answer)).status_code == 303
    me = await visitor.me()
    assert me is not None
    assert me["username"] == "ada"
    (identity,) = (await visitor.http.get("/v1/me/identities")).json()["items"]
    assert (identity["email"], identity["email_verified"]) == ("ada@example.com", False)
    told = await visitor.http.put(
        f"{pypi.url}/users/ada@example.com",
        json={"email": "ada@example.com", "email_verified": True},
    )
    assert told.status_code == 204
    answer = await answered(visitor, browser, "pypi", sub="ada@example.com")
    assert (await visitor.come_back("pypi", **answer)).status_code == 303
    (identity,) = (await visitor.http.get("/v1/me/identities")).json()["items"]
    assert identity["email_verified"] is True


async def test_denied_at_pypis(world: World, browser: Browser) -> None:
    visitor = Visitor(world)
    began = await visitor.begin("pypi")
    back = browser.walk(began.headers["location"], f"{ORIGIN}/login/from/pypi", action="deny")
    answer = dict(parse_qsl(urlsplit(back).query))
    assert answer["error"] == "access_denied"
    ended = await visitor.http.get("/login/from/pypi", params=answer, headers={"accept": "text/html"})
    # It forgets to send the state back (RFC 6749 section 4.1.2.1 wants it): nothing tells whose answer it is.
    assert (ended.status_code, code_of(ended)) in {(403, "login_denied"), (400, "login_not_open")}
    assert await visitor.me() is None

"""Apps that log people in through the system's browser: RFC 8252, RFC 7636, RFC 9207, OAuth 2.1."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import httpx
import pytest

from gateway.api.authorize import CODE_TTL_S
from gateway.policy.authorization import QUERY_MAX, STATE_MAX, BadRequestError, read_request
from gateway.policy.clients import NativeClient, are_clients
from gateway.policy.return_path import RETURN_PATH_MAX, return_path
from runtime.clock import FakeClock
from runtime.settings import SettingsError, from_table
from tests.gateway.standing_still import meanwhile
from tests.gateway.test_refresh import audit_kinds, is_live, opened, refresh, works
from tests.gateway.world import ADMIN_PASSWORD, ORIGIN, World, settings_for

pytestmark = pytest.mark.usefixtures("patient_statements")

PHONE = NativeClient(
    "Towline for phones", ("com.example.phone:/back", "https://phone.example/back?from=towline")
)
DESK = NativeClient("Desk", ("http://127.0.0.1/callback", "http://[::1]/callback"))
CLIENTS = {"phone": PHONE, "desk": DESK}
BACK = "com.example.phone:/back"


@pytest.fixture
async def apps(tmp_path: Path, database_url: str, keys_dir: Path, clock: FakeClock) -> AsyncIterator[World]:
    """A gateway where two apps are registered."""
    world = World(settings_for(tmp_path, database_url, keys_dir, native_clients=CLIENTS), clock, tmp_path)
    await (await world.start()).prepared()
    yield world
    await world.close()


class App:
    """An app as its maker would write it: one authorization."""

    def __init__(self, client_id: str = "phone", redirect_uri: str = BACK) -> None:
        self.verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(self.verifier.encode()).digest()
        self.fields: dict[str, str] = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "state": secrets.token_urlsafe(16) + " &=+%/é".replace("é", "~"),
        }

    @property
    def query(self) -> str:
        return urlencode(self.fields)

    async def ask(
        self, person: httpx.AsyncClient, *, allow: bool = True, query: str | None = None
    ) -> dict[str, str]:
        """What comes back at the redirect URI, after the click."""
        body = {"query": query or self.query, "allow": allow}
        answer = await person.post("/v1/oauth/authorize", json=body)
        assert answer.status_code == 200, answer.text
        return self.back(answer.json()["redirect_to"])

    def back(self, location: str) -> dict[str, str]:
        redirect_uri = self.fields["redirect_uri"]
        mark = "&" if "?" in redirect_uri else "?"
        assert location.startswith(redirect_uri + mark), location
        return {k: v for k, [v] in parse_qs(location[len(redirect_uri) + 1 :], strict_parsing=True).items()}

    async def trade(self, world: World, code: str, **changes: str | None) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": self.fields["client_id"],
            "redirect_uri": self.fields["redirect_uri"],
            "code": code,
            "code_verifier": self.verifier,
        }
        given = {**form, **changes}
        return await world.program().post(
            "/v1/oauth/token", data={name: value for name, value in given.items() if value is not None}
        )


async def authorize(person: httpx.AsyncClient, query: str) -> httpx.Response:
    headers = {"accept": "text/html", "sec-fetch-site": "none"}
    return await person.get("/v1/oauth/authorize", params=query, headers=headers)


@pytest.mark.parametrize(
    ("client_id", "redirect_uri"),
    [
        ("phone", BACK),
        ("phone", "https://phone.example/back?from=towline"),
        ("desk", "http://127.0.0.1:51999/callback"),
        ("desk", "http://[::1]:1/callback"),
    ],
)
async def test_from_the_browser_to_a_login_that_refreshes(
    apps: World, client_id: str, redirect_uri: str
) -> None:
    app = App(client_id, redirect_uri)
    browser = apps.browser()
    to_login = await authorize(browser, app.query)
    assert to_login.status_code == 303
    location = httpx.URL(to_login.headers["location"])
    assert location.path == "/login"
    back = location.params["next"]
    assert back.startswith("/v1/oauth/authorize?")
    await browser.post("/v1/login", json={"username": "admin", "password": ADMIN_PASSWORD})
    page = await browser.get(back, headers={"accept": "text/html"})
    assert page.status_code == 200
    assert CLIENTS[client_id].name in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    got = await app.ask(browser, query=httpx.URL(back).query.decode())
    assert got["state"] == app.fields["state"]
    assert got["iss"] == ORIGIN
    answer = await app.trade(apps, got["code"])
    assert answer.status_code == 200, answer.text
    given = answer.json()
    assert (await apps.program(given["access_token"]).get("/v1/me")).json()["username"] == "admin"
    assert (await refresh(apps, given["refresh_token"], client_id)).status_code == 200
    assert "app.allowed" in await audit_kinds(apps)
    # The app's login is its own: the browser may log out.
    assert (await browser.post("/v1/logout")).status_code == 204
    assert await works(apps, given["access_token"])


async def test_a_no_is_told(apps: World) -> None:
    app = App()
    got = await app.ask(await apps.person(), allow=False)
    assert got == {
        "error": "access_denied",
        "error_description": "the person said no",
        "state": app.fields["state"],
        "iss": ORIGIN,
    }


async def test_only_a_click_on_our_page_says_yes(apps: World) -> None:
    app = App()
    person = await apps.person()
    body = {"query": app.query, "allow": True}
    url = "/v1/oauth/authorize"
    for headers in (
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site", "origin": "http://other.localhost"},
        {"sec-fetch-site": "none"},
    ):
        answer = await person.post(url, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")
    form = await person.post(url, content=urlencode(body), headers={"content-type": "text/plain"})
    assert form.status_code == 415
    # A program that has the person's token is not the person.
    access = (await person.post("/v1/login", json={"username": "admin", "password": ADMIN_PASSWORD})).json()
    made = await person.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:read"]})
    for token in (access["access_token"], made.json()["token"]):
        assert (await apps.program(token).post(url, json=body)).status_code == 401
    assert (await apps.browser().post(url, json=body)).status_code == 401
    async with apps.gateway.parts.database.transaction() as tx:
        assert await tx.fetchval("SELECT count(*) FROM authorization_codes") == 0


# What no redirection may answer: it is not known to whom. Each is a change of a good request.
UNKNOWN: dict[str, Callable[[dict[str, str]], object]] = {
    "no client": lambda f: f.pop("client_id"),
    "another client": lambda f: f.update(client_id="evil"),
    "our own client": lambda f: f.update(client_id="towline"),
    "no redirect URI": lambda f: f.pop("redirect_uri"),
    "another client's redirect URI": lambda f: f.update(redirect_uri="http://127.0.0.1/callback"),
    "longer": lambda f: f.update(redirect_uri=BACK + "/more"),
    "shorter": lambda f: f.update(redirect_uri=BACK[:-1]),
    "with a query": lambda f: f.update(redirect_uri=BACK + "?a=b"),
    "with a fragment": lambda f: f.update(redirect_uri=BACK + "#"),
    "in capitals": lambda f: f.update(redirect_uri="COM.EXAMPLE.PHONE:/back"),
    "with a blank": lambda f: f.update(redirect_uri=BACK + " "),
    "another host": lambda f: f.update(redirect_uri="https://phone.example.evil.example/back?from=towline"),
    "a port": lambda f: f.update(redirect_uri="https://phone.example:443/back?from=towline"),
    "a user": lambda f: f.update(redirect_uri="https://phone.example@evil.example/back?from=towline"),
    "dots": lambda f: f.update(redirect_uri="https://phone.example/x/../back?from=towline"),
    "script": lambda f: f.update(redirect_uri="javascript:alert(1)"),
}
LOOPBACK_UNKNOWN = (
    "http://localhost:5000/callback",
    "http://127.0.0.1:0/callback",
    "http://127.0.0.1:123456/callback",
    "http://127.0.0.1:80@evil.example/callback",
    "http://127.0.0.1.evil.example/callback",
    "http://127.0.0.2:5000/callback",
    "http://127.0.0.1:5000/callback/",
    "http://127.0.0.1:5000/callback?x=y",
    "http://127.0.0.1:5000//callback",
    "https://127.0.0.1:5000/callback",
    "http://[::1%25lo]:5000/callback",
    "http://2130706433:5000/callback",
)


async def test_an_unknown_app_or_address_gets_no_redirection(apps: World) -> None:
    person = await apps.person()
    for name, change in UNKNOWN.items():
        app = App()
        change(app.fields)
        await _stays_here(person, app.query, name)
    for uri in LOOPBACK_UNKNOWN:
        await _stays_here(person, App("desk", uri).query, uri)
    twice = f"{App().query}&redirect_uri=https%3A%2F%2Fevil.example"
    for query in (twice, f"{App().query}&client_id=desk", "", "%", "a", App().query + "&x=" + "y" * 5000):
        await _stays_here(person, query, query[:80])


async def _stays_here(person: httpx.AsyncClient, query: str, name: str) -> None:
    page = await authorize(person, query)
    assert (page.status_code, "location" in page.headers) == (400, False), name
    assert page.headers["content-type"].startswith("text/html")
    if len(query) <= QUERY_MAX:  # a longer one fits no body
        click = await person.post("/v1/oauth/authorize", json={"query": query or "x", "allow": True})
        assert (click.status_code, click.json()["code"]) == (400, "bad_authorization"), name


# What the app is told. Downgrades of PKCE are among it.
REFUSED: dict[str, tuple[Callable[[dict[str, str]], object], str]] = {
    "no response type": (lambda f: f.pop("response_type"), "invalid_request"),
    "token": (lambda f: f.update(response_type="token"), "unsupported_response_type"),
    "code and token": (lambda f: f.update(response_type="code token"), "unsupported_response_type"),
    "fragment": (lambda f: f.update(response_mode="fragment"), "invalid_request"),
    "form_post": (lambda f: f.update(response_mode="form_post"), "invalid_request"),
    "no PKCE": (lambda f: (f.pop("code_challenge"), f.pop("code_challenge_method")), "invalid_request"),
    "no challenge": (lambda f: f.pop("code_challenge"), "invalid_request"),
    "no method: that means plain": (lambda f: f.pop("code_challenge_method"), "invalid_request"),
    "plain": (lambda f: f.update(code_challenge_method="plain"), "invalid_request"),
    "s256": (lambda f: f.update(code_challenge_method="s256"), "invalid_request"),
    "a short challenge": (lambda f: f.update(code_challenge="x" * 42), "invalid_request"),
    "a padded challenge": (lambda f: f.update(code_challenge="x" * 43 + "="), "invalid_request"),
    "a scope": (lambda f: f.update(scope="openid"), "invalid_scope"),
    "a request object": (lambda f: f.update(request="e30.e30."), "invalid_request"),
    "a request URI": (lambda f: f.update(request_uri="https://evil.example"), "invalid_request"),
    "a state with a newline": (lambda f: f.update(state="a\r\nLocation: x"), "invalid_request"),
    "a long state": (lambda f: f.update(state="x" * (STATE_MAX + 1)), "invalid_request"),
}


async def test_a_wrong_request_is_told_to_the_app(apps: World) -> None:
    person = await apps.person()
    for name, (change, error) in REFUSED.items():
        app = App()
        change(app.fields)
        page = await authorize(person, app.query)
        assert page.status_code == 303, name
        for got in (app.back(page.headers["location"]), await app.ask(person)):
            state = app.fields["state"]
            assert (got["error"], got["iss"], "code" in got) == (error, ORIGIN, False), name
            assert got.get("state") == (None if "state" in name else state), name


# Each is one thing wrong when the code is traded. The code is used up by it.
WRONG_TRADES: dict[str, tuple[dict[str, str | None], int, str]] = {
    "another verifier": ({"code_verifier": "x" * 64}, 400, "invalid_grant"),
    "no verifier": ({"code_verifier": None}, 400, "invalid_grant"),
    "an empty verifier": ({"code_verifier": ""}, 400, "invalid_grant"),
    "the challenge as verifier": ({"code_verifier": "CHALLENGE"}, 400, "invalid_grant"),
    "another client": ({"client_id": "desk"}, 400, "invalid_grant"),
    "another redirect URI of the client": (
        {"redirect_uri": "https://phone.example/back?from=towline"},
        400,
        "invalid_grant",
    ),
}


async def test_a_code_in_the_wrong_hands_is_worthless(apps: World) -> None:
    person = await apps.person()
    for name, (changes, status, error) in WRONG_TRADES.items():
        app = App()
        code = (await app.ask(person))["code"]
        if changes.get("code_verifier") == "CHALLENGE":
            changes = {"code_verifier": app.fields["code_challenge"]}
        wrong = await app.trade(apps, code, **changes)
        assert (wrong.status_code, wrong.json()["error"]) == (status, error), name
        assert (await app.trade(apps, code)).json()["error"] == "invalid_grant", name
    app = App()
    code = (await app.ask(person))["code"]
    unknown = await app.trade(apps, code, client_id="nobody")
    assert (unknown.status_code, unknown.json()["error"]) == (401, "invalid_client")
    assert (await app.trade(apps, code, redirect_uri=None)).json()["error"] == "invalid_request"
    assert (await app.trade(apps, "")).json()["error"] == "invalid_request"
    # Nothing of that was about this code.
    assert (await app.trade(apps, code)).status_code == 200


async def test_a_code_used_twice_ends_what_it_gave(apps: World) -> None:
    app = App()
    code = (await app.ask(await apps.person()))["code"]
    given = (await app.trade(apps, code)).json()
    _, session = await opened(apps, given["access_token"])
    thief = await app.trade(apps, code)
    assert (thief.status_code, thief.json()["error"]) == (400, "invalid_grant")
    assert not await works(apps, given["access_token"])
    assert (await refresh(apps, given["refresh_token"], "phone")).status_code == 400
    assert not await is_live(apps, session)
    assert (await audit_kinds(apps)).count("login.code_reused") == 1


async def test_of_many_trades_at_once_none_is_left(apps: World) -> None:
    app = App()
    code = (await app.ask(await apps.person()))["code"]
    answers = await asyncio.gather(*(app.trade(apps, code) for _ in range(6)))
    given: list[dict[str, Any]] = [a.json() for a in answers if a.status_code == 200]
    assert len(given) == 1
    assert not await works(apps, given[0]["access_token"])


async def test_a_code_lives_a_minute_and_no_longer_than_the_login(apps: World, clock: FakeClock) -> None:
    app, person = App(), await apps.person()
    late = (await app.ask(person))["code"]
    clock.advance(CODE_TTL_S + 1)
    assert (await app.trade(apps, late)).json()["error"] == "invalid_grant"
    code = (await app.ask(person))["code"]
    assert (await person.post("/v1/logout")).status_code == 204
    assert (await app.trade(apps, code)).json()["error"] == "invalid_grant"


async def test_an_app_that_begins_while_the_other_logins_end_is_one_of_them(apps: World) -> None:
    browser, app = await apps.person(), App()
    code = (await app.ask(browser))["code"]
    traded, ended = await meanwhile(apps, app.trade(apps, code), browser.delete("/v1/me/logins"))
    assert (traded.status_code, ended.json()["logins"]) == (200, 1)
    assert not await works(apps, traded.json()["access_token"])
    assert (await browser.get("/v1/me")).status_code == 200


async def test_what_the_server_says_of_itself_is_true(apps: World) -> None:
    said = (await apps.program().get("/.well-known/oauth-authorization-server")).json()
    assert said["issuer"] == ORIGIN
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert said["authorization_response_iss_parameter_supported"] is True
    for name in ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri"):
        assert said[name].startswith(ORIGIN + "/")
        method = "GET" if name in {"authorization_endpoint", "jwks_uri"} else "POST"
        answer = await apps.program().request(method, said[name].removeprefix(ORIGIN))
        assert answer.status_code not in {404, 405, 500}, name


@pytest.mark.parametrize(
    "uri",
    [
        "http://phone.example/back",
        "http://localhost/callback",
        "https://phone.example/back#x",
        "https://user@phone.example/back",
        "https://*.example/back",
        "https://phone.example/ba ck",
        "javascript:alert(1)",
        "phone:/back",
        "com.example.phone:/back#x",
        "data:text/html,x",
        "file:///etc/passwd",
        "",
        "https://phone.example/" + "x" * 512,
    ],
)
def test_only_redirect_uris_that_are_somebodys_can_be_registered(uri: str, tmp_path: Path) -> None:
    table = {"name": "Phone", "redirect_uris": [uri]}
    with pytest.raises(SettingsError, match="redirect_uris"):
        from_table(NativeClient, table, source=tmp_path / "gateway.toml")


def test_whatever_is_a_request_comes_back_from_the_login() -> None:
    path = "/v1/oauth/authorize?"
    assert len(path) + QUERY_MAX <= RETURN_PATH_MAX
    app = App()
    app.fields["state"] = "".join(chr(code) for code in range(0x20, 0x7F))
    for query in (app.query, app.query.replace("%7E", "~")):
        assert read_request(query, CLIENTS).state == app.fields["state"]
        assert return_path(path + query) == path + query
    with pytest.raises(BadRequestError):
        read_request(app.query + "&x=\\", CLIENTS)


@pytest.mark.parametrize("client_id", ["towline", "", "Phone", "a b", "x" * 65, "-x"])
def test_only_plain_client_ids_can_be_registered(client_id: str) -> None:
    assert are_clients({client_id: PHONE}) is not None
    assert are_clients(CLIENTS) is None

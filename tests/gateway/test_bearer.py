"""Every credential at every door: what is no good Bearer gives 401, and HEAD and OPTIONS tell nothing."""

from __future__ import annotations

import asyncio

import pytest

from runtime.clock import FakeClock
from tests.gateway.test_refresh import log_in
from tests.gateway.test_tokens import FORGERIES, NOW, Forge
from tests.gateway.world import ORIGIN, World

PROTECTED = (
    ("GET", "/v1/me"),
    ("GET", "/v1/devices"),
    ("GET", "/v1/sessions"),
    ("GET", "/v1/me/api-tokens"),
    ("POST", "/v1/logout"),
    ("POST", "/v1/me/logout-everywhere"),
)

# {} is a good access token.
WRONG = {
    "none": None,
    "empty": "",
    "no scheme": "{}",
    "another scheme": "Token {}",
    "Basic": "Basic {}",
    "no token": "Bearer",
    "two tokens": "Bearer {} {}",
    "two with a comma": "Bearer {}, Bearer {}",
    "quoted": 'Bearer "{}"',
    "as a field": "Bearer token={}",
    "in braces": "Bearer ({})",
}


async def test_what_is_no_bearer_gives_401(world: World) -> None:
    access = (await log_in(world))["access_token"]
    program = world.program()
    for name, form in WRONG.items():
        headers = {} if form is None else {"authorization": form.replace("{}", access)}
        for method, path in PROTECTED:
            answer = await program.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "login_needed"), (name, path)
            assert answer.headers["www-authenticate"] == 'Bearer realm="towline"'
            assert access not in answer.text
    assert (await program.get("/v1/me", headers={"authorization": f"Bearer {access}"})).status_code == 200
    assert (await program.get("/v1/me", headers={"authorization": f"bEARER {access}"})).status_code == 200


async def test_a_token_counts_in_its_header_alone(world: World) -> None:
    """Addresses end in logs, histories and Referer (RFC 9700 §4.3.2)."""
    person = await world.person()
    access = (await log_in(world))["access_token"]
    made = await person.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:read"]})
    for token in (access, made.json()["token"]):
        assert (await world.program(token).get("/v1/devices")).status_code == 200
        program = world.program()
        for name in ("access_token", "token", "authorization"):
            for method, path in PROTECTED:
                answer = await program.request(method, path, params={name: token})
                # Lists refuse a parameter that they do not know before they ask who is there.
                told = (answer.status_code, answer.json()["code"])
                assert told in {(401, "login_needed"), (422, "invalid_field")}, (name, path)
                assert token not in answer.text
        assert (await program.get("/v1/me", headers={"cookie": f"access_token={token}"})).status_code == 401


async def test_a_bad_bearer_is_not_helped_by_a_good_cookie(world: World) -> None:
    person = await world.person()
    assert (await person.get("/v1/me")).status_code == 200
    assert (await person.get("/v1/me", headers={"authorization": "Bearer x"})).status_code == 401


async def test_every_forgery_gives_401_at_the_door(world: World, clock: FakeClock) -> None:
    clock.set_wall(NOW)  # the forger's
    good = world.gateway.parts.tokens.read_access((await log_in(world))["access_token"], NOW)
    forge = Forge(world.gateway.parts.keyring)
    forge.claims |= {"iss": ORIGIN, "sub": str(good.user_id), "lid": str(good.login_id)}
    program = world.program()
    sent, accepted = 0, []
    for name, make in FORGERIES.items():
        token = make(forge)
        if not token or len(token) > 30_000 or not token.isprintable() or not token.isascii():
            continue  # no head carries it: tests/gateway/test_connection.py
        sent += 1
        answer = await program.get("/v1/devices", headers={"authorization": f"Bearer {token}"})
        if answer.status_code != 401:
            accepted.append((name, answer.status_code))
    assert accepted == []
    assert sent > len(FORGERIES) - 8
    assert (await world.program(forge.token()).get("/v1/devices")).status_code == 200


async def test_a_good_signature_for_another_persons_login_is_nobody(world: World) -> None:
    """Only our own key could make it; the two claims must still agree."""
    parts = world.gateway.parts
    ann = await world.add_user("ann")
    login = parts.tokens.read_access((await log_in(world))["access_token"], world.clock.wall()).login_id
    token = parts.tokens.access(ann, login, world.clock.wall(), 900)
    assert (await world.program(token).get("/v1/me")).status_code == 401


@pytest.mark.parametrize("logged_in", [False, True])
async def test_head_and_options_tell_nothing(world: World, logged_in: bool) -> None:
    access = (await log_in(world))["access_token"] if logged_in else None
    program = world.program(access)
    for method, path in PROTECTED:
        for asked in ("HEAD", "OPTIONS"):
            answer = await program.request(asked, path)
            # OPTIONS only names methods, to anybody; HEAD is judged as GET is.
            wanted = (
                {204} if asked == "OPTIONS" else {405} if method != "GET" else {200 if logged_in else 401}
            )
            assert answer.status_code in wanted, (asked, method, path)
            assert "access-control-allow-origin" not in answer.headers
            if asked == "HEAD":
                assert await _bytes_behind_the_head(world, path, access) == b"", (method, path)
            else:
                assert "admin" not in answer.text


async def _bytes_behind_the_head(world: World, path: str, access: str | None) -> bytes:
    """On the wire: a client library hides what a server should not have sent."""
    address = world.gateway.public_address
    reader, writer = await asyncio.open_connection(address.host, address.port)
    bearer = "" if access is None else f"Authorization: Bearer {access}\r\n"
    writer.write(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n{bearer}Connection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    return raw.partition(b"\r\n\r\n")[2]

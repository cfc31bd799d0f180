"""Personal API tokens: shown once, stored hashed, limited to scopes, ended at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from gateway.api.api_tokens import CREATIONS_PER_USER, LIFE_DEFAULT_S, LIFE_MAX_S, TOKENS_PER_PERSON
from gateway.policy.access import RULES, Action, Scope
from runtime.clock import FakeClock
from tests.gateway.test_refresh import audit_kinds, is_live
from tests.gateway.world import World, open_session

URL = "/v1/me/api-tokens"


async def make(person: httpx.AsyncClient, *scopes: str, **body: Any) -> dict[str, Any]:
    answer = await person.post(URL, json={"name": "Script", "scopes": list(scopes), **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_made_shown_once_used_and_ended(world: World, clock: FakeClock) -> None:
    person = await world.person()
    made = await make(person, "devices:read", "sessions")
    token = made.pop("token")
    assert token.startswith("twl_")
    assert len(token) == len("twl_") + 43
    assert made["expires_at"] == rfc3339(clock.wall() + LIFE_DEFAULT_S)
    [listed] = (await person.get(URL)).json()["items"]
    assert listed == made
    assert listed["last_used_at"] is None
    script = world.program(token)
    first_use = clock.wall()
    assert (await script.get("/v1/devices")).status_code == 200
    clock.advance(1800)
    assert (await script.get("/v1/devices")).status_code == 200
    # Right to the hour: not each use is written.
    assert (await person.get(URL)).json()["items"][0]["last_used_at"] == rfc3339(first_use)
    clock.advance(1801)
    assert (await script.get("/v1/devices")).status_code == 200
    assert (await person.get(URL)).json()["items"][0]["last_used_at"] == rfc3339(clock.wall())
    assert (await person.delete(f"{URL}/{made['id']}")).status_code == 204
    assert (await script.get("/v1/devices")).status_code == 401
    assert (await person.delete(f"{URL}/{made['id']}")).status_code == 404
    assert (await person.get(URL)).json()["items"] == []
    kinds = await audit_kinds(world)
    assert (kinds.count("api_token.created"), kinds.count("api_token.ended")) == (1, 1)


async def test_only_a_hash_is_stored_and_nothing_logged(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    token = (await make(await world.person(), "audit:read"))["token"]
    await world.program(token).get("/v1/audit")
    async with world.gateway.parts.database.transaction() as tx:
        for table in ("api_tokens", "audit_events", "rate_limits"):
            for row in await tx.fetch(f"SELECT t::text AS text FROM {table} t"):
                assert token.removeprefix("twl_") not in row["text"]
    said = capsys.readouterr()
    assert token not in said.out + said.err


async def test_scopes_hold_on_every_action(world: World) -> None:
    """Each scope against each route that names an action: 403 without its scope, and never 403 with it."""
    person = await world.person()
    device = await world.enrol(person)
    await world.node().connect(device)
    asked: dict[Action, tuple[str, str, Any]] = {
        Action.DEVICE_LIST: ("GET", "/v1/devices", None),
        Action.DEVICE_READ: ("GET", f"/v1/devices/{device.id}", None),
        Action.TOKEN_CREATE: ("POST", "/v1/registration-tokens", {}),
        Action.SESSION_CREATE: ("POST", f"/v1/devices/{device.id}/sessions", {}),
        Action.SESSION_LIST: ("GET", "/v1/sessions", None),
        Action.SITE_LIST: ("GET", "/v1/sites", None),
        Action.ACCOUNT: ("POST", "/v1/me/logout-everywhere", None),
        Action.API_TOKEN_MANAGE: ("GET", URL, None),
        Action.USER_MANAGE: ("GET", "/v1/users", None),
    }
    for scope in Scope:
        script = world.program((await make(person, scope.value))["token"])
        for action, (method, path, body) in asked.items():
            answer = await script.request(method, path, json=body)
            allowed = RULES[action].scope is scope
            assert (answer.status_code == 403) is not allowed, (scope, action, answer.text)
            if not allowed:
                assert answer.json()["code"] == "forbidden"
    assert (await person.get("/v1/me")).status_code == 200


async def test_a_token_makes_lists_and_ends_no_tokens(world: World) -> None:
    person = await world.person()
    made = await make(person, *(scope.value for scope in Scope))
    script = world.program(made["token"])
    for answer in (
        await script.post(URL, json={"name": "x", "scopes": ["sessions"]}),
        await script.get(URL),
        await script.delete(f"{URL}/{made['id']}"),
        await script.post("/v1/logout"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_pages_are_for_people(world: World) -> None:
    script = world.program((await make(await world.person(), "audit:read"))["token"])
    answer = await script.get("/", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/")


async def test_anothers_token_is_not_there(world: World) -> None:
    admin, ann = await world.person(), await world.person("ann")
    made = await make(admin, "sessions")
    answer = await ann.delete(f"{URL}/{made['id']}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await ann.get(URL)).json()["items"] == []
    assert (await world.program(made["token"]).get("/v1/sessions")).status_code == 200


@pytest.mark.parametrize("way", ["delete", "revoke", "expiry", "disabled", "everywhere"])
async def test_it_ends_with_what_it_opened(world: World, clock: FakeClock, way: str) -> None:
    admin, ann = await world.person(), await world.person("ann")
    device = await world.enrol(ann)
    await world.node().connect(device)
    made = await make(ann, "sessions", "devices:read", expires_at=rfc3339(clock.wall() + 600))
    script = world.program(made["token"])
    session = (await open_session(script, device, binding="click")).session
    other = (await open_session(ann, device, binding="click")).session
    if way == "delete":
        assert (await ann.delete(f"{URL}/{made['id']}")).status_code == 204
    elif way == "revoke":  # whoever found it may make it worthless
        assert (
            await world.program().post("/v1/oauth/revoke", data={"token": made["token"]})
        ).status_code == 200
    elif way == "expiry":
        clock.advance(600)
    elif way == "disabled":
        user = (await ann.get("/v1/me")).json()["id"]
        for disabled in (True, False):  # let in again, the token stays ended
            answer = await admin.patch(f"/v1/users/{user}", json={"disabled": disabled})
            assert answer.status_code == 200, answer.text
    else:
        answer = await ann.post("/v1/me/logout-everywhere", json={"api_tokens": True})
        assert answer.json() == {"logins": 1, "api_tokens": 1, "sessions": 2}
    assert (await script.get("/v1/sessions")).status_code == 401
    if way != "expiry":  # a session has its own end, an hour at most
        assert not await is_live(world, session)
    if way in {"delete", "revoke", "expiry"}:
        assert await is_live(world, other)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"scopes": ["sessions"]}, "name"),
    "a blank name": ({"name": " ", "scopes": ["sessions"]}, "name"),
    "no scopes": ({"name": "x"}, "scopes"),
    "empty scopes": ({"name": "x", "scopes": []}, "scopes"),
    "an unknown scope": ({"name": "x", "scopes": ["*"]}, "scopes.0"),
    "a scope that is a number": ({"name": "x", "scopes": [1]}, "scopes.0"),
    "too many scopes": ({"name": "x", "scopes": ["sessions"] * 99}, "scopes"),
    "the past": ({"name": "x", "scopes": ["sessions"], "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
    "no zone": ({"name": "x", "scopes": ["sessions"], "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
    "no time": ({"name": "x", "scopes": ["sessions"], "expires_at": "soon"}, "expires_at"),
    "a number": ({"name": "x", "scopes": ["sessions"], "expires_at": 7}, "expires_at"),
    "year one": (
        {"name": "x", "scopes": ["sessions"], "expires_at": "0001-01-01T00:00:00+23:59"},
        "expires_at",
    ),
    "something else": ({"name": "x", "scopes": ["sessions"], "admin": True}, "admin"),
}


async def test_wrong_bodies_name_the_field(world: World, clock: FakeClock) -> None:
    person = await world.person()
    too_long = {"name": "x", "scopes": ["sessions"], "expires_at": rfc3339(clock.wall() + LIFE_MAX_S + 2)}
    for name, (body, field) in {**WRONG, "too long": (too_long, "expires_at")}.items():
        answer = await person.post(URL, json=body)
        assert (answer.status_code, answer.json().get("field")) == (422, field), (name, answer.text)
    await make(person, "sessions", expires_at=rfc3339(clock.wall() + LIFE_MAX_S))


async def test_how_many_a_person_has_and_makes_is_bounded(world: World, clock: FakeClock) -> None:
    person = await world.person()
    statuses = []
    for _ in range(TOKENS_PER_PERSON + 1):
        body = {"name": "x", "scopes": ["devices:read"]}
        statuses.append((await person.post(URL, json=body)).status_code)
        if statuses[-1] == 429:
            clock.advance(CREATIONS_PER_USER.refill_s)
            statuses[-1] = (await person.post(URL, json=body)).status_code
    assert statuses == [201] * TOKENS_PER_PERSON + [409]


async def test_junk_is_nobody(world: World) -> None:
    for token in ("twl_", "twl_" + "x" * 43, "twl_" + "x" * 5000, "TWL_x", "twr_" + "A" * 64):
        assert (await world.program(token).get("/v1/devices")).status_code == 401

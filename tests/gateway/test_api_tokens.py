"""Personal API tokens: shown once, stored hashed, limited to scopes, ended at once."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.api.api_tokens import CREATIONS_PER_USER, LIFE_DEFAULT_S, LIFE_MAX_S, TOKENS_PER_PERSON
from gateway.api.credentials import ANYBODY, DEVICE
from gateway.policy.access import RULES, Action, Role, Scope
from runtime.clock import FakeClock
from runtime.logs import JsonFormatter
from tests.gateway.test_matrix import FORMS, GOOD, OF_ONESELF, Call, Stage, access_of, call_of, good, routes
from tests.gateway.test_refresh import audit_kinds, is_live
from tests.gateway.world import World, make_csr, open_session

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


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What the product logs at any level, as it writes it: by a handler of the root alone (`configure`)."""
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    handler.setFormatter(JsonFormatter("gateway"))
    # The test's own client tells the address that it asks.
    handler.addFilter(lambda record: record.name.partition(".")[0] not in {"httpx", "httpcore"})
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.setLevel(level)
    root.removeHandler(handler)


async def test_only_a_hash_is_stored_and_nothing_logged(world: World, written: io.StringIO) -> None:
    token = (await make(await world.person(), "audit:read"))["token"]
    script = world.program(token)
    assert (await script.get("/v1/me/audit")).status_code == 200
    assert (await script.get(f"/v1/nothing?access_token={token}")).status_code == 404
    async with world.gateway.parts.database.transaction() as tx:
        for table in ("api_tokens", "audit_events", "rate_limits"):
            for row in await tx.fetch(f"SELECT t::text AS text FROM {table} t"):
                assert token.removeprefix("twl_") not in row["text"]
    log = written.getvalue()
    assert '"/v1/me/audit"' in log  # its requests are there
    assert '"/v1/nothing"' in log
    assert token.removeprefix("twl_") not in log


# Who may ask for it by a login; everything else is asked by the owner.
ASKERS = {
    Action.USER_MANAGE: "staff-admin",
    Action.HARDWARE_ID_FREE: "staff-admin",
    Action.SUPPORT_ASK: "staff-support",
}
# Without a route of their own: a command's, a case of taking members away, a form that takes cookies alone.
# A page's own, where the browser is what counts: a bearer is nobody there.
COOKIE_ALONE = {Action.LINK_INSPECT, Action.LINK_CODE}
NOT_ASKED = {Action.KEY_ROTATE, Action.MEMBER_LEAVE, Action.MEMBER_RUNNERS, Action.APP_ALLOW}


async def test_scopes_hold_on_every_action(world: World) -> None:
    """Each scope at each route, by somebody who may: 403 without the route's scope, a success with it; what a
    person alone says by a login says so.
    """
    stage = await Stage(world, await world.person("owner")).populate()
    scripts = {
        (name, scope): world.program((await make(stage.clients[name], scope.value))["token"])
        for name in ("owner", *ASKERS.values())
        for scope in Scope
    }
    asked, wrong = set(), []
    for method, route in routes():
        key, access = f"{method} {route.path}", access_of(route)
        if access in {ANYBODY, DEVICE} or key in FORMS:
            continue
        action = Action(str(access))
        rule = RULES[action]
        asked.add(action)
        call = (
            Call(re.sub(r"\{\w+\}", str(uuid4()), route.path))
            if key in OF_ONESELF
            else await call_of(stage, key, route.path)
        )
        for scope in sorted(Scope, key=lambda scope: rule.scope is scope):  # the one that does something last
            script = scripts[ASKERS.get(action, "owner"), scope]
            answer = await script.request(method, call.path, json=None if method == "GET" else call.body)
            if rule.any_token or rule.scope is scope:
                right = answer.status_code in good(key)
            else:
                refusal = (403, "forbidden" if rule.scope else "person_needed")
                if action in COOKIE_ALONE:
                    refusal = (401, "login_needed")
                right = (answer.status_code, answer.json()["code"]) == refusal
            if not right:
                wrong.append(f"{key} with {scope}: {answer.status_code} {answer.text[-150:]}")
    assert not wrong, "\n".join(wrong)
    assert asked == set(Action) - NOT_ASKED


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
        assert (answer.status_code, answer.json()["code"]) == (403, "person_needed")


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
    if way != "expiry":  # its own end has come then: nothing has to end it
        assert not await is_live(world, session)
    if way in {"delete", "revoke", "expiry"}:
        assert await is_live(world, other)


async def test_what_a_person_alone_says(world: World) -> None:
    """Whoever finds a token with every scope can neither consent nor make anybody more than a member."""
    stage = await Stage(world, await world.person("owner")).populate()
    script = world.program((await make(stage.owner, *(scope.value for scope in Scope)))["token"])
    org, site = f"/v1/orgs/{stage.org}", f"/v1/sites/{stage.site}"
    member, lowered, removed = [
        await stage.fresh_user(role) for role in (Role.MEMBER, Role.ADMIN, Role.ADMIN)
    ]
    other = (await stage.owner.post(f"{org}/sites", json={"name": "Other"})).json()["id"]
    asked = [await call_of(stage, key, key.split()[1]) for key in DECISIONS]
    joining = await call_of(stage, "POST /v1/invitations/accept", "/v1/invitations/accept")
    for method, path, body in (
        *[("POST", f"{place}/invitations", {"role": role}) for place in (org, site) for role in RUNNERS],
        *[("PATCH", f"{org}/members/{member}", {"role": role}) for role in RUNNERS],
        ("PATCH", f"{org}/members/{lowered}", {"role": "member"}),
        ("DELETE", f"{org}/members/{removed}", None),
        ("POST", "/v1/invitations/accept", joining.body),
        *[("POST", call.path, call.body) for call in asked],
        ("POST", f"/v1/devices/{stage.device.id}/release", None),
        ("DELETE", f"/v1/devices/{stage.device.id}/release", None),
        ("PATCH", f"/v1/devices/{stage.device.id}", {"site_id": other}),
    ):
        refused = await script.request(method, path, json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "person_needed"), (method, path)
        if "accept" not in path:  # the owner, who invites, is a member already
            allowed = await stage.owner.request(method, path, json=body)
            assert allowed.status_code in GOOD, (method, path, allowed.text)


@pytest.mark.parametrize("role", ["support", "member", "admin", "owner"])
async def test_a_token_lets_go_of_no_role_that_none_gives(world: World, role: str) -> None:
    """Whoever finds an owner's could shut them out of their org, until another owner invites them again."""
    ann, bob = await world.person("ann"), await world.person("bob")
    org = (await ann.get("/v1/orgs")).json()["items"][0]["id"]
    invited = await ann.post(f"/v1/orgs/{org}/invitations", json={"role": role})
    joined = await bob.post("/v1/invitations/accept", json={"token": invited.json()["token"]})
    assert joined.status_code in GOOD
    bobs = f"/v1/orgs/{org}/members/{(await bob.get('/v1/me')).json()['id']}"
    script = world.program((await make(bob, *(scope.value for scope in Scope)))["token"])
    by_token = await script.delete(bobs)
    if role in RUNNERS:
        assert (by_token.status_code, by_token.json()["code"]) == (403, "person_needed")
        assert (await bob.get(f"/v1/orgs/{org}")).json()["role"] == role
        assert (await bob.delete(bobs)).status_code == 204
    else:
        assert by_token.status_code == 204
    assert (await bob.get(f"/v1/orgs/{org}")).status_code == 404


RUNNERS = ("admin", "owner")
DECISIONS = (
    "POST /v1/support-requests/{request_id}/approve",
    "POST /v1/support-requests/{request_id}/refuse",
)


async def offers(person: httpx.AsyncClient, org: str) -> dict[str, Any]:
    """A registration token and an invitation that this client makes: their answers by name."""
    made = {
        "registration": await person.post("/v1/registration-tokens", json={"approve": True}),
        "invitation": await person.post(f"/v1/orgs/{org}/invitations", json={"role": "member"}),
    }
    assert {answer.status_code for answer in made.values()} == {201}, made
    return {name: answer.json() for name, answer in made.items()}


async def taken_up(world: World, offered: dict[str, Any], guest: httpx.AsyncClient) -> dict[str, str]:
    """What becomes of both: `taken`, or the problem's code."""
    body = {
        "token": offered["registration"]["token"],
        "csr": make_csr(ec.generate_private_key(ec.SECP256R1())),
        "name": "Pump",
        "hardware_id": f"hw-{uuid4()}",
        "software": "agent 1.0",
    }
    answers = {
        "registration": await world.program().post("/v1/enrolments", json=body),
        "invitation": await guest.post(
            "/v1/invitations/accept", json={"token": offered["invitation"]["token"]}
        ),
    }
    return {name: "taken" if one.status_code in GOOD else one.json()["code"] for name, one in answers.items()}


TAKEN = {"registration": "taken", "invitation": "taken"}
GONE = {"registration": "registration_token_void", "invitation": "invitation_gone"}


@pytest.mark.parametrize("way", ["delete", "revoke", "disabled", "everywhere"])
async def test_what_a_token_made_and_nobody_used_ends_with_it(world: World, way: str) -> None:
    admin, ann = await world.person(), await world.person("ann")
    bob, cid = await world.person("bob"), await world.person("cid")
    org = (await ann.get("/v1/orgs")).json()["items"][0]["id"]
    made = await make(ann, "devices:write", "sites:write")
    script = world.program(made["token"])
    used, left, by_login = await offers(script, org), await offers(script, org), await offers(ann, org)
    assert await taken_up(world, used, bob) == TAKEN
    if way == "delete":
        assert (await ann.delete(f"{URL}/{made['id']}")).status_code == 204
    elif way == "revoke":
        revoked = await world.program().post("/v1/oauth/revoke", data={"token": made["token"]})
        assert revoked.status_code == 200
    elif way == "disabled":
        user = (await ann.get("/v1/me")).json()["id"]
        for disabled in (True, False):  # what she made herself comes back with her
            await admin.patch(f"/v1/users/{user}", json={"disabled": disabled})
    else:
        await ann.post("/v1/me/logout-everywhere", json={"api_tokens": True})
    looked = await cid.post("/v1/invitations/inspect", json={"token": left["invitation"]["token"]})
    assert (looked.status_code, looked.json()["code"]) == (410, "invitation_gone")
    assert await taken_up(world, left, cid) == GONE
    back = await world.again("ann")
    listed = (await back.get(f"/v1/orgs/{org}/invitations")).json()["items"]
    assert [one["id"] for one in listed] == [by_login["invitation"]["id"]]
    assert await taken_up(world, by_login, cid) == TAKEN
    assert (await bob.get(f"/v1/orgs/{org}")).json()["role"] == "member"


async def test_nothing_that_a_token_made_outlives_its_time(world: World, clock: FakeClock) -> None:
    ann, bob = await world.person("ann"), await world.person("bob")
    device = await world.enrol(ann)
    await world.node().connect(device)
    org = (await ann.get("/v1/orgs")).json()["items"][0]["id"]
    ends = rfc3339(clock.wall() + 600)
    made = await make(ann, "devices:write", "sites:write", "sessions", expires_at=ends)
    script = world.program(made["token"])
    offered = await offers(script, org)
    opened = (await script.post(f"/v1/devices/{device.id}/sessions", json={"duration_s": 3600})).json()
    short = (await script.post(f"/v1/devices/{device.id}/sessions", json={"duration_s": 60})).json()
    for one in (*offered.values(), opened):
        assert one["expires_at"] == ends
    assert short["expires_at"] < ends
    clock.advance(600)
    assert await taken_up(world, offered, bob) == {**GONE, "registration": "registration_token_expired"}
    assert (await ann.get("/v1/sessions")).json()["items"] == []


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

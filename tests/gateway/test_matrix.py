"""Every route × every kind of person, generated from the application's own table of routes.

A route that says no access, or that the stage below cannot call, fails here: none can be forgotten. What must
come out is what the one policy says, asked with the role that the person really has.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi.routing import APIRoute, APIWebSocketRoute

from gateway.api.app import ROUTERS
from gateway.api.credentials import ANYBODY, DEVICE
from gateway.policy.access import RULES, Action, Actor, Resource, Role, Staff, Verdict, judge
from gateway.policy.support import State
from gateway.randomness import digest, new_secret
from gateway.store import devices, invitations, places, support, users
from gateway.store.transaction import utc
from tests.gateway.world import Device as MadeDevice
from tests.gateway.world import World, open_session

PASSWORD = "a password of fifteen"


@dataclass(frozen=True)
class Persona:
    """Somebody to whom every route is shown; `role`: in the whole org of the stage."""

    name: str
    role: Role | None = None
    staff: Staff = Staff.USER


NOBODY = Persona("nobody")
OWNER = Persona("owner", Role.OWNER)
PERSONAS = (
    NOBODY,
    Persona("stranger"),
    Persona("staff-support", staff=Staff.SUPPORT),
    Persona("staff-admin", staff=Staff.ADMIN),
    Persona("support", Role.SUPPORT),
    Persona("member", Role.MEMBER),
    Persona("admin-of-site", Role.ADMIN),
    OWNER,
)


@dataclass(frozen=True)
class Call:
    """One request that would succeed for whoever may make it."""

    path: str
    body: dict[str, Any] | None = None


def routes() -> list[tuple[str, APIRoute]]:
    """(method, route) of everything public that is no page."""
    found = []
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIWebSocketRoute):  # has a route of its own that says 426, in this table
                continue
            assert isinstance(route, APIRoute)
            if route.include_in_schema:
                found += [(method, route) for method in sorted(route.methods or ())]
    return found


def access_of(route: APIRoute) -> str | None:
    return None if route.openapi_extra is None else route.openapi_extra.get("x-towline-access")


@pytest.mark.parametrize(("method", "route"), routes(), ids=lambda part: getattr(part, "path", part))
def test_every_route_says_who_may_call_it(method: str, route: APIRoute) -> None:
    assert access_of(route) in {ANYBODY, DEVICE, *Action}, f"{method} {route.path}: openapi_extra=acts(…)"


class Stage:
    """One org with a site, people of every kind, and fresh things to do something to."""

    def __init__(self, world: World, owner: httpx.AsyncClient) -> None:
        self.world, self.owner = world, owner
        self.clients: dict[str, httpx.AsyncClient] = {}
        self.actors: dict[str, Actor] = {}
        self.org = self.site = ""
        self.device: MadeDevice

    async def populate(self) -> Stage:
        home = (await self.owner.get("/v1/sites")).json()["items"][0]
        self.org, self.site = home["org_id"], home["id"]
        self.device = await self.world.enrol(self.owner)
        await self.world.node().connect(self.device)
        for persona in PERSONAS:
            await self._enter(persona)
        return self

    async def _enter(self, persona: Persona) -> None:
        if persona is NOBODY:
            self.clients[persona.name] = self.world.browser()
            return
        client = self.owner if persona is OWNER else await self.world.person(persona.name)
        user_id = UUID((await client.get("/v1/me")).json()["id"])
        async with self.world.gateway.parts.database.transaction() as tx:
            await users.set_staff(tx, user_id, persona.staff)
            if persona.role is not None:
                await places.put_membership(tx, self.org, None, user_id, persona.role)
        self.clients[persona.name] = client
        self.actors[persona.name] = Actor(user_id, persona.name, uuid4(), persona.staff)

    async def fresh_device(self, status: str) -> str:
        device_id = "d_" + "".join(secrets.choice("abcdefghijklmnop") for _ in range(16))
        async with self.world.gateway.parts.database.transaction() as tx:
            await devices.add(
                tx,
                device_id=device_id,
                site_id=self.site,
                name="Fresh",
                hardware_id=device_id,
                status=status,
                public_key=self.device.public_der,
                key_id=b"k" * 16,
                software="1",
            )
        return device_id

    async def fresh_user(self, role: Role | None = None) -> UUID:
        user_id = await self.world.add_user(f"user-{secrets.token_hex(6)}")
        if role is not None:
            async with self.world.gateway.parts.database.transaction() as tx:
                await places.put_membership(tx, self.org, None, user_id, role)
                await places.put_membership(tx, self.org, self.site, user_id, role)
        return user_id

    async def fresh_invitation(self, path: str) -> tuple[UUID, str]:
        token, owner = new_secret(), self.actors["owner"]
        async with self.world.gateway.parts.database.transaction() as tx:
            get = places.get_org if path.startswith("/v1/orgs/") else places.get_site
            place = await get(tx, self.org if path.startswith("/v1/orgs/") else self.site, owner.user_id)
            assert place is not None
            return await invitations.add(
                tx, place, Role.SUPPORT, owner, digest(token), utc(tx.now + 60)
            ), token

    async def fresh_session(self) -> tuple[str, str]:
        link = await open_session(self.owner, self.device)
        return link.session, link.token

    def place(self, path: str) -> str:
        return self.org if path.startswith("/v1/orgs/") else self.site


Prepare = Callable[[Stage, str], Awaitable[Call]]


def _with_body(body: dict[str, Any]) -> Prepare:
    async def prepare(stage: Stage, path: str) -> Call:
        known = {"org_id": stage.org, "site_id": stage.site, "device_id": stage.device.id}
        return Call(path.format(**known, place_id=stage.place(path)), body)

    return prepare


async def _of_fresh_device(stage: Stage, path: str) -> Call:
    return Call(path.format(device_id=await stage.fresh_device("pending")))


async def _token(stage: Stage, path: str) -> Call:
    return Call(path, {"site_id": stage.site})


async def _member(stage: Stage, path: str) -> Call:
    return Call(
        path.format(place_id=stage.place(path), user_id=await stage.fresh_user(Role.MEMBER)),
        {"role": "support"},
    )


async def _invitation(stage: Stage, path: str) -> Call:
    invitation_id, _ = await stage.fresh_invitation(path)
    return Call(path.format(place_id=stage.place(path), invitation_id=invitation_id))


async def _invitation_token(stage: Stage, path: str) -> Call:
    # To a new org each time, so that whoever accepts it is nobody there yet.
    made = (await stage.owner.post("/v1/orgs", json={"name": "Other"})).json()["id"]
    answer = await stage.owner.post(f"/v1/orgs/{made}/invitations", json={"role": "support"})
    return Call(path, {"token": answer.json()["token"]})


async def _new_site(stage: Stage, path: str) -> Call:
    made = await stage.owner.post(f"/v1/orgs/{stage.org}/sites", json={"name": "Fresh"})
    return Call(path.format(site_id=made.json()["id"]))


async def _session(stage: Stage, path: str) -> Call:
    return Call(path.format(session_id=(await stage.fresh_session())[0]))


async def _link(stage: Stage, path: str) -> Call:
    return Call(path, {"token": (await stage.fresh_session())[1]})


async def _command(stage: Stage, path: str) -> Call:
    device_id = await stage.fresh_device("approved")
    sent = await stage.owner.post(f"/v1/devices/{device_id}/commands", json={"name": "ping"})
    return Call(path.format(command_id=sent.json()["id"]))


async def _device_to_command(stage: Stage, path: str) -> Call:
    return Call(path.format(device_id=await stage.fresh_device("approved")), {"name": "ping"})


async def _new_configuration(stage: Stage, path: str) -> Call:
    device_id = await stage.fresh_device("approved")
    return Call(path.format(device_id=device_id), {"body": {"log_level": "debug"}})


async def _device_type(stage: Stage, path: str) -> Call:
    changed = {"name": f"Device {secrets.token_hex(4)}", "capabilities": {"commands": {}}}
    return Call(path.format(type_id="generic"), changed)


async def _ask(stage: Stage, path: str) -> Call:
    return Call(path.format(device_id=await stage.fresh_device("approved")), {"reason": "E42"})


async def _support_request(stage: Stage, path: str) -> Call:
    """Pending; asked by somebody who is none of the personas."""
    device_id, engineer = await stage.fresh_device("approved"), await stage.fresh_user()
    async with stage.world.gateway.parts.database.transaction() as tx:
        asked = await support.add(
            tx,
            device_id=device_id,
            site_id=stage.site,
            engineer_id=engineer,
            reason="E42",
            duration_s=600,
        )
        if path.endswith("/end"):
            until = utc(tx.now + 600)
            await support.decide(tx, asked, State.APPROVED, stage.actors["owner"].user_id, until)
    return Call(path.format(request_id=asked), {})


async def _user(stage: Stage, path: str) -> Call:
    return Call(path.format(user_id=await stage.fresh_user()), {"disabled": True})


async def _new_user(stage: Stage, path: str) -> Call:
    return Call(path, {"username": f"new-{secrets.token_hex(6)}", "password": PASSWORD})


async def _successor(stage: Stage, path: str) -> Call:
    """Of somebody who is shut out."""
    user_id = await stage.fresh_user()
    async with stage.world.gateway.parts.database.transaction() as tx:
        await users.set_disabled(tx, user_id, disabled=True)
    return Call(path.format(user_id=user_id), {"user_id": str(await stage.fresh_user())})


async def _events(stage: Stage, path: str) -> Call:
    return Call(f"{path}?wait_s=0")


async def _dead_letters(stage: Stage, path: str) -> Call:
    return Call(f"{path}?site_id={stage.site}")


async def _hardware_id(stage: Stage, path: str) -> Call:
    return Call(path, {"hardware_id": await stage.fresh_device("approved"), "reason": "Not theirs"})


# How to call what needs more than ids of the stage. A route that is missing here is called without a body.
PREPARED: dict[str, Prepare] = {
    "GET /v1/events": _events,
    "GET /v1/dead-letters": _dead_letters,
    "POST /v1/registration-tokens": _token,
    "POST /v1/hardware-ids/free": _hardware_id,
    "POST /v1/devices/{device_id}/approve": _of_fresh_device,
    "POST /v1/devices/{device_id}/reject": _of_fresh_device,
    "POST /v1/devices/{device_id}/revoke": _of_fresh_device,
    "POST /v1/devices/{device_id}/sessions": _with_body({}),
    "POST /v1/devices/{device_id}/commands": _device_to_command,
    "GET /v1/commands/{command_id}": _command,
    "GET /v1/device-types/{type_id}": _device_type,
    "PUT /v1/device-types/{type_id}": _device_type,
    "PATCH /v1/devices/{device_id}": _with_body({"name": "Renamed"}),
    "PUT /v1/devices/{device_id}/configuration": _new_configuration,
    "DELETE /v1/sessions/{session_id}": _session,
    "POST /v1/devices/{device_id}/support-requests": _ask,
    "GET /v1/support-requests/{request_id}": _support_request,
    "POST /v1/support-requests/{request_id}/approve": _support_request,
    "POST /v1/support-requests/{request_id}/refuse": _support_request,
    "POST /v1/support-requests/{request_id}/end": _support_request,
    "GET /v1/support-requests/{request_id}/log": _support_request,
    "POST /v1/links/inspect": _link,
    "POST /v1/links/code": _link,
    "POST /v1/me/api-tokens": _with_body({"name": "script", "scopes": ["devices:read"]}),
    "POST /v1/orgs": _with_body({"name": "New"}),
    "PATCH /v1/orgs/{org_id}": _with_body({"name": "Renamed"}),
    "POST /v1/orgs/{org_id}/sites": _with_body({"name": "Works"}),
    "PATCH /v1/sites/{site_id}": _with_body({"name": "Renamed"}),
    "DELETE /v1/sites/{site_id}": _new_site,
    "PATCH /v1/orgs/{place_id}/members/{user_id}": _member,
    "PATCH /v1/sites/{place_id}/members/{user_id}": _member,
    "DELETE /v1/orgs/{place_id}/members/{user_id}": _member,
    "DELETE /v1/sites/{place_id}/members/{user_id}": _member,
    "POST /v1/orgs/{place_id}/invitations": _with_body({"role": "member"}),
    "POST /v1/sites/{place_id}/invitations": _with_body({"role": "member"}),
    "DELETE /v1/orgs/{place_id}/invitations/{invitation_id}": _invitation,
    "DELETE /v1/sites/{place_id}/invitations/{invitation_id}": _invitation,
    "POST /v1/invitations/inspect": _invitation_token,
    "POST /v1/invitations/accept": _invitation_token,
    "POST /v1/users": _new_user,
    "GET /v1/users/{user_id}/orgs": _user,
    "POST /v1/users/{user_id}/successor": _successor,
    "GET /v1/users/{user_id}": _user,
    "PATCH /v1/users/{user_id}": _user,
}
# About one's own account: whose it is follows from who asks, and most would end the persona. Here only nobody
# tries them; their own tests show what they do.
OF_ONESELF = {
    "POST /v1/logout",
    "POST /v1/me/logout-everywhere",
    "DELETE /v1/me/logins",
    "DELETE /v1/me/logins/{login_id}",
    "DELETE /v1/me/api-tokens/{token_id}",
}
# A form behind a page, with its own table of who and what: tests/gateway/test_native_apps.py.
FORMS = {"POST /v1/oauth/authorize"}


GOOD = frozenset({200, 201, 202, 204})
# What these answer to somebody who may, too: here alone a positive verdict need not end in a success.
OTHERWISE = {
    "GET /v1/events/ws": 426,  # no WebSocket's handshake
    "DELETE /v1/orgs/{org_id}": 409,  # it has sites
    "POST /v1/invitations/accept": 409,  # the owner, who invites, is a member already
}


def good(key: str) -> frozenset[int]:
    """Statuses that say that the caller was allowed."""
    return GOOD | ({OTHERWISE[key]} if key in OTHERWISE else set())


async def call_of(stage: Stage, key: str, path: str) -> Call:
    """One that would succeed: `key` is "METHOD /path", `path` the route's."""
    prepare = PREPARED.get(key, _with_body({}) if key.startswith("GET ") else None)
    assert prepare is not None or "{" not in re.sub(r"\{(org|site|device|place)_id\}", "", path), (
        f"{key}: say in PREPARED how it is called"
    )
    return await (prepare or _with_body({}))(stage, path)


def expected(stage: Stage, persona: Persona, action: Action, key: str) -> frozenset[int]:
    """Statuses that the policy's verdict may be told as."""
    if persona is NOBODY:
        return frozenset({401})
    rule = RULES[action]
    mine = rule.mine and persona is OWNER and "support" not in key
    resource: Resource | None = Resource(persona.role, mine=mine)
    if not (rule.roles or rule.mine) or (rule.mine and not rule.roles and persona is not OWNER):
        resource = None
    verdict = judge(stage.actors[persona.name], action, resource)
    if verdict is Verdict.ALLOWED:
        return good(key)
    return frozenset({403 if verdict is Verdict.FORBIDDEN else 404})


@pytest.fixture
async def stage(world: World) -> Stage:
    return await Stage(world, await world.person("owner")).populate()


async def test_every_route_and_every_person(stage: Stage) -> None:
    wrong, tried = [], 0
    for method, route in routes():
        access, key = access_of(route), f"{method} {route.path}"
        if access in {ANYBODY, DEVICE, None} or key in FORMS:
            continue
        if key in OF_ONESELF:
            path = re.sub(r"\{\w+\}", str(uuid4()), route.path)
            answer = await stage.clients["nobody"].request(method, path)
            if answer.status_code != 401:
                wrong.append(f"{key} by nobody: {answer.status_code}")
            continue
        for persona in PERSONAS:
            call = await call_of(stage, key, route.path)
            client = stage.clients[persona.name]
            answer = await client.request(method, call.path, json=None if method == "GET" else call.body)
            wanted = expected(stage, persona, Action(str(access)), key)
            tried += 1
            if answer.status_code not in wanted:
                wrong.append(
                    f"{key} by {persona.name}: {answer.status_code} {answer.text[:90]}, not {wanted}"
                )
    assert not wrong, "\n".join(wrong)
    assert tried >= 8 * 30


async def test_what_is_somebody_elses_looks_like_what_is_not_there(stage: Stage) -> None:
    """Byte for byte, so that ids cannot be tried out."""
    stranger = stage.clients["stranger"]
    for path, unknown in (
        (f"/v1/devices/{stage.device.id}", "/v1/devices/d_aaaaaaaaaaaaaaaa"),
        (f"/v1/sites/{stage.site}", "/v1/sites/s_aaaaaaaaaaaaaaaa"),
        (f"/v1/orgs/{stage.org}", "/v1/orgs/o_aaaaaaaaaaaaaaaa"),
    ):
        theirs, nobodys = await stranger.get(path), await stranger.get(unknown)
        assert (
            (theirs.status_code, theirs.content)
            == (nobodys.status_code, nobodys.content)
            == (404, theirs.content)
        )

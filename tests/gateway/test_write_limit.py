"""What one person may write: by all logins and tokens together, at all gateways; never kept from ending."""

from __future__ import annotations

import httpx

from gateway.api.app import documented_routes
from gateway.api.limits import WRITES_BURST_S, writes_per_person
from runtime.clock import FakeClock
from tests.gateway.world import ADMIN_PASSWORD, Device, World, open_session

# Only looks, or takes away what was made before, and that once: written out by hand.
FREES = {
    "POST /v1/logout",
    "POST /v1/me/logout-everywhere",
    "POST /v1/devices/{device_id}/reject",
    "POST /v1/devices/{device_id}/revoke",
    "PATCH /v1/users/{user_id}",
    "POST /v1/links/inspect",
    "POST /v1/invitations/inspect",
    "POST /v1/support-requests/{request_id}/refuse",
    "POST /v1/support-requests/{request_id}/end",
}


def test_what_does_not_count_is_written_out() -> None:
    """A route that is marked by mistake would write without end."""
    marked = {
        f"{method} {route.path}"
        for route in documented_routes()
        for method in route.methods or ()
        if "x-towline-frees" in (route.openapi_extra or {})
    }
    assert marked == FREES


async def id_of(person: httpx.AsyncClient) -> str:
    return str((await person.get("/v1/me")).json()["id"])


async def leave(world: World, person: httpx.AsyncClient, left: int) -> None:
    """Use the person's writes up to so many."""
    limit, user = writes_per_person(world.settings), await id_of(person)
    store = world.gateway.parts.shortlived
    there = (await store.take([(limit, user)])).standings[0].remaining
    taken = await store.take([(limit, user)] * (there - left))
    assert taken.standings[-1].remaining == left


async def lines(world: World) -> int:
    async with world.gateway.parts.database.transaction() as tx:
        return int(await tx.fetchval("SELECT count(*) FROM audit_events"))


async def rename(person: httpx.AsyncClient, device: Device, name: str) -> httpx.Response:
    return await person.patch(f"/v1/devices/{device.id}", json={"name": name})


async def test_one_persons_clients_share_one_limit(world: World, clock: FakeClock) -> None:
    ann, bob = await world.person("ann"), await world.person("bob")
    device, bobs = await world.enrol(ann), await world.enrol(bob)
    made = await ann.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:write"]})
    body = {"username": "ann", "password": ADMIN_PASSWORD}
    app = (await world.program().post("/v1/login", json=body)).json()["access_token"]
    await leave(world, ann, 4)
    # Another limit is asked behind it, and has more left: the tightest is told.
    token = await ann.post("/v1/registration-tokens", json={})
    assert (token.status_code, token.headers["ratelimit"].split(";t=")[0]) == (201, '"writes";r=3')
    burst = world.settings.writes_per_person_s * WRITES_BURST_S
    assert token.headers["ratelimit-policy"] == f'"writes";q={burst};w={WRITES_BURST_S}'
    clients = (await world.again("ann"), world.program(app), world.program(made.json()["token"]))
    for left, client in zip((2, 1, 0), clients, strict=True):
        answer = await rename(client, device, f"Left {left}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["ratelimit"].startswith(f'"writes";r={left};t=')
    before = await lines(world)
    for client in (ann, *clients):
        for refused in (await rename(client, device, "Late"), await client.post("/v1/orgs", json={})):
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
            assert refused.headers["retry-after"] == "1"
            assert refused.headers["ratelimit"] == f'"writes";r=0;t={WRITES_BURST_S}'
    assert await lines(world) == before
    assert (await ann.get(f"/v1/devices/{device.id}")).json()["name"] == "Left 0"
    assert (await rename(bob, bobs, "Bob's")).status_code == 200
    clock.advance(1 / world.settings.writes_per_person_s)
    assert [(await rename(ann, device, f"Later {n}")).status_code for n in range(2)] == [200, 429]


async def test_who_wrote_too_much_still_ends_things(world: World) -> None:
    """A thief with one of the person's tokens cannot keep them from taking it away."""
    ann = await world.person("ann")
    device, pending = await world.enrol(ann), await world.enrol(ann, approve=False)
    await world.node().connect(device)
    session = (await open_session(ann, device)).session
    token = (await ann.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:write"]})).json()
    await leave(world, ann, 0)
    assert (await rename(ann, device, "Late")).status_code == 429
    for ended in (
        await ann.delete(f"/v1/sessions/{session}"),
        await ann.delete(f"/v1/me/api-tokens/{token['id']}"),
        await ann.post(f"/v1/devices/{device.id}/revoke"),
        await ann.post(f"/v1/devices/{pending.id}/reject"),
        await ann.post("/v1/me/logout-everywhere", json={"api_tokens": True}),
    ):
        assert ended.status_code in {200, 204}, ended.text


async def test_who_is_not_in_any_more_uses_nobodys_writes_up(world: World) -> None:
    ann = await world.person("ann")
    device = await world.enrol(ann)
    body = {"username": "ann", "password": ADMIN_PASSWORD}
    stolen = world.program((await world.program().post("/v1/login", json=body)).json()["access_token"])
    assert (await stolen.post("/v1/logout")).status_code == 204
    await leave(world, ann, 1)
    for _ in range(5):
        assert (await rename(stolen, device, "Mine")).status_code == 401
    assert (await rename(ann, device, "Still hers")).status_code == 200


async def test_an_administrator_who_wrote_too_much_still_shuts_out(world: World) -> None:
    """A found token of theirs, whatever it may, uses their writes up and saves nobody."""
    admin, mallory = await world.person(), await world.person("mallory")
    await leave(world, admin, 0)
    answer = await admin.patch(f"/v1/users/{await id_of(mallory)}", json={"disabled": True})
    assert answer.status_code == 200, answer.text
    assert (await mallory.get("/v1/me")).status_code == 401

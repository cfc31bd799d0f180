"""ETags, and creations that are sent again."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any
from uuid import UUID

import httpx
import pytest

from gateway.general_limit import BURST_S
from gateway.store import idempotency, upkeep
from runtime.clock import FakeClock
from tests.gateway.world import Device, World, open_session

PASSWORD = "a password of fifteen"


def new_key() -> dict[str, str]:
    return {"idempotency-key": secrets.token_hex(16)}


async def stage(world: World) -> tuple[httpx.AsyncClient, dict[str, tuple[str, dict[str, Any]]]]:
    """The administrator, and every creation that takes a key: its path and body."""
    admin, node = await world.person(), world.node()
    device = await world.enrol(admin)
    await node.connect(device)
    home = (await admin.get("/v1/sites")).json()["items"][0]
    asked = await supported(world, admin)
    return admin, {
        "org": ("/v1/orgs", {"name": "New"}),
        "site": (f"/v1/orgs/{home['org_id']}/sites", {"name": "Works"}),
        "registration token": ("/v1/registration-tokens", {"approve": True}),
        "session": (f"/v1/devices/{device.id}/sessions", {"binding": "click"}),
        "command": (f"/v1/devices/{device.id}/commands", {"name": "ping"}),
        "invitation": (f"/v1/sites/{home['id']}/invitations", {"role": "member"}),
        "api token": ("/v1/me/api-tokens", {"name": "script", "scopes": ["devices:read"]}),
        "user": ("/v1/users", {"username": "somebody", "password": PASSWORD}),
        "support request": (f"/v1/devices/{asked.id}/support-requests", {"reason": "E42"}),
    }


async def supported(world: World, engineer: httpx.AsyncClient) -> Device:
    """A device of somebody else, at whose site `engineer` has the role of support."""
    owner = await world.person("olga")
    place = (await owner.get("/v1/sites")).json()["items"][0]["id"]
    invited = await owner.post(f"/v1/sites/{place}/invitations", json={"role": "support"})
    joined = await engineer.post("/v1/invitations/accept", json={"token": invited.json()["token"]})
    assert joined.status_code == 200, joined.text
    return await world.enrol(owner)


COUNTED = (
    "orgs",
    "sites",
    "registration_tokens",
    "sessions",
    "commands",
    "invitations",
    "api_tokens",
    "users",
    "support_requests",
)


async def things(world: World) -> dict[str, int]:
    async with world.gateway.parts.database.transaction() as tx:
        return {name: await tx.fetchval(f"SELECT count(*) FROM {name}") for name in COUNTED}


async def test_these_are_all_that_take_a_key(world: World) -> None:
    """Those of the document; an invitation's two kinds of places are one."""
    admin, creations = await stage(world)
    taking = {
        re.sub(r"\{\w+\}", "{}", path.replace("/v1/orgs/{place_id}/", "/v1/sites/{place_id}/"))
        for path, one in (await admin.get("/v1/openapi.json")).json()["paths"].items()
        for operation in one.values()
        if "idempotency-key" in {str(p["name"]).lower() for p in operation.get("parameters", ())}
    }
    assert taking == {re.sub(r"/[dso]_[a-z2-7]{16}(?=/|$)", "/{}", path) for path, _ in creations.values()}


async def test_a_creation_that_is_sent_again_makes_nothing_twice(world: World) -> None:
    admin, creations = await stage(world)
    second = await (await World(world.settings, world.clock, world.folder).start()).prepared()
    try:
        there = second.browser()
        there.cookies = admin.cookies
        for name, (path, body) in creations.items():
            before, key = await things(world), new_key()
            first = await admin.post(path, json=body, headers=key)
            status = 202 if name == "command" else 201  # nobody has done it yet
            assert first.status_code == status, (name, first.text)
            assert "idempotency-replayed" not in first.headers
            made = await things(world)
            assert made != before, name
            again = await there.post(path, json=body, headers=key)
            assert (again.status_code, again.json()) == (status, first.json()), name
            assert again.headers["idempotency-replayed"] == "true"
            assert await things(world) == made, name
            other = {**body, "name": "Other"} if "name" in body else {**body, "role": "support"}
            if name in {"org", "site", "api token", "invitation"}:
                reused = await there.post(path, json=other, headers=key)
                assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
                assert await things(world) == made, name
    finally:
        await second.close()


async def test_two_at_once_on_two_gateways_make_one(world: World) -> None:
    admin, creations = await stage(world)
    second = await (await World(world.settings, world.clock, world.folder).start()).prepared()
    try:
        there = second.browser()
        there.cookies = admin.cookies
        path, body = creations["org"]
        for _ in range(10):
            before, key = (await things(world))["orgs"], new_key()
            answers = await asyncio.gather(
                *(client.post(path, json=body, headers=key) for client in (admin, there) * 3)
            )
            assert {answer.status_code for answer in answers} <= {201, 409}
            made = {answer.json()["id"] for answer in answers if answer.status_code == 201}
            assert len(made) == 1
            for answer in answers:
                if answer.status_code == 409:
                    assert answer.json()["code"] == "idempotency_key_in_use"
                    assert answer.headers["retry-after"] == "1"
            assert (await things(world))["orgs"] == before + 1
    finally:
        await second.close()


async def test_while_the_first_is_not_done_the_second_is_told_so(world: World) -> None:
    admin, creations = await stage(world)
    path, body = creations["org"]
    key = new_key()
    first = await admin.post(path, json=body, headers=key)
    async with world.gateway.parts.database.transaction() as tx:
        lookup: bytes = await tx.fetchval("SELECT lookup FROM idempotency_keys")
        assert await idempotency.hold(tx, lookup)  # as a request under way does
        held = await admin.post(path, json=body, headers=key)
        assert (held.status_code, held.json()["code"]) == (409, "idempotency_key_in_use")
    assert (await admin.post(path, json=body, headers=key)).json() == first.json()


async def test_keys_are_ones_own_and_fall_with_the_right(world: World) -> None:
    admin, creations = await stage(world)
    other = await world.person("other")
    key = new_key()
    mine = await admin.post("/v1/orgs", json={"name": "Mine"}, headers=key)
    theirs = await other.post("/v1/orgs", json={"name": "Mine"}, headers=key)
    assert theirs.json()["id"] != mine.json()["id"]
    path, body = creations["user"]
    assert (await other.post(path, json=body, headers=key)).status_code == 403


async def test_the_store_alone_opens_no_secret(world: World) -> None:
    admin, creations = await stage(world)
    key = new_key()
    path, body = creations["api token"]
    secret = (await admin.post(path, json=body, headers=key)).json()["token"]
    async with world.gateway.parts.database.transaction() as tx:
        rows = await tx.fetch("SELECT * FROM idempotency_keys")
    (row,) = rows
    held = b"".join(bytes(row[name]) for name in ("lookup", "request", "sealed"))
    assert secret.encode() not in held
    assert key["idempotency-key"].encode() not in held


async def test_keys_are_forgotten_after_a_day_and_refused_when_they_are_none(
    world: World, clock: FakeClock
) -> None:
    admin, _ = await stage(world)
    key = new_key()
    first = (await admin.post("/v1/orgs", json={"name": "A"}, headers=key)).json()["id"]
    for wrong in ("short", "x" * 129, "with blanks in between"):
        answer = await admin.post("/v1/orgs", json={"name": "A"}, headers={"idempotency-key": wrong})
        assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")
    clock.advance(25 * 3600)
    async with world.gateway.parts.database.transaction() as tx:
        await upkeep.run(tx)
    admin = await world.person()
    assert (await admin.post("/v1/orgs", json={"name": "A"}, headers=key)).json()["id"] != first


async def tagged_things(world: World) -> tuple[httpx.AsyncClient, dict[str, dict[str, Any]]]:
    admin = await world.person()
    device = await world.enrol(admin)
    home = (await admin.get("/v1/sites")).json()["items"][0]
    user = await world.add_user("somebody")
    return admin, {
        f"/v1/devices/{device.id}": {"name": "Other"},
        f"/v1/sites/{home['id']}": {"name": "Other"},
        f"/v1/orgs/{home['org_id']}": {"name": "Other"},
        f"/v1/users/{user}": {"role": "support"},
    }


async def test_a_change_of_what_has_changed_is_refused(world: World) -> None:
    admin, writable = await tagged_things(world)
    for path, change in writable.items():
        seen = (await admin.get(path)).headers["etag"]
        changed = await admin.patch(path, json=change, headers={"if-match": seen})
        assert changed.status_code == 200, changed.text
        now = changed.headers["etag"]
        assert now != seen
        assert (await admin.get(path)).headers["etag"] == now, path
        before = (await admin.get(path)).json()
        late = await admin.patch(path, json={**change, **later(change)}, headers={"if-match": seen})
        assert (late.status_code, late.json()["code"]) == (412, "version_conflict"), path
        assert (await admin.get(path)).json() == before
        for good in ("*", now, f"{seen}, {now}", f"W/{now}"):
            assert (await admin.patch(path, json={}, headers={"if-match": good})).status_code in {200, 422}
        assert (await admin.patch(path, json=change)).status_code == 200  # left out: the last write wins
        for wrong in ("x", '"', "1.2", '"1.x'):
            answer = await admin.patch(path, json=change, headers={"if-match": wrong})
            assert (answer.status_code, answer.json()["field"]) == (422, "If-Match")
        foreign = await admin.patch(path, json=change, headers={"if-match": '"made-elsewhere"'})
        assert foreign.status_code == 412
    org = next(path for path in writable if "/orgs/" in path)
    assert (await admin.delete(org, headers={"if-match": '"1.0123456789abcdef"'})).status_code == 412


def later(change: dict[str, Any]) -> dict[str, Any]:
    return {"name": "Late"} if "name" in change else {"role": "admin"}


async def test_what_is_known_is_not_sent_again(world: World) -> None:
    admin, writable = await tagged_things(world)
    for path in writable:
        first = await admin.get(path)
        known = await admin.get(path, headers={"if-none-match": first.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
        assert known.headers["etag"] == first.headers["etag"]
        assert "no-cache" in first.headers["cache-control"]
        other = await admin.get(path, headers={"if-none-match": '"1.0123456789abcdef"'})
        assert other.status_code == 200
        head = await admin.head(path)
        assert head.headers["etag"] == first.headers["etag"]


async def test_presence_changes_the_tag_and_not_the_version(world: World) -> None:
    admin, node = await world.person(), world.node()
    device = await world.enrol(admin)
    path = f"/v1/devices/{device.id}"
    seen = (await admin.get(path)).headers["etag"]
    await node.connect(device)
    online = await admin.get(path, headers={"if-none-match": seen})
    assert (online.status_code, online.json()["online"]) == (200, True)
    assert (await admin.patch(path, json={"name": "Y"}, headers={"if-match": seen})).status_code == 200


@pytest.mark.parametrize("by", ["login", "token"])
async def test_one_client_cannot_take_the_whole_gateway(world: World, clock: FakeClock, by: str) -> None:
    client, other = await world.person(), await world.person("other")
    if by == "token":
        made = await client.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:read"]})
        client = world.program(made.json()["token"])
    burst = world.settings.requests_per_login_s * BURST_S
    first = await client.get("/v1/devices")
    assert first.headers["ratelimit-policy"] == f'"requests";q={burst};w={BURST_S}'
    left = int(first.headers["ratelimit"].split(";r=")[1].split(";")[0])
    statuses = set()
    for _ in range(0, left, 50):
        answers = await asyncio.gather(*(client.get("/v1/devices") for _ in range(50)))
        statuses |= {answer.status_code for answer in answers}
    assert statuses <= {200, 429}
    refused = await client.get("/v1/devices")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert int(refused.headers["retry-after"]) == 1
    assert (await other.get("/v1/devices")).status_code == 200
    clock.advance(1)
    assert (await client.get("/v1/devices")).status_code == 200


async def test_a_session_opened_twice_by_a_lost_answer_is_one(world: World) -> None:
    admin, node = await world.person(), world.node()
    device = await world.enrol(admin)
    await node.connect(device)
    key = new_key()
    path = f"/v1/devices/{device.id}/sessions"
    first, again = [(await admin.post(path, json={}, headers=key)).json() for _ in range(2)]
    assert first == again
    assert UUID(first["id"])
    other = await open_session(admin, device)
    assert other.session != first["id"]

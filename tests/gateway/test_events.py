"""Live events: who is told what, going on after a loss without a gap, and streams that end when they must."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway import event_watch
from gateway.policy.access import RULES, Role
from gateway.policy.live import KINDS, OF_AUDIT, Change
from gateway.store import events, places
from gateway.store.people import SEEN_EVERY_S
from runtime.clock import FakeClock
from tests.gateway.test_claims import claim_as, new_token
from tests.gateway.test_places import home, join
from tests.gateway.world import ORIGIN, World, open_session, settings_for

PATIENCE_S = 10.0
ENDS_WITHIN_S = 2.0


class Follower:
    """Reads a stream of server-sent events."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()
        self.last_id = ""

    async def next(self) -> dict[str, Any]:
        """The next event; a heartbeat is none, but its id counts."""
        data = None
        async with asyncio.timeout(PATIENCE_S):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "data":
                    data = json.loads(value)
                elif not line and data is not None:
                    return dict(data)
        raise EOFError

    async def until(self, kind: str) -> dict[str, Any]:
        while (event := await self.next())["kind"] != kind:
            continue
        return event


@asynccontextmanager
async def following(client: httpx.AsyncClient, after: str | int | None = None) -> AsyncIterator[Follower]:
    headers = {} if after is None else {"last-event-id": str(after)}
    async with client.stream("GET", "/v1/events", headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        follower = Follower(answer)
        first = await follower.next()
        assert first["kind"] in {"ready", "reset"}
        yield follower


async def put_role(world: World, client: httpx.AsyncClient, org: str, role: Role) -> str:
    user = (await client.get("/v1/me")).json()["id"]
    async with world.gateway.parts.database.transaction() as tx:
        await places.put_membership(tx, org, None, UUID(user), role)
    return str(user)


async def test_a_devices_day_is_told_to_its_people_and_nobody_else(world: World, clock: FakeClock) -> None:
    owner, stranger, node = await world.person(), await world.person("stranger"), world.node()
    async with following(owner) as told, following(stranger) as untold:
        device = await world.enrol(owner)
        assert (await told.next())["kind"] == "device.enrolled"
        assert (await told.next())["kind"] == "device.changed"  # approved
        await node.connect(device)
        online = await told.next()
        assert (online["kind"], online["device_id"]) == ("device.online", device.id)
        await owner.patch(f"/v1/devices/{device.id}", json={"name": "New"})
        assert (await told.next())["kind"] == "device.changed"
        link = await open_session(owner, device)
        begun = await told.next()
        assert (begun["kind"], begun["ref"]) == ("session.begun", link.session)
        await owner.delete(f"/v1/sessions/{link.session}")
        ended = await told.next()
        assert (ended["kind"], ended["ref"]) == ("session.ended", link.session)
        clock.advance(20)  # its node falls silent
        assert (await told.next())["kind"] == "device.offline"
        await node.report()  # and is heard again
        assert (await told.next())["kind"] == "device.online"
        await node.report(node.event(device, state="disconnected"))
        assert (await told.next())["kind"] == "device.offline"
        assert set(online) == {"id", "kind", "at", "org_id", "site_id", "device_id", "user_id", "ref"}
        mine = (await stranger.post("/v1/orgs", json={"name": "Mine"})).json()["id"]
        first = await untold.next()
        assert (first["kind"], first["org_id"]) == ("org.changed", mine)


async def test_who_comes_back_misses_nothing_and_hears_nothing_twice(world: World) -> None:
    """While five write at once, and the follower leaves and returns, to another gateway as well."""
    owner = await world.person()
    site = (await owner.get("/v1/sites")).json()["items"][0]["id"]
    second = await World(world.settings, world.clock, world.folder).start()
    await second.prepared()
    there = second.browser()
    there.cookies = owner.cookies
    async with following(owner) as told:
        start = last = int(told.last_id)
    names = 60

    async def rename(writer: int) -> None:
        for turn in range(names // 5):
            client = owner if turn % 2 else there
            answer = await client.patch(f"/v1/sites/{site}", json={"name": f"{writer}-{turn}"})
            assert answer.status_code == 200

    seen: list[int] = []

    async def follow() -> None:
        nonlocal last
        while len(seen) < names:
            async with following(there if len(seen) % 2 else owner, last) as told:
                for _ in range(7):
                    if len(seen) < names:
                        seen.append((await told.next())["id"])
                        last = seen[-1]

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(follow())
            for writer in range(5):
                tasks.create_task(rename(writer))
        assert seen == list(range(start + 1, start + names + 1))
    finally:
        await second.close()


async def test_roles_hold_on_streams_that_run(world: World) -> None:
    owner, guest = await world.person(), await world.person("guest")
    home = (await owner.get("/v1/sites")).json()["items"][0]
    invitation = await owner.post(f"/v1/sites/{home['id']}/invitations", json={"role": "member"})
    user = (await guest.get("/v1/me")).json()["id"]
    async with following(guest) as told:
        await guest.post("/v1/invitations/accept", json={"token": invitation.json()["token"]})
        assert (await told.next())["kind"] == "member.changed"
        await owner.patch(f"/v1/sites/{home['id']}", json={"name": "Works"})
        assert (await told.next())["kind"] == "site.changed"
        await owner.delete(f"/v1/sites/{home['id']}/members/{user}")
        await owner.patch(f"/v1/sites/{home['id']}", json={"name": "Secret"})
        gone = await told.next()
        assert (gone["kind"], gone["user_id"]) == ("member.changed", user)
        mine = (await guest.post("/v1/orgs", json={"name": "Mine"})).json()["id"]
        after = await told.next()  # and nothing of the site in between
        assert (after["kind"], after["org_id"]) == ("org.changed", mine)


async def test_a_stream_ends_with_its_login_or_token(world: World) -> None:
    admin = await world.person()
    worst = 0.0
    for how in ("logout", "elsewhere", "disabled", "api token"):
        client = await world.person(f"p-{how.replace(' ', '-')}")
        user = (await client.get("/v1/me")).json()["id"]
        made = await client.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:read"]})
        token = made.json()
        follower = world.program(token["token"]) if how == "api token" else client
        async with following(follower) as told:
            began = time.monotonic()
            match how:
                case "logout":
                    await client.post("/v1/logout")
                case "elsewhere":
                    await client.post("/v1/me/logout-everywhere")
                case "disabled":
                    await admin.patch(f"/v1/users/{user}", json={"disabled": True})
                case _:
                    await client.delete(f"/v1/me/api-tokens/{token['id']}")
            end = await told.until("end")
            assert end["code"] == "login_ended"
            with pytest.raises(EOFError):
                await told.next()
            worst = max(worst, time.monotonic() - began)
        assert (await follower.get("/v1/events?wait_s=0")).status_code == 401
    assert worst <= ENDS_WITHIN_S


async def test_what_cannot_be_gone_on_from_starts_over(world: World, clock: FakeClock) -> None:
    owner = await world.person()
    await owner.post("/v1/orgs", json={"name": "One"})
    for after, kind in (("0", "ready"), ("999999", "reset")):
        answer = await owner.get("/v1/events?wait_s=0", headers={"last-event-id": after})
        assert f"event: {kind}\n" in answer.text
    assert "org.changed" in (await owner.get("/v1/events?wait_s=0&after=0")).text
    assert "org.changed" not in (await owner.get("/v1/events?wait_s=0")).text
    clock.advance(events.KEPT_S + 60)
    owner = await world.person()
    async with world.gateway.parts.database.transaction() as tx:
        assert await events.prune(tx) >= 1
        assert await tx.fetchval("SELECT count(*) FROM events") == 0
    answer = await owner.get("/v1/events?wait_s=0&after=0")
    assert "event: reset\n" in answer.text
    for wrong in ("x", "-1", "1e3", "9" * 30):
        answer = await owner.get("/v1/events?wait_s=0", headers={"last-event-id": wrong})
        assert (answer.status_code, answer.json()["field"]) == (422, "Last-Event-ID")
        assert (await owner.get(f"/v1/events?wait_s=0&after={wrong}")).status_code == 422


async def test_streams_of_one_person_are_bounded(world: World) -> None:
    owner, other = await world.person(), await world.person("other")
    async with asyncio.timeout(PATIENCE_S):
        streams = [owner.stream("GET", "/v1/events") for _ in range(event_watch.STREAMS_PER_PERSON)]
        opened = [await one.__aenter__() for one in streams]
        assert {answer.status_code for answer in opened} == {200}
        refused = await owner.get("/v1/events")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert (await other.get("/v1/events?wait_s=0")).status_code == 200
        for one in streams:
            await one.__aexit__(None, None, None)
        while (await owner.get("/v1/events?wait_s=0")).status_code != 200:
            continue


async def test_many_streams_at_once_are_no_more(world: World) -> None:
    owner = await world.person()
    most = event_watch.STREAMS_PER_PERSON
    answers = await asyncio.gather(*(owner.get("/v1/events?wait_s=2") for _ in range(3 * most)))
    assert sorted(answer.status_code for answer in answers) == [200] * most + [429] * 2 * most


async def test_a_stream_that_could_not_begin_holds_no_place(
    world: World, owner_url: str, clock: FakeClock
) -> None:
    """Postgres goes away at the commit, when the stream has its place already."""
    owner = await world.person()
    database = await asyncpg.connect(owner_url)
    try:
        await database.execute(
            "CREATE FUNCTION goes_away() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57P01'; END $$;"
            " CREATE CONSTRAINT TRIGGER goes_away AFTER UPDATE ON logins DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION goes_away()"
        )
    finally:
        await database.close()
    clock.advance(SEEN_EVERY_S + 1)  # so that the request has something to commit: when the login was used
    assert (await owner.get("/v1/events?wait_s=0")).status_code == 503
    assert world.gateway.parts.events.followers == 0


async def test_a_stream_is_no_use_of_a_browsers_login(world: World, clock: FakeClock) -> None:
    owner = await world.person()
    async with following(owner) as told:
        clock.advance(world.settings.login_idle_s + 1)
        assert (await told.until("end"))["code"] == "login_ended"
    assert (await owner.get("/v1/events?wait_s=0")).status_code == 401


async def test_the_other_sites_of_an_org_are_not_told(world: World) -> None:
    ann, bob = await home(world, "ann"), await home(world, "bob")
    await join(ann, f"/v1/sites/{ann.site}", bob, "member")
    async with following(bob.http) as told, following(ann.http) as heard_all:
        await ann.http.post(f"/v1/orgs/{ann.org}/sites", json={"name": "Secret"})
        assert (await heard_all.next())["kind"] == "site.changed"
        await ann.http.patch(f"/v1/orgs/{ann.org}", json={"name": "Firm"})
        first = await told.next()
        assert (first["kind"], first["org_id"], first["site_id"]) == ("org.changed", ann.org, None)


async def test_a_new_owner_hears_nothing_of_the_old_ones_people(world: World) -> None:
    ann, bob, carl = await home(world, "ann"), await home(world, "bob"), await home(world, "carl")
    await join(ann, f"/v1/sites/{ann.site}", carl, "admin")
    device = await world.enrol(ann.http)
    await world.node().connect(device)
    link, token = await open_session(ann.http, device), await new_token(bob)
    await ann.http.post(f"/v1/devices/{device.id}/release")
    async with following(bob.http) as new, following(carl.http) as old:
        assert (await claim_as(world, device, token)).status_code == 200
        ended = await old.next()
        assert (ended["kind"], ended["ref"], ended["site_id"]) == ("session.ended", link.session, ann.site)
        first = await new.next()
        assert (first["kind"], first["site_id"]) == ("device.added", bob.site)


async def test_who_does_not_read_is_dropped_and_holds_nobody_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_watch, "QUEUE_MAX", 20)
    owner = await world.person()
    site = (await owner.get("/v1/sites")).json()["items"][0]["id"]
    cookie = "; ".join(f"{name}={value}" for name, value in owner.cookies.items())
    deaf = socket.create_connection((world.gateway.public_address.host, world.gateway.public_address.port))
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    deaf.sendall(f"GET /v1/events HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\n\r\n".encode())
    async with following(owner) as told:
        # In one transaction, as a site with that many devices makes them: more than a queue holds.
        async with world.gateway.parts.database.transaction() as tx:
            for _ in range(3000):
                tx.tell(Change("site.changed", site_id=site))
        assert (await told.until("end"))["code"] == "too_slow"
    async with asyncio.timeout(PATIENCE_S):
        while world.gateway.parts.events.followers:
            await asyncio.to_thread(lambda: None)
    deaf.close()
    assert (await owner.get("/v1/events?wait_s=0")).status_code == 200


def socket_of(
    world: World,
    *,
    cookie: str = "",
    origin: str | None = ORIGIN,
    path: str = "/v1/events/ws",
    query: str = "",
    token: str = "",
) -> connect:
    headers = {"cookie": cookie} if cookie else {}
    if token:
        headers["authorization"] = f"Bearer {token}"
    url = f"ws://{world.gateway.public_address}{path}{query}"
    return connect(url, additional_headers=headers, origin=origin, proxy=None)  # type: ignore[arg-type]


async def heard(connection: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_S):
        return dict(json.loads(await connection.recv()))


async def to_its_end(connection: ClientConnection) -> None:
    while True:
        await heard(connection)


async def test_the_websocket_tells_the_same(world: World) -> None:
    owner = await world.person()
    cookie = "; ".join(f"{name}={value}" for name, value in owner.cookies.items())
    async with socket_of(world, cookie=cookie) as connection:
        ready = await heard(connection)
        assert ready["kind"] == "ready"
        device = await world.enrol(owner)
        first = await heard(connection)
        assert (first["kind"], first["device_id"]) == ("device.enrolled", device.id)
        await connection.send("nobody listens")
    async with socket_of(world, cookie=cookie, query=f"?after={ready['id']}") as connection:
        assert (await heard(connection))["kind"] == "ready"
        assert await heard(connection) == first
        began = time.monotonic()
        await owner.post("/v1/logout")
        with pytest.raises(ConnectionClosed) as closed:
            await to_its_end(connection)
        assert time.monotonic() - began <= ENDS_WITHIN_S
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "login_ended")


async def test_no_other_page_opens_the_websocket(world: World) -> None:
    owner = await world.person()
    cookie = "; ".join(f"{name}={value}" for name, value in owner.cookies.items())
    made = await owner.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["devices:read"]})
    narrow = await owner.post("/v1/me/api-tokens", json={"name": "x", "scopes": ["sessions"]})
    for options, status, code in (
        ({"cookie": cookie, "origin": "https://evil.example"}, 403, "cross_origin"),
        ({"cookie": cookie, "origin": None}, 403, "cross_origin"),
        ({"cookie": cookie, "origin": "null"}, 403, "cross_origin"),
        ({}, 401, "login_needed"),
        ({"cookie": "towline_login=x"}, 401, "login_needed"),
        ({"token": narrow.json()["token"]}, 403, "forbidden"),
        ({"cookie": cookie, "query": "?after=x"}, 422, "invalid_field"),
        ({"cookie": cookie, "query": "?before=1"}, 422, "invalid_field"),
    ):
        with pytest.raises(InvalidStatus) as refused:
            async with socket_of(world, **options):
                pass
        answer = refused.value.response
        assert (answer.status_code, json.loads(answer.body or b"")["code"]) == (status, code), options
        assert answer.headers["content-type"] == "application/problem+json"
    async with socket_of(world, token=made.json()["token"], origin=None) as connection:
        assert (await heard(connection))["kind"] == "ready"
    plain = await owner.get("/v1/events/ws")
    assert (plain.status_code, plain.json()["code"]) == (426, "upgrade_required")
    assert plain.headers["upgrade"] == "websocket"


async def test_streams_end_with_the_gateway(tmp_path: Path, world: World) -> None:
    settings = settings_for(tmp_path, world.settings.database_url or "", world.settings.keys_dir)
    second = await (await World(settings, world.clock, tmp_path).start()).prepared()
    owner = await world.person()
    there = second.browser()
    there.cookies = owner.cookies
    async with following(there) as told:
        began = time.monotonic()
        closing = asyncio.ensure_future(second.gateway.close())
        assert (await told.until("end"))["code"] == "closing"
        await closing
        assert time.monotonic() - began < PATIENCE_S


def test_every_kind_has_a_reader() -> None:
    assert set(OF_AUDIT.values()) <= set(KINDS)
    assert all(action in RULES for action in KINDS.values())

"""Who reads what of the audit log through the API, and the export that can be verified."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest

from gateway.api import audit as routes
from gateway.api.places import find_place as find_place_for
from gateway.audit.export import NoExportError, read_export
from gateway.audit.verify import verify_log, verify_part
from gateway.policy.access import Role, Staff
from gateway.policy.audit_chain import Row, chain_hash
from gateway.store import audit, places, users
from gateway.store.transaction import AuditEvent, utc
from runtime.clock import FakeClock
from tests.gateway.world import World, open_session

PATIENCE_S = 10.0


async def site_of(person: httpx.AsyncClient) -> str:
    found: str = (await person.get("/v1/sites")).json()["items"][0]["id"]
    return found


async def lines(person: httpx.AsyncClient, site: str, **query: Any) -> list[dict[str, Any]]:
    """Every line of the query, over all its pages."""
    items: list[dict[str, Any]] = []
    while True:
        answer = await person.get(f"/v1/sites/{site}/audit", params=query)
        assert answer.status_code == 200, answer.text
        items += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return items
        query["cursor"] = answer.json()["next_cursor"]


async def some(world: World, site: str, *kinds: str) -> None:
    for kind in kinds:
        async with world.gateway.parts.database.transaction() as tx:
            tx.audit(AuditEvent(kind, "gateway", site=site))


async def test_an_owner_reads_in_words_what_was_done(world: World) -> None:
    owner = await world.person("anna")
    device = await world.enrol(owner, name="Pump")
    await world.node().connect(device)
    await open_session(owner, device)
    site = await site_of(owner)
    found = await lines(owner, site)
    opened = next(line for line in found if line["kind"] == "session.created")
    assert opened["actor"] == {
        "kind": "person",
        "id": (await owner.get("/v1/me")).json()["id"],
        "name": "anna",
    }
    assert opened["device"] == {"id": device.id, "name": "Pump"}
    assert opened["detail"]["service"] == "web"
    enrolled = next(line for line in found if line["kind"] == "device.enrolled")
    assert enrolled["actor"] == {"kind": "device", "id": device.id, "name": "Pump"}
    numbers = [line["number"] for line in found]
    assert numbers == sorted(numbers, reverse=True)
    assert await lines(owner, site, order="oldest", limit=1) == found[::-1]
    assert await lines(owner, site, limit=2) == found


async def test_filters_say_which_lines(world: World, clock: FakeClock) -> None:
    owner = await world.person("anna")
    device = await world.enrol(owner)
    site = await site_of(owner)
    clock.advance(3000)
    await some(world, site, "test.one", "test.two", "testing")
    clock.advance(3000)
    await some(world, site, "later")
    assert [line["kind"] for line in await lines(owner, site, kind="test.")] == ["test.two", "test.one"]
    assert {line["device"]["id"] for line in await lines(owner, site, device=device.id)} == {device.id}
    assert all(line["actor"]["id"] == "gateway" for line in await lines(owner, site, actor="gateway"))
    now = clock.wall()
    between = {"from": utc(now - 3001).isoformat(), "to": utc(now - 60).isoformat()}
    assert [line["kind"] for line in await lines(owner, site, **between)] == [
        "testing",
        "test.two",
        "test.one",
    ]
    assert [line["kind"] for line in await lines(owner, site, **{"from": utc(now - 60).isoformat()})] == [
        "later"
    ]
    assert await lines(owner, site, kind="nothing") == []


UNANSWERABLE = [
    ("kind=%25", "kind"),
    ("kind=a%00b", "kind"),
    ("device=x'y", "device"),
    ("actor=%00", "actor"),
    ("from=yesterday", "from"),
    ("from=2026-01-01T00:00:00", "from"),
    ("from=0001-01-01T00:00:00%2B23:00", "from"),
    ("to=99999-01-01T00:00:00Z", "to"),
    ("order=random", "order"),
    ("cursor=!", "cursor"),
    ("limit=0", "limit"),
    ("limit=9999", "limit"),
    ("since=2026-01-01T00:00:00Z", "since"),
]


async def test_a_query_that_cannot_be_answered_names_its_field(world: World) -> None:
    owner = await world.person("anna")
    site = await site_of(owner)
    for query, field in UNANSWERABLE:
        answer = await owner.get(f"/v1/sites/{site}/audit?{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, field), f"{query}: {answer.text}"


async def test_a_cursor_goes_in_its_own_direction(world: World) -> None:
    owner = await world.person("anna")
    await world.enrol(owner)
    path = f"/v1/sites/{await site_of(owner)}/audit"
    cursor = (await owner.get(path, params={"limit": 1})).json()["next_cursor"]
    answer = await owner.get(path, params={"limit": 1, "cursor": cursor, "order": "oldest"})
    assert answer.status_code == 422


async def test_admins_read_their_site_and_nobody_else_does(world: World) -> None:
    owner = await world.person("anna")
    site = await site_of(owner)
    org = (await owner.get("/v1/sites")).json()["items"][0]["org_id"]
    expected = {Role.OWNER: 200, Role.ADMIN: 200, Role.MEMBER: 403, Role.SUPPORT: 403}
    for role, status in expected.items():
        person = await world.person(f"user-{role.word}")
        await set_role(world, person, org, role)
        for path in (f"/v1/sites/{site}/audit", f"/v1/sites/{site}/audit/export"):
            assert (await person.get(path)).status_code == status, role
    # Not even whoever keeps the installation: what is done at a site is its people's.
    for staff in Staff:
        person = await world.person(f"staff-{staff}")
        async with world.gateway.parts.database.transaction() as tx:
            await users.set_staff(tx, UUID((await person.get("/v1/me")).json()["id"]), staff)
        for path in (f"/v1/sites/{site}/audit", f"/v1/sites/{site}/audit/export"):
            assert (await person.get(path)).status_code == 404, staff


async def set_role(world: World, person: httpx.AsyncClient, org: str, role: Role) -> None:
    user_id = UUID((await person.get("/v1/me")).json()["id"])
    async with world.gateway.parts.database.transaction() as tx:
        await places.put_membership(tx, org, None, user_id, role)


async def test_one_reads_what_concerns_ones_own_account_and_no_other(world: World) -> None:
    anna, boris = await world.person("anna"), await world.person("boris")
    wrong = {"username": "anna", "password": "a wrong one that is long"}
    assert (await world.browser().post("/v1/login", json=wrong)).status_code == 401
    await world.gateway.parts.refused_logins.tell()
    mine = (await anna.get("/v1/me/audit")).json()["items"]
    assert {"login.begun", "login.failed"} <= {line["kind"] for line in mine}
    failed = next(line for line in mine if line["kind"] == "login.failed")
    assert failed["actor"] == {"kind": "system", "id": "anonymous", "name": None}
    theirs = (await boris.get("/v1/me/audit")).json()["items"]
    assert {line["number"] for line in mine}.isdisjoint(line["number"] for line in theirs)
    assert [line["kind"] for line in (await anna.get("/v1/me/audit?kind=login.f")).json()["items"]] == [
        "login.failed"
    ]


async def test_a_device_that_left_keeps_its_id_and_loses_its_name(world: World) -> None:
    owner = await world.person("anna")
    device = await world.enrol(owner, name="Pump")
    site = await site_of(owner)
    other = await site_of(await world.person("boris"))
    async with world.gateway.parts.database.transaction() as tx:
        await tx.execute(
            "UPDATE devices SET site_id = $1, name = 'Boris own' WHERE id = $2", other, device.id
        )
    found = await lines(owner, site, device=device.id)
    assert found
    assert all(line["device"] == {"id": device.id, "name": None} for line in found)
    assert "Boris own" not in json.dumps(found)


async def test_an_export_holds_the_sites_rows_with_their_proof_and_no_others(world: World) -> None:
    anna, boris = await world.person("anna"), await world.person("boris")
    device, _ = await world.enrol(anna), await world.enrol(boris)
    site = await site_of(anna)
    answer = await anna.get(f"/v1/sites/{site}/audit/export")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert quote(site) in answer.headers["content-disposition"]
    content = answer.content.splitlines(keepends=True)
    export = read_export(content)
    assert export.site == site
    rows = list(export)
    assert [row.seq for row in rows] == [line["number"] for line in await lines(anna, site, order="oldest")]
    assert {json.loads(row.record)["site"] for row in rows} == {site}
    assert any(json.loads(row.record)["device"] == device.id for row in rows)
    assert all(chain_hash(row.prev_hash, row.record) == row.hash for row in rows)
    assert verify_part(read_export(content), None, lambda _: None).is_whole
    # They are in the log, and would not be if one were another.
    database = world.gateway.parts.database
    assert (await verify_log(database, None, lambda _: None, exported=iter(rows))).is_whole
    with pytest.raises(NoExportError, match="cut off"):
        list(read_export(content[:-1]))
    with pytest.raises(NoExportError, match="events and says"):
        list(read_export([*content[:2], *content[3:]]))


async def test_a_long_export_comes_in_parts_and_ends_with_the_right(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small parts here, so that there are some; after the first one the reader loses their role."""
    monkeypatch.setattr(audit.rows_of, "__defaults__", (2,))
    owner = await world.person("anna")
    site = await site_of(owner)
    await some(world, site, *(f"kind.{number}" for number in range(7)))
    path = f"/v1/sites/{site}/audit/export"
    whole = (await owner.get(path)).content.splitlines(keepends=True)
    assert len(list(read_export(whole))) == len(whole) - 2

    original, asked = find_place_for, 0

    async def find_place(tx: Any, *arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            await tx.execute("DELETE FROM memberships")
        return await original(tx, *arguments)

    monkeypatch.setattr(routes, "find_place", find_place)
    cut = (await owner.get(path)).content.splitlines(keepends=True)
    assert len(cut) == 1 + 2
    with pytest.raises(NoExportError, match="cut off"):
        list(read_export(cut))


async def test_a_person_has_few_exports_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a slow reader holds in memory; who leaves early gives their place back."""
    going, more = asyncio.Event(), asyncio.Event()

    async def rows_of(*_: Any) -> list[Row]:
        going.set()
        await more.wait()
        return []

    owner, other = await world.person("anna"), await world.person("boris")
    path = f"/v1/sites/{await site_of(owner)}/audit/export"
    monkeypatch.setattr(audit, "rows_of", rows_of)
    async with asyncio.TaskGroup() as tasks:
        first = [tasks.create_task(owner.get(path)) for _ in range(routes.EXPORTS_PER_PERSON)]
        async with asyncio.timeout(PATIENCE_S):
            while sum(world.gateway.parts.exporting.values()) < routes.EXPORTS_PER_PERSON:
                await going.wait()
                await asyncio.to_thread(lambda: None)
        refused = await owner.get(path)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_exports")
        assert (await other.get(f"/v1/sites/{await site_of(other)}/audit")).status_code == 200
        more.set()
    assert [task.result().status_code for task in first] == [200] * routes.EXPORTS_PER_PERSON
    more.clear()
    with pytest.raises(httpx.ReadTimeout):
        await owner.get(path, timeout=0.5)
    async with asyncio.timeout(PATIENCE_S):
        while world.gateway.parts.exporting:
            await asyncio.to_thread(lambda: None)
    assert not (await owner.head(path)).content
    assert not world.gateway.parts.exporting


async def test_an_export_that_nobody_reads_gives_its_place_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever stole a token could keep its person from exporting, also once it is ended."""

    async def endless(*_: Any) -> AsyncIterator[bytes]:
        while True:
            await asyncio.to_thread(lambda: None)  # where the real one reads its next lines
            yield bytes(2**20)

    owner = await world.person("anna")
    path = f"/v1/sites/{await site_of(owner)}/audit/export"
    asked = await owner.post("/v1/me/api-tokens", json={"name": "Stolen", "scopes": ["audit:read"]})
    stolen, host = asked.json(), owner.base_url.netloc.decode()
    head = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {stolen['token']}\r\n\r\n"
    where = (owner.base_url.host, owner.base_url.port or 0)
    monkeypatch.setattr(routes, "_exported", endless)
    monkeypatch.setattr(routes, "STALL_S", 1.0)
    with ExitStack() as readers:
        for _ in range(routes.EXPORTS_PER_PERSON):
            reader = readers.enter_context(await asyncio.to_thread(socket.create_connection, where))
            reader.sendall(head.encode())
            assert await asyncio.to_thread(reader.recv, 12) == b"HTTP/1.1 200"  # and nothing more
        assert (await owner.delete(f"/v1/me/api-tokens/{stolen['id']}")).status_code == 204
        async with asyncio.timeout(PATIENCE_S):
            while world.gateway.parts.exporting:
                await asyncio.to_thread(lambda: None)
        assert (await owner.head(path)).status_code == 200

"""The nodes' listener: mutual TLS, presence, the revocation feed."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.audit.verify import verify_log
from gateway.store import upkeep
from runtime.clock import FakeClock
from tests.gateway.world import Device, Node, World, open_session

LINE_TIMEOUT_S = 5.0
ODD_SERVICES = [("web", "web"), ("<b>", "web"), ("x", "udp"), ("web", "tcp"), ("", "web"), ("n\x00", "web")]


async def shown(owner: httpx.AsyncClient, device: Device) -> dict[str, Any]:
    answer: dict[str, Any] = (await owner.get(f"/v1/devices/{device.id}")).json()
    return answer


class Feed:
    """One reader of the feed."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def next(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(await asyncio.wait_for(anext(self._lines), LINE_TIMEOUT_S))
        return line

    async def until_heartbeat(self) -> list[dict[str, Any]]:
        """The lines before the next heartbeat, and it."""
        lines = [await self.next()]
        while "heartbeat" not in lines[-1]:
            lines.append(await self.next())
        return lines

    async def entry(self) -> dict[str, Any]:
        """The next line that is no heartbeat."""
        while True:
            line = await self.next()
            if "heartbeat" not in line:
                return line


@asynccontextmanager
async def follow(node: Node, after: int) -> AsyncIterator[Feed]:
    async with node.http.stream(
        "GET", "/internal/v1/revocations", params={"after": after}, timeout=LINE_TIMEOUT_S
    ) as answer:
        assert answer.status_code == 200
        yield Feed(answer.aiter_lines())


async def test_only_nodes_get_in(world: World) -> None:
    world.node()
    folder = world.folder / "node-node-a"
    keys = world.settings.keys_dir

    def context(certificate: Any, key: Any) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(folder / "internal_ca.crt"))
        if certificate is not None:
            made.load_cert_chain(certificate, key)
        return made

    # no certificate; one of the agents' listener CA; the gateway's own server certificate
    for pair in [
        (None, None),
        (folder / "agents.crt", folder / "agents.key"),
        (keys / "internal_server.crt", keys / "internal_server.key"),
    ]:
        client = world.internal(context(*pair))
        with pytest.raises(httpx.TransportError):
            await client.get("/internal/v1/keys")
    assert (await world.node("node-b").http.get("/internal/v1/keys")).status_code == 200


async def test_the_public_listener_knows_nothing_of_it(world: World) -> None:
    for path in ("/internal/v1/keys", "/internal/v1/revocations", "/metrics"):
        assert (await world.program().get(path)).status_code == 404


async def test_a_node_speaks_for_itself_alone(world: World) -> None:
    node = world.node("node-a")
    body = {"node": "node-b", "boot": "x", "full": True, "events": []}
    answer = await node.http.post("/internal/v1/presence", json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_node")


async def test_presence_comes_and_goes(world: World, clock: FakeClock) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    await node.connect(device)
    seen = await shown(owner, device)
    assert seen["online"] is True
    assert seen["rtt_ms"] == 3.5
    assert seen["services"] == [{"name": "web", "kind": "web"}, {"name": "ssh", "kind": "tcp"}]
    assert seen["since"] == seen["last_seen"]
    nodes = await node.http.get(f"/internal/v1/devices/{device.id}/nodes")
    assert nodes.json() == {"nodes": ["node-a"]}
    clock.advance(5)
    await node.report(node.event(device, state="disconnected", error="keepalive_timeout"))
    gone = await shown(owner, device)
    assert gone["online"] is False
    assert gone["last_error"] == "keepalive_timeout"
    assert gone["since"] > seen["since"]
    assert gone["services"] == seen["services"]
    assert (await node.http.get(f"/internal/v1/devices/{device.id}/nodes")).json() == {"nodes": []}


async def test_a_silent_node_takes_its_devices_offline(world: World, clock: FakeClock) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    await node.connect(device)
    for _ in range(3):
        clock.advance(10)
        await node.report()
    assert (await shown(owner, device))["online"] is True
    clock.advance(12)
    assert (await shown(owner, device))["online"] is True
    clock.advance(1)
    assert (await shown(owner, device))["online"] is False
    await node.report()
    assert (await shown(owner, device))["online"] is True


async def test_a_restarted_node_holds_nothing_it_does_not_name(world: World) -> None:
    owner, node = await world.person(), world.node()
    first, second = await world.enrol(owner), await world.enrol(owner)
    await node.report(node.event(first), node.event(second))
    node.boot = "another"
    await node.report(node.event(second))
    assert (await shown(owner, first))["online"] is False
    assert (await shown(owner, second))["online"] is True


async def test_a_node_under_whose_name_another_process_spoke_is_asked_for_everything(world: World) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    old_boot, node.boot = node.boot, "new"
    assert await node.report(node.event(device), full=True) == {"full": False}
    node.boot = old_boot  # the process that drains still says that it lives
    assert await node.report() == {"full": True}
    assert await node.report() == {"full": False}
    node.boot = "new"
    assert await node.report() == {"full": True}
    assert await node.report(node.event(device), full=True) == {"full": False}
    assert (await shown(owner, device))["online"] is True


async def test_two_nodes_may_hold_one_device(world: World) -> None:
    owner, one, two = await world.person(), world.node("node-a"), world.node("node-b")
    device = await world.enrol(owner)
    await one.connect(device)
    await two.connect(device)
    await one.report(one.event(device, state="disconnected"))
    assert (await shown(owner, device))["online"] is True
    await two.report(full=True)
    assert (await shown(owner, device))["online"] is False


async def test_two_nodes_reporting_the_same_devices_at_once_do_not_deadlock(world: World) -> None:
    owner, one, two = await world.person(), world.node("node-a"), world.node("node-b")
    devices = [await world.enrol(owner) for _ in range(6)]
    events = [one.event(device) for device in devices]
    await asyncio.gather(
        *(one.report(*events) for _ in range(4)), *(two.report(*reversed(events)) for _ in range(4))
    )
    assert all([(await shown(owner, device))["online"] for device in devices])


async def test_presence_of_devices_that_may_not_connect_is_ignored(world: World) -> None:
    owner, node = await world.person(), world.node()
    pending = await world.enrol(owner, approve=False)
    ghost = Device("d_" + "a" * 16, pending.key, {})
    await node.report(node.event(pending), node.event(ghost))
    assert (await shown(owner, pending))["online"] is False


MALFORMED: list[dict[str, Any]] = [
    {"state": "asleep"},
    {"instance": "xx"},
    {"connection": -1},
    {"at": "yesterday"},
    {"at": 1e300},
    {"services": [{"kind": "web"}]},
]


async def test_a_malformed_report_changes_nothing(world: World) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    for change in MALFORMED:
        events = [node.event(device), node.event(device, **change)]
        body = {"node": "node-a", "boot": "b", "full": False, "events": events}
        answer = await node.http.post("/internal/v1/presence", json=body)
        assert answer.status_code == 422, change
        assert answer.json()["field"].startswith("events.1."), change
        assert (await shown(owner, device))["online"] is False, change


async def test_an_odd_device_does_not_cost_its_node_the_report(world: World) -> None:
    owner, node = await world.person(), world.node()
    odd, good = await world.enrol(owner), await world.enrol(owner)
    services = [{"name": name, "kind": kind} for name, kind in ODD_SERVICES]
    text = "\x00\u202e<b>" + "x" * 1000
    await node.report(
        node.event(odd, services=services, software=text, error=text), node.event(good), full=True
    )
    assert (await shown(owner, good))["online"] is True
    seen = await shown(owner, odd)
    assert seen["services"] == [{"name": "web", "kind": "web"}]
    assert seen["software"].startswith("\ufffd\ufffd<b>xxx")
    assert len(seen["software"]) == 256
    link = await open_session(owner, odd, binding="click")
    body = {"label": link.label, "token": link.token, "cookie_sha256": "0" * 64, "client": "\x00" * 300}
    assert (await node.http.post("/internal/v1/links/redeem", json=body)).status_code == 200


async def test_the_feed_tells_what_ends(world: World, clock: FakeClock) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    await node.connect(device)
    link = await open_session(owner, device)
    other = await open_session(owner, device)
    async with follow(node, 0) as feed:
        assert await feed.next() == {"hello": 1, "head": 0}
        assert await feed.until_heartbeat() == [{"heartbeat": 0}]
        began = asyncio.get_running_loop().time()
        await owner.delete(f"/v1/sessions/{link.session}")
        entry = await feed.entry()
        assert asyncio.get_running_loop().time() - began < 2
        assert entry == {
            "n": 1,
            "kind": "session",
            "id": link.session,
            "device": device.id,
            "exp": pytest.approx(clock.wall() + 3600, abs=2),
        }
        await owner.post(f"/v1/devices/{device.id}/revoke")
        assert await feed.entry() == {"n": 2, "kind": "device", "id": device.id}
        third = await feed.entry()
        assert (third["n"], third["kind"], third["id"]) == (3, "session", other.session)
        assert (await feed.until_heartbeat())[-1] == {"heartbeat": 3}
    async with follow(node, 1) as feed:
        assert await feed.next() == {"hello": 1, "head": 3}
        assert [line.get("n") for line in await feed.until_heartbeat()] == [2, 3, None]
    async with follow(node, 3) as feed:
        await feed.next()
        assert await feed.next() == {"heartbeat": 3}


async def test_another_instance_is_in_the_feed(world: World, clock: FakeClock) -> None:
    owner, one, two = await world.person(), world.node("node-a"), world.node("node-b")
    device = await world.enrol(owner)
    clone = Device(device.id, device.key, {})
    await one.connect(device)
    async with follow(one, 0) as feed:
        await feed.next()
        clock.advance(1)
        await two.connect(clone)
        assert await feed.entry() == {
            "n": 1,
            "kind": "replaced",
            "id": device.id,
            "keep": clone.instance,
        }
    nodes = await one.http.get(f"/internal/v1/devices/{device.id}/nodes")
    assert nodes.json() == {"nodes": ["node-b"]}
    for step in range(6):
        clock.advance(2)
        await (one, two)[step % 2].connect((device, clone)[step % 2])
    async with world.gateway.parts.database.transaction() as tx:
        site = (await owner.get(f"/v1/devices/{device.id}")).json()["site"]["id"]
        rows = await tx.fetch("SELECT kind FROM audit_events WHERE site = $1", site)
        kinds = [row["kind"] for row in rows]
    assert kinds.count("device.flapping") == 1


async def test_a_reader_that_starts_over_does_not_hear_of_a_winner_long_gone(
    world: World, clock: FakeClock
) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    first, second, third = (Device(device.id, device.key, {}) for _ in range(3))
    await node.connect(first)
    clock.advance(1)
    await node.connect(second)
    clock.advance(1)
    await node.report(full=True)  # it has gone
    await node.connect(third)
    async with follow(node, 0) as feed:
        assert await feed.next() == {"hello": 1, "head": 1}
        assert await feed.until_heartbeat() == [{"heartbeat": 1}]


async def test_a_reader_from_another_time_starts_over(world: World, clock: FakeClock) -> None:
    owner, node = await world.person(), world.node()
    kept, gone = await world.enrol(owner), await world.enrol(owner)
    await node.report(node.event(kept), node.event(gone))
    short = await open_session(owner, gone, duration_s=60)
    await owner.delete(f"/v1/sessions/{short.session}")
    await owner.post(f"/v1/devices/{gone.id}/revoke")
    clock.advance(3600)
    await node.connect(kept)
    await owner.delete(f"/v1/sessions/{(await open_session(owner, kept)).session}")
    async with world.gateway.parts.database.transaction() as tx:
        assert await upkeep.run(tx) > 0
        assert await upkeep.database_bytes(tx) > 1_000_000  # PostgreSQL's own catalogues are larger
    async with follow(node, 0) as feed:
        assert await feed.next() == {"hello": 2, "head": 3}
        lines = await feed.until_heartbeat()
        assert lines[0] == {"reset": True}
        assert [line.get("n") for line in lines[1:]] == [2, 3, None]
    async with follow(node, 99) as feed:
        assert (await feed.next())["head"] == 3
        assert await feed.next() == {"reset": True}


async def test_numbers_have_no_gaps_under_load(world: World) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    await node.connect(device)
    links = [await open_session(owner, device) for _ in range(20)]
    async with follow(node, 0) as feed:
        await feed.next()
        await asyncio.gather(*(owner.delete(f"/v1/sessions/{link.session}") for link in links))
        entries = [await feed.entry() for _ in links]
    assert [entry["n"] for entry in entries] == list(range(1, 21))
    assert {entry["id"] for entry in entries} == {link.session for link in links}
    assert (await verify_log(world.gateway.parts.database, None, lambda events: None)).is_whole


async def test_the_feed_survives_a_lost_listen_connection(world: World, postgres: Any) -> None:
    owner, node = await world.person(), world.node()
    device = await world.enrol(owner)
    await node.connect(device)
    link = await open_session(owner, device)
    async with follow(node, 0) as feed:
        await feed.next()
        async with world.gateway.parts.database.transaction() as tx:
            await tx.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        await owner.delete(f"/v1/sessions/{link.session}")
        assert (await feed.entry())["id"] == link.session


async def test_the_listener_shows_a_renewed_certificate_without_a_restart(world: World) -> None:
    owner = await world.person()
    device = await world.enrol(owner)
    node = world.node()
    await node.connect(device)
    shown = await certificate_of(world)
    # As when the year is over: internal_server_files makes another one at the next look.
    (world.settings.keys_dir / "internal_server.crt").unlink()
    world.gateway.certificates.reload()
    assert await certificate_of(world) != shown
    await node.connect(device)  # over its old connection
    text = world.gateway.registry.render().decode()
    assert 'towline_gateway_certificate_reloads_total{listener="internal",outcome="loaded"} 1' in text


async def certificate_of(world: World) -> str:
    address = ("127.0.0.1", world.gateway.internal_address.port)
    return await asyncio.to_thread(ssl.get_server_certificate, address, timeout=LINE_TIMEOUT_S)


async def test_a_node_from_the_year_10000_is_refused(world: World) -> None:
    owner = await world.person()
    device, node = await world.enrol(owner), world.node()
    for at, status in ((253_402_300_799.0, 200), (253_402_300_800.0, 422)):
        event = node.event(device, at=at)
        body = {"node": node.name, "boot": node.boot, "full": False, "events": [event]}
        assert (await node.http.post("/internal/v1/presence", json=body)).status_code == status

"""GET …/state and …/history: what people read of what devices said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from device_protocol.topics import Kind
from gateway.policy.access import Role
from gateway.policy.messages import STALE_S
from gateway.policy.stays import KnownDevice
from gateway.store import history, places
from runtime.clock import FakeClock
from runtime.event_log.interface import CONTROL, UP
from tests.gateway.messages.site import Process, Site
from tests.gateway.messages.talkers import Talker
from tests.gateway.world import Device, World

MINUTE_MS = 60_000


class Desk:
    """Somebody who looks at a device, and the device."""

    def __init__(self, site: Site, world: World, owner: httpx.AsyncClient) -> None:
        self.site, self.world, self.owner = site, world, owner
        self.pump: Talker
        self.device: Device
        self.process: Process

    async def ready(self) -> Desk:
        self.device = await self.world.enrol(self.owner)
        about = (await self.owner.get(f"/v1/devices/{self.device.id}")).json()
        orgs = await self.site.rows("SELECT org_id FROM sites WHERE id = $1", about["site"]["id"])
        place = KnownDevice(orgs[0]["org_id"], about["site"]["id"], "linux", "approved")
        self.process = await self.site.process()
        self.pump = Talker(self.device.id, place, now_ms=int(self.site.clock.wall()) * 1000)
        return self

    async def says(self, *kinds: Kind, **how: Any) -> None:
        for kind in kinds or (Kind.TELEMETRY,):
            await self.site.says(self.pump, kind, **how)

    async def stored(self) -> None:
        await self.process.leases.renew({UP: 12, CONTROL: 4})
        await self.process.store()
        await self.process.store(CONTROL)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.owner.get(f"/v1/devices/{self.device.id}/{path}", params=params)

    async def history(self, **params: Any) -> dict[str, Any]:
        answer = await self.get("history", **params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def at(self, ago: timedelta) -> str:
        """A time in a query."""
        moment = datetime.fromtimestamp(self.pump.now_ms / 1000, UTC) - ago
        return moment.isoformat().replace("+00:00", "Z")


@pytest.fixture
async def desk(site: Site, world: World) -> Desk:
    return await Desk(site, world, await world.person("owner")).ready()


async def test_a_device_that_said_nothing_has_no_state(desk: Desk) -> None:
    assert (await desk.get("state")).json() == {
        "telemetry": None,
        "state": None,
        "heartbeat": None,
        "connection": None,
    }
    assert await desk.history() == {"items": [], "points": [], "next_cursor": None}


async def test_the_latest_of_each_kind(desk: Desk) -> None:
    await desk.says(Kind.HELLO, Kind.TELEMETRY, Kind.STATE, Kind.HEARTBEAT, Kind.EVENT, Kind.TELEMETRY)
    await desk.stored()
    state = (await desk.get("state")).json()
    assert {kind: state[kind]["seq"] for kind in ("telemetry", "state", "heartbeat")} == {
        "telemetry": 5,
        "state": 2,
        "heartbeat": 3,
    }
    telemetry = state["telemetry"]
    assert telemetry["body"] == {"values": {"n": 5, "temperature": 25}}
    assert datetime.fromisoformat(telemetry["at"]).timestamp() * 1000 == desk.pump.now_ms
    connection = state["connection"]
    assert (connection["online"], connection["software"], connection["commands"]) == (
        True,
        "agent 1.0",
        ["ping"],
    )


async def test_the_state_is_told_once_while_it_is_the_same(desk: Desk) -> None:
    await desk.says()
    await desk.stored()
    first = await desk.get("state")
    path, tag = f"/v1/devices/{desk.device.id}/state", {"if-none-match": first.headers["etag"]}
    assert (await desk.owner.get(path, headers=tag)).status_code == 304
    await desk.says()
    await desk.stored()
    assert (await desk.owner.get(path, headers=tag)).status_code == 200


async def test_a_device_that_is_silent_for_long_is_offline_and_a_heartbeat_brings_it_back(desk: Desk) -> None:
    assert isinstance(desk.site.clock, FakeClock)

    async def online() -> bool:
        return bool((await desk.get("state")).json()["connection"]["online"])

    await desk.says(Kind.HELLO)
    await desk.stored()
    desk.site.clock.advance(STALE_S - 1)
    assert await online()
    desk.site.clock.advance(2)
    assert not await online()
    desk.pump.now_ms = int(desk.site.clock.wall() * 1000)
    await desk.says(Kind.HEARTBEAT)
    await desk.stored()
    assert await online()


async def test_the_history_is_read_newest_first_in_pages(desk: Desk) -> None:
    for n in range(7):
        await desk.says(Kind.EVENT if n == 3 else Kind.TELEMETRY, ts=desk.pump.now_ms - (7 - n) * MINUTE_MS)
    await desk.stored()
    seen, cursor = [], ""
    while cursor is not None:
        page = await desk.history(limit=3, cursor=cursor)
        seen += [item["seq"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    assert [item["seq"] for item in (await desk.history(kind="event"))["items"]] == [4]
    between = await desk.history(
        **{"from": desk.at(timedelta(minutes=5)), "to": desk.at(timedelta(minutes=3))}
    )
    assert [item["seq"] for item in between["items"]] == [4, 3]  # the end is not in it


async def test_several_messages_of_one_time_are_neither_lost_nor_doubled_between_pages(desk: Desk) -> None:
    await desk.site.append([desk.pump.says(ts=desk.pump.now_ms) for _ in range(5)])
    await desk.stored()
    seen, cursor = [], ""
    while cursor is not None:
        page = await desk.history(limit=2, cursor=cursor)
        seen += [item["seq"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [5, 4, 3, 2, 1]


async def test_one_reading_by_steps(desk: Desk) -> None:
    """Plain numbers and aggregated ones count for what they were made of; what is no number counts not."""
    start = desk.pump.now_ms // 3_600_000 * 3_600_000 - 2 * 3_600_000
    aggregated = {"n": 3, "min": 10, "max": 40, "mean": 20, "last": 12}
    for ago_ms, value in (
        (0, 30),
        (1000, aggregated),
        (3_600_000, 5.5),
        (3_601_000, "warm"),
        (3_602_000, True),
    ):
        await desk.says(ts=start + ago_ms, payload={"values": {"t": value, "other": 1}})
    await desk.says(ts=start, payload={"values": {"other": 7}})
    await desk.stored()
    found = await desk.history(key="t", step_s=3600)
    assert [{name: point[name] for name in ("n", "min", "max", "mean")} for point in found["points"]] == [
        {"n": 1, "min": 5.5, "max": 5.5, "mean": 5.5},
        {"n": 4, "min": 10, "max": 40, "mean": 22.5},
    ]
    assert datetime.fromisoformat(found["points"][1]["at"]).timestamp() * 1000 == start
    assert found["items"] == []


async def test_the_largest_numbers_have_a_mean(desk: Desk) -> None:
    for _ in range(3):
        await desk.says(payload={"values": {"t": 1.7e308}})
    await desk.stored()
    [point] = (await desk.history(key="t", step_s=3600))["points"]
    assert point["mean"] == pytest.approx(1.7e308)


UNASKABLE: list[tuple[dict[str, Any], str]] = [
    ({"key": "t", "step_s": 1, "from": "2020-01-01T00:00:00Z"}, "step_s"),
    ({"step_s": 60}, "key"),
    ({"key": "t"}, "key"),
    ({"key": "t", "step_s": 60, "kind": "event"}, "kind"),
    ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
    ({"from": "2026-01-02T00:00:00"}, "from"),
    ({"cursor": "aGlzdG9yeTox"}, "cursor"),
    ({"cursor": "aGlzdG9yeTo5OTk5OTk5OTk5OTk5OTkuMS4x"}, "cursor"),
    ({"key": "a\0b", "step_s": 60}, "key"),
    ({"step_s": 0, "key": "t"}, "step_s"),
    ({"unknown": 1}, "unknown"),
]


async def test_what_cannot_be_asked(desk: Desk) -> None:
    for params, field in UNASKABLE:
        answer = await desk.get("history", **params)
        assert (answer.status_code, answer.json()["field"]) == (422, field), params


async def test_any_range_is_answered(desk: Desk) -> None:
    """The ends of the calendar too; what is beyond the retention is not there."""
    await desk.says()
    await desk.stored()
    everything = await desk.history(
        **{"from": "0001-01-01T00:00:00+14:00", "to": "9999-12-31T23:59:59-12:00"}
    )
    assert len(everything["items"]) == 1
    assert (await desk.history(**{"to": "0001-01-01T00:00:00Z"}))["items"] == []
    for end in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        points = (await desk.history(**{"to": end, "key": "t", "step_s": 60}))["points"]
        assert points == [], end
    assert (await desk.history(**{"from": "9999-12-31T23:59:59Z"}))["items"] == []


async def test_who_has_the_device_now_does_not_read_what_it_said_elsewhere(desk: Desk) -> None:
    """It was handed over: its past is that of the others."""
    await desk.says(Kind.TELEMETRY, Kind.STATE)
    await desk.stored()
    new, before = await desk.world.person("new"), desk.pump.known
    home = (await new.get("/v1/sites")).json()["items"][0]
    async with desk.site.database.transaction() as tx:
        await tx.execute("UPDATE devices SET site_id = $2 WHERE id = $1", desk.device.id, home["id"])
    assert (await desk.get("state")).status_code == 404
    path = f"/v1/devices/{desk.device.id}"
    assert (await new.get(f"{path}/state")).json()["telemetry"] is None
    assert (await new.get(f"{path}/history")).json()["items"] == []
    points = await new.get(f"{path}/history", params={"key": "temperature", "step_s": 60})
    assert points.json()["points"] == []
    # It goes on there with its own word.
    desk.pump.known = KnownDevice(home["org_id"], home["id"], "linux", "approved")
    await desk.says()
    await desk.stored()
    assert [item["seq"] for item in (await new.get(f"{path}/history")).json()["items"]] == [3]
    assert (await new.get(f"{path}/state")).json()["telemetry"]["seq"] == 3
    # Whoever has a role at both places sees both.
    user = (await new.get("/v1/me")).json()["id"]
    async with desk.site.database.transaction() as tx:
        await places.put_membership(tx, before.org, None, user, Role.SUPPORT)
    assert [item["seq"] for item in (await new.get(f"{path}/history")).json()["items"]] == [3, 2, 1]


async def test_a_range_that_takes_too_long_is_the_askers_to_narrow(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres itself ends it."""
    monkeypatch.setattr(
        history,
        "_CHOSEN",
        " FROM device_history, pg_sleep(30) WHERE device_id = $1"
        " AND at >= $2 AND at < $3 AND ($4::text IS NULL OR kind = $4)"
        " AND site_id = $5 AND $6::uuid IS NOT NULL",
    )
    await desk.says()
    await desk.stored()
    answer = await desk.get("history")
    assert (answer.status_code, answer.json()["field"]) == (422, "from")

"""Dead letters: who sees them, and what comes of them when they are tried again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Container
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from device_protocol.topics import Kind
from gateway.errors import StoreUnavailableError
from gateway.keys.keyring import load_keyring
from gateway.keys.node_certificates import issue_ingest_certificate
from gateway.messages.replay import Replayed, replay
from gateway.store import dead_letters, replays
from gateway.store.replays import Wanted
from gateway.store.transaction import Row
from ingest.replay import replay as command
from runtime.clock import FakeClock
from runtime.event_log.interface import DEAD
from tests.gateway.messages.site import Site
from tests.gateway.messages.talkers import Talker
from tests.gateway.messages.test_telemetry import Desk
from tests.gateway.test_peers import peer
from tests.gateway.world import World

WAIT_S = 30.0  # a loaded machine
POISON = "ALTER TABLE device_history ADD CONSTRAINT no_poison CHECK (NOT body ? 'poison')"
MENDED = "ALTER TABLE device_history DROP CONSTRAINT no_poison"


@pytest.fixture
async def desk(site: Site, world: World) -> Desk:
    return await Desk(site, world, await world.person("owner")).ready()


class Operator:
    """Tries them again, through the gateway's internal listener."""

    def __init__(self, desk: Desk) -> None:
        self._peer = peer(desk.world, "ingest")

    async def some(self, *, dry: bool = False, **wanted: Any) -> dict[str, Any]:
        body = {"dry_run": dry, **wanted}
        answer = await self._peer.post("/internal/v1/dead-letters/replay", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def listed(desk: Desk, client: httpx.AsyncClient | None = None, **query: Any) -> list[dict[str, Any]]:
    """The site's, as its owner sees them."""
    params = {"site_id": desk.pump.known.site, **query}
    answer = await (client or desk.owner).get("/v1/dead-letters", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def poisoned(desk: Desk, owner: asyncpg.Connection[Row]) -> None:
    """Of three states the database takes the first and the last."""
    await owner.execute(POISON)
    for payload in ({"n": 1}, {"n": 2, "poison": 1}, {"n": 3}):
        await desk.says(Kind.STATE, payload=payload)
    await desk.stored()
    assert await desk.site.history(desk.pump) == [(1, 1), (1, 3)]


async def test_what_the_database_refused_is_stored_once_it_is_mended(
    desk: Desk, owner: asyncpg.Connection[Row]
) -> None:
    await poisoned(desk, owner)
    operator = Operator(desk)
    still = await operator.some()
    assert (still["stored"], [one["reason"] for one in still["left"]]) == (0, ["store_refused"])
    assert still["left"][0]["why"] == "CheckViolationError"
    await owner.execute(MENDED)
    would = await operator.some(dry=True)
    assert (would["looked"], would["stored"], would["left"], would["next"]) == (1, 1, [], None)
    assert await desk.site.history(desk.pump) == [(1, 1), (1, 3)]
    assert [one["replayed_at"] for one in await listed(desk)] == [None]

    done = await operator.some()
    assert (done["stored"], done["known"], done["left"]) == (1, 0, [])
    assert await desk.site.history(desk.pump) == [(1, 1), (1, 2), (1, 3)]
    assert (await desk.get("state")).json()["state"]["body"] == {"n": 3}
    [letter] = await listed(desk)
    assert letter["replayed_at"] is not None
    assert (await operator.some())["looked"] == 0
    # The device's line is where it was.
    await desk.says(Kind.STATE, payload={"n": 4})
    await desk.stored()
    assert (await desk.site.history(desk.pump))[-1] == (1, 4)
    assert len(await listed(desk)) == 1


async def test_a_replay_is_in_the_audit_log_of_the_site(desk: Desk, owner: asyncpg.Connection[Row]) -> None:
    await poisoned(desk, owner)
    await owner.execute(MENDED)
    await Operator(desk).some(dry=True)
    path = f"/v1/sites/{desk.pump.known.site}/audit?kind=dead_letters."
    assert (await desk.owner.get(path)).json()["items"] == []
    await Operator(desk).some()
    [line] = (await desk.owner.get(path)).json()["items"]
    [letter] = await listed(desk)
    assert line["kind"] == "dead_letters.replayed"
    assert line["actor"] == {"kind": "system", "id": "operator by one", "name": None}
    assert line["detail"] == {"letters": 1, "first": letter["number"], "last": letter["number"]}


async def test_one_that_the_database_refuses_costs_no_other(
    desk: Desk, owner: asyncpg.Connection[Row]
) -> None:
    """Seven are good by now, one is not."""
    await owner.execute("ALTER TABLE device_history ADD CONSTRAINT none CHECK (kind <> 'event')")
    for n in range(8):
        await desk.says(Kind.EVENT, payload={"poison": n} if n == 3 else {"n": n})
    await desk.stored()
    assert len(await listed(desk, reason="store_refused")) == 8
    await owner.execute("ALTER TABLE device_history DROP CONSTRAINT none")
    await owner.execute(POISON)
    operator, stored, after = Operator(desk), 0, 0
    left: list[dict[str, Any]] = []
    for _ in range(20):
        done = await operator.some(after=after)
        stored, left = stored + done["stored"], left + done["left"]
        if done["next"] is None:
            break
        after = done["next"]
    assert (stored, [one["reason"] for one in left]) == (7, ["store_refused"])
    assert await desk.site.history(desk.pump) == [(1, n) for n in (1, 2, 3, 5, 6, 7, 8)]


async def test_what_stays_says_why(desk: Desk) -> None:
    pump, site = desk.pump, desk.site
    await desk.says()
    elsewhere = pump.topic(Kind.TELEMETRY, site="s_aaaaaaaaaaaaaaaa")
    await site.append(
        [
            pump.says(topic=elsewhere),
            pump.says(ts=pump.now_ms + 600_000),
            pump.entry(Kind.TELEMETRY, b"{", dead=b"bad_json", detail=b"it cannot be parsed"),
        ]
    )
    topic = pump.topic(Kind.TELEMETRY)
    await site.append([pump.entry(Kind.TELEMETRY, b"\xff", topic, dead=b"bad_utf8")], DEAD)
    other = pump.says()
    await site.append([pump.entry(Kind.TELEMETRY, other.value, topic, dead=b"wrong_device")], DEAD)
    await desk.stored()
    await desk.process.leases.renew({"up": 12, "control": 4, DEAD: 1})
    await desk.process.store(DEAD)
    back = Talker(pump.id, pump.known, now_ms=pump.now_ms + 1)
    await site.append([back.says()])
    await desk.stored()
    before = await site.rows("SELECT * FROM device_history")
    done = await Operator(desk).some()
    assert (done["stored"], done["known"]) == (0, 0)
    left = {one["reason"]: one["why"] for one in done["left"]}
    assert left == {
        "wrong_place": "",
        "time_out_of_range": "",
        "bad_json": "it cannot be parsed",
        "bad_utf8": "not UTF-8",
        "wrong_device": "another device said it in its name",
        "reused_number": "another message has its number",
    }
    assert await site.rows("SELECT * FROM device_history") == before


async def test_a_message_that_came_again_meanwhile_is_known(
    desk: Desk, owner: asyncpg.Connection[Row]
) -> None:
    """The bridge of then could not read it, so it was refused, and said again: three letters, one row."""
    said = desk.pump.says()
    topic = desk.pump.topic(Kind.TELEMETRY)
    twice = [desk.pump.entry(Kind.TELEMETRY, said.value, topic, dead=b"bad_schema") for _ in range(3)]
    await desk.site.append(twice, DEAD)
    await desk.process.leases.renew({"up": 12, "control": 4, DEAD: 1})
    await desk.process.store(DEAD)
    operator = Operator(desk)
    ahead = await operator.some()
    assert (ahead["stored"], {one["why"] for one in ahead["left"]}) == (
        0,
        {"its device's line has not come so far: it will be said again"},
    )
    # It gave that one up, and went on.
    desk.pump.prev = desk.pump.floor
    await desk.says()
    await desk.stored()
    done = await operator.some()
    assert (done["stored"], done["known"], done["left"]) == (1, 2, [])
    assert await desk.site.history(desk.pump) == [(1, 1), (1, 2)]


async def test_what_a_pending_device_said_is_stored_once_it_is_approved(site: Site, world: World) -> None:
    owner = await world.person("owner")
    desk = await Desk(site, world, owner).ready()
    pending = await world.enrol(owner, approve=False)
    early = Talker(pending.id, desk.pump.known, now_ms=desk.pump.now_ms)
    await site.append([early.says(), early.says()])
    await desk.stored()
    operator = Operator(desk)
    assert [one["reason"] for one in (await operator.some())["left"]] == ["unknown_device"] * 2
    assert (await owner.post(f"/v1/devices/{pending.id}/approve")).status_code == 200
    assert (await operator.some(device=desk.device.id))["looked"] == 0
    assert (await operator.some(device=pending.id, reason="unknown_device"))["stored"] == 2
    assert await site.history(early) == [(1, 1), (1, 2)]


async def test_what_was_said_at_a_former_place_stays_there(
    desk: Desk, owner: asyncpg.Connection[Row], clock: FakeClock
) -> None:
    """Mended after the device was moved: it goes to the site where it was said, and nobody else is told."""
    await poisoned(desk, owner)
    before = desk.pump.known.site
    org = desk.pump.known.org
    there = (await desk.owner.post(f"/v1/orgs/{org}/sites", json={"name": "Hall"})).json()["id"]
    clock.advance(10)
    moved = await desk.owner.patch(f"/v1/devices/{desk.device.id}", json={"site_id": there})
    assert moved.status_code == 200, moved.text
    await owner.execute(MENDED)
    told = await desk.site.rows("SELECT max(n) AS n FROM events")
    assert (await Operator(desk).some())["stored"] == 1
    rows = await desk.site.rows("SELECT site_id FROM device_history WHERE device_id = $1", desk.device.id)
    assert {row["site_id"] for row in rows} == {before}
    query = "SELECT kind, site_id FROM events WHERE n > $1 AND kind LIKE 'device.%'"
    assert await desk.site.rows(query, told[0]["n"]) == []
    assert [one["replayed_at"] is not None for one in await listed(desk)] == [True]


async def test_those_without_room_are_counted_and_stay(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "_MOST", {"device": 2, "site": 100, "nobody": 100})
    for n in range(5):
        await desk.says(ts=desk.pump.now_ms + 400_000 + n)
    await desk.stored()
    found = await listed(desk)
    assert [one["left_out"] for one in found if one["reason"] == "no_space"] == [3]
    left = {one["reason"]: one["why"] for one in (await Operator(desk).some())["left"]}
    assert left == {"time_out_of_range": "", "no_space": "it was not kept"}


@pytest.mark.parametrize("limits", [{"device": 2, "site": 100}, {"device": 100, "site": 2}])
async def test_what_was_replayed_takes_no_room(
    desk: Desk, owner: asyncpg.Connection[Row], monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    monkeypatch.setattr(dead_letters, "_MOST", {**limits, "nobody": 100})
    await owner.execute(POISON)
    for _ in range(2):
        await desk.says(Kind.EVENT, payload={"poison": 1})
    await desk.stored()
    await owner.execute(MENDED)
    assert (await Operator(desk).some())["stored"] == 2
    for n in range(2):
        await desk.says(ts=desk.pump.now_ms + 400_000 + n)
    await desk.stored()
    assert [one["reason"] for one in await listed(desk)] == ["time_out_of_range"] * 2 + ["store_refused"] * 2
    assert [one["reason"] for one in (await Operator(desk).some())["left"]] == ["time_out_of_range"] * 2


async def test_two_operators_at_once_store_each_once(desk: Desk, owner: asyncpg.Connection[Row]) -> None:
    await owner.execute("ALTER TABLE device_history ADD CONSTRAINT none CHECK (kind <> 'event')")
    for _ in range(120):
        await desk.says(Kind.EVENT)
    await desk.stored()
    await owner.execute("ALTER TABLE device_history DROP CONSTRAINT none")

    async def all_of_them() -> int:
        operator = Operator(desk)
        stored: int = 0
        after = 0
        while True:
            done = await operator.some(after=after)
            stored += done["stored"]
            if done["next"] is None:
                return stored
            after = done["next"]

    assert sum(await asyncio.gather(all_of_them(), all_of_them())) == 120
    assert await desk.site.history(desk.pump) == [(1, n) for n in range(1, 121)]


async def test_a_replay_that_is_cut_short_did_nothing(
    desk: Desk, owner: asyncpg.Connection[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    await poisoned(desk, owner)
    await owner.execute(MENDED)

    async def cut(*_: Any) -> None:
        raise asyncpg.DeadlockDetectedError

    with monkeypatch.context() as patch:
        patch.setattr(replays, "mark", cut)
        answer = await peer(desk.world, "ingest").post(
            "/internal/v1/dead-letters/replay", json={"dry_run": False}
        )
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert await desk.site.history(desk.pump) == [(1, 1), (1, 3)]
    assert (await Operator(desk).some())["stored"] == 1


@pytest.mark.parametrize(
    ("name", "moment"),
    [("since", "0001-01-01T00:00:00+14:00"), ("until", "9999-12-31T23:59:59-14:00")],
)
async def test_a_time_outside_of_the_calendar_is_refused(desk: Desk, name: str, moment: str) -> None:
    async with asyncio.timeout(WAIT_S):
        answer = await peer(desk.world, "ingest").post(
            "/internal/v1/dead-letters/replay", json={"dry_run": True, name: moment}
        )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
    assert (await Operator(desk).some(since="0001-01-01T00:00:00Z", until="9999-12-31T23:59:59Z"))[
        "looked"
    ] == 0


async def test_what_the_database_refuses_of_the_question_itself_ends_the_go(desk: Desk) -> None:
    """No letter is at fault, so no smaller go would end it."""
    beyond = datetime.fromisoformat("0001-01-01T00:00:00+14:00")
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(asyncpg.DataError):
            await replay(desk.site.database, Wanted(since=beyond), 0, "operator", days=30, dry=True)


async def test_a_site_sees_its_own_by_pages(desk: Desk) -> None:
    for n in range(5):
        await desk.says(ts=desk.pump.now_ms + 400_000 + n)
    await desk.stored()
    found = await listed(desk)
    assert [one["reason"] for one in found] == ["time_out_of_range"] * 5
    assert [one["number"] for one in found] == sorted((one["number"] for one in found), reverse=True)
    assert {(one["topic"], one["device_id"]) for one in found} == {
        (str(desk.pump.topic(Kind.TELEMETRY)), desk.device.id)
    }
    assert "body" not in json.dumps(found)
    assert await listed(desk, reason="wrong_place") == []
    query: dict[str, Any] = {"site_id": desk.pump.known.site, "limit": 2}
    numbers, cursor = [], ""
    while cursor is not None:
        answer = (await desk.owner.get("/v1/dead-letters", params={**query, "cursor": cursor})).json()
        numbers += [one["number"] for one in answer["items"]]
        cursor = answer["next_cursor"]
    assert numbers == [one["number"] for one in found]
    somebody = await desk.world.person("else")
    hers = (await somebody.get("/v1/sites")).json()["items"][0]["id"]
    assert (await somebody.get("/v1/dead-letters", params={"site_id": hers})).json()["items"] == []
    assert (await somebody.get("/v1/dead-letters", params=query)).status_code == 404


async def test_the_command_tells_what_it_does_and_what_stays(
    desk: Desk,
    owner: asyncpg.Connection[Row],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await poisoned(desk, owner)
    await desk.says(ts=desk.pump.now_ms + 400_000)
    await desk.stored()
    await owner.execute(MENDED)
    config = settings_file(desk.world, tmp_path)

    async def run(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(command, ["--config", str(config), *arguments])
        return code, capsys.readouterr().out

    code, said = await run("--dry-run", "--since", "9999d")
    assert (code, "2 dead letters: 1 would be stored, 0 were stored already" in said) == (0, True), said
    assert (await run("--reason", "wrong_place"))[1].startswith("0 dead letters")
    code, said = await run()
    assert code == 0
    assert "stays (time_out_of_range)" in said
    assert "2 dead letters: 1 stored, 0 were stored already\n  1 stay (time_out_of_range)" in said
    assert await desk.site.history(desk.pump) == [(1, 1), (1, 2), (1, 3)]
    assert "1 dead letters: 0 stored" in (await run())[1]
    with pytest.raises(SystemExit) as wrong:
        await run("--since", "yesterday")
    assert wrong.value.code == 2
    port = str(desk.world.gateway.internal_address.port)
    config.write_text(config.read_text().replace(f"localhost:{port}", "localhost:1"))  # nobody is there
    monkeypatch.setattr("ingest.replay.AWAY_S", 0.0)
    assert (await run())[0] == 1


class Sometimes:
    """The gateway's part of a replay, which cannot be had for the goes `away`, counted from 0."""

    def __init__(self, away: Container[int]) -> None:
        self._away = away
        self.asked = 0

    async def __call__(self, *wanted: Any, **how: Any) -> Replayed:
        self.asked += 1
        if self.asked - 1 in self._away:
            raise StoreUnavailableError("away")
        return await replay(*wanted, **how)


async def test_the_command_outlives_a_gateway_that_is_away_for_a_while(
    desk: Desk, owner: asyncpg.Connection[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await poisoned(desk, owner)
    await owner.execute(MENDED)
    gateway = Sometimes(range(20))
    monkeypatch.setattr("gateway.internal.dead_letters.replay", gateway)
    monkeypatch.setattr("ingest.replay.TRY_AGAIN_S", 0.01)
    config = settings_file(desk.world, tmp_path)
    assert await asyncio.to_thread(command, ["--config", str(config)]) == 0
    assert gateway.asked == 21
    assert await desk.site.history(desk.pump) == [(1, 1), (1, 2), (1, 3)]


async def test_the_command_that_is_cut_short_tells_what_was_done_and_how_to_go_on(
    desk: Desk,
    owner: asyncpg.Connection[Row],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await poisoned(desk, owner)
    await desk.says(ts=desk.pump.now_ms + 400_000)
    await desk.stored()
    await owner.execute(MENDED)
    monkeypatch.setattr("gateway.messages.replay.AT_ONCE", 1)
    monkeypatch.setattr("gateway.internal.dead_letters.replay", Sometimes(range(1, 1000)))
    monkeypatch.setattr("ingest.replay.AWAY_S", 0.0)
    config = settings_file(desk.world, tmp_path)
    assert await asyncio.to_thread(command, ["--config", str(config)]) == 1
    said = capsys.readouterr()
    assert said.out == "1 dead letters: 1 stored, 0 were stored already\n"
    first = min(one["number"] for one in await listed(desk))
    assert f"go on with --after {first}\n" in said.err


def settings_file(world: World, folder: Path) -> Path:
    """Of an ingest that is not started."""
    now = world.clock.wall()
    issue_ingest_certificate(load_keyring(world.settings.keys_dir, now), "one", folder / "ingest", now)
    port = world.gateway.internal_address.port
    file = folder / "ingest.toml"
    file.write_text(
        'ops_listen = "127.0.0.1:0"\n[broker]\nurl = "mqtt://127.0.0.1:1883"\n'
        f'[gateway]\ninternal_url = "https://localhost:{port}"\nca = "{folder}/ingest/internal_ca.crt"\n'
        f'certificate = "{folder}/ingest/ingest.crt"\nkey = "{folder}/ingest/ingest.key"\n'
    )
    return file

"""Batches on a real database: what is written, cut short at every step, spoilt by one record, repeated."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from device_protocol.numbers import Number
from device_protocol.topics import Kind
from gateway.commands.downlink import DownlinkGoneError
from gateway.errors import StoreUnavailableError
from gateway.messages.batch import Batches
from gateway.policy.device_clock import DAYS_AHEAD
from gateway.store import history, upkeep
from gateway.store.transaction import Row, Transaction
from runtime.clock import FakeClock
from runtime.event_log.interface import CONTROL, DEAD, PARTS, UP
from tests.gateway.messages.site import DAYS, Site
from tests.gateway.messages.talkers import Talker, ack

STEPS = ("fetch", "fetchrow", "fetchval", "execute", "executemany", "copy")


async def test_messages_become_history_and_states(site: Site) -> None:
    pump, fan = await site.device(), await site.device()
    for kind in (Kind.TELEMETRY, Kind.STATE, Kind.EVENT, Kind.HEARTBEAT, Kind.TELEMETRY):
        await site.append([pump.says(kind), fan.says(kind)])
    process = await site.process()
    assert await process.store() == 10
    for talker in (pump, fan):
        assert await site.history(talker) == [(1, n) for n in range(1, 6)]
        states = await site.rows("SELECT kind, seq FROM device_states WHERE device_id = $1", talker.id)
        assert {row["kind"]: row["seq"] for row in states} == {"telemetry": 5, "state": 2, "heartbeat": 4}
    assert not await site.rows("SELECT * FROM dead_letters")
    assert await process.store() == 0


async def test_many_days_and_repeats_by_two_bridges(site: Site) -> None:
    """Each message twice in the log, as two bridges do that do not know of each other."""
    pump = await site.device()
    said = [pump.says(ts=pump.now_ms - day * 86_400_000) for day in range(DAYS)]
    await site.append([*said[:20], *said[10:], *said])
    process = await site.process()
    await process.store()
    assert await site.history(pump) == [(1, n) for n in range(1, DAYS + 1)]
    assert not await site.rows("SELECT * FROM dead_letters")
    parts = await site.rows("SELECT DISTINCT tableoid FROM device_history")
    assert len(parts) == DAYS


async def test_a_counter_that_went_back_loses_nothing_and_the_device_hears_of_it(site: Site) -> None:
    pump = await site.device()
    await site.append([pump.says() for _ in range(3)])
    process = await site.process()
    await process.store()
    back = Talker(pump.id, pump.known, now_ms=pump.now_ms + 1)
    await site.append([back.says(payload={"values": {"after": "the restore"}})])
    await process.store()
    [letter] = await site.rows("SELECT reason, body FROM dead_letters")
    assert letter["reason"] == "reused_number"
    assert b"the restore" in letter["body"]
    assert await site.history(pump) == [(1, 1), (1, 2), (1, 3)]
    greeting = asyncio.create_task(process.greeter.run())
    await asyncio.wait_for(site.letters.came.wait(), 5)
    greeting.cancel()
    assert b'"boot":1,"seq":3' in site.letters.published[0][1]


async def test_a_late_copy_of_what_the_device_gave_up_is_nothing(site: Site) -> None:
    """Its outbox was full: the next message stands in its place."""
    pump = await site.device()
    given_up = pump.says()
    pump.prev = Number(0, 0)
    await site.append([pump.says(), given_up])
    process = await site.process()
    await process.store()
    assert await site.history(pump) == [(1, 2)]
    assert not await site.rows("SELECT * FROM dead_letters")


async def test_one_bad_record_among_a_thousand_costs_no_other(
    site: Site, owner: asyncpg.Connection[Row]
) -> None:
    """The database refuses it by a rule that nobody here knows of."""
    await owner.execute("ALTER TABLE device_history ADD CHECK (NOT body ? 'poison')")
    pump, fan = await site.device(), await site.device()
    said = [pump.says(Kind.STATE, {"poison": 1} if n == 377 else None) for n in range(500)]
    await site.append([*said, *(fan.says() for _ in range(500))])
    process = await site.process()
    assert await process.store() == 1000
    assert len(await site.history(fan)) == 500
    assert await site.history(pump) == [(1, n) for n in range(1, 501) if n != 378]
    [letter] = await site.rows("SELECT reason, detail, device_id FROM dead_letters")
    assert tuple(letter) == ("store_refused", "CheckViolationError", pump.id)
    await site.append([pump.says()])
    await process.store()
    assert (await site.history(pump))[-1] == (1, 501)


async def test_a_defect_of_ours_is_one_records_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is no error of the database's is found by halves, and told by its name."""

    def spoilt(*args: Any) -> Any:
        raise ZeroDivisionError

    await site.says(pump := await site.device(), Kind.HELLO)
    await site.says(pump, Kind.ACK, payload=ack(UUID(int=7 << 76 | 2 << 62)))
    monkeypatch.setattr("gateway.policy.messages._hello", spoilt)
    process = await site.process()
    assert await process.store(CONTROL) == 2
    [letter] = await site.rows("SELECT reason, detail FROM dead_letters")
    assert tuple(letter) == ("store_refused", "ZeroDivisionError")


class Killed(asyncio.CancelledError):
    """As a process ends: whatever it was doing stays as it was, and its connections are cut."""


class Steps:
    """Counts what a transaction asks of the database, and does something before one of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.at: int | None = None
        self.kill = self.cut = False
        for name in STEPS:
            patch.setattr(Transaction, name, self._counted(getattr(Transaction, name)))
        after = Batches._after

        def counted_after(batches: Batches, done: Any) -> None:
            self._step()
            after(batches, done)

        patch.setattr(Batches, "_after", counted_after)

    def _counted(self, real: Any) -> Any:
        async def step(tx: Transaction, *args: Any) -> Any:
            if self._step():
                with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                    await tx._connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            return await real(tx, *args)

        return step

    def _step(self) -> bool:
        """Whether the connection is to be cut now."""
        self.count += 1
        if self.count != self.at:
            return False
        if self.kill:
            raise Killed
        return self.cut


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


async def said_of_everything(site: Site, talkers: list[Talker]) -> None:
    """One round: rows, states, boots, heartbeats, a repeat, a dead letter."""
    for talker in talkers:
        twice = talker.says()
        await site.append(
            [
                twice,
                talker.says(Kind.HEARTBEAT),
                twice,
                talker.says(ts=1),
                talker.says(Kind.EVENT, type="door"),
            ]
        )


async def whole(site: Site, talker: Talker) -> dict[str, Any]:
    """All that is kept of a device, but for when."""
    line = await site.rows("SELECT boot, seq FROM device_lines WHERE device_id = $1", talker.id)
    letters = await site.rows("SELECT reason FROM dead_letters WHERE device_id = $1 ORDER BY n", talker.id)
    states = await site.rows("SELECT kind, seq FROM device_states WHERE device_id = $1", talker.id)
    boots = await site.rows("SELECT boot FROM device_boots WHERE device_id = $1 ORDER BY boot", talker.id)
    return {
        "history": await site.history(talker),
        "line": [tuple(row) for row in line],
        "letters": [row["reason"] for row in letters],
        "states": {row["kind"]: row["seq"] for row in states},
        "boots": [row["boot"] for row in boots],
    }


@pytest.mark.parametrize("how", ["kill", "cut"])
async def test_a_batch_that_ends_between_any_two_steps_is_done_once(
    site: Site, steps: Steps, how: str
) -> None:
    """Killed, another process begins; cut off from Postgres, it goes on itself. Before each of its steps, at
    the commit, and between the commit and the note of it in memory.
    """
    talkers = [await site.device() for _ in range(2)]
    process = await site.process()
    await said_of_everything(site, talkers)
    steps.count = 0
    await process.store()
    needed, rounds = steps.count, 1
    assert needed > 8
    for step in range(1, needed + 1):
        await said_of_everything(site, talkers)
        steps.count, steps.at, steps.kill, steps.cut = 0, step, how == "kill", how == "cut"
        with suppress(Killed):
            await process.store()
        steps.at = None
        if how == "kill":
            process = await site.process()
        await process.leases.renew(PARTS)
        await process.store()
        rounds += 1
    for talker in talkers:
        taken = [n for n in range(1, 4 * rounds + 1) if n % 4 != 3]
        assert await whole(site, talker) == {
            "history": [(1, n) for n in taken],
            "line": [(1, 4 * rounds)],
            "letters": ["time_out_of_range"] * rounds,
            "states": {"telemetry": 4 * rounds - 3, "heartbeat": 4 * rounds - 2},
            "boots": [1],
        }


async def test_a_commit_whose_answer_was_lost_is_not_done_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same batch again finds the position moved, and whoever reads goes on behind it."""
    pump = await site.device()
    await site.append([pump.says() for _ in range(5)])
    process = await site.process()
    real, lost = Batches._try, 0

    async def unheard(batches: Batches, *args: Any) -> Any:
        nonlocal lost
        done = await real(batches, *args)
        if not lost:
            lost += 1
            raise StoreUnavailableError("the connection was lost")
        return done

    monkeypatch.setattr(Batches, "_try", unheard)
    await process.store()
    assert lost == 1
    await site.append([pump.says()])
    await process.leases.renew(PARTS)
    await process.store()
    assert await site.history(pump) == [(1, n) for n in range(1, 7)]


async def test_who_lost_a_part_writes_nothing_of_it(site: Site) -> None:
    pump = await site.device()
    await site.append([pump.says() for _ in range(3)])
    old = await site.process()
    at = old.leases.of([UP])
    records = await site.reads(at)
    new = await site.process()  # the old one stood still for so long
    await new.store()
    await site.append([pump.says()])
    await old.batches.take(records, at)
    assert await site.history(pump) == [(1, 1), (1, 2), (1, 3)]
    assert not {part for part in old.leases.held if part in {(one.topic, one.part) for one in records}}
    await new.store()
    assert len(await site.history(pump)) == 4


async def test_the_history_has_its_days_when_one_comes_without_them(site: Site) -> None:
    """The hourly look did not succeed for a week: the batch makes what it lacks."""
    assert isinstance(site.clock, FakeClock)
    pump = await site.device()
    process = await site.process()
    site.clock.advance((DAYS_AHEAD + 2) * 86_400)
    pump.now_ms = int(site.clock.wall() * 1000)
    await process.leases.renew(PARTS)
    await site.append([pump.says()])
    await process.store()
    assert await site.history(pump) == [(1, 1)]
    assert not await site.rows("SELECT * FROM dead_letters")


async def test_days_past_the_retention_are_dropped_by_the_services_own_role(site: Site) -> None:
    """Which may not make or drop a table by itself."""
    assert isinstance(site.clock, FakeClock)
    pump = await site.device()
    await site.append([pump.says(ts=pump.now_ms - 86_400_000), pump.says()])
    process = await site.process()
    await process.store()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await site.rows("DROP TABLE device_history")
    for days, left in ((DAYS - 1, 2), (DAYS, 1), (DAYS + 1, 0)):
        site.clock.set_wall(pump.now_ms / 1000 + days * 86_400)
        async with site.database.transaction() as tx:
            await history.keep_parts(tx, DAYS)
            assert await history.keep_parts(tx, DAYS) == 0
        assert len(await site.history(pump)) == left
    parts = await site.rows("SELECT inhrelid FROM pg_inherits WHERE inhparent = 'device_history'::regclass")
    assert len(parts) == DAYS + 1 + DAYS_AHEAD


async def test_a_reader_does_not_hold_the_history_up_and_the_next_hour_drops(
    site: Site, owner: asyncpg.Connection[Row]
) -> None:
    assert isinstance(site.clock, FakeClock)
    site.clock.advance(3 * 86_400)
    reading = owner.transaction()
    await reading.start()
    await owner.fetch("SELECT count(*) FROM device_history")
    with pytest.raises(history.PartsBusyError):
        async with site.database.transaction(statement_s=30) as tx:
            await history.keep_parts(tx, DAYS)
    await reading.rollback()
    async with site.database.transaction() as tx:
        assert await history.keep_parts(tx, DAYS) == 6


async def test_boots_that_are_over_for_long_are_forgotten(site: Site) -> None:
    assert isinstance(site.clock, FakeClock)
    pump = await site.device()
    process = await site.process()
    for _ in range(3):
        await site.append([pump.says(ts=None)])
        await process.store()
        pump.reboot()
    site.clock.advance((DAYS + 2) * 86_400)
    async with site.database.transaction() as tx:
        assert await history.forget_boots(tx, DAYS) == 2
    assert [row["boot"] for row in await site.rows("SELECT boot FROM device_boots")] == [3]


async def test_hello_links_the_device_is_answered_and_its_end_is_heard(site: Site) -> None:
    pump = await site.device()
    process = await site.process()
    await site.append([pump.says() for _ in range(2)])
    await site.says(pump, Kind.HELLO)
    await process.store()
    await process.store(CONTROL)
    [connection] = await site.rows("SELECT online, instance, hello FROM device_connections")
    assert (connection["online"], connection["instance"], connection["hello"]["commands"]) == (
        True,
        "instance-1",
        ["ping"],
    )
    greeting = asyncio.create_task(process.greeter.run())
    await asyncio.wait_for(site.letters.came.wait(), 5)
    greeting.cancel()
    topic, told = site.letters.published[0]
    assert topic == f"{pump.topic(Kind.HELLO).prefix}/accepted"
    assert b'"hello":1,"boot":1,"seq":2' in told
    await site.says(pump, Kind.HELLO, payload={"gone": True, "instance": "instance-1"})
    await process.store(CONTROL)
    assert [row["online"] for row in await site.rows("SELECT online FROM device_connections")] == [False]


async def test_an_answer_that_cannot_be_told_ends_nothing(site: Site) -> None:
    pump = await site.device()
    process = await site.process()
    site.letters.connected = False
    with pytest.raises(DownlinkGoneError):
        await site.letters.publish("t", b"")
    greeting = asyncio.create_task(process.greeter.run())
    await site.says(pump, Kind.HELLO)
    await process.store(CONTROL)
    site.letters.connected = True
    await site.says(pump, Kind.HELLO)
    await process.store(CONTROL)
    await asyncio.wait_for(site.letters.came.wait(), 5)
    greeting.cancel()
    assert len(site.letters.published) == 1


async def test_dead_letters_are_kept_once_each_and_for_a_month(site: Site) -> None:
    assert isinstance(site.clock, FakeClock)
    pump = await site.device()
    dead = pump.entry(Kind.TELEMETRY, b"\xff" * 70_000, dead=b"bad_utf8", size=b"80000")
    await site.append([dead, dead], DEAD)
    process = await site.process()
    await process.store(DEAD)
    rows = await site.rows(
        "SELECT reason, size, length(body) AS kept, device_id, log_offset FROM dead_letters"
    )
    assert [tuple(row) for row in rows] == [("bad_utf8", 80_000, 65_536, pump.id, n) for n in (0, 1)]
    rendered = site.registry.render().decode()
    assert 'towline_gateway_dead_letters_total{reason="bad_utf8"} 2' in rendered
    for days, left in ((29, 2), (31, 0)):
        site.clock.set_wall(pump.now_ms / 1000 + days * 86_400)
        async with site.database.transaction() as tx:
            await upkeep.run(tx)
        assert len(await site.rows("SELECT 1 FROM dead_letters")) == left


async def test_live_followers_are_told_at_once_then_every_five_seconds_and_of_the_last(site: Site) -> None:
    assert isinstance(site.clock, FakeClock)
    pump = await site.device()
    process = await site.process()

    async def told() -> list[str]:
        rows = await site.rows("SELECT kind FROM events WHERE device_id = $1 ORDER BY n", pump.id)
        return [row["kind"] for row in rows]

    await site.append([pump.says(), pump.says(Kind.EVENT, type="door")])
    await process.store()
    assert await told() == ["device.message", "device.state"]
    await site.append([pump.says()])
    await process.store()
    await process.batches.tell_owed()
    assert len(await told()) == 2
    site.clock.advance(5)
    await process.batches.tell_owed()
    assert await told() == ["device.message", "device.state", "device.state"]
    site.clock.advance(5)
    await process.batches.tell_owed()
    assert len(await told()) == 3


async def test_what_is_missing_is_counted(site: Site) -> None:
    pump = await site.device()
    process = await site.process()
    await site.append([pump.says()])
    await process.store()
    pump.says()
    pump.floor = Number(1, 2)
    await site.append([pump.says()])
    await process.store()
    assert "towline_gateway_missing_total 1" in site.registry.render().decode()
    assert await site.history(pump) == [(1, 1), (1, 3)]

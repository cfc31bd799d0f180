"""What the database does not take: whose fault it is, what waits, and how little of it a device can fill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from device_protocol.topics import Kind
from gateway.messages import batch as batches
from gateway.messages import blame as blames
from gateway.messages.blame import Blame, blame
from gateway.policy.device_clock import DAYS_AHEAD
from gateway.store import dead_letters, messages
from gateway.store.transaction import Row, Transaction
from runtime.clock import FakeClock
from runtime.event_log.interface import CONTROL, DEAD, PARTS, UP
from tests.gateway.messages.site import DAYS, Process, Site
from tests.gateway.messages.talkers import Talker, ack

Owner: TypeAlias = "asyncpg.Connection[Row]"
DAY_S = 86_400


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that waits tries again at once."""
    monkeypatch.setattr(batches, "RETRY_MAX_S", 0.1)


def shown(site: Site, line: str) -> bool:
    return f"towline_gateway_{line}" in site.registry.render().decode().splitlines()


@asynccontextmanager
async def waiting(site: Site, process: Process) -> AsyncIterator[None]:
    """The batch waits, with an alarm, as the block begins; it is stored once the block has ended."""
    storing = asyncio.create_task(process.store())
    try:
        await site.until(lambda: _is(shown(site, "log_stuck 1")))
        assert not storing.done()
        assert not await site.rows("SELECT 1 FROM dead_letters")
        yield
        await asyncio.wait_for(storing, 20)
        assert shown(site, "log_stuck 0")
        assert not await site.rows("SELECT 1 FROM dead_letters")
    finally:
        storing.cancel()


async def _is(value: bool) -> bool:
    return value


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("REVOKE INSERT ON device_history FROM {role}", "GRANT INSERT ON device_history TO {role}"),
        (
            "ALTER TABLE device_states RENAME COLUMN body TO content",
            "ALTER TABLE device_states RENAME COLUMN content TO body",
        ),
        ("ALTER TABLE device_lines RENAME TO lines", "ALTER TABLE lines RENAME TO device_lines"),
        ("REVOKE UPDATE ON device_lines FROM {role}", "GRANT UPDATE ON device_lines TO {role}"),
    ],
)
async def test_what_no_message_is_to_blame_for_buries_none(
    site: Site, owner: Owner, broken: str, mended: str
) -> None:
    """A right that is missing, a table of another release: it waits until somebody mends it."""
    [row] = await site.rows("SELECT current_user AS role")
    pump = await site.device()
    process = await site.process()
    await site.append([pump.says(kind) for kind in (Kind.TELEMETRY, Kind.STATE, Kind.EVENT)])
    await owner.execute(broken.format(role=row["role"]))
    async with waiting(site, process):
        await owner.execute(mended.format(role=row["role"]))
    assert await site.history(pump) == [(1, 1), (1, 2), (1, 3)]


async def test_a_day_that_cannot_be_made_now_buries_nothing(site: Site, owner: Owner) -> None:
    [row] = await site.rows("SELECT current_user AS role")
    pump = await site.device()
    process = await site.process()
    await site.append([pump.says()])
    day = await owner.fetchval(
        "SELECT to_char(to_timestamp($1) AT TIME ZONE 'UTC', 'YYYYMMDD')", site.clock.wall()
    )
    await owner.execute(f"DROP TABLE device_history_{day}")
    function = "FUNCTION keep_history_parts(date, date, date)"
    await owner.execute(f"REVOKE EXECUTE ON {function} FROM {row['role']}")
    async with waiting(site, process):
        await owner.execute(f"GRANT EXECUTE ON {function} TO {row['role']}")
    assert await site.history(pump) == [(1, 1)]


async def test_a_bridge_whose_clock_is_years_ahead_stalls_nobody(site: Site) -> None:
    """There is no day for what it says, and none is made: it is a dead letter, and its neighbours go on."""
    pump, fan = await site.device(), await site.device()
    pump.now_ms += (DAYS_AHEAD + 400) * DAY_S * 1000
    process = await site.process()
    await site.append([pump.says(), fan.says()])
    await asyncio.wait_for(process.store(), 20)
    assert await site.history(fan) == [(1, 1)]
    [letter] = await site.rows("SELECT device_id, reason FROM dead_letters")
    assert tuple(letter) == (pump.id, "time_out_of_range")


@pytest.mark.parametrize(
    ("statement", "whose"),
    [
        ("SELECT 1 / 0", Blame.RECORD),
        ("SELECT 'x'::jsonb", Blame.RECORD),
        ("INSERT INTO log_heads (topic, part, next) VALUES ('up', 0, 0)", Blame.NOBODY),
        ("INSERT INTO device_places VALUES ('d_none', now(), 'o', 's', 'linux')", Blame.NOBODY),
        ("INSERT INTO device_places VALUES ('d_none', now(), NULL, 's', 'linux')", Blame.RECORD),
        (
            "INSERT INTO device_history VALUES"
            " ('d', '1999-01-01', 1, 1, gen_random_uuid(), 'k', 't', 's', now(), '{}')",
            Blame.NO_PART,
        ),
        ("INSERT INTO device_types VALUES ('BAD ID', '', '{}', 1, now())", Blame.RECORD),
        ("SELECT missing FROM device_history", Blame.NOBODY),
        ("DROP TABLE device_history", Blame.NOBODY),
    ],
)
async def test_who_is_to_blame(site: Site, statement: str, whose: Blame) -> None:
    with pytest.raises(asyncpg.PostgresError) as caught:
        async with site.database.transaction() as tx:
            await tx.execute(statement)
    assert blame(caught.value) is whose


async def test_a_value_that_cannot_be_sent_is_a_records_fault_and_no_outage(site: Site) -> None:
    """The client itself finds it, by the statement's types; the server never hears of it."""
    statements: list[Callable[[Transaction], Awaitable[object]]] = [
        lambda tx: tx.fetchval("SELECT $1::integer", 2**40),
        lambda tx: tx.executemany("SELECT $1::timestamptz", [("never",)]),
        lambda tx: tx.copy("log_heads", ("topic", "part", "next"), [("up", 99, 2**70)]),
    ]
    for statement in statements:
        with pytest.raises((asyncpg.DataError, ArithmeticError)) as caught:
            async with site.database.transaction() as tx:
                await statement(tx)
        assert blame(caught.value) is not Blame.NOBODY
    assert site.database.guard.is_closed


async def test_a_record_that_cannot_be_sent_costs_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was tried for ever, as if the database was away."""
    pump = await site.device()
    await site.append([pump.says() for _ in range(8)])
    real = messages.put_states

    async def put(tx: Transaction, states: Any) -> None:
        if any(row.seq == 5 for row in states.values()):
            await tx.execute("SELECT $1::integer", 2**40)
        await real(tx, states)

    monkeypatch.setattr(messages, "put_states", put)
    process = await site.process()
    some = await site.reads(at := process.leases.of([UP]))
    await asyncio.wait_for(process.batches.take(some[:5], at), 20)
    await process.store()
    assert await site.history(pump) == [(1, n) for n in (1, 2, 3, 4, 6, 7, 8)]
    [letter] = await site.rows("SELECT reason, detail FROM dead_letters")
    assert tuple(letter) == ("store_refused", "DataError")


async def test_a_defect_that_trips_at_everything_loses_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few records it may put away, or one hostile message would hold up everybody; then it waits."""
    monkeypatch.setattr(blames, "DEFECTS_MAX", 2)
    pump = await site.device()
    process = await site.process()
    for n in range(5):
        await site.says(pump, Kind.ACK, payload=ack_of(n))

    def spoilt(*args: Any) -> Any:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("gateway.policy.messages.Ack.parse", spoilt)
        storing = asyncio.create_task(process.store(CONTROL))
        await site.until(lambda: _is(shown(site, "log_stuck 1")))
        assert len(await site.rows("SELECT 1 FROM dead_letters")) == 2
    assert await asyncio.wait_for(storing, 20) == 5
    assert len(await site.rows("SELECT 1 FROM dead_letters")) == 2
    assert shown(site, "log_stuck 0")


def ack_of(n: int) -> dict[str, Any]:
    return ack(UUID(int=7 << 76 | 2 << 62 | n))


async def test_repeats_are_compared_only_for_as_long_as_others_can_wait(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device's history may be so long that a look through it takes longer than any batch may."""
    assert isinstance(site.clock, FakeClock)
    clock, looked = site.clock, 0

    async def long(tx: Transaction, rows: Any) -> Any:
        nonlocal looked
        looked += 1
        clock.advance(2)
        return await tx.fetch("SELECT pg_sleep(60)")

    monkeypatch.setattr(messages, "taken_by_others", long)
    monkeypatch.setattr(batches, "COMPARE_S", 0.2)
    pump, fan = await site.device(), await site.device()
    await site.append([pump.says() for _ in range(3)])
    process = await site.process()
    await process.store()
    for round in range(3):
        back = Talker(pump.id, pump.known, now_ms=pump.now_ms + 1 + round)
        await site.append([back.says(), back.says(), fan.says()])
        await asyncio.wait_for(process.store(), 20)
        await process.leases.renew(PARTS)
        # What was not compared is kept, as what was found to be another message's.
        letters = await site.rows("SELECT reason FROM dead_letters")
        assert [row["reason"] for row in letters] == ["reused_number"] * (2 * round + 2)
    assert len(await site.history(fan)) == 3
    assert len(await site.history(pump)) == 3
    assert looked == 1
    clock.advance(2 * batches.COMPARE_SHARE)
    await process.leases.renew(PARTS)
    await site.append([Talker(pump.id, pump.known, now_ms=pump.now_ms + 9).says()])
    await asyncio.wait_for(process.store(), 20)
    assert looked == 2


async def test_a_batch_that_is_too_much_at_once_is_done_in_parts(
    site: Site, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a whole it takes longer than a statement may, however often it is tried."""
    monkeypatch.setattr(batches, "STATEMENT_S", 0.6)
    await owner.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$"
    )
    await owner.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON device_history FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    pump = await site.device()
    await site.append([pump.says() for _ in range(16)])
    process = await site.process()
    await asyncio.wait_for(process.store(), 30)
    assert await site.history(pump) == [(1, n) for n in range(1, 17)]
    assert not await site.rows("SELECT 1 FROM dead_letters")


async def test_a_message_that_is_always_too_slow_waits_with_an_alarm_which_is_its_own_loops(
    site: Site, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be halved, nor is it to blame: somebody must hear of it, whatever the other loop stores."""
    monkeypatch.setattr(batches, "STATEMENT_S", 0.3)
    await owner.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$"
    )
    await owner.execute(
        "CREATE TRIGGER slow BEFORE INSERT ON device_history FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    pump = await site.device()
    await site.append([pump.says()])
    process = await site.process()
    other = batches.Batches(
        process.batches._database,
        process.leases,
        process.greeter,
        site.clock,
        site.metrics,
        history_days=DAYS,
    )
    async with waiting(site, process):
        await site.says(pump, Kind.HELLO)
        assert await Process(site, process.leases, process.greeter, other).store(CONTROL) == 1
        assert shown(site, "log_stuck 1")
        await owner.execute("DROP FUNCTION slow CASCADE")
    assert await site.history(pump) == [(1, 1)]


async def test_a_device_has_room_for_so_many_dead_letters_and_the_rest_is_counted(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_MOST", {"device": 5, "site": 8, "nobody": 3})
    pump, fan, third = [await site.device() for _ in range(3)]
    process = await site.process()

    async def bad(talker: Talker, count: int) -> None:
        await site.append([talker.says(ts=1) for _ in range(count)])
        await process.store()

    async def kept() -> dict[str | None, tuple[int, int]]:
        """Of each device: letters, and how many more there were."""
        rows = await site.rows(
            "SELECT device_id, count(*) FILTER (WHERE reason <> 'no_space') AS letters, sum(left_out) AS more"
            " FROM dead_letters GROUP BY device_id"
        )
        return {row["device_id"]: (row["letters"], int(row["more"])) for row in rows}

    await bad(pump, 12)
    assert await kept() == {pump.id: (5, 7)}
    await bad(pump, 3)
    assert await kept() == {pump.id: (5, 10)}
    await bad(fan, 4)  # of the site's eight there is room for two: its five, and the one that counts
    assert await kept() == {pump.id: (5, 10), fan.id: (2, 2)}
    await bad(third, 1)
    assert (await kept())[third.id] == (0, 1)
    for n in range(6):
        stranger = Talker(f"d_stranger{n}", pump.known, now_ms=pump.now_ms)
        await site.append([stranger.says()])
    await process.store()
    assert (await kept())[None] == (3, 3)
    rows = await site.rows("SELECT reason, size, body, topic FROM dead_letters WHERE left_out > 0")
    assert {(row["reason"], row["size"], row["body"]) for row in rows} == {("no_space", 0, b"")}
    assert shown(site, "dead_letters_left_out_total 16")
    assert shown(site, 'dead_letters_total{reason="time_out_of_range"} 20')
    # Whatever is left out, the lines went on: nothing is stuck behind it.
    await site.append([pump.says()])
    await process.store()
    assert await site.history(pump) == [(1, 16)]


async def test_letters_of_no_line_have_their_bounds_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "_MOST", {"device": 2, "site": 100, "nobody": 100})
    pump = await site.device()
    process = await site.process()
    dead = pump.entry(Kind.TELEMETRY, b"{", dead=b"bad_json")
    await site.append([dead] * 5, DEAD)
    await site.append([pump.entry(Kind.ACK, b"{", dead=b"bad_json")] * 2, CONTROL)
    await process.store(DEAD)
    await process.store(CONTROL)
    rows = await site.rows("SELECT reason, left_out FROM dead_letters ORDER BY n")
    assert [tuple(row) for row in rows] == [("bad_json", 0), ("bad_json", 0), ("no_space", 5)]

"""Whole consumers that run: two share the log, one dies, the log is away, or lost something."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from device_protocol.topics import Kind
from gateway.messages.consumer import Consumer
from gateway.messages.leases import LEASE_S, Leases
from gateway.store.log_table import TableReader
from runtime.event_log.interface import CONTROL, DEAD, PARTS, UP, LogUnavailableError, Record
from runtime.event_log.kafka import REQUEST_S
from tests.gateway.messages.site import Site
from tests.gateway.messages.talkers import Talker

PARTS_IN_ALL = sum(PARTS.values())


async def stored(site: Site, talkers: list[Talker], each: int) -> None:
    async def all_there() -> bool:
        [row] = await site.rows("SELECT count(*) FROM device_history")
        return bool(row["count"] >= len(talkers) * each)

    await site.until(all_there)
    for talker in talkers:
        assert await site.history(talker) == [(1, n) for n in range(1, each + 1)]
    assert not await site.rows("SELECT * FROM dead_letters")


async def say(site: Site, talkers: list[Talker], times: int) -> None:
    for _ in range(times):
        await site.append([talker.says() for talker in talkers])


async def share(site: Site, *consumers: Consumer) -> None:
    """They have all parts, and none is two's."""

    async def divided() -> bool:
        held = [part for one in consumers for part in one.leases.held]
        return len(held) == len(set(held)) == PARTS_IN_ALL and all(one.leases.held for one in consumers)

    await site.until(divided)


async def test_two_consumers_share_the_parts_and_one_that_dies_is_replaced(live_site: Site) -> None:
    site = live_site
    talkers = [await site.device() for _ in range(8)]
    one, two = await site.consumer(), await site.consumer()
    first = site.run(one)
    await say(site, talkers, 5)
    await stored(site, talkers, 5)
    assert len(one.leases.held) == PARTS_IN_ALL
    site.run(two)
    await share(site, one, two)
    up = [sum(1 for topic, _ in each.leases.held if topic == UP) for each in (one, two)]
    assert up == [6, 6]
    await say(site, talkers, 5)
    await stored(site, talkers, 10)
    # It ends without a word, as a killed process does.
    one.leases.leave = _nothing  # type: ignore[method-assign]
    first.cancel()
    began = asyncio.get_running_loop().time()
    await say(site, talkers, 5)
    await stored(site, talkers, 15)
    # Its parts went over after one lease and two looks; the rest is the load of this machine.
    assert asyncio.get_running_loop().time() - began < LEASE_S + 10
    one.leases.held.clear()
    await site.until(lambda: _is(len(two.leases.held), PARTS_IN_ALL))


async def _nothing() -> None:
    """Not even good-bye."""


async def _is(value: int, wanted: int) -> bool:
    return value == wanted


async def test_one_that_stops_gives_its_parts_up_at_once(live_site: Site) -> None:
    site = live_site
    one, two = Leases(site.database), Leases(site.database)
    await one.renew(PARTS)
    await two.renew(PARTS)
    assert (len(one.held), len(two.held)) == (PARTS_IN_ALL, 0)
    await one.leave()
    await two.renew(PARTS)
    assert len(two.held) == PARTS_IN_ALL


async def test_more_consumers_than_parts_leave_some_with_nothing(live_site: Site) -> None:
    site = live_site
    some = [Leases(site.database) for _ in range(6)]
    for _ in range(3):
        for one in some:
            await one.renew({CONTROL: 4})
    assert sorted(len(one.held) for one in some) == [0, 0, 1, 1, 1, 1]


async def test_commands_answers_do_not_wait_behind_readings_and_lag_is_told(live_site: Site) -> None:
    site = live_site
    pump = await site.device()
    consumer = await site.consumer()
    site.run(consumer)
    await say(site, [pump], 3)
    await site.says(pump, Kind.HELLO)
    await asyncio.wait_for(site.letters.came.wait(), 20)
    await stored(site, [pump], 3)

    async def told() -> bool:
        text = site.registry.render().decode()
        wanted = ('log_lag{topic="up"} 0', 'log_age_seconds{topic="up"} 0', "history_rows_total 3")
        return all(f"towline_gateway_{one}" in text for one in wanted)

    await site.until(told)
    text = site.registry.render().decode()
    assert 'towline_gateway_messages_total{outcome="stored"} 3' in text
    assert "towline_gateway_parts_ahead_days 7" in text


class Unsteady(TableReader):
    """The log is away for its first questions."""

    refusals = 3

    async def read(
        self, positions: Mapping[tuple[str, int], int], *, most: int, wait_s: float
    ) -> list[Record]:
        if type(self).refusals:
            type(self).refusals -= 1
            raise LogUnavailableError("away")
        return await super().read(positions, most=most, wait_s=wait_s)

    async def ends(self, topic: str) -> dict[int, int]:
        if type(self).refusals > 2:
            raise LogUnavailableError("away")
        return await super().ends(topic)


async def test_a_log_that_is_away_is_asked_until_it_comes_back(
    live_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = live_site
    monkeypatch.setattr(Unsteady, "refusals", 3)
    pump = await site.device()
    consumer = await site.consumer()
    consumer._reader = lambda: Unsteady(site.database, site.shortlived)
    await say(site, [pump], 4)
    site.run(consumer)

    async def asked() -> bool:
        Unsteady.refusals = min(Unsteady.refusals, 2)
        return Unsteady.refusals == 0

    await site.until(asked)
    await stored(site, [pump], 4)


class HalfGone(TableReader):
    """Once `gone` it is as a Kafka of which one broker hangs, where the part of DEAD is: nothing comes for as
    long as a request may take, then an error.
    """

    gone: asyncio.Event

    async def ends(self, topic: str) -> dict[int, int]:
        if topic != DEAD or not self.gone.is_set():
            return await super().ends(topic)
        try:
            async with asyncio.timeout(REQUEST_S):
                return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        except TimeoutError:
            raise LogUnavailableError("hangs") from None


async def half_gone(site: Site, gone: asyncio.Event) -> Consumer:
    consumer = await site.consumer()

    def reader() -> HalfGone:
        made = HalfGone(consumer._database, site.shortlived)
        made.gone = gone
        return made

    consumer._reader = reader
    return consumer


async def test_a_consumer_starts_on_what_answers_of_the_log(live_site: Site) -> None:
    site, gone = live_site, asyncio.Event()
    gone.set()
    pump = await site.device()
    await say(site, [pump], 4)
    site.run(await half_gone(site, gone))
    await stored(site, [pump], 4)

    async def told() -> bool:
        text = site.registry.render().decode()
        return "towline_gateway_log_away 1" in text and 'towline_gateway_log_lag{topic="up"} 0' in text

    await site.until(told)
    gone.clear()
    await site.until(lambda: _is(int(site.metrics.log_away.value), 0))


async def test_a_log_that_answers_slowly_moves_no_part_to_another_consumer(live_site: Site) -> None:
    """One of two asks for longer than a lease lasts."""
    site, gone = live_site, asyncio.Event()
    one, two = await half_gone(site, gone), await site.consumer()
    site.run(one)
    site.run(two)
    await share(site, one, two)
    gone.set()
    before, since = await leases(site)

    async def renewed_for_long() -> bool:
        owners, until = await leases(site)
        assert owners == before
        return until >= since + timedelta(seconds=2 * REQUEST_S)

    await site.until(renewed_for_long)


async def leases(site: Site) -> tuple[dict[tuple[str, int], UUID], datetime]:
    """Who has each part, and until when all of them are someone's at least."""
    rows = await site.rows("SELECT topic, part, owner, lease_until FROM log_positions")
    owners = {(row["topic"], row["part"]): row["owner"] for row in rows}
    return owners, min(row["lease_until"] for row in rows)


async def test_what_the_log_lost_is_counted_and_reading_goes_on_behind_it(live_site: Site) -> None:
    site = live_site
    pump = await site.device()
    await say(site, [pump], 10)
    async with site.database.transaction() as tx:
        lost = await tx.execute('DELETE FROM log_records WHERE "offset" < 4')
    assert lost == 4
    site.run(await site.consumer())

    async def missed() -> bool:
        return "towline_gateway_missing_total 4" in site.registry.render().decode()

    await site.until(missed)
    # The device did not hear that they were accepted, and sends them again.
    again = Talker(pump.id, pump.known, now_ms=pump.now_ms)
    await say(site, [again], 10)
    await stored(site, [pump], 10)


async def test_a_log_that_was_put_back_is_read_from_its_beginning(live_site: Site) -> None:
    """Kafka was made anew: its offsets begin at 0, what is there is new."""
    site = live_site
    pump = await site.device()
    await say(site, [pump], 5)
    consumer = await site.consumer()
    site.run(consumer)
    await stored(site, [pump], 5)
    async with site.database.transaction() as tx:
        await tx.execute("DELETE FROM log_records")
        await tx.execute("UPDATE log_heads SET next = 0")
    await say(site, [pump], 3)
    await stored(site, [pump], 8)

"""A device that moves: what it said belongs to where it was made, whenever it comes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from device_protocol.topics import Kind, Topic
from gateway.policy.device_clock import moment_of
from gateway.policy.stays import KnownDevice, Making, Start, Stay
from gateway.store import dead_letters, devices, history, messages, people, places
from gateway.store.history import Asked
from runtime.clock import FakeClock
from runtime.event_log.interface import CONTROL, UP
from tests.gateway.messages.site import DAYS, Site
from tests.gateway.messages.talkers import NOW_MS, Talker, ack

A, B, C = [Stay(f"o_{name}", f"s_{name}", "linux", None) for name in "abc"]
MINUTE_MS = 60_000
MOVED_MS = NOW_MS
MOVED = KnownDevice("o_b", "s_b", "linux", "approved", (A._replace(until_ms=MOVED_MS),))


def topic(stay: Stay, kind: Kind = Kind.TELEMETRY) -> Topic:
    return Topic(stay.org, stay.site, stay.type, "d_pump", kind)


def made(at_ms: int, *, by_clock: bool = True, boot: int = 1, up_ms: int = 0) -> Making:
    return Making(at_ms, by_clock, boot, up_ms)


BEFORE, AFTER = MOVED_MS - MINUTE_MS, MOVED_MS + MINUTE_MS
# When it was accepted, by which topic, when it says that it was made → whose it is.
WHOSE = [
    (BEFORE, A, BEFORE, "s_a"),  # accepted before the move, stored after it
    (AFTER, A, BEFORE, "s_a"),  # it was in the outbox
    (AFTER, A, AFTER, "s_a"),  # it has not heard yet that it moved
    (AFTER, B, BEFORE, "s_a"),  # it has, and sends what it had kept
    (AFTER, B, AFTER, "s_b"),
    (BEFORE, B, AFTER, "s_a"),  # two machines' clocks differ
]


@pytest.mark.parametrize(("received_ms", "by", "made_ms", "whose"), WHOSE)
def test_whose_a_reading_is(received_ms: int, by: Stay, made_ms: int, whose: str) -> None:
    assert MOVED.site_of(topic(by), received_ms, made(made_ms)) == whose


def test_a_clock_that_is_ahead_moves_no_reading_to_the_next_place() -> None:
    """Made a minute before the move, by a clock that is two minutes ahead: the hello tells."""
    wrong_ms = BEFORE + 2 * MINUTE_MS
    told = MOVED._replace(start=Start(4, BEFORE - MINUTE_MS))
    by = topic(B)
    assert told.site_of(by, AFTER, made(wrong_ms, boot=4, up_ms=MINUTE_MS)) == "s_a"
    assert told.site_of(by, AFTER, made(wrong_ms, boot=4, up_ms=3 * MINUTE_MS)) == "s_b"
    # Of a boot before the one that said hello, which began before the move.
    assert told.site_of(by, AFTER, made(wrong_ms, boot=3, up_ms=99 * MINUTE_MS)) == "s_a"


def test_without_a_clock_only_a_boot_that_said_hello_is_believed() -> None:
    by, late = topic(B), made(AFTER, by_clock=False, boot=4, up_ms=MINUTE_MS)
    assert MOVED.site_of(by, AFTER, late) == "s_a"
    assert MOVED._replace(start=Start(4, AFTER)).site_of(by, AFTER, late) == "s_b"
    assert MOVED._replace(start=Start(4, BEFORE - MINUTE_MS)).site_of(by, AFTER, late) == "s_a"


def test_back_where_it_was() -> None:
    former = (A._replace(until_ms=BEFORE), B._replace(until_ms=AFTER))
    back = KnownDevice("o_a", "s_a", "linux", "approved", former)
    now_ms = AFTER + MINUTE_MS
    assert back.site_of(topic(A), now_ms, made(MOVED_MS)) == "s_b"
    assert back.site_of(topic(A), now_ms, made(BEFORE)) == "s_a"
    assert back.site_of(topic(A), now_ms, made(now_ms)) == "s_a"
    assert back.site_of(topic(B), now_ms, made(now_ms)) == "s_b"


def test_who_was_never_there_is_not_heard_there() -> None:
    assert MOVED.was_ever_at(topic(A))
    assert MOVED.was_ever_at(topic(B))
    assert not MOVED.was_ever_at(topic(C))
    assert not MOVED.was_ever_at(topic(A._replace(type="demo")))
    assert MOVED.goes_by_an_old_place(topic(A))
    assert not MOVED.goes_by_an_old_place(topic(B))


def test_one_that_was_revoked_was_known_until_then() -> None:
    gone = KnownDevice("o_a", "s_a", "linux", "revoked", (A._replace(until_ms=MOVED_MS),))
    assert gone.was_known_at(BEFORE)
    assert not gone.was_known_at(AFTER)
    assert not gone.goes_by_an_old_place(topic(A))
    assert not KnownDevice("o_a", "s_a", "linux", "revoked").was_known_at(BEFORE)
    assert not KnownDevice("o_a", "s_a", "linux", "pending").was_known_at(BEFORE)


class Neighbours:
    """The site, and another owner's, to which a device goes."""

    def __init__(self, site: Site, seller: UUID, buyer: UUID, place: KnownDevice) -> None:
        self.site, self.seller, self.buyer, self.place = site, seller, buyer, place

    async def take(self, talker: Talker) -> None:
        async with self.site.database.transaction() as tx:
            await devices.move_claimed(tx, talker.id, self.place.site, "Pump")

    async def sees(self, talker: Talker, who: UUID, site_id: str) -> list[int]:
        """Numbers that a person at that site is shown of its history."""
        end = moment_of(int(self.site.clock.wall() * 1000)) + timedelta(days=1)
        asked = Asked(talker.id, site_id, who, None, end - timedelta(days=DAYS), end)
        async with self.site.database.reading() as tx:
            return sorted(entry.seq for entry in await history.page(tx, asked, None, 100))

    async def latest(self, talker: Talker, site_id: str) -> set[str]:
        async with self.site.database.reading() as tx:
            return set(await messages.latest(tx, talker.id, site_id))


@pytest.fixture
async def neighbours(site: Site) -> Neighbours:
    async with site.database.transaction() as tx:
        buyer = await people.put_user(tx, "buyer", None)
        org = await places.add_org(tx, buyer, "Other works")
        bought = await places.add_site(tx, org, "Other hall")
    [row] = await site.rows("SELECT id FROM users WHERE username = 'owner'")
    return Neighbours(site, row["id"], buyer, KnownDevice(org, bought, "linux", "approved"))


def passes(site: Site, seconds: float, *talkers: Talker) -> None:
    assert isinstance(site.clock, FakeClock)
    site.clock.advance(seconds)
    for talker in talkers:
        talker.now_ms = int(site.clock.wall() * 1000)


async def test_what_was_accepted_at_one_place_is_stored_for_it_and_the_next_owner_sees_none_of_it(
    site: Site, neighbours: Neighbours
) -> None:
    """In the log when it moved; in its outbox, and sent by its old place, and by its new one."""
    pump = await site.device()
    await site.append([pump.says(), pump.says(Kind.STATE)])
    passes(site, 10, pump)
    kept = pump.says()
    entry_by_new = pump.says(
        topic=pump.topic(Kind.TELEMETRY, org=neighbours.place.org, site=neighbours.place.site)
    )
    passes(site, 10)
    await neighbours.take(pump)
    passes(site, 10, pump)
    later = [_received(one, pump.now_ms) for one in (kept, entry_by_new)]
    await site.append(later)
    process = await site.process()
    await process.store()
    assert not await site.rows("SELECT 1 FROM dead_letters")
    assert await neighbours.sees(pump, neighbours.seller, site.place.site) == [1, 2, 3, 4]
    assert await neighbours.sees(pump, neighbours.buyer, neighbours.place.site) == []
    assert await neighbours.latest(pump, neighbours.place.site) == set()
    assert not await site.rows("SELECT 1 FROM events WHERE kind IN ('device.state', 'device.message')")
    # It hears where it is now, and what it says from then on is its new people's alone.
    pump.known = neighbours.place
    passes(site, 10, pump)
    await site.append([pump.says()])
    await process.leases.renew({UP: 12})
    await process.store()
    assert await neighbours.sees(pump, neighbours.buyer, neighbours.place.site) == [5]
    assert await neighbours.sees(pump, neighbours.seller, site.place.site) == [1, 2, 3, 4]
    assert await neighbours.latest(pump, neighbours.place.site) == {"telemetry"}


def _received(entry: Any, at_ms: int) -> Any:
    return type(entry)(entry.key, entry.value, at_ms, entry.headers)


async def test_it_is_told_where_it_is_once_it_goes_by_its_old_place(
    site: Site, neighbours: Neighbours
) -> None:
    pump = await site.device()
    await neighbours.take(pump)
    passes(site, 1, pump)
    await site.append([pump.says()])
    process = await site.process()
    await process.store()
    greeting = asyncio.create_task(process.greeter.run())
    await asyncio.wait_for(site.letters.came.wait(), 5)
    greeting.cancel()
    [(said_at, told)] = site.letters.published
    assert said_at == f"{pump.topic(Kind.TELEMETRY).prefix}/accepted"
    assert f'"prefix":"{neighbours.place.org}/{neighbours.place.site}/linux/{pump.id}"'.encode() in told


async def test_a_change_of_its_type_buries_nothing(site: Site) -> None:
    pump = await site.device()
    await site.append([pump.says()])
    async with site.database.transaction() as tx:
        for type_id in ("generic", "linux", "generic", "linux", "generic"):
            await devices.change(tx, pump.id, name="Pump", tags=[], site_id=site.place.site, type_id=type_id)
    passes(site, 1, pump)
    await site.append([pump.says()])
    pump.known = pump.known._replace(type="generic")
    await site.append([pump.says()])
    process = await site.process()
    await process.store()
    assert await site.history(pump) == [(1, 1), (1, 2), (1, 3)]
    assert not await site.rows("SELECT 1 FROM dead_letters")


async def test_a_type_that_goes_back_and_forth_keeps_a_row_a_type(site: Site) -> None:
    pump = await site.device()
    for type_id in ("generic", "linux") * 5:
        passes(site, 1)
        async with site.database.transaction() as tx:
            await devices.change(tx, pump.id, name="Pump", tags=[], site_id=site.place.site, type_id=type_id)
    rows = await site.rows("SELECT type FROM device_places WHERE device_id = $1 ORDER BY until", pump.id)
    assert [row["type"] for row in rows] == ["linux", "generic"]


async def test_what_was_accepted_before_a_device_was_revoked_is_stored(site: Site) -> None:
    pump = await site.device()
    await site.append([pump.says()])
    passes(site, 1)
    async with site.database.transaction() as tx:
        assert await devices.set_status(tx, pump.id, "revoked", allowed_from=["approved", "pending"])
    passes(site, 1, pump)
    await site.append([pump.says()])
    process = await site.process()
    await process.store()
    assert await site.history(pump) == [(1, 1)]
    rows = await site.rows("SELECT reason, site_id FROM dead_letters")
    assert [tuple(row) for row in rows] == [("device_revoked", site.place.site)]


async def test_its_answers_and_dead_letters_stay_with_who_had_it(site: Site, neighbours: Neighbours) -> None:
    pump = await site.device()
    process = await site.process()
    await site.append([pump.says(ts=1)])
    await site.says(pump, Kind.ACK, payload=ack(UUID(int=7 << 76 | 2 << 62)))
    await neighbours.take(pump)
    await process.store()
    await process.store(CONTROL)
    rows = await site.rows("SELECT reason, site_id FROM dead_letters")
    assert [tuple(row) for row in rows] == [("time_out_of_range", site.place.site)]


async def test_what_there_was_no_room_for_is_counted_apart_at_each_place(
    site: Site, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "_MOST", {"device": 1, "site": 9, "nobody": 9})
    pump = await site.device()
    process = await site.process()
    await site.append([pump.says(ts=1) for _ in range(3)])
    await process.store()
    await neighbours.take(pump)
    passes(site, 1, pump)
    pump.known = neighbours.place
    await site.append([pump.says(ts=1) for _ in range(4)])
    await process.leases.renew({UP: 12})
    await process.store()
    rows = await site.rows("SELECT reason, site_id, left_out FROM dead_letters ORDER BY n")
    assert [tuple(row) for row in rows] == [
        ("time_out_of_range", site.place.site, 0),
        ("no_space", site.place.site, 2),
        ("no_space", neighbours.place.site, 4),
    ]


async def test_a_place_where_it_never_was_is_no_place(site: Site, neighbours: Neighbours) -> None:
    pump = await site.device()
    await neighbours.take(pump)
    await site.append([pump.says(topic=pump.topic(Kind.TELEMETRY, site="s_elsewhere"))])
    process = await site.process()
    await process.store()
    [letter] = await site.rows("SELECT reason FROM dead_letters")
    assert letter["reason"] == "wrong_place"
    assert await site.history(pump) == []


async def test_a_hello_tells_when_its_boot_began_and_the_quickest_one_counts(
    site: Site, neighbours: Neighbours
) -> None:
    """A device without a clock that was up through the move."""
    pump = await site.device()
    process = await site.process()
    passes(site, 60, pump)
    began_ms = pump.now_ms - 60_000
    await site.says(pump, Kind.HELLO, up=60_000)
    passes(site, 60, pump)
    await site.says(pump, Kind.HELLO, up=90_000)  # half a minute on its way
    await process.store(CONTROL)
    [row] = await site.rows("SELECT started_at FROM device_connections")
    assert row["started_at"] == moment_of(began_ms)
    kept = pump.says(ts=None, up=119_000)
    passes(site, 1)
    await neighbours.take(pump)
    passes(site, 60, pump)
    pump.known = neighbours.place
    by_new = pump.topic(Kind.TELEMETRY)
    kept = _received(kept, pump.now_ms)
    kept = type(kept)(kept.key, kept.value, kept.at_ms, (("topic", str(by_new).encode()),))
    await site.append([kept, pump.says(ts=None, up=181_000)])
    await process.leases.renew({UP: 12})
    await process.store()
    assert await neighbours.sees(pump, neighbours.seller, site.place.site) == [1]
    assert await neighbours.sees(pump, neighbours.buyer, neighbours.place.site) == [2]


async def test_places_are_forgotten_with_the_history(site: Site, neighbours: Neighbours) -> None:
    pump = await site.device()
    await neighbours.take(pump)
    for days, left in ((DAYS, 1), (DAYS + 2, 0)):
        passes(site, days * 86_400)
        async with site.database.transaction() as tx:
            await history.forget_places(tx, DAYS)
        assert len(await site.rows("SELECT 1 FROM device_places")) == left

"""Who may begin a handshake, who waits, and who is sent away."""

from __future__ import annotations

import asyncio

import pytest

from runtime.tunnel_link.door import Door, Pass, Turned

WAIT_S = 5.0


def new_door(turned: list[Turned], *, wait_s: float = WAIT_S) -> Door:
    return Door(at_once=4, of_one=2, may_wait=3, wait_s=wait_s, turned=turned.append)


@pytest.fixture
def turned() -> list[Turned]:
    return []


async def entered(door: Door, address: str) -> Pass:
    async with asyncio.timeout(WAIT_S):
        place = await door.enter(address)
    assert place is not None
    return place


def waiting(door: Door, address: str) -> asyncio.Task[Pass | None]:
    return asyncio.get_running_loop().create_task(door.enter(address))


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_one_address_leaves_places_to_others(turned: list[Turned]) -> None:
    door = new_door(turned)
    first, _ = await entered(door, "192.0.2.1"), await entered(door, "192.0.2.1")
    third = waiting(door, "192.0.2.1")
    await turns()
    assert not third.done()
    await entered(door, "192.0.2.2")
    assert (door.inside, door.waiting) == (3, 1)
    first.leave()
    first.leave()  # a second time frees nobody else's place
    assert await third is not None
    assert (door.inside, door.waiting) == (3, 0)


async def test_addresses_take_turns(turned: list[Turned]) -> None:
    door = new_door(turned)
    places = [await entered(door, address) for address in ("a", "a", "b", "b")]
    order: list[str] = []

    async def come(address: str) -> None:
        place = await entered(door, address)
        order.append(address)
        place.leave()

    async with asyncio.TaskGroup() as group:
        for address in ("a", "a", "a", "b", "c"):
            group.create_task(come(address))
        await turns()
        assert door.waiting == 5
        for place in places:
            place.leave()
    assert sorted(order[:3]) == ["a", "b", "c"]
    assert (door.inside, door.waiting) == (0, 0)


async def test_so_many_of_one_may_wait_and_no_more(turned: list[Turned]) -> None:
    door = new_door(turned)
    place, _ = await entered(door, "a"), await entered(door, "a")
    rows = [waiting(door, "a") for _ in range(3)]
    await turns()
    assert await door.enter("a") is None
    assert turned == ["too_many_wait"]
    place.leave()
    await turns()
    # The newest: it will wait longest for its handshake, too.
    assert [row.done() for row in rows] == [False, False, True]
    for row in rows[:2]:
        row.cancel()
    await asyncio.gather(*rows, return_exceptions=True)
    assert (door.inside, door.waiting) == (2, 0)


async def test_waiting_has_an_end(turned: list[Turned]) -> None:
    door = new_door(turned, wait_s=0.01)
    await entered(door, "a")
    place = await entered(door, "a")
    assert await door.enter("a") is None
    assert turned == ["waited_too_long"]
    assert door.waiting == 0
    place.leave()
    await entered(door, "a")


async def test_who_goes_away_in_the_moment_of_its_turn_gives_the_place_back(turned: list[Turned]) -> None:
    door = new_door(turned)
    place, _ = await entered(door, "a"), await entered(door, "a")
    going, staying = waiting(door, "a"), waiting(door, "a")
    await turns()
    place.leave()
    going.cancel()
    assert await staying is not None
    await asyncio.gather(going, return_exceptions=True)
    assert (door.inside, door.waiting) == (2, 0)


async def test_a_place_that_comes_free_as_a_wait_ends_goes_to_the_next(turned: list[Turned]) -> None:
    door = new_door(turned)
    place, *_ = [await entered(door, address) for address in ("a", "a", "b", "b")]
    going = waiting(door, "c")
    await turns()
    staying = waiting(door, "d")
    await turns()
    going.cancel()  # as its deadline does; it has not run yet when the place comes free
    place.leave()
    assert await staying is not None
    await asyncio.gather(going, return_exceptions=True)
    assert going.cancelled()
    assert (door.inside, door.waiting) == (4, 0)


async def test_one_address_leaves_others_their_share_of_the_waiting_too(turned: list[Turned]) -> None:
    door = Door(at_once=1, of_one=1, may_wait=3, wait_s=WAIT_S, waiting_max=4, turned=turned.append)
    place = await entered(door, "x")
    rows: dict[str, asyncio.Task[Pass | None]] = {}
    for name in ("a1", "a2", "a3", "b1", "c1", "d1"):
        rows[name] = waiting(door, name[0])
        await turns()
    assert [name for name, row in rows.items() if row.done()] == ["a1", "a2"]  # the longest row's oldest
    assert await rows["a1"] is None
    assert turned == ["too_many_wait"] * 2
    assert await door.enter("e") is None  # every row is as short as its own would be
    assert await door.enter("a") is None
    assert door.waiting == 4
    for name in ("a3", "b1", "c1", "d1"):
        place.leave()
        found = await rows[name]
        assert found is not None
        place = found
    place.leave()
    assert (door.inside, door.waiting) == (0, 0)

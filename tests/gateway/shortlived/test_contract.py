"""What every short-lived store promises, asked of Redis, PostgreSQL 18 and PostgreSQL 15, by two gateways."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Sequence

import asyncpg
import pytest

from gateway.policy import limits
from gateway.policy.limits import Limit, Taken
from gateway.shortlived.in_redis import RedisShortLived
from gateway.shortlived.interface import TTL_MAX_S, VALUE_MAX_BYTES, Following, Heard, ShortLived
from gateway.store.database import Database
from runtime.clock import FakeClock
from tests.gateway.shortlived.conftest import Site

HEARD_WITHIN_S = 10.0  # milliseconds; this machine may be busy
Pair = tuple[ShortLived, ShortLived]


def some_limit(burst: int = 5, refill_s: float = 10.0, *, durable: bool = False) -> Limit:
    """One of its own for each test: the servers are shared."""
    return Limit("t_" + secrets.token_hex(6), burst, refill_s, durable)


async def next_of(following: Following) -> Heard:
    async with asyncio.timeout(HEARD_WITHIN_S):
        return await anext(following)


async def test_a_value_is_burnt_once_by_fifty_over_two_gateways(pair: Pair) -> None:
    for _ in range(5):
        key = secrets.token_urlsafe()
        await pair[0].put("state", key, b"verifier", 60.0)
        burnt = await asyncio.gather(*(pair[number % 2].burn("state", key) for number in range(50)))
        assert sorted(burnt, key=lambda value: value is None) == [b"verifier"] + [None] * 49


async def test_what_was_never_put_burns_to_nothing(pair: Pair) -> None:
    await pair[0].put("state", "k" + secrets.token_hex(8), b"x", 60.0)
    assert await pair[0].burn("state", secrets.token_urlsafe()) is None


async def test_kinds_do_not_meet(pair: Pair) -> None:
    key = secrets.token_urlsafe()
    await pair[0].put("state", key, b"one", 60.0)
    await pair[0].put("nonce", key, b"two", 60.0)
    assert await pair[1].burn("nonce", key) == b"two"
    assert await pair[1].burn("nonce", key) is None
    assert await pair[1].burn("state", key) == b"one"


async def test_put_again_the_last_one_counts(pair: Pair) -> None:
    key = secrets.token_urlsafe()
    await pair[0].put("state", key, b"one", 60.0)
    await pair[1].put("state", key, b"two", 60.0)
    assert await pair[0].burn("state", key) == b"two"
    assert await pair[0].burn("state", key) is None


@pytest.mark.parametrize("value", [b"", b"\x00\xff" * 10, bytes(VALUE_MAX_BYTES)])
async def test_any_bytes_come_back(pair: Pair, value: bytes) -> None:
    key = secrets.token_urlsafe() + "\udc80 ü"  # as a query may hold it
    await pair[0].put("state", key, value, 60.0)
    assert await pair[1].burn("state", key) == value


async def test_a_value_lives_by_the_gateways_clock(pair: Pair, clock: FakeClock) -> None:
    for early, found in ((0.001, b"x"), (0.0, None), (-30.0, None)):
        key = secrets.token_urlsafe()
        await pair[0].put("state", key, b"x", 20.0)
        clock.advance(20.0 - early)
        assert await pair[1].burn("state", key) == found, early


@pytest.mark.parametrize(
    ("value", "ttl_s"),
    [(bytes(VALUE_MAX_BYTES + 1), 60.0), (b"", 0.0), (b"", -1.0), (b"", TTL_MAX_S + 1)],
)
async def test_bounds_are_kept(pair: Pair, value: bytes, ttl_s: float) -> None:
    with pytest.raises(ValueError, match="a short-lived value"):
        await pair[0].put("state", "k", value, ttl_s)


async def test_a_limit_holds_over_two_gateways_at_once(pair: Pair) -> None:
    limit = some_limit(burst=20)
    taken = await asyncio.gather(*(pair[number % 2].take([(limit, "somebody")]) for number in range(60)))
    assert sum(one.refused is None for one in taken) == 20
    assert sorted(one.standings[0].remaining for one in taken if one.refused is None) == list(range(20))


async def test_the_figures_of_a_limit(pair: Pair, clock: FakeClock) -> None:
    limit = some_limit(burst=3, refill_s=10.0)

    async def take(store: ShortLived) -> tuple[bool, int, float, float]:
        one = (await store.take([(limit, "a")])).standings[0]
        return one.granted, one.remaining, one.wait_s, one.reset_s

    assert await take(pair[0]) == (True, 2, 0.0, 10.0)
    assert await take(pair[1]) == (True, 1, 0.0, 20.0)
    assert await take(pair[0]) == (True, 0, 10.0, 30.0)
    assert await take(pair[1]) == (False, 0, 10.0, 30.0)
    clock.advance(4.0)
    assert await take(pair[0]) == (False, 0, 6.0, 26.0)
    clock.advance(6.0)
    assert await take(pair[1]) == (True, 0, 10.0, 30.0)
    clock.advance(1000.0)
    assert await take(pair[0]) == (True, 2, 0.0, 10.0)


async def test_a_clock_that_was_set_back_locks_nobody_out(pair: Pair, clock: FakeClock) -> None:
    limit = some_limit(burst=3, refill_s=10.0)
    for _ in range(3):
        await pair[0].take([(limit, "a")])
    clock.set_wall(clock.wall() - 86_400)
    refused = (await pair[1].take([(limit, "a")])).refused
    assert refused is not None
    assert refused.wait_s == 10.0
    clock.advance(10.0)
    assert (await pair[1].take([(limit, "a")])).refused is None


async def test_the_buckets_behind_an_empty_one_are_not_asked(pair: Pair) -> None:
    narrow = Limit("a_" + secrets.token_hex(6), 1, 10.0)
    wide = Limit("b_" + secrets.token_hex(6), 5, 10.0)
    for remaining in (4, None, None):
        taken = await pair[0].take([(wide, "x"), (narrow, "x")])
        assert [one.limit for one in taken.standings] == ([narrow, wide] if remaining else [narrow])
    left = (await pair[1].take([(wide, "x")])).standings[0].remaining
    assert left == 3


async def test_durable_limits_and_others_in_one_go(pair: Pair) -> None:
    durable, light = some_limit(burst=2, durable=True), some_limit(burst=1)
    first = await pair[0].take([(light, "x"), (durable, "x")])
    assert {one.limit for one in first.standings} == {durable, light}
    assert first.refused is None
    second = await pair[1].take([(light, "x"), (durable, "x")])
    assert second.refused is not None
    assert second.refused.limit == light


async def test_nothing_wanted_is_granted(pair: Pair) -> None:
    assert await pair[0].take([]) == Taken(())


async def test_every_store_does_the_same_step(pair: Pair, clock: FakeClock) -> None:
    """Random tries at random times, whole and broken seconds, against the arithmetic of policy.limits."""
    dice = random.Random(8)
    wanted = [
        (some_limit(dice.randint(1, 6), dice.choice((0.1, 0.333, 1.0, 7.7, 60.0))), "x") for _ in range(4)
    ]
    tats: dict[Limit, int] = {}
    for _ in range(120):
        clock.set_wall(clock.wall() + dice.choice((0.0, 0.0, 0.01, 0.1, 0.5, 3.3, 20.0, -2.0)))
        chosen = dice.sample(wanted, dice.randint(1, 2))
        got = await dice.choice(pair).take(chosen)
        assert got == expected(chosen, tats, limits.micros(clock.wall()))


def expected(wanted: Sequence[tuple[Limit, str]], tats: dict[Limit, int], now: int) -> Taken:
    standings = []
    for limit in sorted((limit for limit, _ in wanted), key=lambda one: one.name):
        granted, tat = limits.step(limit, tats.get(limit), now)
        tats[limit] = tat
        standings.append(limits.standing(limit, granted, tat, now))
        if not granted:
            break
    return Taken(tuple(standings))


async def test_every_follower_at_every_gateway_is_woken(pair: Pair) -> None:
    channel = "c_" + secrets.token_hex(6)
    following = [store.follow(channel) for store in pair for _ in range(3)]
    for one in following:
        assert await next_of(one) is Heard.LIVE
        assert one.live
    for waker in pair:
        await waker.wake(channel)
        assert [await next_of(one) for one in following] == [Heard.WAKE] * 6


async def test_a_change_wakes_with_its_commit_and_only_then(site: Site) -> None:
    store = await site.gateway()
    database = await site.database()
    if isinstance(store, RedisShortLived):
        database.announce = store.wake_soon
    channel, other = ("c_" + secrets.token_hex(6) for _ in range(2))
    with store.follow(channel) as following, store.follow(other) as unwoken:
        assert await next_of(following) is Heard.LIVE
        assert await next_of(unwoken) is Heard.LIVE
        with pytest.raises(asyncpg.DataError):
            await wake_and_fail(database, other)
        async with database.transaction() as tx:
            tx.wake(channel)
        assert await next_of(following) is Heard.WAKE
        # Had the rolled back one woken anybody, it would have done so before.
        await store.wake(other)
        assert await next_of(unwoken) is Heard.WAKE
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(unwoken), 0.2)


async def wake_and_fail(database: Database, channel: str) -> None:
    async with database.transaction() as tx:
        tx.wake(channel)
        await tx.execute("SELECT 1/0")


async def test_a_late_follower_of_a_known_channel_is_live_at_once(pair: Pair) -> None:
    channel = "c_" + secrets.token_hex(6)
    with pair[0].follow(channel) as first:
        assert await next_of(first) is Heard.LIVE
        with pair[0].follow(channel) as second:
            assert await next_of(second) is Heard.LIVE


async def test_wakes_that_nobody_took_are_one(pair: Pair) -> None:
    channel = "c_" + secrets.token_hex(6)
    with pair[0].follow(channel) as slow, pair[0].follow(channel) as counter:
        assert await next_of(slow) is await next_of(counter) is Heard.LIVE
        for _ in range(5):
            await pair[1].wake(channel)
            assert await next_of(counter) is Heard.WAKE
        assert await next_of(slow) is Heard.WAKE
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(slow), 0.2)


async def test_asking_may_be_given_up_and_taken_up_again(pair: Pair) -> None:
    channel = "c_" + secrets.token_hex(6)
    with pair[0].follow(channel) as following:
        assert await next_of(following) is Heard.LIVE
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(following), 0.05)
        await pair[1].wake(channel)
        assert await next_of(following) is Heard.WAKE


async def test_a_closed_follower_ends(pair: Pair) -> None:
    following = pair[0].follow("c_" + secrets.token_hex(6))
    assert await next_of(following) is Heard.LIVE
    waiting = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    following.close()
    with pytest.raises(StopAsyncIteration):
        async with asyncio.timeout(HEARD_WITHIN_S):
            await waiting


@pytest.mark.parametrize("channel", ["", "Upper", "with space", 'quo"te', "x" * 64, "ü"])
async def test_odd_channels_are_refused(pair: Pair, channel: str) -> None:
    with pytest.raises(ValueError, match="not a channel"):
        pair[0].follow(channel)

"""What one device may say; what is over it is never lost silently."""

from __future__ import annotations

import json

import pytest

from device_protocol.numbers import Number
from device_protocol.topics import Kind
from ingest.policy.rates import Rates
from runtime.clock import FakeClock
from tests.ingest.world import Talker, world


def test_a_burst_and_then_the_rate() -> None:
    rates = Rates(messages_s=10, bytes_s=1000, burst_s=2.0, most=10)
    taken = [rates.takes("d", 1, 100.0) for _ in range(30)]
    assert taken == [True] * 20 + [False] * 10
    assert not rates.takes("d", 1, 100.09)
    assert rates.takes("d", 1, 100.11), "a tenth of a second is one message"
    assert not rates.takes("d", 1, 100.11)
    assert [rates.takes("d", 1, 1000.0) for _ in range(21)].count(True) == 20, "no more than a burst is saved"
    assert rates.takes("other", 1, 1000.0)


def test_bytes_count_where_they_are_more() -> None:
    rates = Rates(messages_s=10, bytes_s=1000, burst_s=2.0, most=10)
    assert [rates.takes("d", 500, 0.0) for _ in range(5)] == [True] * 4 + [False]
    assert not rates.takes("d", 500, 0.4)
    assert rates.takes("d", 500, 0.51)


def test_what_is_refused_uses_nothing_up() -> None:
    rates = Rates(messages_s=1, bytes_s=1000, burst_s=1.0, most=10)
    assert rates.takes("d", 1, 0.0)
    for _ in range(1000):
        rates.takes("d", 1, 0.5)
    assert rates.takes("d", 1, 1.0)


def test_the_memory_is_bounded_and_the_busiest_are_remembered() -> None:
    rates = Rates(messages_s=1, bytes_s=1000, burst_s=1.0, most=100)
    for n in range(1000):
        rates.takes("busy", 1, float(n))
        rates.takes(f"d_{n}", 1, float(n))
    assert len(rates) == 100
    assert not rates.takes("busy", 1, 999.0)


async def test_what_is_too_much_is_left_and_accepted_later() -> None:
    """A device over its rate: nothing lost, nothing out of line, others as ever."""
    clock = FakeClock()
    async with world(rates=Rates(messages_s=50, bytes_s=1e9, burst_s=0.2, most=100), clock=clock) as it:
        talker, other = Talker(), Talker("d_bbbbbbbbbbbbbbbb")
        slips = [it.offer(talker.topic(), talker.next()) for _ in range(40)]
        assert [slip.state for slip in slips].count("left") == 30, "10 at once"
        await it.settled(it.offer(other.topic(), other.next()))
        assert it.metric('towline_ingest_left_total{why="rate"}') == 30
        for taken in (10, 20, 30, 40):
            await it.quiet()
            talker.floor = max(Number(*a) for a in it.ears.accepted)
            assert talker.floor.seq == taken, "the burst is there again"
            clock.advance(0.2)
            for seq in range(taken + 1, 41):
                it.offer(talker.topic(), talker.again(seq))
        assert it.metric("towline_ingest_gaps_total") == 0, "nothing behind what was left is looked at"
        assert [json.loads(value)["seq"] for value in it.stored()] == list(range(1, 41))


@pytest.mark.parametrize("kind", [Kind.TELEMETRY, Kind.HELLO, Kind.CMD])
async def test_nonsense_counts_too_before_it_is_read(kind: Kind) -> None:
    async with world(rates=Rates(messages_s=1, bytes_s=1e9, burst_s=5.0, most=100)) as it:
        talker = Talker()
        for _ in range(100):
            it.offer(talker.topic(kind), b"{" * 20_000)
        await it.quiet()
        assert it.metric("towline_ingest_messages_total") == 5
        assert it.metric('towline_ingest_left_total{why="rate"}') == 95


async def test_a_name_that_is_no_topic_has_one_rate_for_all() -> None:
    async with world(rates=Rates(messages_s=1, bytes_s=1e9, burst_s=5.0, most=100)) as it:
        for n in range(100):
            it.offer(f"no topic {n}", b"x")
        await it.quiet()
        assert it.metric("towline_ingest_messages_total") == 5

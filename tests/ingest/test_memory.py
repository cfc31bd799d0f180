"""What waits for the log is bounded, by what it really costs."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from device_protocol.numbers import NOTHING, Number
from device_protocol.topics import Kind
from ingest.policy.progress import Lines
from tests.ingest.world import Slip, Talker, world

MESSAGES = 1000


@pytest.mark.parametrize("kind", ["new", "seen", "bad", "unreadable", "hello"])
async def test_the_bytes_counted_are_those_used(kind: str) -> None:
    """Else a limit of 32 MiB would be one of several hundred."""
    async with world(bytes_max=1 << 30) as it:
        it.log.open.clear()
        talkers = [Talker(f"d_{n:016d}") for n in range(100)]
        arrivals = []
        for n in range(MESSAGES):
            talker = talkers[n % len(talkers)]
            topic = talker.topic(Kind.HELLO if kind == "hello" else Kind.TELEMETRY)
            match kind:
                case "new":
                    payload = talker.next()
                case "seen":
                    payload = talker.again(1)
                case "bad":
                    payload = talker.next(payload=None)
                case "unreadable":
                    payload = talker.next(seq=0)
                case _:
                    payload = talker.hello()
            arrivals.append((topic, payload))
        slips = [Slip() for _ in arrivals]
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for (topic, payload), slip in zip(arrivals, slips, strict=True):
                it.offer_with(slip, str(topic.encode(), "ascii"), bytes(bytearray(payload)))
            gc.collect()
            used = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        counted = it.intake.budget.used
        assert 0.3 * counted < used < 1.1 * counted
        it.log.open.set()


def test_a_line_costs_little() -> None:
    lines = Lines(12, 100_000)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(20_000):
            lines.offer(n % 12, f"d_{n:016d}", Number(1, n + 2), NOTHING, NOTHING)
        each = (tracemalloc.get_traced_memory()[0] - before) / len(lines)
    finally:
        tracemalloc.stop()
    assert each < 600, "200,000 of them are 120 MB"

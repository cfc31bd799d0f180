"""The one timer of all tunnels."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from runtime.tunnel_link import Ticker, ticker

WAIT_S = 5.0


class Driver:
    timer_at = 0.0

    def __init__(self) -> None:
        self.ticks: list[float] = []
        self.ticked = asyncio.Event()

    def flush(self) -> None:
        raise AssertionError("nobody marked it")

    def tick(self, now: float) -> None:
        self.ticks.append(now)
        self.ticked.set()

    def broke(self) -> None:
        raise AssertionError("it did not fail")


async def test_a_driver_that_is_over_is_not_kept_until_its_timer() -> None:
    """Servers that end every connection at once would fill a memory with handshakes' deadlines."""
    shared = Ticker()
    driver = Driver()
    shared.arm(driver, shared.now() + 3600)
    shared.arm(driver, shared.now() + 1800)
    shared.arm(driver, float("inf"))
    over = weakref.ref(driver)
    del driver
    gc.collect()
    assert over() is None


async def test_the_time_armed_last_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticker, "TICK_S", 0.01)
    shared, moved, other = Ticker(), Driver(), Driver()
    begun = shared.now()
    shared.arm(moved, begun + 0.02)
    shared.arm(moved, begun + 0.2)
    shared.arm(other, begun + 0.05)
    async with asyncio.timeout(WAIT_S):
        await moved.ticked.wait()
    assert moved.ticks[0] >= begun + 0.2
    assert len(moved.ticks) == len(other.ticks) == 1

"""The one timer of all tunnels."""

from __future__ import annotations

import asyncio
import gc
import socket
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


class Flushed(Driver):
    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self.order = order
        self.left = asyncio.Event()

    def flush(self) -> None:
        self.order.append("flush")
        self.left.set()


async def test_what_has_come_meanwhile_leaves_in_the_same_message() -> None:
    """Services write head and body of an answer one after the other: the body comes with the next look."""
    order: list[str] = []
    near, far = socket.socketpair()
    with near, far:
        loop = asyncio.get_running_loop()

        def read() -> None:
            order.append("read")
            loop.remove_reader(near)

        loop.add_reader(near, read)
        driver, shared = Flushed(order), Ticker()
        shared.mark(driver)
        far.send(b"body")
        async with asyncio.timeout(WAIT_S):
            await driver.left.wait()
    assert order == ["read", "flush"]

"""What all drivers of one event loop share: the list of those with something to send, and one timer."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

# Timers here are keepalives of 4 s and more: a coarse tick serves thousands of tunnels with few wake-ups.
TICK_S: Final = 0.25

_log = logging.getLogger("towline.tunnel_link")


class Ticked(Protocol):
    timer_at: float  # when tick() is wanted

    def flush(self) -> None: ...

    def tick(self, now: float) -> None: ...

    def broke(self) -> None:
        """flush or tick raised: the driver is of no use any more, and must end without the others."""


class Ticker:
    """One for each event loop; must be made while that loop runs. Costs nothing while nobody is armed."""

    __slots__ = ("_armed", "_dirty", "_due", "_loop", "_numbers", "_wake_at", "_wake_up", "now")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = time.monotonic  # uvloop's loop.time counts milliseconds and stands still within a turn
        self._dirty: list[Ticked] = []
        # A heap; the number breaks ties. An entry that was armed anew is emptied: it must not keep a tunnel
        # that is gone until the end of a handshake that it once waited for.
        self._due: list[tuple[float, int, list[Ticked]]] = []
        self._armed: dict[Ticked, list[Ticked]] = {}  # whose entry holds it
        self._numbers = itertools.count()
        self._wake_up: asyncio.TimerHandle | None = None
        self._wake_at = 0.0

    def mark(self, driver: Ticked) -> None:
        """`driver.flush` is called after what the loop has ready now, and after one more look at the sockets:
        all of that leaves in one message.

        The look costs one system call that does not wait. Without it the head of a small answer leaves alone
        whenever its service writes the body a moment later: two messages, and everything behind them twice.
        """
        if not self._dirty:
            self._loop.call_soon(self._look_again)
        self._dirty.append(driver)

    def _look_again(self) -> None:
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for driver in dirty:
            try:
                driver.flush()
            except Exception:
                self._drop(driver)

    def _drop(self, driver: Ticked) -> None:
        """One driver's fault must not cost the others their turn: they would wait for it for ever."""
        _log.exception("a tunnel's driver failed")
        driver.broke()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """For short waits, exact to the loop's own timers."""
        self._loop.call_later(seconds, call)

    def arm(self, driver: Ticked, at: float) -> None:
        """`driver.tick` is called at `at` or up to TICK_S later, instead of at any time armed before."""
        driver.timer_at = at
        former = self._armed.pop(driver, None)
        if former is not None:
            former.clear()
        if at == float("inf"):
            return
        held = self._armed[driver] = [driver]
        heapq.heappush(self._due, (at, next(self._numbers), held))
        if self._wake_up is None or at < self._wake_at - TICK_S:
            self._schedule(at)

    def _schedule(self, at: float) -> None:
        if self._wake_up is not None:
            self._wake_up.cancel()
        now = self.now()
        self._wake_at = max(at, now + TICK_S)
        self._wake_up = self._loop.call_later(self._wake_at - now, self._tick)

    def _tick(self) -> None:
        self._wake_up = None
        now = self.now()
        while self._due and self._due[0][0] <= now:
            _, _, held = heapq.heappop(self._due)
            for driver in held[:]:
                del self._armed[driver]
                try:
                    driver.tick(now)
                except Exception:
                    self._drop(driver)
        if self._due:
            self._schedule(self._due[0][0])

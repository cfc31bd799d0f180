"""Time as a value that is passed in, so that nothing but a process's edge reads a clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Both readings are in seconds."""

    def monotonic(self) -> float:
        """Never goes back; for timers and ages."""
        ...

    def wall(self) -> float:
        """Unix time; for expiry dates in tokens and certificates alone."""
        ...


class SystemClock:
    """The operating system's clocks."""

    __slots__ = ()

    # The functions themselves: the data plane reads the clock several times a request.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class FakeClock:
    """A clock that moves only when told to; for tests and simulations."""

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, *, monotonic: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._monotonic += seconds
        self._wall += seconds

    def set_wall(self, wall: float) -> None:
        """Step the wall clock alone, as NTP or a person does."""
        self._wall = wall


SYSTEM_CLOCK = SystemClock()

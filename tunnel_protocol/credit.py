"""How large a stream's window is, and what all windows of a connection may cost (section 8)."""

from __future__ import annotations

from typing import Final

# A half window that drains within two round trips says that the window, not the link, was the limit. On short
# links the event loops' own turns are longer than the round trip: with 4 ms a half, a window carries its
# rate times 8 ms.
QUICK_FLOOR_S: Final = 0.004
# A stream that took nothing for this long gives its grown window back when another one needs the budget.
IDLE_UNDER_PRESSURE_S: Final = 0.25
# How often a connection may look for such streams: a look costs a walk over all of them.
PRESSURE_INTERVAL_S: Final = 0.1


def grown_window(window: int, maximum: int, drained_in_s: float, rtt_s: float | None) -> int:
    """The window that a stream deserves when half of it drained in `drained_in_s`: twice it if quick.

    Without a round trip measured yet nothing grows.
    """
    if rtt_s is None or drained_in_s > max(2 * rtt_s, QUICK_FLOOR_S):
        return window
    return min(2 * window, maximum)


class WindowBudget:
    """Bytes by which the windows of one connection have grown beyond their start.

    Credit once given stays given, so a window that shrinks leaves its promise behind: that is parked until
    the peer has used it up. `used` and `parked` each stay within the budget: all promises within twice that.
    """

    __slots__ = ("budget", "looked_at", "parked", "used")

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self.parked = 0
        self.looked_at = float("-inf")  # when idle streams were last looked for under pressure

    @property
    def spare(self) -> int:
        return self.budget - self.used

    def may_park(self, extra: int) -> bool:
        return self.parked + extra <= self.budget

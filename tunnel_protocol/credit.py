"""How large a stream's window is, and what all windows of a connection may cost (section 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

# A half window that drains within two round trips says that the window, not the link, was the limit. On short
# links the event loops' own turns are longer than the round trip: with 4 ms a half, a window carries its
# rate times 8 ms.
QUICK_FLOOR_S: Final = 0.004
# A stream that took nothing for this long gives its grown window back when another one needs the budget.
IDLE_UNDER_PRESSURE_S: Final = 0.25
# How often a connection may look for such streams: a look costs a walk over all of them.
PRESSURE_INTERVAL_S: Final = 0.1

# Everything that a tunnel carries to a near peer waits behind what is in flight: half a mebibyte over 5 ms is
# still 100 MB/s. Returned by quarters it is never so far used up that a bulk transfer runs dry.
NEAR_RTT_S: Final = 0.005
NEAR_WINDOW: Final = 1 << 19


def connection_window(most: int, rtt_s: float | None) -> tuple[int, int]:
    """Bytes that may be in flight on a connection, and after how many that came in more is promised.

    `most` may be in flight over any distance; `rtt_s` is the smallest round trip, None before the first.
    """
    if rtt_s is None or rtt_s > NEAR_RTT_S or most <= NEAR_WINDOW:
        return most, max(most // 2, 1)
    return NEAR_WINDOW, NEAR_WINDOW // 4


def grown_window(window: int, maximum: int, drained_in_s: float, rtt_s: float | None) -> int:
    """The window that a stream deserves when half of it drained in `drained_in_s`: twice it if quick.

    Without a round trip measured yet nothing grows.
    """
    if rtt_s is None or drained_in_s > max(2 * rtt_s, QUICK_FLOOR_S):
        return window
    return min(2 * window, maximum)


class Windowed(Protocol):
    """What the budget needs of a stream; it sets `window`, `parked` and `swept_bytes`."""

    window: int  # bytes that the peer may have under way
    parked: int  # bytes of promised credit beyond the window, not used up yet
    consumed_bytes: int  # of the peer's data, by the owner
    swept_bytes: int  # consumed_bytes at the last look for idle streams
    receive_limit: int  # stream offset up to which the peer may send
    returned_at: float  # monotonic seconds of the last CREDIT

    def is_idle(self, now: float, idle_s: float) -> bool:
        """Whether it took nothing for so long."""


class WindowBudget:
    """Bytes by which the windows of one connection have grown beyond their start.

    Credit once given stays given, so a window that shrinks leaves its promise behind: that is parked until
    the peer has used it up. `used` and `parked` each stay within the budget: all promises within twice that.
    """

    __slots__ = ("_first", "_looked_at", "_most", "budget", "parked", "used")

    def __init__(self, budget: int, first: int, most: int) -> None:
        """`first`: every window's start; `most`: up to where one grows; bytes."""
        self.budget = budget
        self.used = 0
        self.parked = 0
        self._first = first
        self._most = most
        self._looked_at = float("-inf")  # when idle streams were last looked for under pressure

    def adapt(self, stream: Windowed, streams: Iterable[Windowed], now: float, rtt_s: float | None) -> None:
        """A half of the stream's window was consumed: grows it when that was quick."""
        if stream.parked:
            still = max(stream.receive_limit - stream.consumed_bytes - stream.window, 0)
            self.parked -= max(stream.parked - still, 0)
            stream.parked = min(stream.parked, still)
        wanted = grown_window(stream.window, self._most, now - stream.returned_at, rtt_s)
        more = wanted - stream.window
        if more > self.budget - self.used and now - self._looked_at > PRESSURE_INTERVAL_S:
            self._looked_at = now
            self._park(streams, lambda other: other.is_idle(now, IDLE_UNDER_PRESSURE_S))
        if more <= self.budget - self.used:
            self.used += more
            stream.window = wanted

    def park_unused(self, streams: Iterable[Windowed]) -> None:
        """Takes back the growth of streams that consumed nothing since the last look."""
        if self.used:
            self._park(streams, lambda stream: stream.swept_bytes == stream.consumed_bytes)

    def release(self, stream: Windowed) -> None:
        """The stream is over."""
        self.used -= stream.window - self._first
        self.parked -= stream.parked

    def _park(self, streams: Iterable[Windowed], idle: Callable[[Windowed], bool]) -> None:
        for stream in streams:
            extra = stream.window - self._first
            if extra and self.parked + extra <= self.budget and idle(stream):
                self.used -= extra
                self.parked += extra
                stream.parked += extra
                stream.window = self._first
            stream.swept_bytes = stream.consumed_bytes

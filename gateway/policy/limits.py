"""Rate limits as arithmetic: the generic cell rate algorithm (ITU-T I.371, annex A), one number a bucket.

`tat`, the theoretical arrival time, is when the bucket will be full again. A try moves it on by `refill`; it
is granted as long as that leaves it within `span` of now. The stores do this step in one statement each; what
they answer is told from here, so that a limit shows the same figures whoever keeps it.

Times are whole microseconds since 1970, as Postgres keeps them and as a Lua number holds them exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

MICROS_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` tries at once, then one each `refill_s` seconds."""

    name: str
    burst: int
    refill_s: float
    durable: bool = False
    """Kept in Postgres whatever else is set: losing its count would give a guesser new tries."""

    @property
    def refill(self) -> int:
        """Microseconds from one try to the next."""
        return round(self.refill_s * MICROS_PER_S)

    @property
    def span(self) -> int:
        """Microseconds until an empty bucket is full."""
        return self.refill * self.burst


@dataclass(frozen=True, slots=True)
class Standing:
    """One bucket after it was asked."""

    limit: Limit
    granted: bool
    remaining: int
    """Tries that would be granted at once now, 0 … burst - 1."""
    wait_s: float
    """Seconds until the next try will be granted; 0.0: at once."""
    reset_s: float
    """Seconds until all of the burst is there again."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one request's tries. `standings`: the buckets that were asked, in that order."""

    standings: tuple[Standing, ...]

    @property
    def refused(self) -> Standing | None:
        """The bucket that was empty; those behind it were not asked. None: every try was granted."""
        return next((standing for standing in self.standings if not standing.granted), None)

    @property
    def tightest(self) -> Standing | None:
        """The bucket to tell a client about: the empty one, or the one with the fewest tries left."""
        return self.refused or min(self.standings, key=lambda one: one.remaining, default=None)


def micros(unix_s: float) -> int:
    """Unix seconds → microseconds."""
    return round(unix_s * MICROS_PER_S)


def step(limit: Limit, tat: int | None, now: int) -> tuple[bool, int]:
    """(granted, the new tat); None: nobody tried yet. The stores write this step in SQL and Lua."""
    # min: a clock that was set back must not lock anybody out for longer than the span. That is why the new
    # tat must be kept of a refused try too, where it differs.
    at = now if tat is None else max(min(tat, now + limit.span), now)
    granted = at + limit.refill <= now + limit.span
    return granted, at + limit.refill if granted else at


def standing(limit: Limit, granted: bool, tat: int, now: int) -> Standing:
    """The figures of a bucket whose tat is `tat` after the step."""
    full_in = max(0, min(tat, now + limit.span) - now)
    wait = max(0, full_in + limit.refill - limit.span)
    return Standing(
        limit,
        granted,
        remaining=(limit.span - full_in) // limit.refill,
        wait_s=wait / MICROS_PER_S,
        reset_s=full_in / MICROS_PER_S,
    )

"""The general limit of each login and API token: what one client may ask of this process.

It protects the process, whose memory keeps it: a write to a shared store for each read would cost more than
the read. Several gateways together grant that many times as much; they can serve that many times as much.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from uuid import UUID

from gateway.policy.limits import Limit, Standing, micros, standing, step
from runtime.clock import Clock

BURST_S: Final = 20  # an app that opens with a list and a look at each thing in it
# Of the clients that asked last; each is a number. An older one begins anew: it asked nothing for a while.
KEPT: Final = 20_000


class GeneralLimit:
    """`per_s` requests a second, BURST_S seconds' worth at once."""

    def __init__(self, per_s: int, clock: Clock) -> None:
        self._limit = Limit("requests", burst=per_s * BURST_S, refill_s=1.0 / per_s)
        self._clock = clock
        self._tats: OrderedDict[UUID, int] = OrderedDict()

    def __repr__(self) -> str:
        return f"<GeneralLimit {self._limit.burst} of {len(self._tats)} clients>"

    def take(self, whose: UUID) -> Standing:
        """Count one request of this login or API token."""
        now = micros(self._clock.wall())
        granted, tat = step(self._limit, self._tats.pop(whose, None), now)
        self._tats[whose] = tat
        if len(self._tats) > KEPT:
            self._tats.popitem(last=False)
        return standing(self._limit, granted, tat, now)

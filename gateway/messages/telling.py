"""Which changes of devices are told to those who follow live: the first at once, then one each five seconds.

The last one is always told, if late: an app that shows the state asks for it once it is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.policy.live import Change

EVERY_S: Final = 5.0
# Each is a row that is kept for a day, all written under one lock: the others come with the next batch.
AT_ONCE_MAX: Final = 100

Subject = tuple[str, str]
"""Device and kind of change."""


class Telling:
    """Time is an argument, seconds. What was not told before a crash is not told: followers look anyway."""

    def __init__(self) -> None:
        self._told: dict[Subject, float] = {}
        self._owed: dict[Subject, None] = {}

    def __repr__(self) -> str:
        return f"<Telling owed={len(self._owed)}>"

    def owe(self, subjects: Iterable[Subject]) -> None:
        """These changed, and that is committed."""
        self._owed.update(dict.fromkeys(sorted(subjects)))

    def due(self, changed: Iterable[Subject], now: float) -> list[Subject]:
        """What is told now, of what changes now and what is owed. Nothing is noted yet: `told` does."""
        self._forget(now)
        wanted = dict.fromkeys([*self._owed, *sorted(changed)])
        return [one for one in wanted if one not in self._told][:AT_ONCE_MAX]

    def told(self, subjects: Iterable[Subject], now: float) -> None:
        """These were told, and that is committed."""
        for one in subjects:
            self._told[one] = now
            self._owed.pop(one, None)

    def _forget(self, now: float) -> None:
        # In the order of time: the first that is recent ends it.
        while self._told:
            first = next(iter(self._told))
            if now - self._told[first] < EVERY_S:
                return
            del self._told[first]


def change(subject: Subject) -> Change:
    """As it is told."""
    device, kind = subject
    return Change(kind, device_id=device)

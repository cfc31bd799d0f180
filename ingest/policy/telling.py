"""What devices are told, and how often: the newest `accepted` of each, and now and then a refusal."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from device_protocol.errors import Reason
from device_protocol.numbers import Number

REFUSED_EVERY_S: Final = 1.0
"""A device that sends nonsense is told once a second; it sends again what was not accepted anyway."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Everything up to `number` is in the log. `prefix`: the device's topic without the kind."""

    prefix: str
    number: Number


@dataclass(frozen=True, slots=True)
class Refused:
    """A message was put with the dead letters; `id` is its own, None where it could not be read."""

    prefix: str
    reason: Reason
    id: str | None


class Telling:
    """Time is an argument, monotonic seconds. Losing any of it is harmless: devices ask by sending again."""

    def __init__(self, every_s: float, most: int) -> None:
        """A device hears `accepted` at once when it heard none for `every_s`, else as soon as that is over.

        At most so many devices are remembered; of more, those that waited longest hear nothing.
        """
        self._every_s = every_s
        self._most = most
        self._ready: OrderedDict[str, Accepted] = OrderedDict()
        self._held: OrderedDict[str, Accepted] = OrderedDict()  # of devices that heard something just now
        self._heard: OrderedDict[str, float] = OrderedDict()  # when, in the order of time
        self._refused: OrderedDict[str, float] = OrderedDict()  # the same of refusals
        self._refusals: list[Refused] = []

    def __len__(self) -> int:
        return len(self._ready) + len(self._held) + len(self._refusals)

    def accepted(self, device: str, prefix: str, number: Number) -> None:
        """The device is to hear this, or more by then."""
        queue = self._held if device in self._heard else self._ready
        waiting = queue.get(device)
        # A line that was forgotten begins lower; the device knows better than to go back.
        if waiting is None or number >= waiting.number:
            queue[device] = Accepted(prefix, number)
        if len(queue) > self._most:
            queue.popitem(last=False)

    def refused(self, device: str, refused: Refused, now: float) -> None:
        """The device is to hear of this refusal, unless it heard of one just now."""
        _expire(self._refused, REFUSED_EVERY_S, now)
        if device in self._refused or len(self._refused) >= self._most:
            return
        self._refused[device] = now
        self._refusals.append(refused)

    def due(self, now: float) -> list[Accepted | Refused]:
        """What must be told now; it counts as told."""
        for device in _expire(self._heard, self._every_s, now):
            if device in self._held:
                self._ready[device] = self._held.pop(device)
        found: list[Accepted | Refused] = [*self._refusals, *self._ready.values()]
        for device in self._ready:
            self._heard[device] = now
        self._refusals.clear()
        self._ready.clear()
        return found

    def next_timer(self, now: float) -> float | None:
        """When `due` has something to say next; None: not before something new comes."""
        if self._refusals or self._ready:
            return now
        if not self._held:
            return None
        return max(now, next(iter(self._heard.values())) + self._every_s)


def _expire(times: OrderedDict[str, float], after_s: float, now: float) -> list[str]:
    """Drops those that are so old and names them."""
    gone = []
    while times and next(iter(times.values())) + after_s <= now:
        gone.append(times.popitem(last=False)[0])
    return gone

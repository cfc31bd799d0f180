"""When which messages leave (docs/protocol/device-v1.md): go-back-N over whatever lies between.

The broker's word that it has a message counts for nothing, since it may lose it; only `accepted` moves the
window on. Brokers and bridges may drop, double and forget: then everything after the floor is said again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from device_protocol.numbers import NOTHING, Number

WINDOW_MESSAGES: Final = 64
WINDOW_BYTES: Final = 64 << 10
"""In flight beyond the floor: what a device holds in memory, and a broker for it."""
PATIENCE_FIRST_S: Final = 5.0  # without progress; a bridge answers within 50 ms, and 1 s over a mobile line
PATIENCE_MAX_S: Final = 60.0  # the pipeline is away for longer: repeating faster only loads who comes back
REFUSALS: Final = 3  # of the first message in line: a fourth would not be taken either


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entry in the window; `body` as it is stored."""

    number: Number
    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Departure:
    """One message to be sent now, with what is said beside it."""

    entry: Waiting
    floor: Number
    prev: Number | None
    """None where that is what a reader takes it for: (boot, seq - 1)."""


class Sending:
    """The window. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.floor = NOTHING
        self.connected = False
        self._window: deque[Waiting] = deque()
        self._bytes = 0
        self._next = 0  # in the window: the first that was not sent since the last step back
        self._patience_s = PATIENCE_FIRST_S
        self._again_at: float | None = None  # None: nothing is in flight
        self._refusals = 0

    def __len__(self) -> int:
        return len(self._window)

    def __repr__(self) -> str:
        return f"<Sending {self._next} of {len(self._window)} in flight beyond {tuple(self.floor)}>"

    @property
    def last(self) -> Number | None:
        """The last in the window: what comes next is read after it."""
        return self._window[-1].number if self._window else None

    @property
    def head(self) -> Waiting | None:
        """First in line."""
        return self._window[0] if self._window else None

    def room(self) -> tuple[int, int]:
        """Messages and bytes that may be added; the first of a window may be of any size."""
        messages = WINDOW_MESSAGES - len(self._window)
        left = WINDOW_BYTES - self._bytes
        return (messages, left) if messages > 0 and left > 0 else (0, 0)

    def add(self, entries: Sequence[Waiting]) -> None:
        """What follows in the outbox."""
        for entry in entries:
            assert self.last is None or entry.number > self.last
            self._window.append(entry)
            self._bytes += len(entry.body)

    def departures(self, now: float, random: float) -> list[Departure]:
        """What to send now: those not sent yet, or all again when patience ended. `random` in [0, 1)."""
        if not self.connected:
            return []
        if self._again_at is not None and now >= self._again_at:
            self._next = 0
            self._patience_s = min(2 * self._patience_s, PATIENCE_MAX_S)
            self._again_at = None
        found = [self._departure(at) for at in range(self._next, len(self._window))]
        self._next = len(self._window)
        if found and self._again_at is None:
            self._again_at = now + self._patience_s * (1 + random / 2)
        return found

    def due_at(self) -> float | None:
        """When patience ends; None: nothing is in flight."""
        return self._again_at if self.connected else None

    def accepted(self, number: Number, now: float, random: float) -> None:
        """Everything up to `number` is kept by the other side."""
        if number <= self.floor:
            return
        self.floor = number
        self._forget(number)
        self._patience_s = PATIENCE_FIRST_S
        self._again_at = now + self._patience_s * (1 + random / 2) if self._next else None

    def passed(self, number: Number) -> None:
        """Everything up to `number` left the outbox without being accepted."""
        self._forget(number)
        if not self._next:
            self._again_at = None

    def refused_head(self) -> bool:
        """True: it was refused so often that the line must go on without it."""
        self._refusals += 1
        return self._refusals >= REFUSALS

    def connection_made(self) -> None:
        """All again: what was in flight may be lost."""
        self.connected = True
        self._go_back()

    def connection_lost(self) -> None:
        """Nothing leaves until there is one again."""
        self.connected = False
        self._go_back()

    def clear(self) -> None:
        """The entries were numbered anew: they are read again."""
        self._window.clear()
        self._bytes = 0
        self._go_back()

    def _go_back(self) -> None:
        self._next = 0
        self._again_at = None

    def _forget(self, number: Number) -> None:
        while self._window and self._window[0].number <= number:
            self._bytes -= len(self._window.popleft().body)
            self._next = max(0, self._next - 1)
            self._refusals = 0

    def _departure(self, at: int) -> Departure:
        entry = self._window[at]
        # Of the first in line everything before it is accepted, or gone from the outbox: either way the line
        # need not wait for it.
        prev = self._window[at - 1].number if at else self.floor
        told = prev != (entry.number.boot, entry.number.seq - 1) or entry.number.seq == 1
        return Departure(entry, self.floor, prev if told else None)

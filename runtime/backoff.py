"""Waits between tries that fail: each twice as long as the one before, up to a most, random below that."""

from __future__ import annotations

import random


class Backoff:
    """Seconds. Everybody who lost the same thing at once does not come back at once: a wait is at least half
    of what it may be.
    """

    __slots__ = ("_first_s", "_most_s", "_next_s")

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def __repr__(self) -> str:
        return f"<Backoff {self._next_s:g} of {self._first_s:g} to {self._most_s:g} s>"

    def next(self) -> float:
        """How long to wait now."""
        wait_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, self._most_s)
        return wait_s

    def reset(self) -> None:
        """It went well: the next wait is the first again."""
        self._next_s = self._first_s

"""When to dial the broker again: at once after one loss, ever later while it stays away or the log does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_S: Final = 0.25
MAX_S: Final = 10.0
"""Devices send again within a minute at most: a bridge that comes later than this would add to it."""
STABLE_AFTER_S: Final = 30.0
"""A connection that stood for so long: the next loss starts a new count."""
_MAX_EXPONENT: Final = 6  # FIRST_S doubled so often already exceeds MAX_S


@dataclass(slots=True)
class Redial:
    """Times in monotonic seconds."""

    failures: int = 0
    opened_at: float | None = None
    """None while no connection is open."""

    def opened(self, now: float) -> None:
        """The broker sends us what devices say."""
        self.opened_at = now

    def ended(self, now: float, random: float) -> float:
        """Seconds until the next dial; `random` is uniform in [0, 1), so that several bridges spread."""
        if self.opened_at is not None and now - self.opened_at >= STABLE_AFTER_S:
            self.failures = 0
        self.opened_at = None
        ceiling = min(MAX_S, FIRST_S * 2.0 ** min(self.failures, _MAX_EXPONENT))
        self.failures += 1
        return ceiling * (0.5 + 0.5 * random)

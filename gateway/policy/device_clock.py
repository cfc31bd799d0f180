"""When a device's message was made, by the clock that it has or has not (docs/protocol/device-v1.md)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

FUTURE_MAX_MS: Final = 300_000
"""A device's clock may be ahead of ours by five minutes. Further it is wrong, and a reading at a time to come
would be the newest for as long.
"""
DAY_MS: Final = 86_400_000
DAYS_AHEAD: Final = 7
"""Days to come that a history has: a gateway that nobody restarts for a week still has where to write."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Boot:
    """What the first message of a boot that was taken says of it; never changed. Unix milliseconds."""

    first_seen_ms: int
    started_ms: int | None


def boot_of(received_ms: int, up_ms: int) -> Boot:
    """By a boot's first message. `up_ms`: since the boot, as the device counts."""
    started = received_ms - up_ms
    return Boot(received_ms, started if started >= 0 else None)


def made_at_ms(ts: int | None, up_ms: int, boot: Boot) -> int:
    """The time that stands in the history. A device without a clock counts from its boot.

    Of the same message it is the same whenever it comes: it is part of the row's key.
    """
    if ts is not None:
        return ts
    return boot.first_seen_ms if boot.started_ms is None else boot.started_ms + up_ms


@dataclass(frozen=True, slots=True)
class Window:
    """Which times a history takes. `kept_from_ms`: what is older would be dropped at once. `kept_until_ms`:
    from then on it has no days, which shows where a bridge's clock is wrong.
    """

    retention_ms: int
    kept_from_ms: int
    kept_until_ms: int

    def takes(self, at_ms: int, received_ms: int) -> bool:
        oldest = max(received_ms - self.retention_ms, self.kept_from_ms)
        newest = min(received_ms + FUTURE_MAX_MS, self.kept_until_ms - 1)
        return oldest <= at_ms <= newest


def window(now_s: float, days: int) -> Window:
    """Of a history that keeps so many days. `now_s`: Unix seconds."""
    today_ms = int(now_s * 1000) // DAY_MS * DAY_MS
    return Window(days * DAY_MS, today_ms - days * DAY_MS, today_ms + (DAYS_AHEAD + 1) * DAY_MS)


def moment_of(unix_ms: int) -> datetime:
    """Exact, as a timestamptz value."""
    return _EPOCH + timedelta(milliseconds=unix_ms)


def ms_of(moment: datetime) -> int:
    """timestamptz value → Unix milliseconds."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)
